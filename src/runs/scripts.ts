import { appendFile, mkdir, rm, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import type { Config, Target } from '../config/config.ts'
import { type DataDir, directoryName, exists } from '../data-dir.ts'
import { messageOf } from '../errors.ts'
import type { Clock, Log, Outcome, Run } from '../model.ts'
import type { Store } from '../stores/store.ts'
import type { ScriptEnd, Work } from '../work.ts'
import { scriptEnvironment, synthesisedPayload } from './environment.ts'
import { findByConvention, findNamed } from './scripts-dir.ts'

/** EX_TEMPFAIL of sysexits.h: the script asks to be run again later. */
const TEMPFAIL = 75

/** What a run executes: a file with the contract's two arguments, or an argv taken verbatim. */
export type Program =
  | { readonly kind: 'file'; readonly file: string }
  | { readonly kind: 'argv'; readonly argv: readonly [string, ...string[]] }
  | { readonly kind: 'none'; readonly detail: string }
  | { readonly kind: 'unstartable'; readonly detail: string }

/** The files of one run outside its checkout. */
export interface ScriptSite {
  readonly payloadFile: string
  readonly changed: { readonly lines: string; readonly nul: string }
  readonly log: string
  readonly dataDirectory: string
  readonly forgeEvent: string | null
  /** No delivery's payload is at hand: scripts get one made of what the run knows. */
  readonly isPayloadMade: boolean
  emptyDirectory(): Promise<string>
  /** An empty file for edits that a checkout in place is about to reset. */
  patchFile(): Promise<string>
  /** Appends sentences of landfall's own to the log. */
  note(sentences: readonly string[]): Promise<void>
}

export interface Scripts {
  /** Makes the run's directory, its payload file and `LANDFALL_DATA`. */
  site(target: Target, run: Run): Promise<ScriptSite>
  find(target: Target, run: Run): Promise<Program>
  run(target: Target, run: Run, site: ScriptSite, checkout: string, program: Program): Promise<Outcome>
  /** The target's `activate`, in the given release. */
  activate(target: Target, run: Run, site: ScriptSite, release: string): Promise<Outcome>
  /** The target's `on_delete`, in what was deployed, where that is still there. */
  onDelete(target: Target, run: Run, site: ScriptSite, checkout: string | null): Promise<Outcome>
  /** An `on_…` script. Its failure is logged and changes nothing. */
  report(target: Target, run: Run, outcome: Outcome, checkout: string | null, name: string): Promise<void>
}

export function createScripts(parts: {
  readonly config: () => Config
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly dataDir: DataDir
  readonly log: Log
  readonly now: Clock
  readonly cutOff: AbortSignal
}): Scripts {
  const { config, store, workOf, dataDir, log, cutOff } = parts

  const where = () => ({ scriptsDir: config().scriptsDir, uid: userInfo().uid })

  async function named(name: string): Promise<Program> {
    const found = await findNamed(where(), name)
    return found.kind === 'found' ? { kind: 'file', file: found.file } : found
  }

  /** Executes a program to its end, with its processes on record as long as it lives. */
  async function execute(order: Execution): Promise<Outcome> {
    const { target, run, site, cwd, program, env = {}, logFile = site.log } = order
    if (program.kind === 'unstartable') return outcomeOf({ kind: 'unstartable', detail: program.detail }, 'the script')
    if (program.kind === 'none') return outcomeOf({ kind: 'unstartable', detail: program.detail }, 'the script')
    const facts = {
      target,
      run,
      forgeEvent: site.forgeEvent,
      payloadFile: site.payloadFile,
      changedFile: target.checkout === 'none' ? '' : site.changed.lines,
      changedNulFile: target.checkout === 'none' ? '' : site.changed.nul,
      checkout: cwd,
      dataDirectory: site.dataDirectory,
    }
    const argv = program.kind === 'argv' ? program.argv : ([program.file, run.event, site.payloadFile] as const)
    const end = await workOf(target).runScript(
      {
        argv,
        cwd,
        env: { ...scriptEnvironment(facts), ...env },
        timeoutMs: target.timeoutMs,
        killGraceMs: target.killGraceMs,
        log: { file: logFile, maxBytes: target.maxLogBytes, masked: [...target.masked, ...ownSecrets(config())] },
      },
      (mark) => {
        // Not awaited: until it is on disk, the run's number in the environment marks the process as well.
        store.marked(run.id, mark).catch((cause: unknown) => log.error('process not recorded', { run: run.id, cause }))
      },
      cutOff,
    )
    return outcomeOf(end, argv[0])
  }

  async function payloadOf(run: Run): Promise<{ readonly payload: string | null; readonly forgeEvent: string | null }> {
    const delivery = run.delivery === null ? null : await store.delivery(run.delivery)
    const payload = delivery === null ? null : await store.payload(delivery.id)
    return { payload, forgeEvent: delivery?.forgeEvent ?? null }
  }

  async function site(_target: Target, run: Run): Promise<ScriptSite> {
    const directory = dataDir.room('runs', String(run.id))
    const dataDirectory = dataDir.room('data', directoryName(run.target))
    const payloadFile = `${directory}/payload.json`
    const [{ payload, forgeEvent }] = await Promise.all([
      payloadOf(run),
      mkdir(directory, { recursive: true, mode: 0o700 }),
      mkdir(dataDirectory, { recursive: true, mode: 0o700 }),
    ])
    await writeFile(payloadFile, payload ?? synthesisedPayload(run), { mode: 0o600 })
    return {
      payloadFile,
      changed: { lines: `${directory}/changed`, nul: `${directory}/changed-z` },
      log: `${directory}/log`,
      dataDirectory,
      forgeEvent,
      isPayloadMade: payload === null,
      async emptyDirectory() {
        const empty = `${directory}/work`
        await rm(empty, { recursive: true, force: true })
        await mkdir(empty, { mode: 0o700 })
        return empty
      },
      async patchFile() {
        const patch = `${directory}/edits.patch`
        await writeFile(patch, '', { mode: 0o600 })
        return patch
      },
      async note(sentences) {
        if (sentences.length === 0) return
        const lines = sentences.map((sentence) => `[landfall: ${sentence}]\n`)
        await appendFile(`${directory}/log`, lines.join(''), { mode: 0o600 })
      },
    }
  }

  return {
    site,

    async find(target, run) {
      if (target.run !== null) return { kind: 'argv', argv: target.run }
      if (target.script !== null) return named(target.script)
      const found = await findByConvention(where(), { hook: target.hook, repo: run.repo, event: run.event })
      return found.kind === 'found' ? { kind: 'file', file: found.file } : found
    },

    async run(target, run, site, checkout, program) {
      // Once more: the site was made before the run knew its commit.
      if (site.isPayloadMade) await writeFile(site.payloadFile, synthesisedPayload(run), { mode: 0o600 })
      return execute({ target, run, site, cwd: checkout, program })
    },

    async activate(target, run, site, release) {
      const { activate } = target
      if (activate === null) return outcomeOf({ kind: 'exited', code: 0 }, 'activate')
      const program: Program = 'argv' in activate ? { kind: 'argv', argv: activate.argv } : await named(activate.script)
      return execute({ target, run, site, cwd: release, program })
    },

    async onDelete(target, run, where, checkout) {
      const { onDelete } = target
      if (onDelete === null) return outcomeOf({ kind: 'exited', code: 0 }, 'on_delete')
      const isThere = checkout !== null && (await exists(checkout))
      const env = isThere ? {} : { LANDFALL_CHECKOUT: '' }
      const cwd = isThere ? checkout : await where.emptyDirectory()
      try {
        return await execute({ target, run, site: where, cwd, program: await named(onDelete), env })
      } finally {
        if (!isThere) await rm(cwd, { recursive: true, force: true })
      }
    },

    async report(target, run, outcome, checkout, name) {
      const where = await site(target, run)
      const sealed = await lasting(target, outcome, checkout)
      const env = {
        LANDFALL_RESULT: outcome.end,
        LANDFALL_EXIT: outcome.exitCode === null ? '' : String(outcome.exitCode),
        LANDFALL_LOG: where.log,
        ...(sealed === null ? { LANDFALL_CHECKOUT: '' } : {}),
      }
      const cwd = sealed ?? (await where.emptyDirectory())
      const logFile = `${dataDir.room('runs', String(run.id))}/report.log`
      const fields = { run: run.id, delivery: run.delivery, target: run.target, script: name, result: outcome.end }
      try {
        const ended = await execute({ target, run, site: where, cwd, program: await named(name), env, logFile })
        await store.unmarked(run.id)
        if (ended.end === 'succeeded') log.info('reported', fields)
        else log.warn('report failed', { ...fields, detail: ended.detail, log: logFile })
      } catch (cause) {
        log.warn('report failed', { ...fields, detail: messageOf(cause), log: logFile })
      } finally {
        if (sealed === null) await rm(cwd, { recursive: true, force: true })
      }
    },
  }
}

/** landfall's own, none of which a script was given; but it may come upon one. */
function ownSecrets({ hooks }: Config): readonly string[] {
  return hooks.flatMap(({ secrets, forgeToken, sshKey }) => [
    ...secrets,
    ...(forgeToken === null ? [] : [forgeToken]),
    ...(sshKey !== null && 'text' in sshKey ? [sshKey.text] : []),
  ])
}

/** What outlives the run: a sealed release, or a working tree in place. */
async function lasting(target: Target, { end }: Outcome, checkout: string | null): Promise<string | null> {
  if (target.path !== null) return (await exists(target.path)) ? target.path : null
  return end === 'succeeded' && target.checkout === 'release' ? checkout : null
}

interface Execution {
  readonly target: Target
  readonly run: Run
  readonly site: ScriptSite
  readonly cwd: string
  readonly program: Program
  readonly env?: Record<string, string>
  readonly logFile?: string
}

function outcomeOf(end: ScriptEnd, name: string): Outcome {
  const blank = { reason: null, detail: null, exitCode: null, signal: null }
  switch (end.kind) {
    case 'exited':
      if (end.code === 0) return { ...blank, end: 'succeeded', exitCode: 0 }
      if (end.code === TEMPFAIL) {
        return { ...blank, end: 'failed', reason: 'tempfail', exitCode: TEMPFAIL, detail: `${name} asked for a retry` }
      }
      return { ...blank, end: 'failed', exitCode: end.code, detail: `${name} exited with ${end.code}` }
    case 'killed':
      return { ...blank, end: 'failed', signal: end.signal, detail: `${name} was ended by ${end.signal}` }
    case 'timed-out':
      return { ...blank, end: 'timed-out', detail: `${name} took longer than its timeout and was ended` }
    case 'aborted':
      return {
        ...blank,
        end: 'interrupted',
        reason: 'shutdown',
        detail: 'landfall was stopped, and the drain time was over; it is not run again by itself',
      }
    case 'unstartable':
      return { ...blank, end: 'unstartable', detail: end.detail }
  }
}
