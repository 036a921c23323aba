import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { git, sha } from './support/git.ts'
import { type Bench, createBench, originIn, program } from './support/mirrors.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

function changedLines(bench: Bench): string[] {
  return readFileSync(join(bench.directory, 'changed'), 'utf8').split('\n').slice(0, -1)
}

function changedPaths(bench: Bench): string[] {
  return readFileSync(join(bench.directory, 'changed.z'), 'utf8').split('\0').slice(0, -1)
}

test('a release is a sound clone of its own that outlives the mirror and the remote', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench, { commits: 50, files: 12 })
  const remote = bench.remote(origin.path)
  await bench.fetch(remote)
  const tip = await origin.commit({ 'dir0/new.txt': 'new' }) // loose objects beside the pack
  await bench.fetch(remote)
  const release = await bench.checkOut(remote, tip)
  rmSync(remote.mirror, { recursive: true })
  rmSync(origin.path, { recursive: true })
  assert.equal(await git(release, 'rev-parse', 'HEAD'), tip)
  assert.equal(await git(release, 'rev-parse', '--abbrev-ref', 'HEAD'), 'HEAD')
  assert.equal(await git(release, 'rev-list', '--count', 'HEAD'), '51')
  assert.equal(await git(release, 'status', '--porcelain', '--ignored'), '')
  assert.equal(await git(release, 'fsck', '--strict'), '')
  assert.equal(await git(release, 'remote', 'get-url', 'origin'), origin.path)
  assert.equal(existsSync(join(release, '.git/objects/info/alternates')), false)
  assert.equal(readFileSync(join(release, 'dir0/new.txt'), 'utf8'), 'new')
  assert.equal(statSync(join(release, '..')).mode & 0o777, 0o755)
  assert.equal(statSync(release).mode & 0o777, 0o755)
  assert.equal(statSync(join(release, '.git')).mode & 0o777, 0o700)
})

test('objects are hard links, so a release costs little more than its files', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const { tip } = await bench.fetch(remote)
  const release = await bench.checkOut(remote, sha(String(tip)))
  const pack = join(release, '.git/objects/pack')
  const names = readdirSync(pack)
  assert.ok(names.some((name) => name.endsWith('.pack')))
  for (const name of names) assert.equal(statSync(join(pack, name)).nlink, 2, name)
})

test('objects are copied where the release lies on another file system', async (t) => {
  const other = '/dev/shm'
  if (!existsSync(other) || statSync(other).dev === statSync(process.env['TMPDIR'] ?? '/tmp').dev)
    return t.skip('needs a second file system at /dev/shm')
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const { tip } = await bench.fetch(remote)
  const directory = join(other, `landfall-test-${process.pid}`, 'release')
  t.after(() => rmSync(join(directory, '..'), { recursive: true, force: true }))
  await bench.checkOut(remote, sha(String(tip)), { directory })
  assert.equal(await git(directory, 'fsck', '--strict'), '')
})

test('origin is the clone URL without its credentials, and is written so that git reads the same', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const { tip } = await bench.fetch(bench.remote(origin.path))
  const urls = {
    'https://ada:s3cret@host/a b.git': 'https://host/a b.git',
    'https://host/"q"\\#;x.git': 'https://host/"q"\\#;x.git',
  }
  for (const [url, shown] of Object.entries(urls)) {
    const directory = join(bench.directory, 'releases', String(Object.keys(urls).indexOf(url)))
    await bench.checkOut(bench.remote(url), sha(String(tip)), { directory })
    assert.equal(await git(directory, 'config', 'remote.origin.url'), shown)
  }
})

test('the lists of changed paths name both sides of a rename, deletions, and every file where there is nothing to compare', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const strange = ['line\nbreak', 'quote"d', 'tab\tbed', 'back\\slash', 'ünï cödé', ' -n']
  const first = await origin.commit({
    ...Object.fromEntries(strange.map((name) => [name, name])),
    'sub/old.txt': 'same',
  })
  await git(origin.work, 'mv', 'sub/old.txt', 'sub/new.txt')
  const second = await origin.commit({ [strange[0] ?? '']: null, 'ünï cödé': 'changed' })
  await bench.fetch(remote)

  await bench.checkOut(remote, second, { previous: first })
  assert.deepEqual(changedPaths(bench), ['line\nbreak', 'sub/new.txt', 'sub/old.txt', 'ünï cödé'])
  assert.deepEqual(changedLines(bench), ['"line\\nbreak"', 'sub/new.txt', 'sub/old.txt', 'ünï cödé'])
  assert.equal(statSync(join(bench.directory, 'changed')).mode & 0o777, 0o600)
  assert.equal(statSync(join(bench.directory, 'changed.z')).mode & 0o777, 0o600)

  const all = [...strange, 'file.txt', 'sub/old.txt'].toSorted()
  for (const previous of [null, sha('1'.repeat(40))]) {
    await bench.checkOut(remote, first, { previous, directory: join(bench.directory, `all-${previous}`) })
    assert.deepEqual(changedPaths(bench).toSorted(), all)
  }
  const quotedAsGitDoes = await git(origin.work, '-c', 'core.quotePath=false', 'ls-tree', '-r', '--name-only', first)
  assert.deepEqual(
    changedLines(bench),
    quotedAsGitDoes.split('\n').map((line) => (line.endsWith('-n') ? ' -n' : line)),
  )

  await bench.checkOut(remote, second, { previous: second, directory: join(bench.directory, 'same') })
  assert.deepEqual([changedPaths(bench), changedLines(bench)], [[], []])
})

test('a path that is not UTF-8 keeps its bytes in the lists', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const name = Buffer.from([0x66, 0xff, 0xfe])
  writeFileSync(Buffer.concat([Buffer.from(`${origin.work}/`), name]), 'x')
  const tip = await origin.commit({ 'file.txt': 'y' })
  const remote = bench.remote(origin.path)
  const { tip: fetched } = await bench.fetch(remote)
  assert.equal(fetched, tip)
  await bench.checkOut(remote, tip)
  assert.ok(readFileSync(join(bench.directory, 'changed')).includes(name))
  assert.ok(readFileSync(join(bench.directory, 'changed.z')).includes(name))
})

test('a checkout that fails or is aborted leaves nothing, and one in the place of another run is refused', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  await bench.fetch(remote)
  await origin.commit({ '.gitattributes': '*.big filter=slow', 'a.big': 'x' })
  const { tip } = await bench.fetch(remote)
  const commit = sha(String(tip))
  const directory = join(bench.directory, 'releases', commit)
  const missing = bench.checkOut(remote, sha('1'.repeat(40)), { directory })
  await assert.rejects(missing, (error) => hasCode(error, 'git'))
  assert.equal(existsSync(directory), false)
  assert.deepEqual(bench.logged, [], 'a commit that is nowhere is no reason to clone a sound mirror again')

  program(bench.bin, 'slow', `touch '${bench.directory}/slow'; sleep 600`)
  writeFileSync(join(bench.home, '.gitconfig'), '[filter "slow"]\n\tsmudge = slow\n\trequired\n')
  const abort = new AbortController()
  const aborted = assert.rejects(bench.checkOut(remote, commit, {}, abort.signal), (error) => hasCode(error, 'aborted'))
  await until('the slow filter', () => existsSync(join(bench.directory, 'slow')))
  abort.abort()
  await aborted
  assert.equal(existsSync(directory), false)
  const late = bench.checkOut(remote, commit, { timeoutMs: 300 })
  await assert.rejects(late, (error) => hasCode(error, 'remote') && /took longer than/.test(error.message))
  assert.equal(existsSync(directory), false)

  rmSync(join(bench.home, '.gitconfig'))
  await bench.checkOut(remote, commit)
  await assert.rejects(bench.checkOut(remote, commit), (error) => hasCode(error, 'git'))
  assert.equal(readFileSync(join(directory, 'a.big'), 'utf8'), 'x')
})

test('a commit of a few kilobytes with a billion files is given up, and takes neither memory nor disk', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const made = (args: string[], input: string) =>
    spawnSync('git', ['-C', origin.path, ...args], { input, encoding: 'utf8' }).stdout.trim()
  const ten = (entry: string) => Array.from({ length: 10 }, (_, index) => `${entry}\t${index}\n`).join('')
  let tree = made(['mktree'], ten(`100644 blob ${made(['hash-object', '-w', '--stdin'], 'x')}`))
  for (let depth = 0; depth < 8; depth += 1) tree = made(['mktree'], ten(`040000 tree ${tree}`))
  const bomb = sha(made(['-c', 'user.name=x', '-c', 'user.email=x@example.com', 'commit-tree', '-m', 'x', tree], ''))
  await git(origin.path, 'update-ref', 'refs/heads/main', bomb)

  const { tip } = await bench.fetch(remote)
  assert.equal(tip, bomb)
  await assert.rejects(
    bench.checkOut(remote, bomb),
    (error) => hasCode(error, 'unstartable') && /given up: git printed more than 64 MB/.test(error.message),
  )
  assert.deepEqual(readdirSync(join(bench.directory, 'releases')), [])
})

test('a damaged file in the mirror is fetched again when a checkout meets it', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const { tip } = await bench.fetch(remote)
  const packs = join(remote.mirror, 'objects/pack')
  const pack = join(packs, readdirSync(packs).find((name) => name.endsWith('.pack')) ?? '')
  const listed = await git(remote.mirror, 'verify-pack', '-v', pack)
  // Two bytes into the blob, which no look at what is connected reads.
  const offset = Number(/ blob +\d+ \d+ (\d+)/.exec(listed)?.[1]) + 2
  const bytes = readFileSync(pack)
  chmodSync(pack, 0o644)
  writeFileSync(pack, bytes.fill(0xff, offset, offset + 4))
  const release = await bench.checkOut(remote, sha(String(tip)))
  assert.equal(await git(release, 'status', '--porcelain'), '')
  assert.equal(await git(release, 'fsck', '--strict'), '')
  assert.deepEqual(bench.logged, ['mirror-remade'])
})

test('data_dir inside somebody’s repository never touches that repository', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const outer = join(bench.directory, 'releases')
  await git(bench.directory, 'init', '--quiet', outer)
  writeFileSync(join(outer, 'mine.txt'), 'mine')
  await git(outer, 'add', 'mine.txt')
  // A user's setting under which git finds no bare repository by itself.
  writeFileSync(join(bench.home, '.gitconfig'), '[safe]\n\tbareRepository = explicit\n')
  const remote = bench.remote(origin.path, { mirror: join(outer, 'mirrors', 'one') })
  const { tip } = await bench.fetch(remote)
  rmSync(join(remote.mirror, 'HEAD'))
  await bench.checkOut(remote, sha(String(tip)))
  await assert.rejects(bench.checkOut(remote, sha('1'.repeat(40))))
  assert.equal(await git(outer, 'diff', '--cached', '--name-only'), 'mine.txt')
  assert.equal(readFileSync(join(outer, 'mine.txt'), 'utf8'), 'mine')
})

test('a hook in the committed files does not run, and a symlink in them stays a symlink', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const proof = join(bench.directory, 'proof')
  symlinkSync('/etc', join(origin.work, 'etc'))
  program(origin.work, 'evil', `touch '${proof}'`)
  const attributes = { '.gitattributes': '* filter=evil diff=evil\n' }
  const config = { '.gitconfig': '[filter "evil"]\n\tsmudge = ./evil\n', '.lfsconfig': '[lfs]\n\turl = x\n' }
  const tip = await origin.commit({ ...attributes, ...config })
  const remote = bench.remote(origin.path)
  await bench.fetch(remote)
  const release = await bench.checkOut(remote, tip)
  assert.equal(readlinkSync(join(release, 'etc')), '/etc')
  assert.equal(existsSync(proof), false)
})

test('a link is switched in one step, tells where it pointed, and is removed on demand', async (t) => {
  const directory = temporaryDirectory(t)
  const { work } = createBench(t)
  const link = join(directory, 'current')
  assert.equal(await work.switchLink({ link, to: null }), null)
  assert.equal(await work.switchLink({ link, to: '/releases/1' }), null)
  symlinkSync('/left/by/a/crash', join(directory, '.current.landfall-new'))
  assert.equal(await work.switchLink({ link, to: '/releases/2' }), '/releases/1')
  assert.equal(readlinkSync(link), '/releases/2')
  assert.equal(await work.switchLink({ link, to: null }), '/releases/2')
  assert.deepEqual(readdirSync(directory), [])
})

test('a link is there at every instant of a switch', async (t) => {
  const directory = temporaryDirectory(t)
  const { work } = createBench(t)
  const link = join(directory, 'current')
  await work.switchLink({ link, to: '/0' })
  let done = false
  const watching = (async () => {
    while (!done) {
      assert.ok(lstatSync(link, { throwIfNoEntry: false })?.isSymbolicLink())
      await new Promise((resolve) => setImmediate(resolve))
    }
  })()
  for (let n = 1; n < 200; n += 1) await work.switchLink({ link, to: `/${n}` })
  done = true
  await watching
})

test('what is no symbolic link is never replaced', async (t) => {
  const directory = temporaryDirectory(t)
  const { work } = createBench(t)
  const link = join(directory, 'current')
  mkdirSync(link)
  const refused = (error: unknown) => hasCode(error, 'unstartable') && error.message.includes(link)
  await assert.rejects(work.switchLink({ link, to: '/releases/1' }), refused)
  await assert.rejects(work.switchLink({ link, to: null }), refused)
  await assert.rejects(work.switchLink({ link: join(directory, 'none', 'current'), to: '/x' }), (error) =>
    hasCode(error, 'unstartable'),
  )
  assert.deepEqual(readdirSync(directory), ['current'])
})

test('removal takes everything in the directories, follows no symlink, and minds none that is missing', async (t) => {
  const directory = temporaryDirectory(t)
  const { work } = createBench(t)
  const [outside, inside] = [join(directory, 'outside'), join(directory, 'inside')]
  mkdirSync(outside)
  writeFileSync(join(outside, 'kept'), '')
  mkdirSync(join(inside, 'deep'), { recursive: true })
  symlinkSync(outside, join(inside, 'deep', 'link'))
  symlinkSync(outside, join(directory, 'link'))
  await work.remove([inside, join(directory, 'none'), join(directory, 'link')])
  assert.deepEqual(readdirSync(directory), ['outside'])
  assert.deepEqual(readdirSync(outside), ['kept'])
})

test('directories that were made read-only are removed without being root', {
  skip: process.getuid?.() !== 0 && 'needs root, to become somebody else',
}, (t) => {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o711)
  const [outside, tree] = [join(directory, 'outside'), join(directory, 'home', 'tree')]
  mkdirSync(outside, { mode: 0o555 })
  mkdirSync(join(tree, 'module', 'deep'), { recursive: true })
  symlinkSync(outside, join(tree, 'module', 'deep', 'link'))
  const source = new URL('../src/git/checkout.ts', import.meta.url).href
  const nobody = 65_534
  for (const path of [join(directory, 'home'), tree, join(tree, 'module'), join(tree, 'module', 'deep')]) {
    chownSync(path, nobody, nobody)
  }
  // What stands beside them is being removed while they are opened up.
  for (let n = 0; n < 200; n += 1) mkdirSync(join(tree, 'beside', String(n), 'a', 'b'), { recursive: true })
  execFileSync('chown', ['-R', `${nobody}:${nobody}`, join(tree, 'beside')])
  for (const path of [join(tree, 'module', 'deep'), join(tree, 'module')]) chmodSync(path, 0o555)
  // The imports happen as root, for the checkout may lie where others cannot read.
  const script = `const { createCheckouts } = await import(${JSON.stringify(source)})
    process.setgroups([]); process.setgid(${nobody}); process.setuid(${nobody})
    await createCheckouts({}).remove([${JSON.stringify(tree)}])`
  const removed = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', cwd: '/' })
  assert.equal(removed.stderr, '')
  assert.equal(existsSync(tree), false)
  assert.equal(statSync(outside).mode & 0o777, 0o555)
})
