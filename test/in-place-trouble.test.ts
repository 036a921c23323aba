import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { hasCode } from '../src/errors.ts'
import type { InPlaceOrder } from '../src/work.ts'
import { applied, createInPlaceBench, type InPlaceBench } from './support/in-place.ts'
import { program } from './support/mirrors.ts'
import { until } from './support/until.ts'

const PROCESS = fileURLToPath(new URL('support/in-place-process.ts', import.meta.url))

/** A checkout in a process group of its own, which the kernel kills as soon as the filter `slow` is at work. */
async function dieInTheMiddle(bench: InPlaceBench, order: InPlaceOrder): Promise<void> {
  const started = join(bench.directory, 'started')
  const config = join(bench.home, '.gitconfig')
  rmSync(started, { force: true })
  writeFileSync(config, `[filter "slow"]\n\tsmudge = "touch '${started}'; exec sleep 1000"\n`)
  const env = { PATH: process.env['PATH'], HOME: bench.home }
  const child: ChildProcess = spawn(process.execPath, [PROCESS, JSON.stringify(order)], { detached: true, env })
  const ended = once(child, 'exit')
  await until('the filter runs', () => existsSync(started))
  process.kill(-Number(child.pid), 'SIGKILL')
  await ended
  writeFileSync(config, '[filter "slow"]\n\tsmudge = cat\n')
}

test('a process that is killed in the middle leaves a tree that the next run completes', async (t) => {
  const bench = await createInPlaceBench(t, { files: 4 })
  const old = await bench.fetch()
  await bench.bring(old)
  await bench.origin.commit({ '.gitattributes': '*.slow filter=slow\n' })
  const tip = await bench.origin.commit({ 'dir0/file0.txt': 'changed', 'dir1/file1.txt': null, 'z.slow': 'slow' })
  await bench.fetch()
  bench.write({ 'dir2/file2.txt': 'edited', mine: 'untracked' })
  await dieInTheMiddle(bench, bench.order(tip))
  assert.ok(existsSync(join(bench.path, '.git/index.lock')), 'it died where it should')
  assert.match(readFileSync(bench.patch, 'utf8'), /^\+edited$/m, 'saved before anything was undone')
  const fresh = await applied(bench, old)
  assert.equal(readFileSync(join(fresh, 'dir2/file2.txt'), 'utf8'), 'edited')

  const { notes } = await bench.bring(tip, { previous: old })
  assert.equal(await bench.status(), '?? mine')
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
  assert.equal(bench.read('z.slow'), 'slow')
  assert.deepEqual(
    readdirSync(join(bench.path, '.git')).filter((name) => name.endsWith('.lock')),
    [],
  )
  assert.ok(notes.length === 0 || /an earlier run ended in the middle/.test(notes[0] ?? ''), notes.join('\n'))
  assert.deepEqual((await bench.bring(tip)).notes, [])
})

test('a process that is killed while it makes a tree leaves one that the next run completes', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.origin.commit({ '.gitattributes': '*.slow filter=slow\n', a: 'a' })
  const tip = await bench.origin.commit({ 'z.slow': 'slow' })
  await bench.fetch()
  await dieInTheMiddle(bench, bench.order(tip))
  assert.ok(existsSync(join(bench.path, '.git/index.lock')), 'it died where it should')
  await bench.bring(tip)
  assert.equal(await bench.status(), '')
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
  assert.equal(await bench.git('symbolic-ref', 'HEAD'), 'refs/heads/main')
})

test('a git that is killed alone leaves a lock that the next run knows as its own', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.bring(await bench.fetch())
  await bench.origin.commit({ '.gitattributes': '*.slow filter=slow\n' })
  const tip = await bench.origin.commit({ 'z.slow': 'slow' })
  await bench.fetch()
  await bench.git('config', 'filter.slow.smudge', 'kill -9 $PPID')
  await assert.rejects(bench.bring(tip), (error) => hasCode(error, 'git'))
  assert.ok(existsSync(join(bench.path, '.git/index.lock')), 'it died where it should')
  await bench.git('config', 'filter.slow.smudge', 'cat')
  await bench.bring(tip)
  assert.equal(await bench.status(), '')
})

test('a git of somebody else’s is waited for, whatever it has locked, and its lock is never removed', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.bring(await bench.fetch())
  const tip = await bench.origin.commit({ 'file.txt': 'new' })
  await bench.fetch()
  for (const name of ['index.lock', 'HEAD.lock', 'refs/heads/main.lock']) {
    const lock = join(bench.path, '.git', name)
    writeFileSync(lock, '')
    bench.started()
    for (const _ of ['once', 'again']) {
      await assert.rejects(bench.bring(tip), (error: Error) => {
        assert.ok(hasCode(error, 'git'), 'trying again may help')
        assert.match(error.message, new RegExp(`another git is at work there: .*${name} exists.*remove that file`))
        return true
      })
    }
    assert.ok(existsSync(lock))
    await assert.rejects(bench.work.restore(bench.order(tip)), (error) => hasCode(error, 'git'))
    // Where it can be seen at once, nothing is begun: a death in the middle would make the lock look like ours.
    if (!name.includes('/')) assert.doesNotMatch(bench.started().join('\n'), /^(?:fetch|checkout)/m)
    rmSync(lock)
  }
  await bench.bring(tip)
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
})

test('after a run that could not move the tree, a lock is still somebody else’s', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  await bench.bring(tip)
  await assert.rejects(bench.bring(tip, { branch: 'main/x' }), (error) => hasCode(error, 'unstartable'))
  const lock = join(bench.path, '.git/index.lock')
  writeFileSync(lock, '')
  await assert.rejects(bench.bring(tip), (error) => hasCode(error, 'git'))
  assert.ok(existsSync(lock))
})

test('a takeover that met somebody’s lock is still a first one', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.fetch()
  await bench.clone()
  const tip = await bench.origin.commit({ 'file.txt': 'new' })
  await bench.fetch()
  const lock = join(bench.path, '.git/refs/heads/main.lock')
  writeFileSync(lock, '')
  await assert.rejects(bench.bring(tip), (error) => hasCode(error, 'git'))
  rmSync(lock)
  bench.write({ 'file.txt': 'edited' })
  await assert.rejects(bench.bring(tip), (error) => hasCode(error, 'unstartable'))
  assert.equal(bench.read('file.txt'), 'edited')
})

test('what a tree puts in the place of a commit is not what is checked out', async (t) => {
  const bench = await createInPlaceBench(t)
  const old = await bench.fetch()
  await bench.bring(old)
  const tip = await bench.origin.commit({ 'file.txt': 'new' })
  await bench.fetch()
  await bench.git('update-ref', `refs/replace/${tip}`, old)
  await bench.bring(tip)
  assert.equal(bench.read('file.txt'), 'new')
})

test('an order that is aborted in the middle is taken up by the next', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.bring(await bench.fetch())
  await bench.origin.commit({ '.gitattributes': '*.slow filter=slow\n' })
  const tip = await bench.origin.commit({ 'z.slow': 'slow' })
  await bench.fetch()
  const started = join(bench.directory, 'started')
  await bench.git('config', 'filter.slow.smudge', `touch '${started}'; exec sleep 1000`)
  const abort = new AbortController()
  const aborted = assert.rejects(bench.bring(tip, {}, abort.signal), (error) => hasCode(error, 'aborted'))
  await until('the filter runs', () => existsSync(started))
  abort.abort()
  await aborted
  await bench.git('config', 'filter.slow.smudge', 'cat')
  await bench.bring(tip)
  assert.equal(await bench.status(), '')
  assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
})

function packsIn(mirror: string): string[] {
  const directory = join(mirror, 'objects', 'pack')
  return readdirSync(directory)
    .filter((name) => name.endsWith('.pack'))
    .map((name) => join(directory, name))
}

const DAMAGES: Readonly<Record<string, (mirror: string) => void>> = {
  'a truncated pack': (mirror) => {
    for (const pack of packsIn(mirror)) {
      chmodSync(pack, 0o644)
      truncateSync(pack, 100)
    }
  },
  'missing objects': (mirror) => {
    for (const pack of packsIn(mirror)) rmSync(pack)
  },
  'nothing in it': (mirror) => {
    for (const name of readdirSync(mirror)) rmSync(join(mirror, name), { recursive: true })
  },
}
for (const [damage, inflict] of Object.entries(DAMAGES)) {
  test(`a mirror with ${damage} is replaced, for a new tree and for one that is there`, async (t) => {
    const bench = await createInPlaceBench(t, { commits: 30, files: 20 })
    const first = await bench.fetch()
    inflict(bench.remote.mirror)
    await bench.bring(first)
    assert.equal(await bench.git('fsck', '--strict'), '')
    const tip = await bench.origin.commit({ 'new.txt': 'new' })
    await bench.fetch()
    inflict(bench.remote.mirror)
    await bench.bring(tip, { previous: first })
    assert.deepEqual(bench.changed(), ['new.txt'])
    assert.equal(await bench.git('rev-parse', 'HEAD'), tip)
    assert.equal(await bench.git('fsck', '--strict'), '')
    assert.deepEqual(bench.logged, ['mirror-remade', 'mirror-remade'])
  })
}

test('a tree that is damaged itself fails by git’s words, and the mirror stays', async (t) => {
  const bench = await createInPlaceBench(t)
  await bench.bring(await bench.fetch())
  const tip = await bench.origin.commit({ 'file.txt': 'new' })
  await bench.fetch()
  writeFileSync(join(bench.path, '.git/index'), 'garbage')
  await assert.rejects(bench.bring(tip), (error: Error) => hasCode(error, 'git') && /index file/.test(error.message))
  assert.deepEqual(bench.logged, [])
})

test('programs that a tree names never run, and nothing outside of it changes', async (t) => {
  const bench = await createInPlaceBench(t, { files: 4 })
  const old = await bench.fetch()
  await bench.bring(old)
  const tip = await bench.origin.commit({
    'dir0/file0.txt': 'changed',
    'cgi/x': 'x',
    '.gitattributes': '* diff=evil\n',
  })
  await bench.fetch()
  const outside = join(bench.directory, 'outside')
  const proof = join(bench.directory, 'proof')
  mkdirSync(outside)
  writeFileSync(join(outside, 'file0.txt'), 'outside')
  writeFileSync(join(outside, 'x'), 'outside')
  rmSync(join(bench.path, 'dir0'), { recursive: true })
  symlinkSync(outside, join(bench.path, 'dir0'))
  symlinkSync(outside, join(bench.path, 'cgi'))
  program(bench.directory, 'evil', `touch '${proof}'`)
  const evil = join(bench.directory, 'evil')
  mkdirSync(join(bench.path, '.git/hooks'), { recursive: true })
  for (const hook of ['post-checkout', 'reference-transaction', 'post-index-change', 'post-merge', 'pre-auto-gc'])
    program(join(bench.path, '.git/hooks'), hook, `touch '${proof}'`)
  writeFileSync(join(bench.directory, 'more'), `[core]\n\tfsmonitor = ${evil}\n`)
  mkdirSync(join(outside, 'objects'))
  mkdirSync(join(bench.path, '.git/objects/info'), { recursive: true })
  writeFileSync(join(bench.path, '.git/objects/info/alternates'), `${join(outside, 'objects')}\n`)
  const config = `[core]\n\tfsmonitor = ${evil}\n\tsshCommand = ${evil}\n\tpager = ${evil}\n\teditor = ${evil}\n\talternateRefsCommand = ${evil}
[diff]\n\texternal = ${evil}\n[diff "evil"]\n\ttextconv = ${evil}\n\tcommand = ${evil}\n[gc]\n\tauto = 1\n[include]\n\tpath = ${join(bench.directory, 'more')}
[interactive]\n\tdiffFilter = ${evil}\n[fetch]\n\tprune = true\n\trecurseSubmodules = true\n`
  appendFileSync(join(bench.path, '.git/config'), config)
  const { notes } = await bench.bring(tip, { previous: old })
  assert.match(notes.join(), /1 untracked file/)
  assert.equal(existsSync(proof), false)
  assert.equal(readFileSync(join(outside, 'file0.txt'), 'utf8'), 'outside')
  assert.equal(readFileSync(join(outside, 'x'), 'utf8'), 'outside')
  assert.deepEqual(readdirSync(outside).toSorted(), ['file0.txt', 'objects', 'x'])
  assert.ok(lstatSync(join(bench.path, 'dir0')).isDirectory())
  assert.equal(bench.read('cgi/x'), 'x')
  assert.match(readFileSync(bench.patch, 'utf8'), /new file mode 120000/)
})

test('a URL in the configuration of a tree leads git nowhere', async (t) => {
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  await bench.bring(tip)
  const proof = join(bench.directory, 'proof')
  program(bench.directory, 'evil', `touch '${proof}'`)
  program(bench.bin, 'ssh', `touch '${proof}'`)
  const config = readFileSync(join(bench.path, '.git/config'), 'utf8')
  for (const elsewhere of [`ext::${join(bench.directory, 'evil')} `, 'ssh://elsewhere.example/x']) {
    const url = `[protocol "ext"]\n\tallow = always\n[url "${elsewhere}"]\n\tinsteadOf = ${bench.remote.mirror}\n`
    writeFileSync(join(bench.path, '.git/config'), `${config}${url}`)
    await assert.rejects(bench.bring(tip), /transport '(?:ext|ssh)' not allowed/)
  }
  assert.equal(existsSync(proof), false)
})

test('where the account may not write, the run says who it is and what to do', async (t) => {
  const nobody = 65534
  const readable = spawnSync(process.execPath, ['--check', PROCESS], { uid: nobody, stdio: 'ignore' }).status === 0
  if (process.getuid?.() !== 0 || !readable) return t.skip('needs root, and a checkout that other accounts can read')
  const bench = await createInPlaceBench(t)
  const tip = await bench.fetch()
  chmodSync(bench.directory, 0o755)
  const env = { PATH: process.env['PATH'], HOME: bench.home }
  const remote = { ...bench.remote, mirror: join(bench.directory, 'none') }
  const said = () =>
    spawnSync(process.execPath, [PROCESS, JSON.stringify(bench.order(tip, { remote }))], {
      uid: nobody,
      gid: nobody,
      env,
      encoding: 'utf8',
    }).stdout
  assert.match(said(), /^unstartable: nobody may not make .*srv\/site; run: install -d -o nobody /)
  await bench.clone()
  assert.match(said(), /^unstartable: .*srv\/site belongs to root, and the target runs as nobody.*chown -R nobody /)
})
