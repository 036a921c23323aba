import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Target } from '../src/config/config.ts'
import { ownDataDir } from '../src/data-dir.ts'
import type { Instance, Release, Sha } from '../src/model.ts'
import { createReleases, type Releases } from '../src/runs/releases.ts'
import { openSqlite } from '../src/stores/sqlite.ts'
import type { Store } from '../src/stores/store.ts'
import type { Work } from '../src/work.ts'
import { createBench } from './support/mirrors.ts'
import { aTarget, commit } from './support/nouns.ts'
import { finish, queued, runOf } from './support/stores.ts'

/** Where a deployment is cut off. */
type Step = 'checked out' | 'activated' | 'stored' | 'settled' | number

interface Site {
  readonly store: Store
  readonly releases: Releases
  readonly target: Target
  readonly current: string
  readonly folder: string
  /**
   * What the runner does for one run that succeeds, as far as `until`; a number dies at that call for work of the settling.
   * Resolves to the directory that the run worked in.
   */
  deploy(of: Sha, until?: Step): Promise<string>
  instance(): Promise<Instance>
  /** What a new process finds and puts in order. */
  restart(): Promise<void>
  /** Asserts that what the store knows is what is on disk, and that `current` leads to what is deployed. */
  isInOrder(): Promise<void>
}

class Died extends Error {}

async function site(t: TestContext, change: Partial<Target> = {}): Promise<Site> {
  const bench = createBench(t)
  const dataDir = await ownDataDir(join(bench.directory, 'data'))
  const store = await openSqlite({ dataDir: dataDir.path, keepDeliveriesMs: 1000 })
  t.after(async () => {
    await store.close()
    dataDir.release()
  })
  const current = join(bench.directory, 'current')
  const target = aTarget({ current, ...change })
  let callsLeft = Number.POSITIVE_INFINITY
  const mortal =
    <A extends readonly unknown[], T>(call: (...given: A) => Promise<T>) =>
    async (...given: A): Promise<T> => {
      if (callsLeft <= 0) throw new Died()
      callsLeft -= 1
      return call(...given)
    }
  const { switchLink, remove } = bench.work
  const nobody = () => Promise.reject(new Error('no script is run here'))
  const work: Work = {
    ...bench.work,
    runScript: nobody,
    sealLog: nobody,
    switchLink: mortal(switchLink),
    remove: mortal(remove),
  }
  const releases = createReleases({ dataDir, store, workOf: () => work })
  const folder = dataDir.room('releases', 'site')
  await store.seen({ name: 'site', target: 'site', repo: 'acme/site', branch: null }, 1)

  async function instance(): Promise<Instance> {
    const found = await store.instance('site')
    assert.ok(found)
    return found
  }

  async function deploy(of: Sha, until: Step = 'settled'): Promise<string> {
    const run = await queued(store, { announced: of, trigger: 'manual' })
    await store.started(run.id, 1)
    await store.decided(run.id, { ref: null, commit: of, previous: null, detail: null })
    const directory = await releases.directoryFor(target, run, of)
    assert.equal(existsSync(directory), false)
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, 'built'), `${of} by ${run.id}`)
    if (until === 'checked out') return directory
    if (target.current !== null) await switchLink({ link: current, to: directory })
    if (until === 'activated') return directory
    const before = await instance()
    const sealed: Release = { instance: 'site', commit: of, run: run.id, directory }
    const forgotten = await releases.outdated(target, before, sealed)
    const deployedBefore =
      before.deployed && before.deployed.commit !== of ? { deployedBefore: before.deployed.commit } : {}
    const patch = { deployed: { commit: of, run: run.id, at: 1 }, ...deployedBefore }
    const runs = forgotten.map((release) => release.run)
    await store.finished(run.id, finish('succeeded', { sealed, forgotten: runs, instance: patch }))
    if (until === 'stored') return directory
    if (typeof until === 'number') callsLeft = until
    try {
      await releases.settle(target, sealed, forgotten)
    } catch (error) {
      if (!(error instanceof Died)) throw error
    }
    callsLeft = Number.POSITIVE_INFINITY
    return directory
  }

  async function isInOrder(): Promise<void> {
    const kept = await store.releases('site')
    const owned = new Set(kept.flatMap(({ directory, commit: of }) => [basename(directory), of]))
    assert.deepEqual(new Set(existsSync(folder) ? readdirSync(folder) : []), owned)
    for (const release of kept) {
      const built = `${release.commit} by ${release.run}`
      assert.equal(readFileSync(join(release.directory, 'built'), 'utf8'), built)
      assert.equal(readFileSync(join(folder, release.commit, 'built'), 'utf8'), built)
    }
    const { deployed } = await instance()
    const live = existsSync(current) ? readFileSync(join(current, 'built'), 'utf8') : null
    if (target.current !== null) assert.equal(live, deployed && `${deployed.commit} by ${deployed.run}`)
  }

  return {
    store,
    releases,
    target,
    current,
    folder,
    deploy,
    instance,
    isInOrder,
    async restart() {
      for (const { id, state } of await store.unfinished())
        if (state === 'running') await store.finished(id, finish('interrupted'))
      await createReleases({ dataDir, store, workOf: () => work }).sweep(() => target)
    },
  }
}

test('a release is named after its commit', async (t) => {
  const { deploy, folder, current, isInOrder, releases, instance } = await site(t)
  const directory = await deploy(commit(1))
  assert.equal(directory, join(folder, commit(1)))
  assert.equal(readlinkSync(current), directory)
  assert.equal(await releases.deployed(await instance()), directory)
  await isInOrder()
})

test('another run at a sealed commit works in a fresh directory and replaces the live one on success', async (t) => {
  const { deploy, folder, current, isInOrder } = await site(t)
  await deploy(commit(1))
  for (const run of [2, 3]) {
    const directory = await deploy(commit(1))
    assert.equal(directory, join(folder, `${commit(1)}.${run}`))
    assert.equal(readlinkSync(join(folder, commit(1))), directory)
    assert.equal(readlinkSync(current), join(folder, commit(1)))
    assert.equal(realpathSync(current), realpathSync(directory))
    await isInOrder()
  }
})

test('another run at a sealed commit that does not succeed leaves the live one alone', async (t) => {
  const { deploy, releases, instance, target, isInOrder } = await site(t)
  await deploy(commit(1))
  for (const step of ['checked out', 'activated'] as const) {
    const directory = await deploy(commit(1), step)
    await releases.abandon(target, await instance(), directory)
    assert.equal(existsSync(directory), false)
    await isInOrder()
  }
})

test('a first run that does not succeed leaves neither a directory nor a live release', async (t) => {
  const { deploy, releases, instance, current, target, isInOrder } = await site(t)
  await releases.abandon(target, await instance(), await deploy(commit(1), 'activated'))
  assert.equal(existsSync(current), false)
  await isInOrder()
})

test('keep_releases counts the live release and the one before it, which always stay', async (t) => {
  for (const [keepReleases, kept] of [
    [1, [6, 5]],
    [2, [6, 5]],
    [3, [6, 5, 4]],
    [5, [6, 5, 4, 3, 2]],
  ] as const) {
    const { deploy, store, isInOrder } = await site(t, { keepReleases })
    for (const n of [1, 2, 3, 4, 5, 6]) await deploy(commit(n))
    assert.deepEqual(
      (await store.releases('site')).map((release) => release.commit),
      kept.map(commit),
    )
    await isInOrder()
  }
})

test('the release before the live one stays though others were sealed since, and is found again by its commit', async (t) => {
  const { deploy, store, isInOrder, instance } = await site(t, { keepReleases: 2 })
  for (const n of [1, 2, 1, 1]) await deploy(commit(n))
  assert.equal((await instance()).deployedBefore, commit(2))
  assert.deepEqual(
    (await store.releases('site')).map((release) => release.commit),
    [commit(1), commit(2)],
  )
  await isInOrder()
})

const HISTORIES: readonly (readonly [string, readonly number[], number])[] = [
  ['a first deployment', [], 1],
  ['a new commit', [1], 2],
  ['a new commit that makes an old release go', [1, 2, 3], 4],
  ['a second run at the live commit', [1], 1],
  ['a third run at the live commit', [1, 1], 1],
  ['a return to a kept commit', [1, 2], 1],
  ['a new commit that makes a release with a link go', [1, 1, 2, 3], 4],
]

for (const [what, before, then] of HISTORIES) {
  test(`a crash at any step of ${what} is put in order by the next start`, async (t) => {
    for (const step of ['checked out', 'activated', 'stored', 0, 1, 2, 3, 'settled'] as const) {
      const { deploy, restart, isInOrder } = await site(t, { keepReleases: 2 })
      for (const n of before) await deploy(commit(n))
      await deploy(commit(then), step)
      await restart()
      await isInOrder()
      await deploy(commit(then))
      await isInOrder()
      await deploy(commit(77))
      await isInOrder()
    }
  })
}

test('what is left of a link that was never put in place is swept away', async (t) => {
  const { deploy, restart, folder, isInOrder } = await site(t)
  await deploy(commit(1))
  symlinkSync(join(folder, commit(1)), join(folder, `.${commit(1)}.landfall-new`))
  await restart()
  await isInOrder()
})

test('a sweep leaves alone what belongs to no target of the file: whose files these are, only the file tells', async (t) => {
  const { deploy, releases, store, folder, current } = await site(t)
  await deploy(commit(1))
  symlinkSync('/elsewhere', join(folder, '..', 'x'))
  const stray = await deploy(commit(2), 'checked out')
  for (const { id } of await store.unfinished()) await store.finished(id, finish('interrupted'))
  await releases.sweep(() => undefined)
  assert.equal(existsSync(stray), true)
  assert.equal(readlinkSync(current), join(folder, commit(1)))
})

test('a `current` that is no symlink, or whose directory is missing, is told with what to do', async (t) => {
  const { releases, target, current, folder } = await site(t)
  const wrong = (link: string) => releases.wrongLink({ ...target, current: link })
  assert.equal(await wrong(current), null)
  symlinkSync('/nowhere', current)
  assert.equal(await wrong(current), null, 'a dangling link is a link')
  mkdirSync(folder)
  assert.match((await wrong(folder)) ?? '', /is no symlink.*move what is there/)
  assert.match((await wrong(join(folder, 'a', 'b'))) ?? '', /mkdir -p/)
})

test('a target without `current` has its releases all the same', async (t) => {
  const { deploy, releases, instance, isInOrder, store } = await site(t, { current: null })
  await deploy(commit(1))
  await deploy(commit(1))
  assert.equal(await releases.deployed(await instance()), (await store.releases('site'))[0]?.directory)
  await isInOrder()
  assert.equal((await runOf(store, 2)).state, 'succeeded')
})
