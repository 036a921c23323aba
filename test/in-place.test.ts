import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { GIT_ENV, git } from './support/git.ts'
import { createInPlaceBench } from './support/in-place.ts'

test('a tree is made where nothing is, is a sound clone on its branch, and outlives the mirror', async (t) => {
  const bench = await createInPlaceBench(t, { commits: 20, files: 12 })
  const tip = await bench.fetch()
  const { was, notes } = await bench.bring(tip)
  assert.equal(was, null)
  assert.deepEqual(notes, [`made ${bench.path}`])
  rmSync(bench.remote.mirror, { recursive: true })
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
  assert.equal(await bench.git('symbolic-ref', 'HEAD'), 'refs/heads/main')
  assert.equal(await bench.git('rev-parse', '--abbrev-ref', 'main@{upstream}'), 'origin/main')
  assert.equal(await bench.git('status', '--porcelain', '--branch', '--ignored'), '## main...origin/main')
  assert.equal(await bench.git('rev-list', '--count', 'HEAD'), '20')
  assert.equal(await bench.git('fsck', '--strict'), '')
  assert.equal(await bench.git('remote', 'get-url', 'origin'), bench.origin.path)
  assert.equal(existsSync(join(bench.path, '.git/objects/info/alternates')), false)
  assert.equal(statSync(join(bench.path, '.git')).mode & 0o777, 0o700)
  assert.equal(bench.changed().length, 12)
})

test('an empty directory, a symlink to one, and what a crash left half made become a tree', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  const real = join(bench.directory, 'real')
  mkdirSync(join(real, '.git.landfall-new/objects'), { recursive: true })
  symlinkSync(real, bench.path)
  await bench.bring(tip)
  assert.equal(await git(real, 'rev-parse', 'HEAD'), tip)
  assert.equal(await bench.status(), '')
})

test('a later run moves the tree and its view of the remote, keeps untracked files, and takes few git commands', async (t) => {
  const bench = await createInPlaceBench(t, { commits: 3, files: 5 })
  const first = await bench.fetch()
  await bench.bring(first)
  bench.write({ 'uploads/a.jpg': 'mine', 'notes.txt': 'mine' })
  const second = await bench.origin.commit({
    'dir0/file0.txt': null,
    'new/a b.txt': 'new',
    'dir1/file1.txt': 'changed',
  })
  await bench.fetch()
  bench.started()
  const { was, notes } = await bench.bring(second, { previous: first })
  const started = bench.started()
  assert.equal(was, first)
  assert.deepEqual(notes, [])
  assert.ok(started.length <= 6, started.join('\n'))
  assert.deepEqual(bench.changed().toSorted(), ['dir0/file0.txt', 'dir1/file1.txt', 'new/a b.txt'])
  assert.equal(await bench.git('status', '--porcelain', '--branch'), '## main...origin/main\n?? notes.txt\n?? uploads/')
  assert.equal(await bench.git('rev-parse', 'HEAD'), second)
  assert.equal(bench.read('uploads/a.jpg'), 'mine')
  assert.equal(readFileSync(bench.patch, 'utf8'), '')
  rmSync(bench.remote.mirror, { recursive: true })
  assert.equal(await bench.git('fsck', '--strict'), '')
})

test('a commit behind the tip is a tree behind its remote, and no branch is a detached HEAD', async (t) => {
  const bench = await createInPlaceBench(t, { commits: 5 })
  const tip = await bench.fetch()
  await bench.bring(tip)
  const old = (await bench.git('rev-parse', 'HEAD~2')) as typeof tip
  await bench.bring(old)
  assert.equal(await bench.git('status', '--porcelain', '--branch'), '## main...origin/main [behind 2]')
  await bench.bring(tip, { branch: null })
  assert.equal(await bench.git('rev-parse', '--abbrev-ref', 'HEAD'), 'HEAD')
  assert.equal(await bench.git('rev-parse', 'main'), old)
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
})

test('a force push leaves nothing to be saved, and other branches of the tree stay as they are', async (t) => {
  const bench = await createInPlaceBench(t, { commits: 3 })
  const first = await bench.fetch()
  await bench.bring(first)
  await bench.git('branch', 'mine')
  await bench.origin.forceTo(`${first}~1`)
  const second = await bench.origin.commit({ 'other.txt': 'x' })
  await bench.fetch()
  assert.deepEqual((await bench.bring(second, { previous: first })).notes, [])
  assert.equal(await bench.git('rev-parse', 'mine'), first)
  assert.equal(await bench.git('status', '--porcelain', '--branch'), '## main...origin/main')
})

test('a branch whose name is a directory of an older one is fetched and checked out', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.origin.branch('a', 'main')
  const one = await bench.origin.commit({ 'a.txt': '1' })
  await bench.fetch('a')
  await bench.bring(one, { branch: 'a' })
  await bench.origin.branch('main')
  await bench.origin.deleteBranch('a')
  await git(bench.origin.work, 'branch', '-D', 'a')
  await bench.origin.branch('a/b', 'main')
  const two = await bench.origin.commit({ 'a.txt': '2' })
  await bench.fetch('a/b')
  // The local branch `a` is a person's to rename.
  await assert.rejects(bench.bring(two, { branch: 'a/b' }), (error) => {
    return hasCode(error, 'unstartable') && /refs\/heads\/a' exists.*Rename or delete/.test(error.message)
  })
  await bench.git('checkout', '--quiet', '--detach')
  await bench.git('branch', '-D', 'a')
  await bench.bring(two, { branch: 'a/b' })
  assert.equal(await bench.git('symbolic-ref', 'HEAD'), 'refs/heads/a/b')
  assert.equal(await bench.git('rev-parse', 'HEAD'), two)
})

test('clean removes untracked files, and neither ignored ones nor repositories of their own', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.origin.commit({ '.gitignore': 'cache/\n' })
  const tip = await bench.fetch()
  await bench.bring(tip)
  bench.write({ 'cache/x': 'x', 'stray/deep/file': 'x', stray2: 'x', '-rf': 'x', 'new\nline': 'x' })
  mkdirSync(join(bench.path, 'nested'))
  await git(join(bench.path, 'nested'), 'init', '--quiet')
  bench.write({ 'nested/mine': 'x' })
  await bench.bring(tip, { clean: true })
  assert.deepEqual((await bench.status()).split('\n'), ['?? nested/', '!! cache/x'])
  assert.equal(bench.read('nested/mine'), 'x')
})

test('restore brings the tree back to where it was, and the edits of the script go', async (t) => {
  const bench = await createInPlaceBench(t, { commits: 2, files: 3 })
  const first = await bench.fetch()
  await bench.bring(first)
  const second = await bench.origin.commit({ 'new.txt': 'new' })
  await bench.fetch()
  const order = bench.order(second)
  const { was } = await bench.bring(second)
  assert.equal(was, first)
  bench.write({ 'dir0/file0.txt': 'edited by the script', 'log.txt': 'untracked' })
  rmSync(join(bench.path, 'new.txt'))
  await bench.work.restore({ ...order, commit: first })
  assert.equal(await bench.git('rev-parse', 'HEAD'), first)
  assert.equal(await bench.git('symbolic-ref', 'HEAD'), 'refs/heads/main')
  assert.equal(await bench.status(), '?? log.txt')
  await bench.git('remote', 'set-url', 'origin', 'https://elsewhere.example/a/b')
  await assert.rejects(bench.work.restore({ ...order, commit: second }), (error) => hasCode(error, 'unstartable'))
  assert.equal(await bench.git('rev-parse', 'HEAD'), first)
})

test('a repository of SHA-256 is made and moved like any other', async (t) => {
  const bench = await createInPlaceBench(t, { format: 'sha256', commits: 2 })
  const first = await bench.fetch()
  await bench.bring(first)
  const second = await bench.origin.commit({ 'new.txt': 'new' })
  await bench.fetch()
  bench.write({ 'file.txt': 'edited' })
  const { notes } = await bench.bring(second, { previous: first })
  assert.equal(notes.length, 1)
  assert.deepEqual(bench.changed(), ['new.txt'])
  assert.equal(await bench.git('rev-parse', 'HEAD'), second)
  assert.equal(await bench.git('fsck', '--strict'), '')
})

test('packs do not become more and more', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  await bench.bring(tip)
  const pack =
    'for n in $(seq 40); do echo $n | git hash-object -w --stdin | git pack-objects -q .git/objects/pack/pack; done'
  execFileSync('sh', ['-c', pack], { cwd: bench.path, env: GIT_ENV, stdio: 'ignore' })
  await bench.bring(tip)
  const packs = await bench.git('count-objects', '-v')
  assert.ok(Number(/packs: (\d+)/.exec(packs)?.[1]) <= 30, packs)
  assert.equal(await bench.git('fsck', '--strict', '--no-dangling'), '')
  assert.equal(await bench.git('cat-file', '-p', '00750edc07d6415dcc07ae0351e9397b0222b7ba'), '3', 'reachable or not')
})

test('a branch name that git or a path could misread is refused before anything is touched', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  for (const branch of ['-f', '../../../x', 'a b', 'x.lock', '', 'a\n[core]']) {
    await assert.rejects(bench.bring(tip, { branch }), (error) => hasCode(error, 'git'))
  }
  assert.equal(existsSync(bench.path), false)
})
