/** What the suites of the store share. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { Outcome, Run, RunEnd, Sha } from '../../src/model.ts'
import type { Finish, Routing, RunOrder, Store } from '../../src/stores/store.ts'
import { anOrder, aPush } from './nouns.ts'

/** How long two deliveries can be the same one in these tests. */
export const KEEP_MS = 1000

/** Opens an empty store, or the same one again for the same `t`, with `keepDeliveriesMs` = KEEP_MS. */
export type OpenStore = (t: TestContext) => Promise<Store>

export const outcome = (end: RunEnd, reason: Outcome['reason'] = null): Outcome => ({
  end,
  reason,
  detail: null,
  exitCode: null,
  signal: null,
})
export const finish = (end: RunEnd, change: Partial<Finish> = {}): Finish => ({
  outcome: outcome(end),
  phases: [],
  at: 2_000_000,
  instance: {},
  sealed: null,
  forgotten: [],
  followUp: null,
  ...change,
})
export const RETRY = { trigger: 'retry', attempt: 2, softAttempts: 0, interruptions: 0, notBefore: 3_000_000 } as const
export const RECOVERY = { ...RETRY, trigger: 'recovery', attempt: 1, interruptions: 1, notBefore: null } as const

export const routed = (...orders: readonly Partial<RunOrder>[]): Routing => ({
  kind: 'routes',
  learns: null,
  routes: orders.map((order) => ({ kind: 'run', order: anOrder(order) })),
})

/** Queues one order and resolves to its run. */
export async function queued(store: Store, change: Partial<RunOrder> = {}, at = 1_000_000): Promise<Run> {
  const { runs } = await store.queue([anOrder(change)], at)
  return runOf(store, runs[0]?.run)
}

export async function runOf(store: Store, id: number | undefined): Promise<Run> {
  const run = await store.run(id ?? -1)
  assert.ok(run, `there is no run ${id}`)
  return run
}

/** Queues, starts and ends a run of `site` that deployed `deployed`. */
export async function deploy(store: Store, deployed: Sha, before: Sha | null = null): Promise<Run> {
  const run = await queued(store, { announced: deployed })
  await store.started(run.id, 1_000_001)
  await store.decided(run.id, { ref: null, commit: deployed, previous: before, detail: null })
  const at = 1_000_002
  const instance = { deployed: { commit: deployed, run: run.id, at }, deployedBefore: before, state: 'ok' } as const
  await store.finished(run.id, finish('succeeded', { at, instance }))
  return run
}

/** A delivery's verdict and the runs it names. */
export async function record(store: Store, push: Parameters<typeof aPush>[0] = {}, routing = routed({})) {
  const { receipt, queued: made } = await store.record(aPush(push), routing)
  const runs = receipt.targets.map((effect) => ('run' in effect ? effect.run : null))
  return { ...receipt, runs, made }
}
