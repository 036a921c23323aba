/** What every store must do, whatever it is made of. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Received } from '../../src/model.ts'
import type { Store } from '../../src/stores/store.ts'
import { aPush, commit } from './nouns.ts'
import { judgeDeliveries } from './store-deliveries.ts'
import { judgeInstances } from './store-instances.ts'
import { judgeEnds, judgeQueue } from './store-queue.ts'
import { judgeReload } from './store-reload.ts'
import { deploy, finish, KEEP_MS, type OpenStore, queued, record, routed, runOf } from './stores.ts'

export function judgeStore(name: string, open: OpenStore): void {
  describe(name, () => {
    judgeDeliveries(open)
    judgeQueue(open)
    judgeEnds(open)
    judgeReload(open)
    judgeMemory(open)
    judgeInstances(open)
  })
}

function judgeMemory(open: OpenStore): void {
  test('an instance remembers what it is told and nothing else changes', async (t) => {
    const store = await open(t)
    const fresh = await store.seen({ name: 'site', target: 'site', repo: 'acme/site', branch: null }, 5)
    const patch = {
      state: 'ok',
      deployed: { commit: commit(1), run: 3, at: 7 },
      deployedBefore: commit(2),
      considered: commit(3),
      doubt: { tip: commit(4), since: null },
      defaultBranch: 'trunk',
      rejected: [commit(5)],
    } as const
    await store.remember('site', patch)
    assert.deepEqual(await store.instance('site'), { ...fresh, ...patch })
    await store.remember('site', { doubt: null })
    assert.deepEqual(await store.seen({ name: 'site', target: 'site', repo: 'ACME/Site', branch: null }, 6), {
      ...fresh,
      ...patch,
      doubt: null,
    })
    assert.equal(await store.instance('other'), null)
  })

  test('runs are listed newest first, by target and state, a page at a time', async (t) => {
    const store = await open(t)
    const list = async (filter: Partial<Parameters<Store['runs']>[0]>) =>
      (await store.runs({ target: null, state: null, limit: 9, before: null, ...filter })).map(({ id }) => id)
    for (const n of [1, 2, 3]) await queued(store, { announced: commit(n) })
    await queued(store, { instance: { name: 'docs', target: 'docs', repo: 'acme/docs', branch: null } })
    await store.finished(2, finish('failed'))
    assert.deepEqual(await list({}), [4, 3, 2, 1])
    assert.deepEqual(await list({ target: 'site', state: 'queued' }), [3, 1])
    assert.deepEqual(await list({ state: 'failed' }), [2])
    assert.deepEqual(await list({ limit: 1, before: 3 }), [2])
  })

  test('the activity of an instance is its newest run, what runs, and how many wait', async (t) => {
    const store = await open(t)
    for (const n of [1, 2, 3]) await queued(store, { announced: commit(n) })
    await store.started(1, 5)
    await store.seen({ name: 'docs', target: 'docs', repo: 'acme/docs', branch: null }, 5)
    const { last, ...counts } = (await store.activity()).get('site') ?? {}
    assert.deepEqual([last?.id, counts], [3, { running: 1, queued: 2 }])
    assert.equal((await store.activity()).has('docs'), false)
  })

  test('pruning keeps the newest runs, the deployed one, the one before it, and what is unfinished', async (t) => {
    const store = await open(t)
    const waiting = await queued(store, { announced: commit(50) })
    await deploy(store, commit(1))
    const before = await deploy(store, commit(2), commit(1))
    const deployed = await deploy(store, commit(3), commit(2))
    for (const n of [4, 5, 6]) {
      const { id } = await queued(store, { announced: commit(n) })
      await store.finished(id, finish('failed'))
    }
    const limits = { keepDeliveriesMs: KEEP_MS, keepPayloadsMs: KEEP_MS, keepRuns: 2 }
    assert.deepEqual(new Set(await store.prune(limits, 9_000_000)), new Set([2, 5]))
    const left = await store.runs({ target: null, state: null, limit: 99, before: null })
    assert.deepEqual(
      left.map(({ id }) => id),
      [7, 6, deployed.id, before.id, waiting.id],
    )
    assert.deepEqual(await store.prune(limits, 9_000_000), [])
  })

  test('pruning removes old payloads, later the deliveries, but not those of unfinished runs', async (t) => {
    const store = await open(t)
    const at = aPush().receivedAt
    const finished = await record(store, { body: 'a', receivedAt: at })
    await store.finished(1, finish('succeeded'))
    const unfinished = await record(store, { body: 'b', receivedAt: at }, routed({ announced: commit(2) }))
    const limits = { keepDeliveriesMs: 500, keepPayloadsMs: 100, keepRuns: 100 }
    await store.prune(limits, at + 101)
    assert.equal(await store.payload(finished.delivery), null)
    assert.ok(await store.delivery(finished.delivery))
    assert.ok(await store.payload(unfinished.delivery))
    await store.prune(limits, at + 501)
    assert.equal(await store.delivery(finished.delivery), null)
    assert.equal((await runOf(store, 1)).delivery, finished.delivery, 'a run still says what caused it')
    assert.ok(await store.delivery(unfinished.delivery))
    assert.ok(await store.payload(unfinished.delivery))
  })

  test('everything is there after a close, and ids are not given twice', async (t) => {
    const first = await open(t)
    const push: Received = aPush({ guid: 'g', text: 'x'.repeat(1000) })
    await first.record(push, routed({}))
    await deploy(first, commit(2))
    await first.close()
    await first.close() // twice is fine
    await assert.rejects(first.probe(1), { code: 'store' })
    await assert.rejects(first.instances(), { code: 'store' })
    const store = await open(t)
    assert.equal(await store.payload(1), 'x'.repeat(1000))
    assert.deepEqual(
      (await store.unfinished()).map(({ id }) => id),
      [1],
    )
    assert.equal((await store.instance('site'))?.deployed?.commit, commit(2))
    const told = await record(store, { body: 'new' }, routed({ announced: commit(3) }))
    assert.deepEqual([told.delivery, told.runs], [2, [3]])
  })
}
