/** What every store must do with deliveries. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Routing, Store } from '../../src/stores/store.ts'
import { aPush, commit } from './nouns.ts'
import { finish, KEEP_MS, type OpenStore, RETRY, record, routed, runOf } from './stores.ts'

/** A retry whose time comes while deliveries can still be the same. */
const SOON = { ...RETRY, notBefore: aPush().receivedAt + KEEP_MS / 2 }

export function judgeDeliveries(open: OpenStore): void {
  test('a delivery is kept with its verdict, its runs and its payload', async (t) => {
    const store = await open(t)
    const change = { ref: 'refs/heads/main', before: commit(1), after: commit(2) }
    const told = await record(store, { guid: 'g1', changes: [change] })
    assert.deepEqual([told.verdict, told.runs, told.made.map(({ id }) => id)], ['accepted', [1], [1]])
    const kept = await store.delivery(told.delivery)
    assert.deepEqual([kept?.guid, kept?.verdict, kept?.changes], ['g1', 'accepted', [change]])
    assert.deepEqual(kept?.targets, [{ target: 'site', run: 1 }])
    assert.equal(await store.payload(told.delivery), '{"a":"payload"}')
    assert.equal((await runOf(store, 1)).delivery, told.delivery)
  })

  for (const [kind, first, second] of [
    ['delivery id', { guid: 'g', body: 'one' }, { guid: 'g', body: 'two' }],
    ['body', { guid: 'g', body: 'one' }, { guid: 'h', body: 'one' }],
  ] as const) {
    test(`the same ${kind} again while its run is unfinished is a duplicate with the same ids`, async (t) => {
      const store = await open(t)
      const told = await record(store, first)
      await store.started(1, 1)
      const again = await record(store, second)
      assert.deepEqual([again.verdict, again.delivery, again.runs], ['duplicate', told.delivery, told.runs])
      assert.deepEqual(again.made, [])
      assert.equal(
        (await store.deliveries({ hook: null, repo: null, verdict: 'duplicate', limit: 9, before: null })).length,
        1,
      )
    })

    test(`the same ${kind} again after its run is a redelivery, whose word about history is not believed`, async (t) => {
      const store = await open(t)
      const told = await record(store, first, routed({ before: commit(9) }))
      assert.equal((await runOf(store, 1)).before, commit(9))
      await store.finished(1, finish('succeeded'))
      const again = await record(store, second, routed({ before: commit(9) }))
      assert.deepEqual([again.verdict, again.runs], ['accepted', [2]])
      const run = await runOf(store, 2)
      assert.deepEqual([run.trigger, run.before, run.delivery], ['redelivery', null, again.delivery])
      assert.equal((await store.delivery(again.delivery))?.repeats, told.delivery)
    })

    test(`the same ${kind} is a new push once the first one is older than keep_deliveries`, async (t) => {
      const store = await open(t)
      const { receivedAt } = aPush()
      await record(store, { ...first, receivedAt })
      await store.finished(1, finish('succeeded'))
      await record(store, { ...second, receivedAt: receivedAt + KEEP_MS + 1 })
      assert.equal((await runOf(store, 2)).trigger, 'push')
    })
  }

  test('a duplicate of a redelivery has the ids of the redelivery', async (t) => {
    const store = await open(t)
    await record(store, { guid: 'g' })
    await store.finished(1, finish('succeeded'))
    const second = await record(store, { guid: 'g' })
    for (const _ of ['third', 'fourth']) {
      const again = await record(store, { guid: 'g' })
      assert.deepEqual([again.verdict, again.delivery, again.runs], ['duplicate', second.delivery, [2]])
    }
  })

  test('a delivery is a duplicate while a retry of its run is due or runs', async (t) => {
    const store = await open(t)
    await record(store, { guid: 'g' })
    await store.finished(1, finish('failed', { followUp: SOON }))
    const receivedAt = SOON.notBefore
    assert.equal((await record(store, { guid: 'g', receivedAt })).verdict, 'duplicate')
    await store.started(2, receivedAt)
    assert.equal((await record(store, { guid: 'g', receivedAt: receivedAt - 1 })).verdict, 'duplicate')
  })

  test('a redelivery brings a retry forward that waits for its time, and runs what has none', async (t) => {
    const store = await open(t)
    const both = routed({}, { instance: { name: 'docs', target: 'docs', repo: 'acme/site', branch: null } })
    await record(store, { guid: 'g' }, both)
    await store.finished(1, finish('failed', { followUp: SOON }))
    await store.finished(2, finish('failed'))
    const receivedAt = SOON.notBefore - 1
    const again = await record(store, { guid: 'g', receivedAt }, both)
    assert.deepEqual([again.verdict, again.runs], ['accepted', [3, 4]])
    assert.deepEqual(
      again.made.map(({ id, trigger, notBefore }) => [id, trigger, notBefore]),
      [
        [3, 'retry', receivedAt],
        [4, 'redelivery', null],
      ],
    )
    assert.equal((await runOf(store, 3)).notBefore, receivedAt)
    assert.equal((await record(store, { guid: 'g', receivedAt }, both)).verdict, 'duplicate')
  })

  test('another delivery of the commit leaves a retry to its time', async (t) => {
    const store = await open(t)
    await record(store, { guid: 'g', body: 'one' })
    await store.finished(1, finish('failed', { followUp: SOON }))
    const told = await record(store, { guid: 'h', body: 'two' })
    assert.deepEqual([told.runs, told.made], [[2], []])
    assert.equal((await runOf(store, 2)).notBefore, SOON.notBefore)
  })

  test('another hook’s or another event’s delivery is not the same', async (t) => {
    const store = await open(t)
    await record(store, { guid: 'g' })
    assert.equal((await record(store, { guid: 'g', hook: 'gitlab' })).verdict, 'accepted')
    assert.equal((await record(store, { guid: 'h', event: 'tag', forgeEvent: 'tag' })).verdict, 'accepted')
    assert.equal((await store.delivery(3))?.repeats, null)
  })

  test('a replay that spells the event otherwise, in a header that nobody signed, is a repetition all the same', async (t) => {
    const store = await open(t)
    await record(store, { guid: 'g', body: 'one' }, routed({ before: commit(9) }))
    await store.finished(1, finish('succeeded'))
    await record(store, { guid: 'h', body: 'one', forgeEvent: 'PUSH' }, routed({ before: commit(9) }))
    const run = await runOf(store, 2)
    assert.deepEqual([run.trigger, run.before], ['redelivery', null])
  })

  test('a delivery that causes nothing is kept with its reasons', async (t) => {
    const store = await open(t)
    const nowhere: Routing = { kind: 'nowhere', reason: 'no-target', detail: 'nobody follows it' }
    const first = await record(store, { guid: 'a', body: 'a' }, nowhere)
    assert.deepEqual(
      [first.verdict, first.reason, first.detail, first.targets],
      ['ignored', 'no-target', 'nobody follows it', []],
    )
    const instance = { name: 'site', target: 'site', repo: 'acme/site', branch: null }
    const reason: Routing = {
      kind: 'routes',
      learns: null,
      routes: [{ kind: 'reason', instance, reason: 'ref', detail: 'not that' }],
    }
    const second = await record(store, { guid: 'b', body: 'b' }, reason)
    assert.deepEqual(
      [second.verdict, second.targets],
      ['ignored', [{ target: 'site', reason: 'ref', detail: 'not that' }]],
    )
    assert.deepEqual((await store.delivery(second.delivery))?.targets, second.targets)
    assert.deepEqual(await store.unfinished(), [])
  })

  test('pings and invalid deliveries are kept and make no runs', async (t) => {
    const store = await open(t)
    for (const [index, kind] of (['ping', 'invalid'] as const).entries()) {
      const told = await record(store, { kind, body: kind, detail: 'why', repo: null })
      assert.deepEqual([told.verdict, told.delivery, told.made], [kind, index + 1, []])
      assert.equal((await store.delivery(index + 1))?.detail, 'why')
    }
  })

  test('a hook has spoken for a repository, falls silent, and speaks again', async (t) => {
    const store = await open(t)
    await store.fellSilent('github', 'acme/site', 5)
    assert.deepEqual(await store.speakers(), [], 'who never spoke cannot fall silent')
    await record(store, { receivedAt: 10, body: 'a' })
    await store.fellSilent('github', 'Acme/SITE', 20)
    await store.fellSilent('github', 'acme/site', 30)
    const silent = { hook: 'github', repo: 'acme/site', firstHeard: 10, lastHeard: 10, silentSince: 20 }
    assert.deepEqual(await store.speakers(), [silent])
    await record(store, { receivedAt: 40, body: 'b', repo: 'ACME/site' })
    assert.deepEqual(await store.speakers(), [{ ...silent, lastHeard: 40, silentSince: null }])
  })

  test('a ping is a word of its hook for the repository that it names, which what is not understood is not', async (t) => {
    const store = await open(t)
    await record(store, { kind: 'invalid', body: 'a', repo: null })
    await record(store, { kind: 'ping', body: 'b', repo: null })
    assert.deepEqual(await store.speakers(), [])
    await record(store, { kind: 'ping', body: 'c', repo: 'acme/site', receivedAt: 10 })
    const heard = { hook: 'github', repo: 'acme/site', firstHeard: 10, lastHeard: 10 }
    await store.fellSilent('github', 'acme/site', 20)
    assert.deepEqual(await store.speakers(), [{ ...heard, silentSince: 20 }])
    await record(store, { kind: 'ping', body: 'd', repo: 'acme/site', receivedAt: 11 })
    assert.deepEqual(await store.speakers(), [{ ...heard, lastHeard: 11, silentSince: null }])
  })

  test('deliveries are listed newest first, by hook, repository and verdict, a page at a time', async (t) => {
    const store = await open(t)
    const list = async (filter: Partial<Parameters<Store['deliveries']>[0]>) =>
      (await store.deliveries({ hook: null, repo: null, verdict: null, limit: 9, before: null, ...filter })).map(
        ({ id }) => id,
      )
    await record(store, { body: '1' })
    await record(store, { body: '2', hook: 'gitlab' })
    await record(store, { body: '3', repo: 'Acme/Blog' })
    await record(store, { body: '4', kind: 'ping' })
    assert.deepEqual(await list({}), [4, 3, 2, 1])
    assert.deepEqual(await list({ hook: 'gitlab' }), [2])
    assert.deepEqual(await list({ repo: 'acme/blog' }), [3])
    assert.deepEqual(await list({ verdict: 'ping' }), [4])
    assert.deepEqual(await list({ limit: 2 }), [4, 3])
    assert.deepEqual(await list({ limit: 2, before: 3 }), [2, 1])
  })
}
