import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { git } from './support/git.ts'
import { createBench, onBranch, originIn, program } from './support/mirrors.ts'

test('what a killed git left in a mirror is cleared away at its first use', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  await bench.fetch(remote)
  const tip = await origin.commit({ 'file.txt': 'new' })
  const left = [
    'HEAD.lock',
    'config.lock',
    'packed-refs.lock',
    'shallow.lock',
    'refs/branches/main.lock',
    'refs/landfall/site/tip.lock',
    'objects/pack/tmp_pack_x',
    'objects/pack/pack-1.keep',
    'objects/pack/multi-pack-index.lock',
    'objects/info/commit-graphs/commit-graph-chain.lock',
    'objects/aa/tmp_obj_x',
    'objects/incoming-x/pack/tmp_pack_y',
    'objects/tmp_objdir-incoming-x/aa/b',
  ].map((name) => join(remote.mirror, name))
  for (const file of left) {
    mkdirSync(join(file, '..'), { recursive: true })
    writeFileSync(file, '')
  }
  const again = bench.restart()
  const order = { remote, announced: null, deployed: null, compareAnnounced: false, pinnedAs: 'site' }
  const due = { wanted: onBranch('main'), dueAt: Date.now() }
  assert.equal((await again.fetch({ ...order, ...due, env: {}, timeoutMs: 60_000 })).tip, tip)
  assert.deepEqual(left.filter(existsSync), [])
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
      chmodSync(pack, 0o644) // git's packs are read-only, and only root minds that not
      truncateSync(pack, 100)
    }
  },
  'missing objects': (mirror) => {
    for (const pack of packsIn(mirror)) rmSync(pack)
  },
  'a garbage HEAD': (mirror) => writeFileSync(join(mirror, 'HEAD'), 'garbage'),
  'a garbage configuration': (mirror) => writeFileSync(join(mirror, 'config'), '[core\n'),
  'no refs directory': (mirror) => rmSync(join(mirror, 'refs'), { recursive: true }),
  'a garbage ref': (mirror) => writeFileSync(join(mirror, 'refs/branches/main'), ''),
  'nothing in it': (mirror) => {
    for (const name of readdirSync(mirror)) rmSync(join(mirror, name), { recursive: true })
  },
}
for (const [damage, inflict] of Object.entries(DAMAGES)) {
  test(`a mirror with ${damage} is replaced, and fetch and checkout go on`, async (t) => {
    const bench = createBench(t)
    const origin = await originIn(bench, { commits: 60, files: 30 })
    const remote = bench.remote(origin.path)
    const deployed = (await bench.fetch(remote)).tip
    await git(remote.mirror, 'repack', '-q', '-a', '-d')
    const tip = await origin.commit({ 'file.txt': 'new' })
    inflict(remote.mirror)
    const fetched = await bench.fetch(remote, { announced: tip, deployed })
    assert.deepEqual([fetched.tip, fetched.tipToDeployed], [tip, 'ahead'])
    await git(await bench.checkOut(remote, tip), 'fsck', '--strict')
    inflict(remote.mirror)
    const again = await bench.checkOut(remote, tip, { directory: join(bench.directory, 'again') })
    await git(again, 'fsck', '--strict')
  })
}

test('a sound mirror is not thrown away because the remote cannot be reached', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const { tip } = await bench.fetch(remote)
  rmSync(origin.path, { recursive: true })
  await assert.rejects(
    bench.fetch(remote),
    (error) => hasCode(error, 'remote') && /does not appear/.test(error.message),
  )
  await git(remote.mirror, 'cat-file', '-e', String(tip))
  assert.deepEqual(bench.logged, [])
})

test('configuration and hooks that somebody put into a mirror never run', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  await bench.fetch(remote)
  const proof = join(bench.directory, 'proof')
  const hooks = join(remote.mirror, 'hooks')
  mkdirSync(hooks)
  program(bench.directory, 'evil', `touch '${proof}'`)
  for (const hook of ['reference-transaction', 'post-checkout', 'post-index-change'])
    program(hooks, hook, `touch '${proof}'`)
  const tip = await origin.commit({ 'file.txt': 'new' })
  await bench.fetch(remote)
  const evil = join(bench.directory, 'evil')
  const config = `[core]\n\tfsmonitor = ${evil}\n\tsshCommand = ${evil}\n\talternateRefsCommand = ${evil}\n[url "ext::${evil} "]\n\tinsteadOf = /\n`
  writeFileSync(join(remote.mirror, 'config'), config)
  await bench.fetch(remote)
  await bench.checkOut(remote, tip)
  assert.equal(existsSync(proof), false)
})
