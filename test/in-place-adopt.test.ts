import assert from 'node:assert/strict'
import { chownSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { git } from './support/git.ts'
import { applied, assertRefused, cloned, createInPlaceBench, type InPlaceBench } from './support/in-place.ts'

test('a clean clone is taken over as it is, with its untracked files', async (t) => {
  const { bench, old, tip } = await cloned(t)
  bench.write({ 'uploads/a': 'mine' })
  const { was, notes } = await bench.bring(tip)
  assert.deepEqual([was, notes], [old, []])
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
  assert.equal(await bench.status(), '?? uploads/a')
})

const SOMEBODYS: Readonly<Record<string, [prepare: (bench: InPlaceBench) => unknown, words: RegExp]>> = {
  'an edit': [(b) => b.write({ 'dir0/file0.txt': 'edited' }), /edits of 1 file\b.*adopt = true/],
  'a staged file': [
    async (b) => {
      b.write({ 'staged.txt': 'staged' })
      await b.git('add', 'staged.txt')
    },
    /edits of 1 file/,
  ],
  'an untracked file where the commit has one': [
    (b) => b.write({ 'new.txt': 'mine' }),
    /1 untracked file that would be lost/,
  ],
  'an untracked file where the commit needs a directory': [
    async (b) => {
      await b.origin.commit({ 'cgi/x/run': 'x' })
      b.write({ cgi: 'mine' })
    },
    /1 untracked file that/,
  ],
  'untracked files in a directory where the commit has a file': [
    (b) => b.write({ 'new.txt/a': 'mine', 'new.txt/b/c': 'mine' }),
    /2 untracked files that/,
  ],
  'a commit that was not pushed': [
    (b) => b.git('commit', '--quiet', '--allow-empty', '-m', 'mine'),
    /1 commit that the remote does not have/,
  ],
  'a commit of a detached HEAD': [
    async (b) => {
      await b.git('checkout', '--quiet', '--detach')
      await b.git('commit', '--quiet', '--allow-empty', '-m', 'mine')
      await b.git('commit', '--quiet', '--allow-empty', '-m', 'mine too')
    },
    /2 commits that the remote does not have/,
  ],
  'a commit on the branch that would move, beside the one that is checked out': [
    async (b) => {
      await b.git('commit', '--quiet', '--allow-empty', '-m', 'mine')
      await b.git('checkout', '--quiet', '-b', 'other', 'HEAD~1')
    },
    /1 commit that the remote does not have/,
  ],
  'a file whose edits git was told to overlook': [
    async (b) => {
      await b.git('update-index', '--skip-worktree', 'dir0/file0.txt')
      await b.git('update-index', '--assume-unchanged', 'dir1/file1.txt')
    },
    /2 files that git was told not to look at/,
  ],
  'a merge that was not finished': [
    async (b) => {
      await b.git('checkout', '--quiet', '-b', 'side', 'HEAD~1')
      await b.git('merge', '--quiet', '--no-ff', '--no-commit', 'main')
      await b.git('checkout', '--quiet', 'HEAD', '--', '.')
      await b.git('read-tree', 'HEAD')
    },
    /a merge that was not finished/,
  ],
  'a bisection': [(b) => b.git('bisect', 'start'), /a bisect that was not finished/],
}
for (const [what, [prepare, words]] of Object.entries(SOMEBODYS)) {
  test(`a clone with ${what} is refused and untouched, and taken over where adoption is wanted`, async (t) => {
    const { bench } = await cloned(t)
    await prepare(bench)
    const tip = await bench.fetch()
    await assertRefused(bench, tip, words)
    const head = await bench.git('rev-parse', 'HEAD')
    const own = await bench.git('rev-list', 'HEAD', 'main', '--not', '--remotes')
    const { notes } = await bench.bring(tip, { adopt: true })
    assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
    assert.equal(await bench.git('symbolic-ref', 'HEAD'), 'refs/heads/main')
    assert.equal(await bench.status(), '')
    if (own !== '') {
      assert.match(notes.join('\n'), /kept . commits? that the remote does not have as refs\/landfall\/before-run-7/)
      assert.equal(
        await bench.git(
          'rev-list',
          '--count',
          '--exclude=refs/heads/*',
          ...own.split('\n'),
          '--not',
          '--glob=refs/landfall/*',
        ),
        '0',
      )
    }
    if (readFileSync(bench.patch, 'utf8') !== '') await applied(bench, head)
  })
}

test('untracked files count where clean would remove them, and are saved when it does at a takeover', async (t) => {
  const { bench, old, tip } = await cloned(t)
  bench.write({ 'uploads/a b': 'mine' })
  await assertRefused(bench, tip, /1 untracked file that would be lost/, { clean: true })
  const { notes } = await bench.bring(tip, { clean: true, adopt: true })
  assert.match(notes.join(), /1 untracked file, in .*edits\.patch, which applies to [0-9a-f]{40}/)
  assert.equal(await bench.status(), '')
  assert.equal(readFileSync(join(await applied(bench, old), 'uploads/a b'), 'utf8'), 'mine')
})

test('commits that the remote has, though the clone has not heard of it, are not taken for somebody’s', async (t) => {
  const { bench, tip } = await cloned(t)
  await bench.git('fetch', '--quiet', 'origin', 'main')
  await bench.git('reset', '--quiet', '--hard', tip)
  await bench.git('update-ref', '-d', 'refs/remotes/origin/main')
  await bench.git('symbolic-ref', '-d', 'refs/remotes/origin/HEAD')
  assert.deepEqual((await bench.bring(tip)).notes, [])
})

const PLACES: Readonly<Record<string, [prepare: (bench: InPlaceBench) => unknown, words: RegExp]>> = {
  'files and no clone': [(b) => b.write({ 'index.html': 'mine' }), /holds files and is no clone/],
  'a bare repository': [
    (b) => git(b.directory, 'clone', '--quiet', '--bare', b.origin.path, b.path),
    /is a bare repository/,
  ],
  'a repository configured as bare': [
    (b) => b.clone().then(() => b.git('config', 'core.bare', 'true')),
    /core\.bare false/,
  ],
  'a linked work tree': [
    (b) => git(b.origin.work, 'worktree', 'add', '--quiet', '-b', 'linked', b.path),
    /is a work tree or submodule of another repository/,
  ],
  'a .git that is a symlink': [
    async (b) => {
      await b.clone()
      renameSync(join(b.path, '.git'), join(b.directory, 'elsewhere'))
      symlinkSync(join(b.directory, 'elsewhere'), join(b.path, '.git'))
    },
    /its \.git is not a directory/,
  ],
  'files that its configuration puts elsewhere': [
    (b) => b.clone().then(() => b.git('config', 'core.worktree', b.directory)),
    /puts its files elsewhere.*unset core\.worktree/,
  ],
  'a clone of another repository': [
    (b) => b.clone().then(() => b.git('remote', 'set-url', 'origin', 'https://ada:s3cret@elsewhere.example/a/b')),
    /is a clone of https:\/\/elsewhere\.example\/a\/b, .*it was left alone.*remote set-url origin/,
  ],
  'a clone whose branch is checked out elsewhere too': [
    async (b) => {
      await b.clone()
      await b.git('checkout', '--quiet', '--detach')
      await b.git('worktree', 'add', '--quiet', join(b.directory, 'linked'), 'main')
    },
    /main is checked out in a linked work tree/,
  ],
  'a repository without a remote': [
    (b) => b.clone().then(() => b.git('remote', 'remove', 'origin')),
    /remote add origin/,
  ],
  'a clone of another account’s': [
    (b) => b.clone().then(() => chownSync(join(b.path, '.git'), 65534, 65534)),
    /belongs to nobody, .*chown -R/,
  ],
  'a directory of another account’s': [
    (b) => b.clone().then(() => chownSync(b.path, 65534, 65534)),
    /belongs to nobody, .*user = "nobody".*chown -R/,
  ],
}
for (const [what, [prepare, words]] of Object.entries(PLACES)) {
  test(`${what} is refused and untouched, also with adopt`, async (t) => {
    if (/account/.test(what) && process.getuid?.() !== 0) return t.skip('needs root, to give files away')
    const bench = await createInPlaceBench(t)
    const tip = await bench.fetch()
    await prepare(bench)
    await assertRefused(bench, tip, words, { adopt: true })
    await assert.rejects(bench.bring(tip), (error: Error) => !error.message.includes('s3cret'))
  })
}

test('a file, a symlink to nothing and a missing parent are refused with what to do', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  const refused = async (path: string, words: RegExp) =>
    await assert.rejects(
      bench.bring(tip, { path }),
      (error: Error) => hasCode(error, 'unstartable') && words.test(error.message),
    )
  writeFileSync(join(bench.directory, 'file'), '')
  symlinkSync('/nowhere/at all', join(bench.directory, 'dangling'))
  await refused(join(bench.directory, 'file'), /it is no directory/)
  await refused(join(bench.directory, 'dangling'), /symlink that points to nothing/)
  await refused(join(bench.directory, 'no parent', 'x'), /run: mkdir -p '.*no parent'/)
})

test('the tree of another target is refused until a person hands it over', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  await bench.bring(tip)
  await assertRefused(bench, tip, /the working tree of the target "site".*remove .*\.git\/landfall/, {
    instance: 'other',
    adopt: true,
  })
  rmSync(join(bench.path, '.git/landfall'))
  await bench.bring(tip, { instance: 'other' })
})

for (const options of [['--depth=1'], ['--filter=blob:none'], ['--no-checkout'], ['--sparse'], ['--single-branch']]) {
  test(`a clone made with ${options.join()} is taken over`, async (t) => {
    const bench = await createInPlaceBench(t, { commits: 3, files: 4 })
    await git(bench.origin.path, 'config', 'uploadpack.allowFilter', 'true')
    await bench.fetch()
    await git(bench.directory, 'clone', '--quiet', ...options, `file://${bench.origin.path}`, bench.path)
    const tip = await bench.origin.commit({ 'dir1/file1.txt': 'changed' })
    await bench.fetch()
    await bench.bring(tip, { adopt: options.includes('--no-checkout') || options.includes('--sparse') })
    assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
    assert.equal(await bench.status(), '')
    assert.equal(bench.read('dir1/file1.txt'), 'changed')
    const next = await bench.origin.commit({ 'dir1/file1.txt': null })
    await bench.fetch()
    bench.write({ 'dir2/file2.txt': 'edited' })
    assert.equal((await bench.bring(next)).notes.length, 1)
    assert.equal(await bench.status(), '')
  })
}

test('a repository without a commit is taken over, and what is staged in it is saved', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  await git(bench.directory, 'init', '--quiet', '-b', 'main', bench.path)
  await bench.git('remote', 'add', 'origin', bench.origin.path)
  bench.write({ 'file.txt': 'mine', other: 'mine' })
  await bench.git('add', 'other')
  await assertRefused(bench, tip, /edits of 1 file, 1 untracked file that would be lost/)
  const { was, notes } = await bench.bring(tip, { adopt: true })
  assert.equal(was, null)
  assert.match(notes.join(), /the edits of 1 file and 1 untracked file/)
  assert.match(readFileSync(bench.patch, 'utf8'), /b\/file\.txt[\s\S]*b\/other/)
  assert.equal(await bench.status(), '')
})
