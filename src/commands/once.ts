import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { streamLog } from '../admin/log-stream.ts'
import { type RunView, viewRun } from '../admin/views.ts'
import { type Agent, startAgent } from '../agent.ts'
import type { Config } from '../config/config.ts'
import { findConfig } from '../config/find.ts'
import { parseDuration } from '../config/grammar.ts'
import { onceConfig } from '../config/once.ts'
import { readConfig } from '../config/read.ts'
import { hasCode, LandfallError } from '../errors.ts'
import { createLog } from '../log.ts'
import type { Log } from '../model.ts'
import type { PollResult } from '../polling/look.ts'
import { readRun } from '../stores/sqlite.ts'
import { type Client, clientOf } from './client.ts'
import { commitOf, isFailure, openScreen, type Screen, stateOf, when } from './print.ts'
import { listenForSignals, untilStopped } from './serve.ts'

export interface OnceOptions {
  readonly configFlag: string | undefined
  readonly url: string | undefined
  readonly branch: string | undefined
  readonly timeout: string | undefined
  readonly dataDir: string | undefined
  readonly command: readonly string[]
  readonly verbose: boolean
}

/** Where runs and their logs are looked up: in a daemon, or in this process. */
interface Source {
  run(id: number): Promise<RunView>
  /** The log of a run from its beginning, to the end of the run. */
  log(id: number): AsyncIterable<Uint8Array>
}

interface Reporting {
  readonly screen: Screen
  /** Whether the runs' logs are shown as they come. */
  readonly showLogs: boolean
  /** Whether a branch that is not there is a failure: a person has just typed its name. */
  readonly goneIsFailure: boolean
  /** What a result is called, where not by its target's name. */
  readonly name: string | null
  /** Where to read more about a failed run. */
  readonly more: (run: number) => string
}

/** Polls every target, runs what is due, and says how it went. Resolves to the exit code. */
export async function once(options: OnceOptions): Promise<number> {
  const screen = openScreen()
  if (options.url !== undefined) return await onceForUrl(options, options.url, screen)
  refuseWithoutUrl(options)
  const file = await findConfig({ flag: options.configFlag, passedOver: (why) => console.error(why) })
  const { dataDir } = await readConfig({ file, secrets: 'leave' })
  const reporting = { screen, showLogs: options.verbose, goneIsFailure: false, name: null }

  const client = clientOf(dataDir)
  const asked = await askDaemon(client)
  if (asked !== null) {
    const source = sourceOfDaemon(client, dataDir)
    return await report(asked, source, { ...reporting, more: (run) => `landfall logs ${run}` })
  }
  const config = await readConfig({ file, secrets: 'resolve' })
  return await onceHere(config, { ...reporting, more: logFileIn(config) }, options.verbose)
}

async function onceForUrl(options: OnceOptions, url: string, screen: Screen): Promise<number> {
  const { configFlag, branch = null, timeout, dataDir = '.landfall-once', command, verbose } = options
  if (configFlag !== undefined) throw new LandfallError('usage', 'once: --url needs no configuration, so leave -c away')
  if (command.length === 0) {
    throw new LandfallError('usage', `once: say what to run: landfall once --url ${url} -- COMMAND…`)
  }
  const timeoutMs = timeout === undefined ? null : parseDuration(timeout)
  if (timeout !== undefined && timeoutMs === null) {
    throw new LandfallError('usage', `--timeout: "${timeout}" is not a duration such as "90s", "5m" or "1h30m"`)
  }
  const config = await onceConfig({ url, branch, timeoutMs, dataDir, argv: command })
  const name = config.targets[0]?.repo ?? url
  return await onceHere(config, { screen, showLogs: true, goneIsFailure: true, name, more: logFileIn(config) }, verbose)
}

function refuseWithoutUrl({ branch, timeout, dataDir, command }: OnceOptions): void {
  const given = Object.entries({ '--branch': branch, '--timeout': timeout, '--data-dir': dataDir })
  const misplaced = given.find(([, value]) => value !== undefined)?.[0] ?? (command.length > 0 ? 'a COMMAND' : null)
  if (misplaced === null) return
  throw new LandfallError('usage', `once: ${misplaced} goes with --url; without it the configuration says what to run`)
}

function logFileIn({ dataDir }: Config): (run: number) => string {
  return (run) => join(dataDir, 'runs', String(run), 'log')
}

// --- With a daemon, which has the data_dir --------------------------------------------------------------------------

/** Null where no daemon is there to be asked. */
async function askDaemon(client: Client): Promise<readonly PollResult[] | null> {
  try {
    return (await client.post<{ readonly items: readonly PollResult[] }>('once')).items
  } catch (error) {
    const code =
      hasCode(error, 'unreachable') && error.cause instanceof Error && 'code' in error.cause && error.cause.code
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return null
    throw error
  }
}

/** What the daemon tells, and when it has stopped meanwhile, what it has left on record. */
function sourceOfDaemon(client: Client, dataDir: string): Source {
  return {
    async run(id) {
      try {
        return await client.get<RunView>(`runs/${id}`)
      } catch (error) {
        if (!hasCode(error, 'unreachable')) throw error
        return endOnRecord(dataDir, id)
      }
    },
    async *log(id) {
      try {
        yield* client.stream(`runs/${id}/log`, { follow: 1 }, 'text/plain')
      } catch (error) {
        // Of its end the record tells.
        if (!hasCode(error, 'unreachable')) throw error
      }
    },
  }
}

function endOnRecord(dataDir: string, id: number): RunView {
  const run = readRun(dataDir, id)
  if (run !== null && run.finishedAt !== null) return viewRun(run)
  const look = `when it has been started again, look with: landfall show ${id}`
  throw new LandfallError('unreachable', `landfall stopped before the end of run ${id}, which was waited for; ${look}`)
}

// --- Without ----------------------------------------------------------------------------------------------------------

async function onceHere(config: Config, reporting: Reporting, verbose: boolean): Promise<number> {
  const log = verbose ? createLog(process.stderr) : onlyErrors(createLog(process.stderr))
  const signals = listenForSignals()
  let isCutShort = false
  // What a stop at once cuts off has nothing more to tell: the next call finds it unfinished.
  const agent = await startAgent({ config, log: whileNot(() => isCutShort, log), serves: false })
  let stopping: Promise<void> | null = null
  const stop = (): Promise<void> => {
    stopping ??= agent.stop()
    return stopping
  }
  const stopNow = (): Promise<void> => {
    isCutShort = true
    return agent.stopNow()
  }
  const signalled = untilStopped({ stop, stopNow }, signals, log).then(() => {
    console.error('stopped by a signal')
    return 1
  })
  const finished = async (): Promise<number> => {
    try {
      return await pollAndRun(agent, config, reporting)
    } catch (error) {
      // With the store closed under it, what it says is of no use.
      if (stopping !== null) return await signalled
      throw error
    } finally {
      await stop()
    }
  }
  return await Promise.race([finished(), signalled])
}

async function pollAndRun(agent: Agent, config: Config, reporting: Reporting): Promise<number> {
  const now = Date.now()
  // What an earlier process left queued is due as well, and is as much a part of this call.
  const left = (await agent.store.unfinished()).filter(({ notBefore }) => notBefore === null || notBefore <= now)
  const results = await agent.once()
  const known = new Set(results.flatMap((result) => ('run' in result ? [result.run] : [])))
  const earlier = left.filter(({ id }) => !known.has(id)).map(({ id, target }) => ({ target, run: id }))
  const code = await report([...earlier, ...results], sourceOfAgent(agent, config), reporting)
  await agent.idle()
  return code
}

function sourceOfAgent({ store }: Agent, config: Config): Source {
  async function find(id: number) {
    const run = await store.run(id)
    if (run === null) throw new LandfallError('not-found', `there is no run ${id} any more`)
    return run
  }
  return {
    run: async (id) => viewRun(await find(id)),
    log: (id) =>
      streamLog({
        file: logFileIn(config)(id),
        from: 0,
        goesOn: async () => (await find(id)).finishedAt === null,
        signal: new AbortController().signal,
      }),
  }
}

function whileNot(isOver: () => boolean, log: Log): Log {
  const unlessOver =
    (tell: Log['info']): Log['info'] =>
    (event, fields) => {
      if (!isOver()) tell(event, fields)
    }
  const { debug, info, warn, error } = log
  return { debug: unlessOver(debug), info: unlessOver(info), warn: unlessOver(warn), error: unlessOver(error) }
}

/** What failed is said in the results. */
function onlyErrors({ error }: Log): Log {
  return { debug: () => {}, info: () => {}, warn: () => {}, error }
}

// --- Saying how it went -------------------------------------------------------------------------------------------------

/** One line a result, as soon as it is known. Resolves to the exit code. */
async function report(results: readonly PollResult[], source: Source, reporting: Reporting): Promise<number> {
  const { screen, name } = reporting
  if (results.length === 0) screen.line('Nothing to poll: no target has a repository that is known yet.')
  const width = Math.max(0, ...results.map(({ target }) => (name ?? target).length))
  let failures = 0
  for (const result of results) {
    const { isFailed, text } = await outcomeOf(result, source, reporting)
    if (isFailed) failures += 1
    screen.line(`${(name ?? result.target).padEnd(width)}  ${text}`)
  }
  return failures === 0 ? 0 : 1
}

interface Said {
  readonly isFailed: boolean
  readonly text: string
}

async function outcomeOf(result: PollResult, source: Source, reporting: Reporting): Promise<Said> {
  const { screen, goneIsFailure, more } = reporting
  if (!('run' in result)) {
    const isFailed = result.reason === 'failed' || (result.reason === 'ref-gone' && goneIsFailure)
    const text = result.reason === 'failed' ? `poll failed: ${result.detail}` : result.detail
    return { isFailed, text: isFailed ? screen.paint('red', text) : text }
  }
  const run = await endOf(result.run, source, reporting)
  if (!isFailure(run.state)) return { isFailed: false, text: `${deedOf(screen, run)} (run ${run.id})` }
  const why = run.detail === null ? '' : `: ${run.detail}`
  return { isFailed: true, text: `${stateOf(screen, run)}${why} (run ${run.id}); its log: ${more(run.id)}` }
}

function deedOf(screen: Screen, run: RunView): string {
  if (run.state === 'succeeded') return `${screen.paint('green', 'deployed')} ${commitOf(run.commit)}`
  return run.detail === null ? stateOf(screen, run) : `${stateOf(screen, run)}: ${run.detail}`
}

const LOOK_EVERY_MS = 150

/** The run at its end, or the one that took its place at its own. */
async function endOf(first: number, source: Source, { showLogs }: Reporting): Promise<RunView> {
  for (let id = first; ; ) {
    let run = await source.run(id)
    if (run.notBefore !== null && run.startedAt === null && Date.parse(run.notBefore) > Date.now()) {
      const screen = openScreen(process.stderr)
      screen.line(`${run.target}: run ${id} is a retry, due ${when(screen, run.notBefore)}`)
    }
    if (showLogs) for await (const chunk of source.log(id)) process.stdout.write(chunk)
    while (run.finishedAt === null) {
      await wait(LOOK_EVERY_MS)
      run = await source.run(id)
    }
    if (run.supersededBy === null) return run
    id = run.supersededBy
  }
}
