import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { git } from './support/git.ts'
import { applied, assertRefused, cloned, createInPlaceBench } from './support/in-place.ts'

test('every kind of edit is in the patch, which applies to the commit that was edited', async (t) => {
  const bench = await createInPlaceBench(t)
  const names = [
    'deleted',
    'renamed',
    'run.sh',
    'link',
    'staged',
    'twice',
    'sp ace',
    'üñí',
    'new\nline',
    '"q"\\',
    ' lead',
  ]
  await bench.origin.commit(Object.fromEntries([...names, 'same'].map((name) => [name, `${name}\n`])))
  await bench.origin.commit({ '.gitattributes': '*.bin diff=x\ntext.x diff=x\n', 'a.bin': '\0\x01', 'text.x': 'x\n' })
  const old = await bench.fetch()
  await bench.bring(old)
  const tip = await bench.origin.commit(
    Object.fromEntries(['staged', 'sp ace', 'fresh', 'a.bin'].map((name) => [name, 'of the commit'])),
  )
  await bench.fetch()
  // Whatever a person likes to see of a diff.
  for (const [key, value] of Object.entries({
    'diff.noprefix': 'true',
    'diff.external': '/bin/false',
    'diff.x.textconv': '/bin/false',
    'diff.x.command': '/bin/false',
    'color.ui': 'always',
    'diff.renames': 'copies',
    'diff.context': '0',
    'diff.orderFile': '/nowhere',
    'diff.relative': 'true',
  })) {
    await bench.git('config', key, value)
  }
  rmSync(join(bench.path, 'deleted'))
  renameSync(join(bench.path, 'renamed'), join(bench.path, 'renamed to'))
  chmodSync(join(bench.path, 'run.sh'), 0o755)
  rmSync(join(bench.path, 'link'))
  symlinkSync('same', join(bench.path, 'link'))
  bench.write({
    staged: 'in the index',
    'sp ace': 'edited',
    üñí: 'edited',
    'new\nline': 'edited',
    '"q"\\': 'edited',
    ' lead': 'edited',
  })
  bench.write({
    'a.bin': '\0\xff\0',
    'text.x': 'edited',
    twice: 'in the index',
    'only staged': 'in the index',
    fresh: 'untracked',
  })
  await bench.git('add', 'staged', 'twice', 'only staged', 'renamed to', 'renamed')
  bench.write({ twice: 'on disk' })
  rmSync(join(bench.path, 'only staged'))
  bench.write({ intended: 'with add -N' })
  await bench.git('add', '--intent-to-add', 'intended')

  const expected = Object.fromEntries(
    ['deleted', 'renamed', 'renamed to', ...names, 'a.bin', 'text.x', 'intended', 'fresh', 'same'].map((name) => [
      name,
      existsSync(join(bench.path, name)) ? bench.read(name) : null,
    ]),
  )
  const { was, notes } = await bench.bring(tip, { previous: old })
  assert.equal(was, old)
  assert.match(notes.join(), /the edits of 16 files and 1 untracked file, in /)
  assert.equal(await bench.status(), '')
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
  assert.match(readFileSync(bench.patch, 'utf8'), /^\+in the index$/m, 'what was only staged')
  const fresh = await applied(bench, old)
  for (const [name, text] of Object.entries(expected)) {
    const file = join(fresh, name)
    assert.equal(existsSync(file) ? readFileSync(file, 'utf8') : null, text, name)
  }
  assert.match(await git(fresh, 'diff', '--summary'), /mode change 100644 => 100755 run\.sh/)
})

test('commits made in the tree later are kept under a ref, and pushed ones are not', async (t) => {
  const { bench, tip } = await cloned(t)
  await bench.bring(tip)
  await bench.git('commit', '--quiet', '--allow-empty', '-m', 'mine')
  const mine = await bench.git('rev-parse', 'HEAD')
  const { notes } = await bench.bring(tip, { run: 8 })
  assert.deepEqual(notes, ['kept 1 commit that the remote does not have as refs/landfall/before-run-8'])
  assert.equal(await bench.git('rev-parse', 'refs/landfall/before-run-8'), mine)
  await bench.git('commit', '--quiet', '--allow-empty', '-m', 'mine')
  await bench.git('push', '--quiet', 'origin', 'HEAD:main')
  assert.deepEqual((await bench.bring(await bench.fetch(), { run: 9 })).notes, [])
})

test('what the remote has taken back is not a commit of somebody’s', async (t) => {
  const { bench, old, tip } = await cloned(t)
  await bench.bring(tip)
  await bench.git('commit', '--quiet', '--allow-empty', '-m', 'mine')
  await bench.origin.forceTo(old)
  rmSync(bench.remote.mirror, { recursive: true })
  await bench.fetch()
  await bench.git('update-ref', 'refs/remotes/origin/main', old)
  assert.match((await bench.bring(old)).notes.join(), /kept 1 commit that/)
})

test('edits that git was told to overlook are saved later, and a sparse checkout becomes whole', async (t) => {
  const { bench, tip } = await cloned(t)
  await bench.bring(tip)
  await bench.git('update-index', '--skip-worktree', 'dir0/file0.txt')
  await bench.git('update-index', '--assume-unchanged', 'dir1/file1.txt')
  bench.write({ 'dir0/file0.txt': 'hidden edit', 'dir1/file1.txt': 'another' })
  const { notes } = await bench.bring(tip)
  assert.match(notes.join(), /the edits of 2 files/)
  const fresh = await applied(bench, tip)
  assert.equal(readFileSync(join(fresh, 'dir0/file0.txt'), 'utf8'), 'hidden edit')
  assert.equal(readFileSync(join(bench.path, 'dir1/file1.txt'), 'utf8'), 'changed')
  await bench.git('sparse-checkout', 'set', 'dir0')
  assert.equal(existsSync(join(bench.path, 'dir1/file1.txt')), false)
  assert.deepEqual((await bench.bring(tip)).notes, [])
  assert.equal(bench.read('dir1/file1.txt'), 'changed')
  assert.deepEqual((await bench.bring(tip)).notes, [])
})

test('a repository of its own where the commit has files is never overwritten', async (t) => {
  const { bench, tip } = await cloned(t)
  await bench.bring(tip)
  mkdirSync(join(bench.path, 'vendor/lib'), { recursive: true })
  await git(join(bench.path, 'vendor/lib'), 'init', '--quiet')
  bench.write({ 'vendor/lib/mine': 'mine' })
  const inside = await bench.origin.commit({ 'vendor/lib/file': 'x' })
  await bench.fetch()
  await assertRefused(bench, inside, /vendor\/lib is a repository of its own/, { adopt: true })
  await bench.origin.commit({ 'vendor/lib/file': null })
  const instead = await bench.origin.commit({ vendor: 'a file' })
  await bench.fetch()
  await assertRefused(bench, instead, /vendor\/lib is a repository of its own/, { adopt: true })
  assert.equal(bench.read('vendor/lib/mine'), 'mine')
})

test('a submodule in the tree is left as it is, and stands in nobody’s way', async (t) => {
  const { bench } = await cloned(t)
  await git(
    bench.origin.work,
    '-c',
    'protocol.file.allow=always',
    'submodule',
    '--quiet',
    'add',
    bench.origin.path,
    'sub',
  )
  const first = await bench.origin.commit({ 'x.txt': 'x' })
  await bench.fetch()
  mkdirSync(join(bench.path, 'sub'))
  await git(bench.path, 'clone', '--quiet', bench.origin.path, 'sub')
  await bench.bring(first)
  bench.write({ 'sub/new.txt': 'edited in there' })
  await git(join(bench.path, 'sub'), 'checkout', '--quiet', 'HEAD~1')
  const second = await bench.origin.commit({ 'x.txt': 'y' })
  await bench.fetch()
  rmSync(join(bench.path, '.git/landfall')) // also at a first takeover
  assert.deepEqual((await bench.bring(second)).notes, [])
  assert.equal(await bench.git('rev-parse', 'HEAD'), second)
  assert.equal(bench.read('sub/new.txt'), 'edited in there')
})

test('what a conflict has left on disk is saved', async (t) => {
  const { bench, old, tip } = await cloned(t)
  await bench.git('checkout', '--quiet', '-b', 'side', old)
  bench.write({ 'dir1/file1.txt': 'mine' })
  await bench.git('commit', '--quiet', '-a', '-m', 'mine')
  const mine = await bench.git('rev-parse', 'HEAD')
  await bench.git('fetch', '--quiet')
  await assert.rejects(bench.git('merge', 'origin/main'))
  bench.write({ 'dir1/file1.txt': 'half resolved' })
  await assertRefused(bench, tip, /edits of 2 files, 1 commit that the remote does not have, a merge/)
  await bench.bring(tip, { adopt: true })
  assert.equal(await bench.status(), '')
  assert.equal(existsSync(join(bench.path, '.git/MERGE_HEAD')), false)
  const fresh = await applied(bench, mine)
  assert.equal(readFileSync(join(fresh, 'dir1/file1.txt'), 'utf8'), 'half resolved')
})
