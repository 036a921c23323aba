import { readdir, rm } from 'node:fs/promises'
import { setImmediate as turn } from 'node:timers/promises'
import { accountRoom } from './belongings.ts'
import type { Config, Target } from './config/config.ts'
import type { DataDir } from './data-dir.ts'
import { messageOf } from './errors.ts'
import type { Clock, Log } from './model.ts'
import type { Store } from './stores/store.ts'
import type { Work } from './work.ts'

const INTERVAL_MS = 60 * 60_000

/** Removes what is older than the configuration keeps: at the start, and every hour. */
export interface Pruner {
  start(): void
  /** Resolves when none is under way. */
  stop(): Promise<void>
}

export function createPruner(parts: {
  readonly config: () => Config
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly dataDir: DataDir
  readonly log: Log
  readonly now: Clock
}): Pruner {
  const { config, store, workOf, dataDir, log, now } = parts
  let timer: NodeJS.Timeout | null = null
  let stopped = false
  let underWay: Promise<void> = Promise.resolve()

  async function prune(): Promise<void> {
    const runs = await store.prune(config(), now())
    for (const run of runs) await rm(dataDir.room('runs', String(run)), { recursive: true, force: true })
    if (runs.length > 0) log.info('pruned', { runs: runs.length })
  }

  /** Files of runs that the store has forgotten: an earlier landfall died between the two. */
  async function sweep(): Promise<void> {
    for (const name of await readdir(dataDir.room('runs'))) {
      await turn() // there may be very many, and the store answers at once
      if (stopped) return
      if (/^\d+$/.test(name) && (await store.run(Number(name))) === null) {
        await rm(dataDir.room('runs', name), { recursive: true, force: true })
      }
    }
    for (const target of new Map(config().targets.map((one) => [one.account?.name, one])).values()) {
      if (!stopped)
        await sweepRooms(target).catch((cause: unknown) =>
          log.warn('not swept', { user: target.user, detail: messageOf(cause) }),
        )
    }
  }

  /** The same in the rooms of another account, where its own launcher removes it. */
  async function sweepRooms(target: Target): Promise<void> {
    const { account } = target
    if (account === null) return
    const left: string[] = []
    for (const room of ['work', 'logs'] as const) {
      for (const name of await readdir(accountRoom(dataDir, account, room)).catch(() => [])) {
        await turn()
        const [run] = /^\d{1,15}(?=-|$)/.exec(name) ?? []
        if (run === undefined || (await store.run(Number(run))) !== null) continue
        left.push(accountRoom(dataDir, account, room, name))
      }
    }
    if (left.length > 0) await workOf(target).remove(left)
  }

  function go(work: () => Promise<void> = prune): void {
    underWay = work()
      .catch((cause: unknown) => log.error('prune failed', { cause }))
      .then(() => {
        if (!stopped) timer = setTimeout(go, INTERVAL_MS)
      })
  }

  return {
    start: () => go(() => sweep().then(prune)),
    async stop() {
      stopped = true
      if (timer !== null) clearTimeout(timer)
      await underWay
    },
  }
}
