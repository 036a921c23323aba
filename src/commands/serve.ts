import { type Agent, startAgent } from '../agent.ts'
import type { Config, Target } from '../config/config.ts'
import { findConfig } from '../config/find.ts'
import { readConfig } from '../config/read.ts'
import { createLog } from '../log.ts'
import type { Log } from '../model.ts'
import { setting } from './print.ts'

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
  const agent = await startAgent({ config, log, serves: true })
  log.info('listening', { url: agent.url, config: file, dataDir: config.dataDir, targets: config.targets.length })
  sayWhatIsServed(config, agent, log)
  process.on('SIGHUP', () =>
    log.warn('SIGHUP ignored', { hint: 'this version reads its configuration at the start only' }),
  )
  return await untilStopped(agent, log)
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
      branch: branchOf(target),
      hook,
      queue,
      poll: pollMs === null ? 'off' : setting(pollMs),
    })
  }
}

function branchOf({ branch }: Target): string {
  return branch ?? "the remote's default"
}

/** The first signal drains, the second ends everything at once. Resolves to the exit code. */
export async function untilStopped(agent: Pick<Agent, 'stop' | 'stopNow'>, log: Log): Promise<number> {
  return await new Promise((resolve) => {
    let signals = 0
    const onSignal = (signal: NodeJS.Signals): void => {
      signals += 1
      if (signals === 1) {
        agent.stop().then(
          () => {
            log.info('stopped', { signal })
            // A second signal has cut short what the first one waited for.
            resolve(signals === 1 ? 0 : 1)
          },
          (cause: unknown) => {
            log.error('stop failed', { cause })
            resolve(1)
          },
        )
      } else if (signals === 2) {
        log.warn('stopping at once', { signal })
        agent
          .stopNow()
          .catch((cause: unknown) => log.error('stop failed', { cause }))
          .finally(() => resolve(1))
      }
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)
  })
}
