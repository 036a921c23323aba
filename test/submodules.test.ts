import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { makeRepository } from '../src/git/checkout.ts'
import { createExtras } from '../src/git/extras.ts'
import { createGit } from '../src/git/git.ts'
import { createMirrors } from '../src/git/mirror.ts'
import type { Sha } from '../src/model.ts'
import type { Submodules } from '../src/work.ts'
import { createOrigin, git, type Origin, sha } from './support/git.ts'
import { type Bench, createBench } from './support/mirrors.ts'

const OWN: Submodules = { hosts: [] }

interface Forge {
  readonly bench: Bench
  readonly site: Origin
  /** A bare repository beside the site's, and its only commit. */
  library(name: string, files?: Readonly<Record<string, string>>): Promise<{ origin: Origin; commit: Sha }>
  /** A commit of `origin` with submodules, by path. */
  commit(origin: Origin, submodules: readonly Declared[], files?: Record<string, string | null>): Promise<Sha>
  /** A release of the site at `commit`. */
  release(commit: Sha, submodules?: Submodules): Promise<string>
}
interface Declared {
  readonly path: string
  readonly url: string
  readonly commit: string
  readonly name?: string
  readonly more?: string
}

async function createForge(t: TestContext): Promise<Forge> {
  const bench = createBench(t)
  const inForge = async (name: string) => {
    const origin = await createOrigin(join(bench.directory, name, 'parts'))
    const path = join(bench.directory, 'forge', `${name}.git`)
    mkdirSync(join(bench.directory, 'forge'), { recursive: true })
    symlinkSync(origin.path, path)
    return { ...origin, path }
  }
  const site = await inForge('site')
  let releases = 0
  return {
    bench,
    site,
    async library(name, files = { [`${name}.txt`]: name }) {
      const origin = await inForge(name)
      return { origin, commit: await origin.commit({ 'file.txt': null, ...files }) }
    },
    async commit(origin, submodules, files = {}) {
      const sections = submodules.map(
        ({ path, url, name = path, more = '' }) => `[submodule "${name}"]\n\tpath = ${path}\n\turl = ${url}\n${more}`,
      )
      writeFileSync(join(origin.work, '.gitmodules'), sections.join(''))
      const listed = await git(origin.work, 'ls-files', '--stage')
      const before = [...listed.matchAll(/^160000 .*\t(.+)$/gm)].map(([, path = '']) => path)
      if (before.length > 0) await git(origin.work, 'update-index', '--force-remove', '--', ...before)
      await origin.commit(files)
      for (const { path, commit } of submodules) {
        await git(origin.work, 'update-index', '--add', '--cacheinfo', `160000,${commit},${path}`)
      }
      await git(origin.work, 'commit', '--quiet', '--allow-empty', '-m', 'submodules')
      await git(origin.work, 'push', '--quiet', 'origin', 'HEAD')
      return sha(await git(origin.work, 'rev-parse', 'HEAD'))
    },
    async release(commit, submodules = OWN) {
      const remote = bench.remote(site.path)
      await bench.fetch(remote)
      releases += 1
      return await bench.checkOut(remote, commit, {
        submodules,
        directory: join(bench.directory, `release${releases}`),
      })
    },
  }
}

test('submodules are empty directories unless they are wanted, and then at the commits that the tree names', async (t) => {
  const forge = await createForge(t)
  const deep = await forge.library('deep')
  const lib = await forge.library('lib')
  const withDeep = await forge.commit(lib.origin, [{ path: 'in/deep', url: '../deep.git', commit: deep.commit }])
  await lib.origin.commit({ 'lib.txt': 'newer' })
  await forge.library('stale')
  const commit = await forge.commit(forge.site, [
    { path: 'vendor/lib one', name: 'lib', url: '../lib.git', commit: withDeep },
    { path: 'skipped', url: 'https://elsewhere.example/x', commit: deep.commit, more: '\tupdate = none\n' },
  ])

  const without = await forge.release(commit, null)
  assert.deepEqual(readdirSync(join(without, 'vendor/lib one')), [])
  assert.deepEqual(forge.bench.started().filter((line) => /fetch|gitmodules/.test(line)).length, 1)

  const release = await forge.release(commit)
  const inside = join(release, 'vendor/lib one')
  assert.equal(readFileSync(join(inside, 'lib.txt'), 'utf8'), 'lib')
  assert.equal(readFileSync(join(inside, 'in/deep/deep.txt'), 'utf8'), 'deep')
  assert.equal(await git(inside, 'rev-parse', 'HEAD'), withDeep)
  assert.equal(await git(release, 'status', '--porcelain', '--ignored'), '')
  assert.equal(await git(inside, 'fsck', '--strict'), '')
  assert.equal(statSync(join(inside, '.git')).mode & 0o777, 0o700)
  assert.equal(await git(inside, 'remote', 'get-url', 'origin'), join(forge.bench.directory, 'forge/lib.git'))
  assert.deepEqual(readdirSync(join(release, 'skipped')), [])

  forge.bench.started()
  rmSync(lib.origin.path, { recursive: true })
  rmSync(deep.origin.path, { recursive: true })
  const again = await forge.release(commit)
  assert.equal(readFileSync(join(again, 'vendor/lib one/in/deep/deep.txt'), 'utf8'), 'deep', 'from its mirror')
})

test('a submodule’s commit that the server gives only by a branch is found, one that nobody pushed is said', async (t) => {
  const forge = await createForge(t)
  const lib = await forge.library('lib')
  await git(lib.origin.path, 'config', 'protocol.version', '0') // as a server that knows no other
  writeFileSync(join(forge.bench.home, '.gitconfig'), '[protocol]\n\tversion = 0\n')
  await lib.origin.commit({ 'lib.txt': 'newer' })
  const commit = await forge.commit(forge.site, [{ path: 'lib', url: '../lib.git', commit: lib.commit }])
  assert.equal(readFileSync(join(await forge.release(commit), 'lib/lib.txt'), 'utf8'), 'lib')

  const lost = await forge.commit(forge.site, [{ path: 'lib', url: '../lib.git', commit: '1'.repeat(40) }])
  await assert.rejects(
    forge.release(lost),
    (error) =>
      hasCode(error, 'remote') && /submodule "lib" .*no commit 1{40}\. Has that been pushed/.test(error.message),
  )
})

test('a submodule that may not be had ends the run before anything is fetched, and says what would allow it', async (t) => {
  const forge = await createForge(t)
  const lib = await forge.library('lib')
  const proof = join(forge.bench.directory, 'proof')
  const rows: [change: Partial<Declared>, submodules: Submodules, says: RegExp][] = [
    [
      { url: 'https://other.example/x' },
      OWN,
      /submodule "bad".*is on other\.example.*submodules = \["other\.example"\]/,
    ],
    [{ url: 'https://b.example/x' }, { hosts: ['a.example'] }, /submodules = \["a\.example", "b\.example"\]/],
    [{ url: 'https://ada:s3cret@other.example/x' }, OWN, /"https:\/\/\*\*\*@other\.example\/x".*user or a password/],
    [{ url: `ext::sh -c touch% ${proof}` }, OWN, /no URL of the form/],
    [{ url: lib.origin.path }, OWN, /as a relative URL/],
    [{ url: '../../outside.git' }, OWN, /directory of this machine/],
    [{ name: '../../../hooks' }, OWN, /name or path that is not safe/],
  ]
  for (const [change, submodules, says] of rows) {
    const good = { path: 'good', url: '../lib.git', commit: lib.commit }
    const bad = { path: 'bad', url: '../lib.git', commit: lib.commit, ...change }
    const commit = await forge.commit(forge.site, [good, bad])
    await assert.rejects(
      forge.release(commit, submodules),
      (error) => hasCode(error, 'unstartable') && says.test(error.message) && !/s3cret/.test(error.message),
      JSON.stringify(change),
    )
  }
  assert.equal(existsSync(`${forge.bench.remote('').mirror}.submodules`), false)
  assert.equal(existsSync(proof), false)
})

test('a command that .gitmodules names never runs', async (t) => {
  const forge = await createForge(t)
  const lib = await forge.library('lib')
  const proof = join(forge.bench.directory, 'proof')
  const more = `\tupdate = !touch ${proof}\n\tfetchRecurseSubmodules = true\n[core]\n\tfsmonitor = touch ${proof}\n\tsshCommand = touch ${proof}\n`
  const commit = await forge.commit(forge.site, [{ path: 'lib', url: '../lib.git', commit: lib.commit, more }])
  assert.equal(readFileSync(join(await forge.release(commit), 'lib/lib.txt'), 'utf8'), 'lib')
  assert.equal(existsSync(proof), false)
})

test('depth and number of submodules are bounded', async (t) => {
  const forge = await createForge(t)
  let inner = await forge.library('level5')
  for (let level = 4; level >= 0; level -= 1) {
    const outer = await forge.library(`level${level}`)
    const commit = await forge.commit(outer.origin, [
      { path: 'in', url: `../level${level + 1}.git`, commit: inner.commit },
    ])
    inner = { origin: outer.origin, commit }
    if (level !== 1) continue
    const five = await forge.commit(forge.site, [{ path: 'in', url: '../level1.git', commit }])
    assert.equal(existsSync(join(await forge.release(five), 'in/in/in/in/in/level5.txt')), true)
  }
  const six = await forge.commit(forge.site, [{ path: 'in', url: '../level0.git', commit: inner.commit }])
  await assert.rejects(
    forge.release(six),
    (error) => hasCode(error, 'unstartable') && /nested 6 deep/.test(error.message),
  )

  const many = Array.from({ length: 101 }, (_, n) => ({ path: `lib${n}`, url: '../level5.git', commit: inner.commit }))
  const crowd = await forge.commit(forge.site, many)
  await assert.rejects(
    forge.release(crowd),
    (error) => hasCode(error, 'unstartable') && /more than 100 submodules/.test(error.message),
  )
})

// --- In place -------------------------------------------------------------------------------------------------------

/** A clone of the site, brought to a commit as a checkout in place does it. */
async function createPlace({ bench, site }: Forge) {
  const workTree = join(bench.directory, 'place')
  await git(bench.directory, 'clone', '--quiet', site.path, workTree)
  const remote = bench.remote(site.path)
  const environment = { PATH: process.env['PATH'], HOME: bench.home }
  const openGit = createGit({ environment })
  const addExtras = createExtras({ mirrors: createMirrors({ openGit, log: { warn: () => {} } }), makeRepository })
  return {
    workTree,
    async bringTo(commit: Sha, submodules: Submodules = OWN) {
      await git(workTree, 'fetch', '--quiet')
      await git(workTree, 'reset', '--quiet', '--hard', commit)
      const session = openGit({ remote, doing: 'checking out', env: {}, timeoutMs: 120_000, signal: undefined })
      const gitDir = join(workTree, '.git')
      await addExtras({ workTree, gitDir, commit, remote, session, signal: undefined, submodules, lfs: false })
      return await git(workTree, 'status', '--porcelain')
    },
  }
}

test('in place submodules follow the commit: moved, changed, turned into files, gone, and their untracked files stay', async (t) => {
  const forge = await createForge(t)
  const lib = await forge.library('lib', { 'a.txt': 'a', 'b.txt': 'b' })
  const newer = await lib.origin.commit({ 'a.txt': null, 'b.txt': 'newer' })
  const declared = { path: 'lib', url: '../lib.git' }
  const one = await forge.commit(forge.site, [{ ...declared, commit: lib.commit }])
  const two = await forge.commit(forge.site, [{ ...declared, commit: newer }])
  const moved = await forge.commit(forge.site, [{ path: 'moved', url: '../lib.git', commit: newer }], {
    'lib/b.txt': 'own',
  })
  await git(forge.site.work, 'rm', '--quiet', '--cached', 'moved')
  const none = await forge.site.commit({ '.gitmodules': null, 'lib/b.txt': null })

  const place = await createPlace(forge)
  const names = (path: string) => readdirSync(join(place.workTree, path)).toSorted()
  assert.equal(await place.bringTo(one), '')
  writeFileSync(join(place.workTree, 'lib/untracked'), 'mine')
  writeFileSync(join(place.workTree, 'lib/b.txt'), 'edited')
  await place.bringTo(two)
  assert.deepEqual(names('lib'), ['.git', 'b.txt', 'untracked'])
  assert.equal(readFileSync(join(place.workTree, 'lib/b.txt'), 'utf8'), 'newer')
  rmSync(join(place.workTree, 'lib/untracked'))

  assert.equal(await place.bringTo(moved), '')
  assert.deepEqual([names('lib'), names('moved')], [['b.txt'], ['.git', 'b.txt']])
  assert.equal(readFileSync(join(place.workTree, 'lib/b.txt'), 'utf8'), 'own')
  writeFileSync(join(place.workTree, 'moved/untracked'), 'mine')
  assert.equal(await place.bringTo(none), '?? moved/')
  assert.deepEqual(names('moved'), ['untracked'])

  rmSync(join(place.workTree, 'moved'), { recursive: true })
  writeFileSync(join(place.workTree, '.git/landfall-submodules'), 'written by somebody else')
  await place.bringTo(one)
  assert.equal(await place.bringTo(one, null), '')
  assert.deepEqual(names('lib'), [], 'no longer wanted')
})

test('a submodule that was cloned by git itself is taken on, and one that a crash left half made', async (t) => {
  const forge = await createForge(t)
  const lib = await forge.library('lib', { 'a.txt': 'a', 'b.txt': 'b' })
  const newer = await lib.origin.commit({ 'a.txt': null })
  const one = await forge.commit(forge.site, [{ path: 'lib', url: '../lib.git', commit: lib.commit }])
  const two = await forge.commit(forge.site, [{ path: 'lib', url: '../lib.git', commit: newer }])
  const place = await createPlace(forge)
  const inside = join(place.workTree, 'lib')
  await git(place.workTree, 'reset', '--quiet', '--hard', one)
  await git(place.workTree, '-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'update', '--init')
  assert.equal(statSync(join(inside, '.git')).isFile(), true)
  assert.equal(await place.bringTo(two), '')
  assert.deepEqual(readdirSync(inside).toSorted(), ['.git', 'b.txt'])

  rmSync(join(inside, '.git'), { recursive: true })
  mkdirSync(join(inside, '.git.landfall-new'))
  assert.equal(await place.bringTo(two), '')
  rmSync(join(inside, '.git/HEAD'))
  assert.equal(await place.bringTo(two), '')
  assert.deepEqual(readdirSync(inside).toSorted(), ['.git', 'b.txt'])
})

test('a submodule is never written through a symlink, nor over files of no repository', async (t) => {
  const forge = await createForge(t)
  const lib = await forge.library('lib')
  const commit = await forge.commit(forge.site, [{ path: 'in/lib', url: '../lib.git', commit: lib.commit }])
  const place = await createPlace(forge)
  const outside = join(forge.bench.directory, 'outside')
  mkdirSync(join(outside, 'lib'), { recursive: true })
  await place.bringTo(commit, null)
  rmSync(join(place.workTree, 'in'), { recursive: true })
  symlinkSync(outside, join(place.workTree, 'in'))
  const gitDir = join(place.workTree, '.git')
  const openGit = createGit({ environment: { PATH: process.env['PATH'], HOME: forge.bench.home } })
  const addExtras = createExtras({ mirrors: createMirrors({ openGit, log: { warn: () => {} } }), makeRepository })
  const remote = forge.bench.remote(forge.site.path)
  const session = openGit({ remote, doing: 'checking out', env: {}, timeoutMs: 120_000, signal: undefined })
  const order = {
    workTree: place.workTree,
    gitDir,
    commit,
    remote,
    session,
    signal: undefined,
    submodules: OWN,
    lfs: false,
  }
  await assert.rejects(
    addExtras(order),
    (error) => hasCode(error, 'unstartable') && /in\/lib .*no directory/.test(error.message),
  )
  assert.deepEqual(readdirSync(join(outside, 'lib')), [])

  rmSync(join(place.workTree, 'in'))
  mkdirSync(join(place.workTree, 'in/lib'), { recursive: true })
  writeFileSync(join(place.workTree, 'in/lib/mine'), 'mine')
  await assert.rejects(
    addExtras(order),
    (error) => hasCode(error, 'unstartable') && /files of no repository/.test(error.message),
  )
  assert.deepEqual(readdirSync(join(place.workTree, 'in/lib')), ['mine'])
})

test('a submodule’s mirror that is damaged is made anew', async (t) => {
  const forge = await createForge(t)
  const lib = await forge.library('lib')
  const commit = await forge.commit(forge.site, [{ path: 'lib', url: '../lib.git', commit: lib.commit }])
  await forge.release(commit)
  const mirrors = `${forge.bench.remote('').mirror}.submodules`
  const objects = join(mirrors, readdirSync(mirrors)[0] ?? '', 'objects')
  for (const pack of readdirSync(join(objects, 'pack'))) writeFileSync(join(objects, 'pack', pack), 'damaged')
  const release = await forge.release(commit)
  assert.equal(readFileSync(join(release, 'lib/lib.txt'), 'utf8'), 'lib')
  assert.equal(await git(join(release, 'lib'), 'fsck', '--strict'), '')
})
