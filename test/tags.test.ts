import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { hasCode } from '../src/errors.ts'
import type { Sha } from '../src/model.ts'
import type { FetchOrder, TagOrder, Wanted } from '../src/work.ts'
import { GIT_ENV, git, type Origin, type OriginOptions, sha } from './support/git.ts'
import { type Bench, createBench, originIn, program } from './support/mirrors.ts'

const execute = promisify(execFile)
const NOWHERE = sha('1'.repeat(40))
const VERSIONS = wanting({})

type TagWanted = Extract<Wanted, { kind: 'tag' }>
function wanting(change: Partial<TagWanted>): TagWanted {
  return { kind: 'tag', patterns: ['v*'], order: 'version', announced: null, deployed: null, ...change }
}

/** A remote with a commit, and tags by the seconds of 2020 at which they were made. */
async function tagged(t: TestContext, options?: OriginOptions) {
  const bench = createBench(t)
  const origin = await originIn(bench, options)
  const remote = bench.remote(origin.path)
  return {
    bench,
    origin,
    remote,
    fetch: (change: Partial<FetchOrder> = {}) => bench.fetch(remote, { wanted: VERSIONS, ...change }),
    choose: (order: TagOrder, patterns = ['v*']) =>
      bench.work.chooseTag({ remote, patterns, order, timeoutMs: 60_000 }),
  }
}

/** A lightweight tag; moves one that is there. Resolves to what it names. */
async function lightweight(origin: Origin, tag: string, object = 'main'): Promise<Sha> {
  await git(origin.path, 'update-ref', `refs/tags/${tag}`, await git(origin.path, 'rev-parse', object))
  return sha(await git(origin.path, 'rev-parse', `refs/tags/${tag}`))
}

/** An annotated tag. Resolves to the tag object. */
async function annotated(origin: Origin, tag: string, object = 'main', second = 0): Promise<Sha> {
  const env = { ...GIT_ENV, GIT_COMMITTER_DATE: `${1_577_836_800 + second} +0000` }
  await execute('git', ['tag', '--force', '-a', '-m', tag, tag, object], { cwd: origin.path, env })
  return sha(await git(origin.path, 'rev-parse', `refs/tags/${tag}`))
}

async function commitAt(origin: Origin, second: number): Promise<Sha> {
  const env = { ...GIT_ENV, GIT_COMMITTER_DATE: `${1_577_836_800 + second} +0000` }
  await execute('git', ['commit', '--quiet', '--allow-empty', '-m', `at ${second}`], { cwd: origin.work, env })
  await git(origin.work, 'push', '--quiet', 'origin', 'HEAD')
  return sha(await git(origin.work, 'rev-parse', 'HEAD'))
}

function refsOf(mirror: string): string[] {
  return readdirSync(join(mirror, 'refs', 'tags')).toSorted((a, b) => a.localeCompare(b))
}

const verbs = (bench: Bench) => bench.started().map((line) => line.split(' ')[0])

test('the highest version is fetched and pinned, in three git commands, and then asked for with one', async (t) => {
  const { bench, origin, remote, fetch } = await tagged(t)
  const first = await lightweight(origin, 'v1.9')
  await origin.commit({ 'file.txt': '2' })
  const object = await annotated(origin, 'v1.10')
  const second = sha(await git(origin.path, 'rev-parse', 'main'))
  await origin.commit({ 'file.txt': '3' })
  await lightweight(origin, 'v1.2')
  await lightweight(origin, 'release-9')
  bench.started()
  const fetched = await fetch({
    announced: object,
    wanted: wanting({ announced: 'v1.10', deployed: 'v1.9' }),
    deployed: first,
  })
  const claim = { tipToDeployed: 'ahead', announcedInTip: 'yes', announcedToDeployed: 'ahead' }
  assert.deepEqual(fetched, { ref: 'refs/tags/v1.10', tip: second, ...claim, commands: 3 })
  assert.deepEqual(verbs(bench), ['ls-remote', 'fetch', 'for-each-ref'])
  assert.equal(await git(remote.mirror, 'rev-parse', 'refs/landfall/site/tip'), second)
  assert.deepEqual(refsOf(remote.mirror), ['v1.10'])
  assert.equal((await fetch()).tip, second)
  assert.deepEqual(verbs(bench), ['ls-remote'])
  await git(await bench.checkOut(remote, second), 'fsck', '--strict')
})

test('no tag that fits is no ref and no tip, and makes no mirror', async (t) => {
  const { bench, origin, fetch, choose } = await tagged(t)
  await lightweight(origin, 'release-1')
  const nothing = { ref: null, tip: null, tipToDeployed: 'unknown', announcedToDeployed: 'unknown', commands: 1 }
  assert.deepEqual(await fetch({ deployed: NOWHERE }), { ...nothing, announcedInTip: 'no' })
  const wanted = wanting({ announced: 'v1' })
  assert.deepEqual(await fetch({ wanted, announced: NOWHERE }), { ...nothing, announcedInTip: 'missing' })
  for (const order of ['version', 'newest'] as const) assert.equal(await choose(order), null)
  assert.equal(readdirSync(bench.directory).includes('mirrors'), false)
})

test('patterns include and exclude, and pre-releases are below their release', async (t) => {
  const { origin, fetch, choose } = await tagged(t)
  for (const tag of ['v1.0.0', 'v1.1.0-rc.2', 'v1.1.0-rc.10', 'v0.9', 'nightly/v7']) await lightweight(origin, tag)
  const of = async (...patterns: string[]) => (await fetch({ wanted: wanting({ patterns }) })).ref
  assert.equal(await of('v*'), 'refs/tags/v1.1.0-rc.10')
  assert.equal(await of('v*', '!*-*'), 'refs/tags/v1.0.0')
  assert.equal(await of('*'), 'refs/tags/nightly/v7')
  assert.equal((await choose('version', ['v*', '!*-*']))?.tag, 'v1.0.0')
  await lightweight(origin, 'v1.1.0')
  assert.equal(await of('v*'), 'refs/tags/v1.1.0')
})

test('a tag of a tag is its commit, and a tag of a tree or of a blob is no candidate', async (t) => {
  for (const order of ['version', 'newest'] as const) {
    const { bench, origin, fetch, choose } = await tagged(t)
    const commit = sha(await git(origin.path, 'rev-parse', 'main'))
    await lightweight(origin, 'v1')
    await annotated(origin, 'inner', 'main', 1)
    await annotated(origin, 'middle', 'refs/tags/inner', 2)
    await annotated(origin, 'v7', 'refs/tags/middle', 1_000_000_000)
    await annotated(origin, 'v8', 'main^{tree}', 1_000_000_001)
    await annotated(origin, 'blob', 'main:file.txt', 1_000_000_002)
    await annotated(origin, 'v9', 'refs/tags/blob', 1_000_000_003)
    await lightweight(origin, 'v10', 'main:file.txt')
    await lightweight(origin, 'v11', 'main^{tree}')
    const fetched = await fetch({ wanted: wanting({ order, announced: 'v7' }) })
    assert.deepEqual([fetched.ref, fetched.tip, fetched.announcedInTip], ['refs/tags/v7', commit, 'yes'], order)
    assert.ok(fetched.commands <= 6, `${fetched.commands} commands`)
    bench.started()
    assert.deepEqual(await choose(order), { tag: 'v7', commit })
    assert.deepEqual(verbs(bench), ['ls-remote'], 'what an object is, is asked once')
    await git(origin.path, 'update-ref', '-d', 'refs/tags/v7')
    await git(origin.path, 'update-ref', '-d', 'refs/tags/v1')
    assert.deepEqual([(await fetch()).ref, await choose(order)], [null, null])
  }
})

test('how the chosen tag lies to the deployed one is told by name, not by history', async (t) => {
  const { origin, fetch } = await tagged(t)
  const old = await lightweight(origin, 'v1')
  await origin.branch('line1', old)
  const fix = await origin.commit({ 'file.txt': 'a fix for the old line' })
  await origin.branch('main')
  const commit = await origin.commit({ 'file.txt': '2' })
  await annotated(origin, 'v2')
  await lightweight(origin, 'v2.0')
  const rows: [string | null, Sha | null, string][] = [
    [null, null, 'unknown'],
    ['v2.0', null, 'unknown'],
    [null, old, 'unknown'],
    ['v2.0', commit, 'same'],
    ['v2', commit, 'same'], // a higher name of what is deployed
    ['v3', commit, 'same'],
    [null, commit, 'same'],
    ['v2.0', old, 'diverged'], // moved
    ['v1', old, 'ahead'],
    ['v1.1', fix, 'ahead'], // on another line
    ['v1.1', NOWHERE, 'ahead'],
    ['v3', old, 'behind'], // deleted
    ['v3', fix, 'behind'],
  ]
  for (const [deployedAs, deployed, tipToDeployed] of rows) {
    const fetched = await fetch({ wanted: wanting({ deployed: deployedAs }), deployed })
    assert.deepEqual(
      [fetched.ref, fetched.tipToDeployed],
      ['refs/tags/v2.0', tipToDeployed],
      `${deployedAs} ${deployed}`,
    )
  }
})

test('the announced tag is found by its object or its commit, beaten, or not there as it was announced', async (t) => {
  const { origin, fetch } = await tagged(t)
  const old = await lightweight(origin, 'v1')
  const commit = await origin.commit({ 'file.txt': '2' })
  const object = await annotated(origin, 'v2')
  await lightweight(origin, 'release-3')
  const rows: [string | null, Sha | null, string][] = [
    [null, null, 'no'],
    ['v2', object, 'yes'],
    ['v2', commit, 'yes'],
    ['v2', null, 'yes'],
    [null, commit, 'yes'],
    [null, old, 'no'],
    [null, NOWHERE, 'missing'],
    ['v1', old, 'no'],
    ['v1', null, 'no'],
    ['release-3', commit, 'no'],
    ['v1', commit, 'missing'], // still where it was
    ['v2', NOWHERE, 'missing'],
    ['v3', object, 'missing'],
    ['v3', null, 'missing'],
    ['constructor', null, 'missing'],
    ['--upload-pack=touch x', NOWHERE, 'missing'],
  ]
  for (const [announcedAs, announced, inTip] of rows) {
    const fetched = await fetch({ wanted: wanting({ announced: announcedAs }), announced })
    assert.deepEqual([fetched.tip, fetched.announcedInTip], [commit, inTip], `${announcedAs} ${announced}`)
  }
})

test('a tag that was moved is followed, and one that was deleted leaves the mirror', async (t) => {
  const { origin, remote, fetch, choose } = await tagged(t)
  const first = await lightweight(origin, 'v1')
  await annotated(origin, 'v2')
  assert.equal((await fetch()).ref, 'refs/tags/v2')
  const second = await origin.commit({ 'file.txt': '2' })
  await annotated(origin, 'v2')
  const moved = await fetch({ wanted: wanting({ deployed: 'v2' }), deployed: first })
  assert.deepEqual([moved.tip, moved.tipToDeployed], [second, 'diverged'])
  await lightweight(origin, 'v2', first)
  const back = await fetch({ wanted: wanting({ deployed: 'v2' }), deployed: second })
  assert.deepEqual([back.tip, back.tipToDeployed], [first, 'diverged'])
  assert.deepEqual(refsOf(remote.mirror), ['v2'])
  await git(origin.path, 'update-ref', '-d', 'refs/tags/v2')
  const gone = await fetch({ wanted: wanting({ deployed: 'v2' }), deployed: second })
  assert.deepEqual([gone.ref, gone.tip, gone.tipToDeployed], ['refs/tags/v1', first, 'behind'])
  assert.deepEqual(refsOf(remote.mirror), ['v1'])
  // Named like the directory that another one was.
  await git(origin.path, 'update-ref', '-d', 'refs/tags/v1')
  await lightweight(origin, 'v1/2')
  assert.equal((await fetch({ wanted: wanting({ patterns: ['**'] }) })).ref, 'refs/tags/v1/2')
  assert.deepEqual(await choose('version', ['**']), { tag: 'v1/2', commit: second })
})

test('the newest tag is the one made last, or the higher version of two that were made at once', async (t) => {
  const { bench, origin, fetch, choose } = await tagged(t)
  const first = await commitAt(origin, 10)
  await lightweight(origin, 'v9') // as old as its commit
  await annotated(origin, 'v3', 'main', 20)
  assert.deepEqual(await choose('newest'), { tag: 'v3', commit: first })
  await annotated(origin, 'v1.9', 'main', 30)
  await annotated(origin, 'v1.10', 'main', 30)
  bench.started()
  const wanted = wanting({ order: 'newest', announced: 'v1.10', deployed: 'v3' })
  const fetched = await fetch({ wanted })
  assert.deepEqual([fetched.ref, fetched.announcedInTip], ['refs/tags/v1.10', 'yes'])
  assert.deepEqual(verbs(bench), ['ls-remote', 'fetch', 'for-each-ref'])
  const second = await commitAt(origin, 40)
  await lightweight(origin, 'v0.1')
  assert.deepEqual(await choose('newest'), { tag: 'v0.1', commit: second })
  const next = await fetch({ wanted, deployed: first })
  assert.deepEqual([next.ref, next.tip, next.tipToDeployed], ['refs/tags/v0.1', second, 'ahead'])
  assert.equal((await choose('version'))?.tag, 'v9')
})

test('where the newest tag is compared with one that is gone or moved, the history decides', async (t) => {
  const { origin, fetch } = await tagged(t)
  const old = await commitAt(origin, 10)
  await annotated(origin, 'v1', 'main', 11)
  const [deployed] = [await commitAt(origin, 20), await annotated(origin, 'v2', 'main', 21)]
  const wanted = wanting({ order: 'newest', deployed: 'v2' })
  assert.equal((await fetch({ wanted, deployed })).tipToDeployed, 'same')
  const claim = async (deployedAs: string) => {
    const fetched = await fetch({ wanted: { ...wanted, deployed: deployedAs }, deployed })
    return [fetched.ref, fetched.tipToDeployed]
  }
  await git(origin.path, 'update-ref', '-d', 'refs/tags/v2')
  assert.deepEqual(await claim('v2'), ['refs/tags/v1', 'behind'])
  await lightweight(origin, 'v2', old) // moved to the past, and so not the newest any more
  assert.deepEqual(await claim('v2'), ['refs/tags/v1', 'behind'])
  assert.deepEqual(await claim('gone'), ['refs/tags/v1', 'behind'])
  await commitAt(origin, 30)
  await annotated(origin, 'v3', 'main', 31)
  assert.deepEqual(await claim('v2'), ['refs/tags/v3', 'ahead'])
  await origin.branch('side', old)
  await commitAt(origin, 40)
  await lightweight(origin, 'v4', 'side')
  assert.deepEqual(await claim('v2'), ['refs/tags/v4', 'diverged'])
})

test('a repository with SHA-256 ids has tags too, and one without any branch', async (t) => {
  const { origin, remote, fetch, choose } = await tagged(t, { format: 'sha256' })
  const object = await annotated(origin, 'v1')
  const commit = sha(await git(origin.path, 'rev-parse', 'main'))
  await origin.deleteBranch('main')
  const fetched = await fetch({ wanted: wanting({ announced: 'v1' }), announced: object })
  assert.deepEqual([fetched.tip, fetched.announcedInTip], [commit, 'yes'])
  assert.equal(commit.length, 64)
  assert.deepEqual(await choose('newest'), { tag: 'v1', commit })
  for (const pack of readdirSync(join(remote.mirror, 'objects', 'pack'))) {
    rmSync(join(remote.mirror, 'objects', 'pack', pack))
  }
  await annotated(origin, 'v2', commit)
  assert.deepEqual([(await fetch()).ref, refsOf(remote.mirror)], ['refs/tags/v2', ['v1', 'v2']])
})

test('of a thousand tags the version is chosen without the others, and the newest with one listing once they are known', async (t) => {
  const { bench, origin, remote, fetch, choose } = await tagged(t, { commits: 200 })
  const commits = (await git(origin.path, 'rev-list', '--reverse', 'main')).split('\n')
  mkdirSync(join(origin.path, 'refs', 'tags'), { recursive: true })
  for (let n = 0; n < 1000; n += 1) {
    writeFileSync(join(origin.path, 'refs', 'tags', `v1.${n}`), `${commits[(n * 7) % 200]}\n`)
  }
  bench.started()
  assert.deepEqual([(await fetch()).ref, verbs(bench).length], ['refs/tags/v1.999', 3])
  assert.deepEqual(refsOf(remote.mirror), ['v1.999'])
  const newest = { tag: 'v1.857', commit: commits[199] } // the highest n whose 7n is 199 modulo 200
  assert.deepEqual(await choose('newest'), newest)
  // In two commands, lest their arguments become too long.
  assert.deepEqual(verbs(bench), ['ls-remote', 'fetch', 'fetch', 'for-each-ref'])
  assert.deepEqual([await choose('newest'), verbs(bench)], [newest, ['ls-remote']])
  assert.deepEqual(
    await bench.restart().chooseTag({ remote, patterns: ['v*'], order: 'newest', timeoutMs: 60_000 }),
    newest,
  )
})

test('a mirror that broke is made anew with its tags, and the fetch goes on', async (t) => {
  const { bench, origin, remote, fetch } = await tagged(t, { commits: 60, files: 30 })
  const deployed = await annotated(origin, 'v1', 'main~3')
  await fetch()
  for (const pack of readdirSync(join(remote.mirror, 'objects', 'pack')).filter((name) => name.endsWith('.pack'))) {
    rmSync(join(remote.mirror, 'objects', 'pack', pack.replace('.pack', '.idx')))
    truncateSync(join(remote.mirror, 'objects', 'pack', pack), 100)
  }
  await annotated(origin, 'v2')
  const fetched = await fetch()
  assert.equal(fetched.ref, 'refs/tags/v2')
  await git(await bench.checkOut(remote, fetched.tip ?? NOWHERE), 'fsck', '--strict')
  assert.deepEqual(bench.logged, ['mirror-remade'])
  await git(remote.mirror, 'cat-file', '-e', deployed)
})

/** Lets something happen in the remote just before git begins to fetch, or to list. */
function before(bench: Bench, origin: Origin, { fetch, list = 'version' }: { fetch: string; list?: string }): void {
  const real = execFileSync('sh', ['-c', 'command -v git'], { encoding: 'utf8' }).trim()
  const inOrigin = (change: string) => `env -u GIT_DIR '${real}' -C '${origin.path}' ${change}`
  const cases = `*" fetch "*) ${inOrigin(fetch)} ;; *" ls-remote "*) ${inOrigin(list)} >&2 ;;`
  program(bench.bin, 'git', `case " $* " in ${cases} esac\nexec '${real}' "$@"`)
}

test('a tag that moves or goes while it is fetched is asked for again, and a remote that never rests is given up', async (t) => {
  const { bench, origin, fetch } = await tagged(t)
  const old = await lightweight(origin, 'v1')
  const commit = await origin.commit({ 'file.txt': '2' })
  await lightweight(origin, 'v2', old)
  before(bench, origin, { fetch: `update-ref refs/tags/v2 ${commit}` })
  assert.equal((await fetch()).tip, commit)
  await lightweight(origin, 'v3')
  before(bench, origin, { fetch: 'update-ref -d refs/tags/v3' })
  assert.equal((await fetch()).ref, 'refs/tags/v2')
  before(bench, origin, { fetch: 'update-ref -d refs/tags/v4', list: `update-ref refs/tags/v4 ${commit}` })
  await assert.rejects(fetch(), (error) => hasCode(error, 'remote') && /changed again and again/.test(error.message))
})

test('names that are options, patterns or worse never reach git', async (t) => {
  const bench = createBench(t)
  const [commit, other] = ['a'.repeat(40), 'b'.repeat(40)]
  const names = [
    '-x',
    '--upload-pack=touch',
    '',
    'v9^{}^{}',
    'v8^{}',
    'v7\u0001',
    'v6 x',
    'v5:refs/x',
    'v4*',
    '../v3',
    'v2.lock',
  ]
  const lines = [`${commit} HEAD\0symref=HEAD:refs/heads/-x agent=git/2`, `${commit} refs/heads/-x`]
  const tags = [...names, 'v1', 'v1^{}', '__proto__'].map(
    (name) => `${name === 'v1^{}' ? other : commit} refs/tags/${name}`,
  )
  const packets = [...lines, ...tags, ...['\xff'].map((name) => `${commit} refs/tags/v99${name}`)].map((line) => {
    return `${(line.length + 5).toString(16).padStart(4, '0')}${line}\n`
  })
  writeFileSync(join(bench.directory, 'refs'), `${packets.join('')}0000`, 'latin1')
  program(bench.bin, 'ssh', `cat '${bench.directory}/refs'; cat > '${bench.directory}/said'`)
  const remote = bench.remote('git@forge.example:acme/site.git')
  const listed = await bench.work.listRefs({ remote, branches: 'all', tags: true, timeoutMs: 60_000 })
  assert.equal(listed.head, null)
  assert.deepEqual(Object.entries(listed.tags), [
    ['v1', { object: commit, commit: other }],
    ['__proto__', { object: commit, commit }],
  ])
  const order = { remote, patterns: ['**', '!v1', '!__proto__'], order: 'version', timeoutMs: 60_000 } as const
  assert.equal(await bench.work.chooseTag(order), null)
  bench.started()
  const wanted = wanting({ patterns: order.patterns, announced: '-x', deployed: '--upload-pack=touch' })
  assert.equal((await bench.fetch(remote, { wanted })).tip, null)
  assert.deepEqual(bench.started(), ['ls-remote --symref -- git@forge.example:acme/site.git HEAD refs/tags/*'])
})
