/** The poller with its silences, over a real store, real mirrors and a clock that the test moves. */
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Config, Target } from '../../src/config/config.ts'
import { ownDataDir } from '../../src/data-dir.ts'
import { LandfallError } from '../../src/errors.ts'
import type { Instance, Sha } from '../../src/model.ts'
import { createPoller, type Poller } from '../../src/polling/poller.ts'
import { createSilences, type Silences } from '../../src/polling/silences.ts'
import { openRemotes } from '../../src/remotes.ts'
import { openSqlite } from '../../src/stores/sqlite.ts'
import type { Store } from '../../src/stores/store.ts'
import type { RemoteRefs, Work } from '../../src/work.ts'
import { type Entry, keptLog } from './log.ts'
import { type Bench, createBench } from './mirrors.ts'
import { aConfig, aHook, aTarget, commit } from './nouns.ts'
import { finish } from './stores.ts'

export interface Polls {
  readonly bench: Bench
  readonly store: Store
  readonly poller: Poller
  readonly silences: Silences
  readonly entries: readonly Entry[]
  /** Milliseconds since the epoch; where it is left alone, it stands still. */
  readonly clock: { now: number }
  /** One poll of everything, each result as `target: reason` or `target: run <commit, C of the run>`. */
  once(): Promise<readonly string[]>
  /** Ends every unfinished run of `site` as a deployment of what it announced. */
  deployAll(): Promise<void>
  instance(name?: string): Promise<Instance>
  events(event: string): readonly Entry[]
}

export interface PollsOptions {
  readonly targets?: (bench: Bench) => readonly Target[]
  readonly config?: Partial<Config>
  readonly missedAfterMs?: number
  /** Stands in for the remotes. */
  readonly listRefs?: Work['listRefs']
  readonly now?: () => number
}

export async function createPolls(t: TestContext, options: PollsOptions = {}): Promise<Polls> {
  const bench = createBench(t)
  const dataDir = await ownDataDir(join(bench.directory, 'data'))
  const store = await openSqlite({ dataDir: dataDir.path, keepDeliveriesMs: 1000 })
  const url = join(bench.directory, 'forge', 'origin.git')
  const config = aConfig({
    hooks: [aHook({ missedAfterMs: options.missedAfterMs ?? 60_000 })],
    targets: options.targets?.(bench) ?? [aTarget({ url })],
    ...options.config,
  })
  const { log, entries } = keptLog()
  const clock = { now: 1_000_000 }
  const now = options.now ?? (() => clock.now)
  const nobody = () => Promise.reject(new Error('no script is run here'))
  const work: Work = {
    ...bench.work,
    runScript: nobody,
    sealLog: nobody,
    ...(options.listRefs ? { listRefs: options.listRefs } : {}),
  }
  const remotes = await openRemotes({ config, dataDir })
  const silences = createSilences({ config: () => config, store, log, now, onSilent: (name) => poller.soon(name) })
  const poller: Poller = createPoller({
    config: () => config,
    store,
    workOf: () => work,
    remotes,
    silences,
    log,
    now,
    queue: (orders) => store.queue(orders, now()),
  })
  t.after(async () => {
    silences.stop()
    await poller.stop()
    await store.close()
    dataDir.release()
  })

  async function instance(name = 'site'): Promise<Instance> {
    const found = await store.instance(name)
    if (found === null) throw new Error(`there is no instance ${name}`)
    return found
  }

  return {
    bench,
    store,
    poller,
    silences,
    entries,
    clock,
    instance,
    events: (event) => entries.filter((entry) => entry.event === event),
    async once() {
      const results = await poller.once()
      return await Promise.all(
        results.map(async (result) => {
          if ('reason' in result) return `${result.target}: ${result.reason}`
          return `${result.target}: run ${(await store.run(result.run))?.announced}`
        }),
      )
    },
    async deployAll() {
      for (const { id, target, announced } of await store.unfinished()) {
        const deployed = announced && { commit: announced satisfies Sha, run: id, at: now() }
        const patch = { deployed, considered: announced, doubt: null, state: 'ok' } as const
        await store.finished(id, finish('succeeded', target === 'site' ? { instance: patch } : {}))
      }
    },
  }
}

// --- When nothing but time passes -------------------------------------------------------------------------------

export interface Remotes {
  readonly at: number[]
  listRefs: Work['listRefs']
  tip: RemoteRefs['branches'][string]
  isDown: boolean
}

/** Remotes that answer at once, on a clock and with timers that the test moves. */
function fakeRemotes(t: TestContext): Remotes {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 })
  const remotes: Remotes = {
    at: [],
    tip: commit(1),
    isDown: false,
    async listRefs() {
      remotes.at.push(Date.now())
      if (remotes.isDown) throw new LandfallError('remote', 'the remote is down')
      return { head: { branch: 'main', tip: remotes.tip }, branches: { main: remotes.tip }, tags: {} }
    },
  }
  return remotes
}

/** Lets `ms` pass in steps, each with turns enough for a poll to go through the store. */
export async function pass(t: TestContext, ms: number, stepMs: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += stepMs) {
    t.mock.timers.tick(stepMs)
    for (let n = 0; n < 8; n += 1) await turn()
  }
}

export const gaps = (times: readonly number[]): number[] => times.slice(1).map((time, n) => time - (times[n] ?? 0))

export async function fakePolls(t: TestContext, pollMs: number, targets?: readonly Target[]) {
  const remotes = fakeRemotes(t)
  const polled = () => targets ?? [aTarget({ pollMs })]
  const polls = await createPolls(t, { listRefs: remotes.listRefs, now: Date.now, targets: polled })
  return { remotes, polls }
}
