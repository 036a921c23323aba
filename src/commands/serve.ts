import { EventEmitter, on } from 'node:events'
import { type Agent, startAgent } from '../agent.ts'
import type { Config } from '../config/config.ts'
import { findConfig } from '../config/find.ts'
import { readConfig } from '../config/read.ts'
import { createLog } from '../log.ts'
import type { Log } from '../model.ts'
import { followedBy, setting } from './print.ts'

export interface ServeOptions {
  readonly configFlag: string | undefined
}

/** Serves until a signal comes. Resolves to the exit code. */
export async function serve({ configFlag }: ServeOptions): Promise<number> {
  const log = createLog()
  const file = await findConfig({
    flag: configFlag,
    passedOver: (why) => log.warn('configuration passed over', { why }),
  })
  const config = await readConfig({ file, secrets: 'resolve' })
  const signals = listenForSignals()
  process.on('SIGHUP', () =>
    log.warn('SIGHUP ignored', { hint: 'this version reads its configuration at the start only' }),
  )
  const agent = await startAgent({ config, log, serves: true })
  sayWhatIsServed(config, agent, log)
  // Last: whoever waits for this line may do anything, a signal included.
  log.info('listening', { url: agent.url, config: file, dataDir: config.dataDir, targets: config.targets.length })
  return await untilStopped(agent, signals, log)
}

/** One line a hook and a target, so that a person sees at once whether this is what was meant. */
function sayWhatIsServed(config: Config, agent: Agent, log: Log): void {
  const base = config.server.publicUrl ?? agent.url
  for (const { name, forge } of config.hooks) log.info('hook', { hook: name, forge, url: `${base}/hooks/${name}` })
  for (const target of config.targets) {
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
