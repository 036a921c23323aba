/** What every store must do with runs, from the queue to their ends. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Outcome } from '../../src/model.ts'
import { anOrder, commit } from './nouns.ts'
import { finish, type OpenStore, queued, RECOVERY, RETRY, record, routed, runOf } from './stores.ts'

export function judgeQueue(open: OpenStore): void {
  test('sequential keeps every run, in order', async (t) => {
    const store = await open(t)
    for (const n of [1, 2, 3]) await queued(store, { announced: commit(n) })
    assert.deepEqual(
      (await store.unfinished()).map(({ id, place }) => [id, place]),
      [
        [1, 1],
        [2, 2],
        [3, 3],
      ],
    )
  })

  test('a commit that an unfinished run has already makes no run', async (t) => {
    const store = await open(t)
    const first = await record(store, { body: 'a' })
    const same = await record(store, { body: 'b' })
    assert.deepEqual([same.verdict, same.runs, same.made], ['accepted', first.runs, []])
    assert.deepEqual((await store.queue([anOrder({ trigger: 'poll' })], 1)).runs, [
      { target: 'site', run: 1, isNew: false },
    ])
    await store.started(1, 1)
    await store.decided(1, { ref: null, commit: commit(7), previous: null, detail: null })
    assert.deepEqual(
      (await record(store, { body: 'c' }, routed({ announced: commit(7) }))).runs,
      [1],
      'what it decided on counts',
    )
    await store.finished(1, finish('failed'))
    assert.equal((await queued(store)).id, 2)
  })

  test('a run of another instance does not stand for this one', async (t) => {
    const store = await open(t)
    await queued(store)
    const other = { name: 'docs', target: 'docs', repo: 'acme/site', branch: null }
    assert.equal((await queued(store, { instance: other, policy: 'evict' })).id, 2)
    assert.equal((await runOf(store, 1)).state, 'queued')
  })

  test('a force push that is announced after a poll has queued it is believed', async (t) => {
    const store = await open(t)
    await queued(store, { trigger: 'poll' })
    await record(store, {}, routed({ before: commit(9) }))
    assert.equal((await runOf(store, 1)).before, commit(9))
  })

  test('evict: a newer run takes the place of the waiting one, which ends superseded', async (t) => {
    const store = await open(t)
    await queued(store, { policy: 'evict', announced: commit(1) })
    await store.started(1, 1)
    await queued(store, { policy: 'evict', announced: commit(2) })
    await queued(store, {
      instance: { name: 'docs', target: 'docs', repo: 'acme/docs', branch: null },
      announced: commit(5),
    })
    const { superseded } = await store.queue([anOrder({ policy: 'evict', announced: commit(3) })], 77)
    assert.deepEqual(superseded, [2])
    const [old, fresh] = [await runOf(store, 2), await runOf(store, 4)]
    assert.deepEqual([old.state, old.supersededBy, old.finishedAt], ['superseded', 4, 77])
    assert.deepEqual([fresh.state, fresh.place], ['queued', 2])
    assert.equal((await runOf(store, 1)).state, 'running', 'what runs goes on')
    assert.deepEqual(
      (await store.unfinished()).map(({ id }) => id),
      [1, 4, 3],
    )
  })

  test('evict: a place is handed on again and again', async (t) => {
    const store = await open(t)
    for (const n of [1, 2, 3, 4]) await queued(store, { policy: 'evict', announced: commit(n) })
    assert.deepEqual(
      (await store.unfinished()).map(({ id, place }) => [id, place]),
      [[4, 1]],
    )
  })

  test('evict: two announced moves in a row are one from the first', async (t) => {
    const store = await open(t)
    await queued(store, { policy: 'evict', before: commit(1), announced: commit(2) })
    assert.equal((await queued(store, { policy: 'evict', before: commit(2), announced: commit(3) })).before, commit(1))
    assert.equal((await queued(store, { policy: 'evict', before: commit(8), announced: commit(4) })).before, commit(8))
  })

  test('runs made by people are never evicted, and evict nothing', async (t) => {
    const store = await open(t)
    await queued(store, { policy: 'evict', announced: commit(1) })
    for (const [index, trigger] of (['manual', 'rollback', 'unfreeze'] as const).entries()) {
      await queued(store, { policy: 'evict', trigger, announced: commit(index + 2) })
    }
    await queued(store, { policy: 'evict', announced: commit(9) })
    assert.deepEqual(
      (await store.unfinished()).map(({ id, trigger }) => `${id} ${trigger}`),
      ['5 push', '2 manual', '3 rollback', '4 unfreeze'],
    )
  })

  for (const policy of ['sequential', 'evict'] as const) {
    test(`${policy}: a newer run supersedes a retry that waits`, async (t) => {
      const store = await open(t)
      for (const trigger of ['push', 'manual'] as const) {
        const run = await queued(store, { policy, announced: commit(1) })
        const { queued: retries } = await store.finished(run.id, finish('failed', { followUp: RETRY }))
        const { superseded } = await store.queue([anOrder({ policy, trigger, announced: commit(2) })], 5)
        assert.deepEqual(
          superseded,
          retries.map(({ id }) => id),
          trigger,
        )
        for (const { id } of await store.unfinished()) await store.finished(id, finish('succeeded'))
      }
    })
  }

  test('evict: a retry whose time has come stands in the lane, and its place is taken', async (t) => {
    const store = await open(t)
    await queued(store)
    await store.finished(1, finish('failed', { followUp: RETRY }))
    await queued(store, { instance: { name: 'docs', target: 'docs', repo: 'acme/docs', branch: null } })
    assert.equal((await queued(store, { policy: 'evict', announced: commit(2) }, RETRY.notBefore)).place, 2)
  })

  test('a run is claimed once, and not after it was superseded', async (t) => {
    const store = await open(t)
    await queued(store, { policy: 'evict' })
    await queued(store, { policy: 'evict', announced: commit(2) })
    assert.equal(await store.started(1, 5), false)
    assert.deepEqual(await Promise.all([store.started(2, 6), store.started(2, 7)]), [true, false])
    assert.deepEqual([(await runOf(store, 2)).state, (await runOf(store, 2)).startedAt], ['running', 6])
  })

  test('a run that is given back can be claimed again', async (t) => {
    const store = await open(t)
    await queued(store)
    await store.started(1, 5)
    await store.returned(1)
    assert.deepEqual([(await runOf(store, 1)).state, (await runOf(store, 1)).startedAt], ['queued', null])
    assert.equal(await store.started(1, 6), true)
  })

  test('an instance remembers the newest commit that somebody wanted, and the spelling it was first seen with', async (t) => {
    const store = await open(t)
    await queued(store, { announced: commit(1) }, 10)
    const run = await queued(
      store,
      { announced: commit(2), instance: { name: 'site', target: 'site', repo: 'ACME/site', branch: null } },
      20,
    )
    const instance = await store.instance('site')
    assert.deepEqual(
      [instance?.wanted, instance?.firstSeenAt, instance?.state],
      [{ commit: commit(2), at: 20 }, 10, 'new'],
    )
    assert.deepEqual([instance?.repo, run.repo], ['acme/site', 'acme/site'])
  })
}

export function judgeEnds(open: OpenStore): void {
  test('an end is written with everything that follows from it', async (t) => {
    const store = await open(t)
    await queued(store)
    await store.started(1, 5)
    await store.decided(1, { ref: 'refs/heads/dev', commit: commit(1), previous: commit(0), detail: 'why' })
    const end: Outcome = { end: 'failed', reason: 'activate', detail: 'no', exitCode: 7, signal: 'SIGTERM' }
    const phases = [{ name: 'fetch', startedAt: 5, ms: 3 }] as const
    const change = await store.finished(
      1,
      finish('failed', { outcome: end, phases, at: 9, instance: { state: 'broken' } }),
    )
    assert.deepEqual(change, { queued: [], superseded: [] })
    const { state, reason, detail, exitCode, signal, finishedAt, ...run } = await runOf(store, 1)
    assert.deepEqual(
      [state, reason, detail, exitCode, signal, finishedAt],
      ['failed', 'activate', 'no', 7, 'SIGTERM', 9],
    )
    assert.deepEqual([run.ref, run.commit, run.previous, run.phases], ['refs/heads/dev', commit(1), commit(0), phases])
    assert.equal((await store.instance('site'))?.state, 'broken')
  })

  test('a run ends once', async (t) => {
    const store = await open(t)
    await queued(store)
    await store.finished(1, finish('succeeded'))
    const again = await store.finished(1, finish('failed', { instance: { state: 'broken' }, followUp: RETRY }))
    assert.deepEqual(again, { queued: [], superseded: [] })
    assert.deepEqual([(await runOf(store, 1)).state, (await store.instance('site'))?.state], ['succeeded', 'new'])
  })

  test('a retry carries on what the run was about', async (t) => {
    const store = await open(t)
    await record(store, {}, routed({ before: commit(9) }))
    const { queued: made } = await store.finished(1, finish('failed', { followUp: RETRY }))
    const first = await runOf(store, 1)
    assert.deepEqual(made, [await runOf(store, 2)])
    const { id, place, attempt, notBefore, trigger, state, ...rest } = await runOf(store, 2)
    assert.deepEqual([id, place, attempt, notBefore, trigger, state], [2, 2, 2, RETRY.notBefore, 'retry', 'queued'])
    const about = ({ announced, before, delivery, repo, ref, target }: typeof rest) => [
      announced,
      before,
      delivery,
      repo,
      ref,
      target,
    ]
    assert.deepEqual(about(rest), about(first))
  })

  test('no retry is made where a newer run waits', async (t) => {
    const store = await open(t)
    await queued(store)
    await queued(store, { announced: commit(2) })
    assert.deepEqual((await store.finished(1, finish('failed', { followUp: RETRY }))).queued, [])
  })

  test('a recovery takes the place of the interrupted run, whatever else waits', async (t) => {
    const store = await open(t)
    await queued(store)
    await queued(store, { announced: commit(2) })
    await store.started(1, 5)
    const { queued: made } = await store.finished(1, finish('interrupted', { followUp: RECOVERY }))
    assert.deepEqual(
      made.map(({ trigger, place, interruptions }) => [trigger, place, interruptions]),
      [['recovery', 1, 1]],
    )
    assert.deepEqual(
      (await store.unfinished()).map(({ id }) => id),
      [3, 2],
    )
  })

  test('releases are sealed and forgotten with the end of a run', async (t) => {
    const store = await open(t)
    const seal = (run: number) => ({ instance: 'site', commit: commit(run), run, directory: `/r/${run}` })
    for (const n of [1, 2, 3]) {
      await queued(store, { announced: commit(n) })
      await store.finished(n, finish('succeeded', { sealed: seal(n), forgotten: n === 3 ? [1] : [] }))
    }
    assert.deepEqual(await store.releases('site'), [seal(3), seal(2)])
    assert.deepEqual(await store.releases('docs'), [])
    assert.deepEqual(await store.allReleases(), [seal(3), seal(2)])
  })

  test('the processes of a run are known until it ends', async (t) => {
    const store = await open(t)
    await queued(store)
    await queued(store, { announced: commit(2) })
    await store.marked(1, { pid: 10, startTime: 100 })
    await store.marked(1, { pid: 11, startTime: 110 })
    await store.marked(2, { pid: 20, startTime: 200 })
    await store.unmarked(2)
    assert.deepEqual(await store.marks(), [
      { run: 1, pid: 10, startTime: 100 },
      { run: 1, pid: 11, startTime: 110 },
    ])
    await store.finished(1, finish('succeeded'))
    assert.deepEqual(await store.marks(), [])
  })
}
