import { EventEmitter, on } from 'node:events'
import { type Agent, startAgent } from '../agent.ts'
import type { Config } from '../config/config.ts'
import { findConfig } from '../config/find.ts'
import { readConfig } from '../config/read.ts'
import { LandfallError } from '../errors.ts'
import { createLog } from '../log.ts'
import type { Log } from '../model.ts'
import { followedBy, setting } from './print.ts'

export interface ServeOptions {
  readonly configFlag: string | undefined
}

/** Serves until a signal comes. Resolves to the exit code. */
export async function serve({ configFlag }: ServeOptions): Promise<number> {
  const log = createLog()
  // First, since a hangup that nobody hears ends the process; one that comes during the start is answered after it.
  const hangups = listenForHangups()
  const file = await findConfig({
    flag: configFlag,
    passedOver: (why) => log.warn('configuration passed over', { why }),
  })
  const config = await readConfig({ file, secrets: 'resolve' })
  const signals = listenForSignals()
  const agent = await startAgent({ config, log, serves: true })
  sayWhatIsServed(config, agent, log)
  // Last: whoever waits for this line may do anything, a signal included.
  log.info('listening', { url: agent.url, config: file, dataDir: config.dataDir, targets: config.targets.length })
  hangups.answer(() => reload(file, agent, log))
  return await untilStopped(agent, signals, log)
}

/** One line a hook and a target, so that a person sees at once whether this is what was meant. */
function sayWhatIsServed({ server, hooks, targets }: Omit<Config, 'file'>, agent: Pick<Agent, 'url'>, log: Log): void {
  const base = server.publicUrl ?? agent.url
  for (const { name, forge } of hooks) log.info('hook', { hook: name, forge, url: `${base}/hooks/${name}` })
  for (const target of targets) {
    const { name, repo, hook, queue, pollMs } = target
    log.info('target', {
      target: name,
      repo,
      follows: followedBy(target),
      hook,
      queue,
      poll: pollMs === null ? 'off' : setting(pollMs),
    })
  }
}

// --- SIGHUP -------------------------------------------------------------------------------------------------------

interface Hangups {
  /** From now on, and for what has come until now. One answer at a time; any number during one make one more after it. */
  answer(answer: () => Promise<void>): void
}

function listenForHangups(): Hangups {
  let given: (() => Promise<void>) | null = null
  let [isDue, isUnderWay] = [false, false]

  async function answerAll(): Promise<void> {
    if (given === null || isUnderWay) return
    isUnderWay = true
    while (isDue) {
      isDue = false
      await given()
    }
    isUnderWay = false
  }

  process.on('SIGHUP', () => {
    isDue = true
    void answerAll()
  })
  return {
    answer(answer) {
      given = answer
      void answerAll()
    },
  }
}

const STAYS = 'the old configuration stays'

/** Reads the file again. Whatever is wrong is said, and changes nothing. Never rejects. */
async function reload(file: string, agent: Agent, log: Log): Promise<void> {
  try {
    const config = await readConfig({ file, secrets: 'resolve' })
    const changes = await agent.reload(config)
    if (changes === null) {
      log.info('reloaded', { config: file, hint: 'nothing changed' })
      return
    }
    const { added, removed, changed, needRestart } = changes
    const named = (name: string): boolean => added.includes(name) || changed.includes(name)
    sayWhatIsServed({ ...config, targets: config.targets.filter(({ name }) => named(name)) }, agent, log)
    if (needRestart.length > 0)
      log.warn('needs a restart', { keys: needRestart, hint: 'until then they stay as they were' })
    log.info('reloaded', { config: file, added, removed, changed, targets: config.targets.length })
  } catch (cause) {
    if (cause instanceof LandfallError && cause.code === 'config') {
      for (const mistake of cause.message.split('\n')) log.error('mistake', { mistake })
      log.error('not reloaded', { config: file, hint: STAYS })
    } else if (cause instanceof LandfallError)
      log.error('not reloaded', { config: file, why: cause.message, hint: STAYS })
    else log.error('bug', { cause, hint: STAYS })
  }
}

// --- SIGTERM and SIGINT -------------------------------------------------------------------------------------------

/** The signals that end a process, one after the other, from now on: none is lost while an agent is still starting. */
export type Signals = AsyncIterator<unknown[]>

export function listenForSignals(): Signals {
  const signals = new EventEmitter()
  for (const name of ['SIGTERM', 'SIGINT']) process.on(name, (signal) => signals.emit('signal', signal))
  return on(signals, 'signal')
}

/** The first signal drains, the second ends everything at once. Resolves to the exit code. */
export async function untilStopped(
  agent: Pick<Agent, 'stop' | 'stopNow'>,
  signals: Signals,
  log: Log,
): Promise<number> {
  await signals.next()
  let hurried = false
  const drained = agent.stop().then(
    () => {
      log.info('stopped')
      // A second signal has cut short what the first one waited for.
      return hurried ? 1 : 0
    },
    (cause: unknown) => {
      log.error('stop failed', { cause })
      return 1
    },
  )
  const cutShort = signals.next().then(async () => {
    hurried = true
    log.warn('stopping at once')
    await agent.stopNow().catch((cause: unknown) => log.error('stop failed', { cause }))
    return 1
  })
  return await Promise.race([drained, cutShort])
}
