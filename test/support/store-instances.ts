/** What every store must do with instances that come, are renamed, and go. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { aPush, commit } from './nouns.ts'
import { finish, KEEP_MS, type OpenStore, queued, routed } from './stores.ts'

const BRANCH = { name: 'site@x', target: 'site', repo: 'acme/site', branch: 'x' } as const
const DELETION = { instance: BRANCH, event: 'delete', announced: null } as const

export function judgeInstances(open: OpenStore): void {
  test('what is there at a first listing is considered, and nothing that has come by itself is', async (t) => {
    const store = await open(t)
    assert.equal(await store.wasListed('site', 'acme/site'), false)
    const pushed = { ...BRANCH, name: 'site@pushed', branch: 'pushed' }
    await queued(store, { instance: pushed, announced: commit(1) })
    const found = [
      { instance: BRANCH, tip: commit(2) },
      { instance: pushed, tip: commit(3) },
    ]
    await store.listed({ listing: 'site', repo: 'Acme/Site', found }, 7)
    assert.equal(await store.wasListed('site', 'acme/site'), true)
    assert.equal(await store.wasListed('docs', 'acme/site'), false)
    assert.deepEqual(
      (await store.instancesOf('site', 'ACME/site')).map(({ branch, considered }) => [branch, considered]),
      [
        ['pushed', null],
        ['x', commit(2)],
      ],
    )
    await store.listed({ listing: 'site', repo: 'acme/site', found: [{ instance: BRANCH, tip: commit(9) }] }, 8)
    assert.equal((await store.instance('site@x'))?.considered, commit(2), 'there is one first listing')
  })

  test('an instance that was retired begins anew when it is seen again', async (t) => {
    const store = await open(t)
    const { id } = await queued(store, { instance: BRANCH, announced: commit(1) })
    const deployed = { commit: commit(1), run: id, at: 5 }
    await store.finished(id, finish('succeeded', { instance: { deployed, considered: commit(1), state: 'ok' } }))
    await store.remember('site@x', { retiredAt: 9 })
    assert.equal((await store.instance('site@x'))?.deployed?.commit, commit(1), 'what was is on record')
    await queued(store, { instance: BRANCH, announced: commit(2) })
    const { state, deployed: now, considered, retiredAt } = (await store.instance('site@x')) ?? {}
    assert.deepEqual([state, now, considered, retiredAt], ['new', null, null, null])
  })

  test('a link or tree is of the instance that took it last, and what files are at is told of that place alone', async (t) => {
    const store = await open(t)
    const other = { ...BRANCH, name: 'site@y', branch: 'y' }
    for (const instance of [BRANCH, other]) await queued(store, { instance, announced: commit(1) })
    const known = async (name: string) => {
      const { livesAt, filesAt } = (await store.instance(name)) ?? {}
      return [livesAt, filesAt]
    }
    await store.movedTo('site@x', '/srv/a')
    await store.remember('site@x', { filesAt: commit(1) })
    assert.deepEqual(
      [await known('site@x'), await known('site@y')],
      [
        ['/srv/a', commit(1)],
        [null, null],
      ],
    )
    await store.movedTo('site@x', '/srv/b')
    assert.deepEqual(await known('site@x'), ['/srv/b', null])
    await store.remember('site@x', { filesAt: commit(1) })
    await store.movedTo('site@y', '/srv/b')
    assert.deepEqual(
      [await known('site@x'), await known('site@y')],
      [
        [null, null],
        ['/srv/b', null],
      ],
    )
    await store.remember('site@y', { retiredAt: 9 })
    await queued(store, { instance: other, announced: commit(2) })
    assert.deepEqual(await known('site@y'), [null, null])
  })

  test('of one deletion there is one run', async (t) => {
    const store = await open(t)
    await queued(store, { instance: BRANCH, announced: commit(1) })
    const first = await queued(store, DELETION)
    assert.equal((await queued(store, DELETION)).id, first.id)
    await store.finished(first.id, finish('failed'))
    assert.notEqual((await queued(store, DELETION)).id, first.id)
  })

  test('pruning leaves nothing of an instance that was retired long ago', async (t) => {
    const store = await open(t)
    const gone = await queued(store, { instance: BRANCH, announced: commit(1) })
    await store.finished(gone.id, finish('succeeded'))
    await store.remember('site@x', { retiredAt: 1_000 })
    const recent = { ...BRANCH, name: 'site@y', branch: 'y' }
    await queued(store, { instance: recent, announced: commit(2) })
    await store.remember('site@y', { retiredAt: 5_000 })
    const limits = { keepDeliveriesMs: 1_000, keepPayloadsMs: KEEP_MS, keepRuns: 100 }
    assert.deepEqual(await store.prune(limits, 3_000), [gone.id])
    assert.deepEqual(
      (await store.instances()).map(({ name }) => name),
      ['site@y'],
    )
  })

  test('a repository’s number is remembered by the name that a target has believed', async (t) => {
    const store = await open(t)
    assert.equal(await store.knownAs('github', 7), null)
    for (const repo of ['acme/site', 'acme/web']) {
      await store.record(aPush({ body: repo }), { kind: 'routes', learns: { id: 7, repo }, routes: [] })
      assert.equal(await store.knownAs('github', 7), repo)
    }
    await store.record(aPush({ body: 'not believed' }), routed())
    assert.deepEqual([await store.knownAs('github', 7), await store.knownAs('gitlab', 7)], ['acme/web', null])
    assert.deepEqual(
      [await store.numberOf('github', 'Acme/Web'), await store.numberOf('github', 'acme/site')],
      [7, null],
    )
    await store.record(aPush({ body: 'made anew' }), {
      kind: 'routes',
      learns: { id: 9, repo: 'acme/web' },
      routes: [],
    })
    assert.deepEqual([await store.numberOf('github', 'acme/web'), await store.knownAs('github', 7)], [9, null])
  })
}
