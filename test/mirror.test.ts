import assert from 'node:assert/strict'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { parseSha, type Sha } from '../src/model.ts'
import { git, sha } from './support/git.ts'
import { createBench, onBranch, originIn, program } from './support/mirrors.ts'
import { lives, pidIn } from './support/scripts.ts'
import { until } from './support/until.ts'

const compare = (a: string, b: string) => a.localeCompare(b)
const NOWHERE = sha('1'.repeat(40))
const DEFAULT = { kind: 'default' } as const

async function pinsOf(mirror: string): Promise<Record<string, string>> {
  const listed = await git(mirror, 'for-each-ref', '--format=%(refname:lstrip=2) %(objectname)', 'refs/landfall')
  return Object.fromEntries(listed.split('\n').flatMap((line) => (line === '' ? [] : [line.split(' ')])))
}

test('a first fetch makes the mirror and tells the tip, and the default branch is asked for where none is named', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const tip = sha(await git(origin.path, 'rev-parse', 'main'))
  const fetched = await bench.fetch(bench.remote(origin.path), { wanted: DEFAULT })
  const unknown = { tipToDeployed: 'unknown', announcedInTip: 'no', announcedToDeployed: 'unknown' }
  assert.deepEqual(fetched, { ref: 'refs/heads/main', tip, ...unknown, commands: 2 })
  assert.deepEqual(await pinsOf(bench.remote('').mirror), { 'site/tip': tip })
})

test('one new commit of a known instance costs two git commands to fetch and two to check out', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const deployed = (await bench.fetch(remote)).tip
  const announced = await origin.commit({ 'file.txt': 'new' })
  bench.started()
  const fetched = await bench.fetch(remote, { announced, deployed, compareAnnounced: true })
  assert.deepEqual(fetched, {
    ref: 'refs/heads/main',
    tip: announced,
    tipToDeployed: 'ahead',
    announcedInTip: 'yes',
    announcedToDeployed: 'ahead',
    commands: 2,
  })
  await bench.checkOut(remote, announced, { previous: deployed })
  await bench.work.pin({ remote, pinnedAs: 'site', pins: { deployed: announced } })
  await bench.work.tidy(remote)
  const started = bench.started().map((line) => line.split(' ')[0] ?? '')
  assert.deepEqual(started.toSorted(compare), ['diff-tree', 'fetch', 'reset', 'rev-list'])
})

test('a fetch says how tip, announced and deployed commit lie to each other, in two commands more at most', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const first = sha(await git(origin.path, 'rev-parse', 'main'))
  const second = await origin.commit({ 'file.txt': '2' })
  await origin.branch('side', first)
  const side = await origin.commit({ 'file.txt': 'side' })
  await bench.fetch(remote, { wanted: onBranch('side') })
  await origin.branch('main')
  const third = await origin.commit({ 'file.txt': '3' })

  type Row = [
    announced: Sha | null,
    deployed: Sha | null,
    tip: string,
    inTip: string,
    toDeployed: string,
    commands: number,
  ]
  const rows: Row[] = [
    [null, null, 'unknown', 'no', 'unknown', 1],
    [third, third, 'same', 'yes', 'same', 1],
    [third, second, 'ahead', 'yes', 'ahead', 2],
    [second, first, 'ahead', 'yes', 'ahead', 4],
    [second, second, 'ahead', 'yes', 'same', 3],
    [first, second, 'ahead', 'yes', 'behind', 4],
    [side, second, 'ahead', 'no', 'diverged', 4],
    [second, side, 'diverged', 'yes', 'diverged', 4],
    [NOWHERE, second, 'ahead', 'missing', 'unknown', 3],
    [second, NOWHERE, 'unknown', 'yes', 'unknown', 4],
  ]
  for (const [announced, deployed, tipToDeployed, announcedInTip, announcedToDeployed, commands] of rows) {
    const fetched = await bench.fetch(remote, { announced, deployed, compareAnnounced: true })
    const claim = { tipToDeployed, announcedInTip, announcedToDeployed, commands }
    assert.deepEqual(fetched, { ref: 'refs/heads/main', tip: third, ...claim }, `C ${announced} D ${deployed}`)
  }
  const uncompared = await bench.fetch(remote, { announced: second, deployed: first })
  assert.equal(uncompared.announcedToDeployed, 'unknown')
  assert.equal(uncompared.commands, 3)
  assert.equal((await pinsOf(remote.mirror))['site/announced'], second)
})

test('a commit without common history is told from one that is missing', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  await git(origin.work, 'checkout', '--quiet', '--orphan', 'other')
  const other = await origin.commit({ 'other.txt': 'other' })
  await bench.fetch(remote, { wanted: onBranch('other') })
  const fetched = await bench.fetch(remote, { announced: other, deployed: other, compareAnnounced: true })
  assert.equal(fetched.announcedInTip, 'no')
  assert.equal(fetched.tipToDeployed, 'diverged')
})

test('force pushes, a remote that went back, and branches that go and return are followed', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const first = (await bench.fetch(remote)).tip
  assert.ok(first)
  const second = await origin.commit({ 'file.txt': '2' })
  assert.equal((await bench.fetch(remote)).tip, second)
  await origin.forceTo(first)
  const back = await bench.fetch(remote, { deployed: second })
  assert.deepEqual([back.tip, back.tipToDeployed], [first, 'behind'])
  const forced = await origin.commit({ 'file.txt': 'forced' })
  const diverged = await bench.fetch(remote, { deployed: second })
  assert.deepEqual([diverged.tip, diverged.tipToDeployed], [forced, 'diverged'])

  await origin.deleteBranch('main')
  const gone = await bench.fetch(remote, { announced: forced, deployed: forced })
  assert.deepEqual([gone.ref, gone.tip, gone.tipToDeployed], ['refs/heads/main', null, 'unknown'])
  assert.equal((await bench.fetch(remote, { wanted: DEFAULT })).ref, null)
  await git(origin.work, 'push', '--quiet', 'origin', 'HEAD:main')
  assert.equal((await bench.fetch(remote, { deployed: forced })).tipToDeployed, 'same')
})

test('a branch named like a directory that another one was is no obstacle', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  for (const [branch, gone] of [
    ['a', null],
    ['a/b', 'a'],
    ['a', 'a/b'],
    ['wip@100%/ünï', null],
  ] as const) {
    if (gone) await origin.deleteBranch(gone)
    const tip = await origin.commit({ 'file.txt': branch })
    await git(origin.work, 'push', '--quiet', 'origin', `HEAD:refs/heads/${branch}`)
    assert.equal((await bench.fetch(remote, { wanted: onBranch(branch) })).tip, tip, branch)
  }
})

test('an empty remote has no default branch and no tip, and is fetched once it has', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  await origin.deleteBranch('main')
  for (const [wanted, ref] of [
    [DEFAULT, null],
    [onBranch('main'), 'refs/heads/main'],
  ] as const) {
    assert.deepEqual([(await bench.fetch(remote, { wanted })).ref, (await bench.fetch(remote)).tip], [ref, null])
  }
  assert.equal(existsSync(remote.mirror), false)
  const tip = await origin.commit({ 'file.txt': 'first' })
  assert.equal((await bench.fetch(remote)).tip, tip)
})

test('a repository with SHA-256 ids is fetched, and one that changes to it is cloned anew', async (t) => {
  const bench = createBench(t)
  const old = await originIn(bench)
  const remote = bench.remote(old.path)
  await bench.fetch(remote)
  rmSync(join(bench.directory, 'forge'), { recursive: true })
  const origin = await originIn(bench, { format: 'sha256' })
  const { tip } = await bench.fetch(remote, { pinnedAs: 'a..b.lock' })
  assert.equal(tip?.length, 64)
  const next = await origin.commit({ 'file.txt': 'next' })
  assert.equal((await bench.fetch(remote, { deployed: tip })).tipToDeployed, 'ahead')
  const release = await bench.checkOut(remote, next)
  assert.equal(await git(release, 'status', '--short'), '')
})

test('refs are listed with one command: the default branch, and of the others those that exist', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const main = sha(await git(origin.path, 'rev-parse', 'main'))
  await origin.branch('x/main', 'main')
  const other = await origin.commit({ 'file.txt': 'x' })
  bench.started()
  const order = { remote: bench.remote(origin.path), tags: false, timeoutMs: 60_000 }
  assert.deepEqual(await bench.work.listRefs({ ...order, branches: ['x/main', 'none', 'main'] }), {
    head: { branch: 'main', tip: main },
    branches: { 'x/main': other, main },
    tags: {},
  })
  assert.equal(bench.started().length, 1)
  await git(origin.path, 'symbolic-ref', 'HEAD', 'refs/heads/nothing')
  assert.deepEqual(await bench.work.listRefs({ ...order, branches: ['none'] }), {
    head: null,
    branches: {},
    tags: {},
  })
})

test('a branch name that git would take for an option, a pattern or a path is refused before git starts', async (t) => {
  const bench = createBench(t)
  const remote = bench.remote('/nowhere')
  for (const branch of ['-x', '--upload-pack=touch', 'a b', 'a..b', '*', '', '/a', 'a.lock', 'a\nb', '../../x']) {
    await assert.rejects(bench.fetch(remote, { wanted: onBranch(branch) }), (error) => hasCode(error, 'git'), branch)
    const order = { remote, branches: [branch], tags: false, timeoutMs: 1000 }
    await assert.rejects(bench.work.listRefs(order), (error) => hasCode(error, 'git'), branch)
  }
  assert.deepEqual(bench.started(), [])
})

test('pins become exactly what was asked, without git where the commits were pinned, and never name what is not there', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const first = (await bench.fetch(remote)).tip
  const second = await origin.commit({ 'file.txt': '2' })
  await bench.fetch(remote, { announced: first, deployed: first })
  await bench.fetch(remote, { pinnedAs: 'other' })
  assert.ok(first)
  bench.started()
  await bench.work.pin({ remote, pinnedAs: 'site', pins: { deployed: second, previous: first } })
  assert.deepEqual(bench.started(), [])
  const others = { 'other/tip': second }
  assert.deepEqual(await pinsOf(remote.mirror), { 'site/deployed': second, 'site/previous': first, ...others })
  await bench.work.pin({ remote, pinnedAs: 'site', pins: { deployed: second, rejected: NOWHERE } })
  assert.deepEqual(await pinsOf(remote.mirror), { 'site/deployed': second, ...others })
  await bench.work.pin({ remote, pinnedAs: 'site', pins: {} })
  assert.deepEqual(await pinsOf(remote.mirror), others)
  for (const pinnedAs of ['../x', 'a/b', '', 'a b', '-\n']) {
    await assert.rejects(bench.work.pin({ remote, pinnedAs, pins: {} }), (error) => hasCode(error, 'git'), pinnedAs)
  }
})

test('a pinned commit outlives a force push, pruning and gc', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const first = sha(await git(origin.path, 'rev-parse', 'main'))
  const deployed = await origin.commit({ 'file.txt': 'lost' })
  await bench.fetch(remote)
  await bench.work.pin({ remote, pinnedAs: 'site', pins: { deployed } })
  await origin.forceTo(first)
  await bench.fetch(remote)
  await git(remote.mirror, 'gc', '--quiet', '--prune=now')
  assert.equal((await bench.fetch(remote, { deployed })).tipToDeployed, 'behind')
  await bench.checkOut(remote, deployed)
})

test('a mirror is packed once it has many loose objects, nothing is lost, and below that git is not started', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const lost = await origin.commit({ 'file.txt': 'lost' })
  await bench.fetch(remote)
  await origin.forceTo('HEAD~1')
  bench.started()
  await bench.work.tidy(remote)
  assert.deepEqual(bench.started(), [])
  for (let n = 0; n < 3; n += 1) {
    const files = Object.fromEntries(Array.from({ length: 40 }, (_, file) => [`d${file}/f`, `${file} ${n}`]))
    const tip = await origin.commit(files)
    await bench.fetch(remote, { announced: tip })
  }
  await bench.work.tidy(remote) // no ref has `lost` any more
  const fans = readdirSync(join(remote.mirror, 'objects')).filter((name) => /^..$/.test(name))
  assert.deepEqual(fans, [])
  await git(remote.mirror, 'fsck', '--strict')
  await git(remote.mirror, 'cat-file', '-e', lost)
  await bench.work.tidy(bench.remote('', { mirror: join(bench.directory, 'none') }))
})

test('a git that is called off while it starts another program is ended, and is not waited for', async (t) => {
  const bench = createBench(t)
  const ready = join(bench.directory, 'ready')
  program(bench.bin, 'git', `[ -e '${ready}' ] || echo $$ > '${ready}'\nexec "$0" "$@"`)
  for (let n = 0; n < 40; n += 1) {
    const abort = new AbortController()
    const called = assert.rejects(bench.fetch(bench.remote('/nowhere'), {}, abort.signal), (error) =>
      hasCode(error, 'aborted'),
    )
    const pid = await pidIn(ready)
    abort.abort()
    await called
    assert.equal(lives(pid), false, `time ${n}`)
    rmSync(ready)
  }
})

test('many uses of one mirror at once take turns, and a use that hangs holds up no other mirror', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const tip = parseSha(await git(origin.path, 'rev-parse', 'main'))
  const [remote, elsewhere] = [
    bench.remote(origin.path),
    bench.remote(origin.path, { mirror: join(bench.directory, 'two') }),
  ]
  program(bench.bin, 'ssh', `touch '${bench.directory}/hangs'; sleep 600`)
  const abort = new AbortController()
  const hanging = bench.fetch(bench.remote('git@host.invalid:a/b'), {}, abort.signal)
  const aborted = assert.rejects(hanging, (error) => hasCode(error, 'aborted'))
  await until('the hanging fetch', () => existsSync(join(bench.directory, 'hangs')))
  const waiting = Array.from({ length: 8 }, (_, n) => bench.fetch(remote, { pinnedAs: `i${n}` }))
  const impatient = new AbortController()
  const gaveUp = assert.rejects(bench.fetch(remote, {}, impatient.signal), (error) => hasCode(error, 'aborted'))
  impatient.abort()
  await gaveUp
  assert.equal((await bench.fetch(elsewhere)).tip, tip)
  abort.abort()
  await aborted
  for (const fetched of await Promise.all(waiting)) assert.equal(fetched.tip, tip)
  assert.equal(Object.keys(await pinsOf(remote.mirror)).length, 8)
})
