/** What every store must do when the configuration is another one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Store } from '../../src/stores/store.ts'
import { anOrder, commit } from './nouns.ts'
import { finish, type OpenStore, queued, runOf } from './stores.ts'

const instance = { name: 'site', target: 'site', repo: 'acme/site', branch: null }
const deployed = { commit: commit(1), run: 1, at: 7 }

/** An instance that has deployed, with one run that is running and one that waits. */
async function scene(store: Store): Promise<void> {
  await queued(store, { instance, announced: commit(1) })
  await store.started(1, 1)
  const patch = { state: 'ok', deployed, considered: commit(1), defaultBranch: 'trunk' } as const
  await store.finished(1, finish('succeeded', { instance: patch }))
  await queued(store, { instance, announced: commit(2) })
  await store.started(2, 1)
  await queued(store, { instance, announced: commit(3) })
}

export function judgeReload(open: OpenStore): void {
  test('runs without a target are cancelled while they are queued, and only then', async (t) => {
    const store = await open(t)
    await scene(store)
    const gone = [1, 2, 3].map((run) => ({ run, detail: 'it is gone' }))
    assert.deepEqual(await store.reconfigured({ gone, moved: [] }, 77), { queued: [], superseded: [3] })
    const { state, reason, detail, finishedAt } = await runOf(store, 3)
    assert.deepEqual([state, reason, detail, finishedAt], ['cancelled', 'target-removed', 'it is gone', 77])
    assert.deepEqual([(await runOf(store, 1)).state, (await runOf(store, 2)).state], ['succeeded', 'running'])
    assert.equal(await store.started(3, 78), false)
  })

  test('another name of the same repository changes the name, and the unfinished runs follow', async (t) => {
    const store = await open(t)
    await scene(store)
    const before = await store.instance('site')
    await store.reconfigured({ gone: [], moved: [{ instance: 'site', repo: 'acme/new', isSame: true }] }, 77)
    assert.deepEqual(await store.instance('site'), { ...before, repo: 'acme/new' })
    assert.deepEqual(await Promise.all([1, 2, 3].map(async (id) => (await runOf(store, id)).repo)), [
      'acme/site',
      'acme/new',
      'acme/new',
    ])
    await store.finished(2, finish('failed', { instance: { state: 'broken' } }))
    assert.equal((await store.instance('site'))?.state, 'broken')
    const [made] = (await store.queue([anOrder({ instance, announced: commit(9) })], 78)).queued
    assert.equal(made?.repo, 'acme/new', 'whoever still uses the old name changes nothing')
  })

  test('an instance of another repository begins anew, and the end of a run of the old one leaves it alone', async (t) => {
    const store = await open(t)
    await scene(store)
    await store.reconfigured({ gone: [], moved: [{ instance: 'site', repo: 'acme/other', isSame: false }] }, 77)
    const anew = await store.instance('site')
    assert.deepEqual(
      [anew?.repo, anew?.state, anew?.deployed, anew?.considered, anew?.defaultBranch, anew?.retiredAt],
      ['acme/other', 'new', null, null, null, null],
    )
    await store.finished(2, finish('succeeded', { instance: { state: 'ok', deployed: { ...deployed, run: 2 } } }))
    assert.deepEqual(await store.instance('site'), anew)
    assert.equal((await runOf(store, 2)).state, 'succeeded')
  })
}
