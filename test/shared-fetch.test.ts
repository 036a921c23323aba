import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import type { FetchOrder, Wanted } from '../src/work.ts'
import { GIT_ENV, git, sha } from './support/git.ts'
import { createBench, onBranch, originIn } from './support/mirrors.ts'

const NOWHERE = sha('1'.repeat(40))
const DEFAULT: Wanted = { kind: 'default' }

function onTags(pattern: string, announced: string | null = null): Wanted {
  return { kind: 'tag', patterns: [pattern], order: 'version', announced, deployed: null }
}

/** Date.now() of this process is what `clock` says. */
async function shared(t: TestContext) {
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() })
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  return {
    bench,
    origin,
    remote,
    clock: {
      pass: (ms: number) => t.mock.timers.setTime(Date.now() + ms),
      set: (at: number) => t.mock.timers.setTime(at),
    },
    fetch: (change?: Partial<FetchOrder>) => bench.fetch(remote, change),
    /** How often the remote was asked since the last call. */
    asked: () => bench.started().filter((line) => /^(?:fetch|ls-remote) /.test(line)).length,
  }
}

for (const [what, wanted, costs] of [
  ['branch', onBranch('main'), 1],
  ['default branch', DEFAULT, 2],
  ['tag', onTags('v*'), 1],
] as const) {
  test(`an order that was due when a fetch of the same ${what} began takes that one's result`, async (t) => {
    const { origin, fetch, asked, clock } = await shared(t)
    const tip = sha(await git(origin.path, 'rev-parse', 'main'))
    await git(origin.path, 'tag', 'v1')
    await fetch({ wanted, pinnedAs: 'one' })
    await origin.commit({ 'file.txt': 'too late' })
    await git(origin.path, 'tag', 'v2', 'main')
    asked()
    for (const dueAt of [Date.now(), Date.now() - 60_000]) {
      const fetched = await fetch({ wanted, dueAt, announced: tip, deployed: tip })
      assert.deepEqual([fetched.tip, fetched.announcedInTip, fetched.tipToDeployed], [tip, 'yes', 'same'])
    }
    assert.equal(asked(), 0)
    clock.pass(1)
    const next = sha(await git(origin.path, 'rev-parse', 'main'))
    assert.equal((await fetch({ wanted, deployed: tip })).tip, next)
    assert.ok(asked() >= costs)
  })

  test(`what a fetch of the ${what} found is asked for anew where it lacks the announced commit`, async (t) => {
    const { origin, fetch, asked } = await shared(t)
    await git(origin.path, 'tag', 'v1')
    const dueAt = Date.now()
    await fetch({ wanted })
    const announced = await origin.commit({ 'file.txt': '2' })
    await git(origin.path, 'tag', 'v2', 'main')
    asked()
    const fetched = await fetch({ wanted, dueAt, announced })
    assert.deepEqual([fetched.tip, fetched.announcedInTip], [announced, 'yes'])
    asked()
    const missing = await fetch({ wanted, dueAt, announced: NOWHERE })
    assert.deepEqual([missing.tip, missing.announcedInTip], [announced, 'missing'])
    assert.ok(asked() > 0)
  })

  test(`a fetch of the ${what} is shared for ten seconds after its end, and not after the clock was set back`, async (t) => {
    const { origin, fetch, asked, clock } = await shared(t)
    await git(origin.path, 'tag', 'v1')
    const dueAt = Date.now()
    await fetch({ wanted })
    const first = asked()
    clock.set(dueAt - 1)
    await fetch({ wanted, dueAt: dueAt - 1 })
    assert.ok(asked() > 0)
    clock.set(dueAt)
    await fetch({ wanted })
    asked()
    clock.pass(10_000)
    await fetch({ wanted, dueAt })
    assert.equal(asked(), 0)
    clock.pass(1)
    await fetch({ wanted, dueAt })
    assert.ok(asked() > 0 && first > 0)
  })
}

test('two targets that are due at once fetch once: the second waits for the first', async (t) => {
  const { bench, origin, fetch, asked, remote } = await shared(t)
  await fetch()
  const deployed = sha(await git(origin.path, 'rev-parse', 'main'))
  const tip = await origin.commit({ 'file.txt': '2' })
  asked()
  const dueAt = Date.now() + 1
  t.mock.timers.setTime(dueAt)
  const orders = [null, deployed, tip, deployed].map((D, n) =>
    fetch({ dueAt, deployed: D, announced: tip, pinnedAs: `i${n}` }),
  )
  const fetched = await Promise.all(orders)
  assert.deepEqual(
    fetched.map((one) => [one.tip, one.tipToDeployed]),
    [
      [tip, 'unknown'],
      [tip, 'ahead'],
      [tip, 'same'],
      [tip, 'ahead'],
    ],
  )
  assert.equal(asked(), 1)
  for (const n of [0, 1, 2, 3]) assert.equal(await git(remote.mirror, 'rev-parse', `refs/landfall/i${n}/tip`), tip)
  await bench.work.pin({ remote, pinnedAs: 'i1', pins: {} })
})

test('targets of different tags share the listing, and each fetches its own', async (t) => {
  const { bench, origin, fetch } = await shared(t)
  await git(origin.path, 'tag', 'site-1')
  await origin.commit({ 'file.txt': '2' })
  await git(origin.path, 'tag', 'api-1', 'main')
  const dueAt = Date.now()
  const fetched = await Promise.all(['site-*', 'api-*', 'site-*'].map((tag) => fetch({ dueAt, wanted: onTags(tag) })))
  assert.deepEqual(
    fetched.map(({ ref }) => ref),
    ['refs/tags/site-1', 'refs/tags/api-1', 'refs/tags/site-1'],
  )
  const started = bench.started().map((line) => line.split(' ')[0])
  assert.deepEqual(started, ['ls-remote', 'fetch', 'for-each-ref', 'fetch', 'for-each-ref'])
})

test('a shared listing whose tag has moved since is asked for anew', async (t) => {
  const { origin, fetch } = await shared(t)
  await git(origin.path, 'tag', 'site-1')
  await git(origin.path, 'tag', 'api-1')
  const dueAt = Date.now()
  await fetch({ dueAt, wanted: onTags('site-*') })
  const tip = await origin.commit({ 'file.txt': '2' })
  await git(origin.path, 'tag', '--force', 'api-1', 'main')
  assert.equal((await fetch({ dueAt, wanted: onTags('api-*') })).tip, tip)
})

test('another ref, another mirror and another process share nothing', async (t) => {
  const { bench, origin, remote, fetch, asked } = await shared(t)
  await origin.branch('other', 'main')
  const other = await origin.commit({ 'file.txt': 'other' })
  await git(origin.path, 'tag', 'v1', 'main')
  const dueAt = Date.now()
  await fetch()
  asked()
  assert.equal((await fetch({ dueAt, wanted: onBranch('other') })).tip, other)
  assert.equal(asked(), 1)
  await bench.fetch(bench.remote(origin.path, { mirror: `${remote.mirror}-two` }), { dueAt })
  assert.equal(asked(), 2)
  const plain = { announced: null, deployed: null, compareAnnounced: false, pinnedAs: 'i', env: {}, timeoutMs: 60_000 }
  await bench.restart().fetch({ ...plain, remote, dueAt, wanted: onBranch('main') })
  assert.equal(asked(), 1)
})

test('a fetch that failed, or found no branch, is never shared', async (t) => {
  for (const wanted of [onBranch('main'), DEFAULT, onTags('v*')]) {
    const { origin, fetch, asked } = await shared(t)
    await git(origin.path, 'tag', 'v1')
    const dueAt = Date.now()
    renameSync(origin.path, `${origin.path}.away`)
    await assert.rejects(fetch({ wanted, dueAt }), (error) => hasCode(error, 'remote'))
    renameSync(`${origin.path}.away`, origin.path)
    const tip = sha(await git(origin.path, 'rev-parse', 'main'))
    asked()
    assert.equal((await fetch({ wanted, dueAt })).tip, tip)
    assert.ok(asked() > 0)
    t.mock.timers.reset()
  }
  const { origin, fetch } = await shared(t)
  const dueAt = Date.now()
  assert.equal((await fetch({ dueAt, wanted: onBranch('late') })).tip, null)
  await origin.branch('late', 'main')
  const tip = await origin.commit({ 'file.txt': 'late' })
  assert.equal((await fetch({ dueAt, wanted: onBranch('late') })).tip, tip)
})

test('what was found is fetched again where the mirror is gone or broken', async (t) => {
  const { origin, remote, fetch } = await shared(t)
  const dueAt = Date.now()
  const first = (await fetch({ dueAt })).tip
  const tip = await origin.commit({ 'file.txt': '2' })
  rmSync(remote.mirror, { recursive: true })
  const fetched = await fetch({ dueAt, deployed: tip, announced: first })
  assert.deepEqual([fetched.tip, fetched.tipToDeployed, fetched.announcedInTip], [tip, 'same', 'yes'])
  const next = await origin.commit({ 'file.txt': '3' })
  const packs = join(remote.mirror, 'objects', 'pack')
  for (const name of readdirSync(packs)) rmSync(join(packs, name))
  const again = await fetch({ dueAt, deployed: next, announced: first })
  assert.deepEqual([again.tip, again.tipToDeployed, again.announcedInTip], [next, 'same', 'yes'])
})

test('what was found is forgotten once the mirror was made anew, for it may be nowhere any more', async (t) => {
  const { bench, origin, remote, fetch } = await shared(t)
  const deployed = sha(await git(origin.path, 'rev-parse', 'main'))
  const between = await origin.commit({ 'file.txt': '2' })
  await origin.commit({ 'file.txt': '3' })
  const dueAt = Date.now()
  await fetch({ dueAt })
  loseObject(remote.mirror, between)
  await origin.forceTo(deployed)
  const tip = await origin.commit({ 'file.txt': 'forced' })
  const fetched = await fetch({ dueAt, deployed })
  assert.deepEqual([fetched.tip, fetched.tipToDeployed], [tip, 'ahead'])
  assert.deepEqual(bench.logged, ['mirror-remade'])
})

function loseObject(mirror: string, object: string): void {
  const directory = join(mirror, 'objects', 'pack')
  for (const name of readdirSync(directory)) {
    const pack = name.endsWith('.pack') ? readFileSync(join(directory, name)) : null
    rmSync(join(directory, name))
    if (pack) execFileSync('git', ['unpack-objects', '-q'], { cwd: mirror, input: pack, env: GIT_ENV })
  }
  rmSync(join(mirror, 'objects', object.slice(0, 2), object.slice(2)))
}
