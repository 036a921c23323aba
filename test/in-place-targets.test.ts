/** `checkout = "inplace"` through the whole program. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { createSite } from './support/daemon.ts'
import { git, sha } from './support/git.ts'
import { textOf } from './support/scripts.ts'
import { until } from './support/until.ts'

async function inPlace(t: TestContext, more = '') {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  const path = join(site.directory, 'tree')
  site.script(
    'acme/site',
    'echo "$LANDFALL_COMMIT $PWD $(cat file.txt)" >> "$OUT/runs"',
    'cat "$LANDFALL_CHANGED" >> "$OUT/changed"',
    'test ! -e fail',
  )
  site.configure(`[target.site]\nrepo = "acme/site"\ncheckout = "inplace"\npath = "tree"\n${more}`)
  return { site, origin, path, read: (name: string) => readFileSync(join(path, name), 'utf8') }
}

test('a tree is made, and brought to each commit; what is untracked stays', async (t) => {
  const { site, origin, path, read } = await inPlace(t)
  const daemon = await site.start()
  const first = await origin.commit({ 'file.txt': '1' })
  const run = await daemon.ended(await daemon.accepted({ after: first }))
  assert.deepEqual([run.state, run.commit], ['succeeded', first])
  writeFileSync(join(path, 'mine'), 'kept')
  const second = await origin.commit({ 'file.txt': '2' })
  await daemon.ended(await daemon.accepted({ after: second }))
  assert.deepEqual(site.lines('runs'), [`${first} ${path} 1`, `${second} ${path} 2`])
  assert.deepEqual(site.lines('changed').slice(-1), ['file.txt'])
  assert.deepEqual([read('file.txt'), read('mine')], ['2', 'kept'])
  assert.equal(await git(path, 'status', '--short', '--branch'), '## main...origin/main\n?? mine')
  const view = await daemon.target('site')
  assert.deepEqual([view.deployed?.commit, view.filesAt], [second, second])
})

test('somebody’s tree is refused untouched, and taken over with adopt, nothing of it lost', async (t) => {
  const { site, origin, path, read } = await inPlace(t)
  const tip = sha(await git(origin.path, 'rev-parse', 'main'))
  await git(site.directory, 'clone', '--quiet', origin.path, path)
  writeFileSync(join(path, 'file.txt'), 'my edit')
  const before = await site.start()
  const refused = await before.ended(await before.accepted({ after: tip }))
  assert.equal(refused.state, 'unstartable')
  assert.match(refused.detail ?? '', /holds somebody's work: edits of 1 file.*adopt = true/)
  assert.equal(read('file.txt'), 'my edit')
  assert.equal((await before.target('site')).filesAt, null)
  await before.stop()

  const file = join(site.directory, 'landfall.toml')
  writeFileSync(file, `${readFileSync(file, 'utf8')}adopt = true\n`)
  const after = await site.start()
  const next = await origin.commit({ 'file.txt': 'theirs' })
  const run = await after.ended(await after.accepted({ after: next }))
  assert.equal(run.state, 'succeeded')
  assert.equal(read('file.txt'), 'theirs')
  assert.match(readFileSync(join(site.dataDir, 'runs', String(run.id), 'edits.patch'), 'utf8'), /^\+my edit$/m)
  assert.match(await after.log(run.id), /^\[landfall: .*edits\.patch/m)
})

test('a clone of another repository is refused', async (t) => {
  const { site, origin, path } = await inPlace(t, 'adopt = true')
  const other = await site.origin('acme/other')
  await git(site.directory, 'clone', '--quiet', other.path, path)
  const daemon = await site.start()
  const run = await daemon.ended(await daemon.accepted({ after: await origin.commit({ 'file.txt': '1' }) }))
  assert.equal(run.state, 'unstartable')
  assert.match(run.detail ?? '', /origin/)
  assert.equal(await git(path, 'remote', 'get-url', 'origin'), other.path)
})

test('status tells what the files are at beside what is deployed, and restore_on_failure puts them back', async (t) => {
  for (const restores of [false, true]) {
    const { site, origin, path, read } = await inPlace(t, `restore_on_failure = ${restores}`)
    const daemon = await site.start()
    const good = await origin.commit({ 'file.txt': 'good' })
    await daemon.ended(await daemon.accepted({ after: good }))
    const bad = await origin.commit({ 'file.txt': 'bad', fail: '' })
    const run = await daemon.ended(await daemon.accepted({ after: bad }))
    assert.equal(run.state, 'failed')
    const view = await daemon.target('site')
    assert.deepEqual([view.deployed?.commit, view.filesAt, view.state], [good, restores ? good : bad, 'broken'])
    assert.equal(read('file.txt'), restores ? 'good' : 'bad')
    assert.equal(existsSync(join(path, 'fail')), !restores)
    assert.equal(/the files are back at/.test(run.detail ?? ''), restores)
    const mended = await origin.commit({ 'file.txt': 'mended', fail: null })
    assert.equal((await daemon.ended(await daemon.accepted({ after: mended }))).state, 'succeeded')
    assert.equal((await daemon.target('site')).filesAt, mended)
  }
})

test('a script that failed has failed, also where restore_on_failure cannot put the files back', async (t) => {
  const { site, origin, path } = await inPlace(t, 'restore_on_failure = true')
  const daemon = await site.start()
  await daemon.ended(await daemon.accepted({ after: await origin.commit({ 'file.txt': 'good' }) }))
  // As a git of the script's that was ended in the middle leaves it.
  site.script('acme/site', 'touch .git/index.lock', 'echo >> "$OUT/failed"', 'exit 3')
  const run = await daemon.ended(await daemon.accepted({ after: await origin.commit({ 'file.txt': 'bad' }) }))
  assert.deepEqual([run.state, run.exitCode], ['failed', 3])
  assert.match(run.detail ?? '', /exited with 3; the files could not be put back to \w+: .*index.lock exists/)
  assert.equal((await daemon.runs()).length, 2, 'nothing follows')
  const view = await daemon.target('site')
  assert.deepEqual([view.state, view.filesAt], ['broken', null])
  rmSync(join(path, '.git', 'index.lock'))
  site.script('acme/site', 'true')
  const mended = await daemon.ended(await daemon.accepted({ after: await origin.commit({ 'file.txt': 'mended' }) }))
  assert.equal(mended.state, 'succeeded', mended.detail ?? '')
})

test('what the files are at is told of the path that they are at, and a push brings another path to what is deployed', async (t) => {
  const { site, origin } = await inPlace(t)
  const daemon = await site.start()
  const before = sha(await git(origin.path, 'rev-parse', 'main'))
  const commit = await origin.commit({ 'file.txt': '1' })
  await daemon.ended(await daemon.accepted({ after: commit }))
  const file = join(site.directory, 'landfall.toml')
  const text = readFileSync(file, 'utf8')
  const changed = async (to: string) => {
    const earlier = daemon.logged('reloaded').length
    writeFileSync(file, text.replace('checkout = "inplace"\npath = "tree"', to))
    daemon.signal('SIGHUP')
    await until('the reload', () => daemon.logged('reloaded').length > earlier)
    return (await daemon.target('site')).filesAt
  }
  assert.equal(await changed('path = "moved"'), null)
  assert.equal(await changed('path = "tree"'), commit)
  assert.equal(await changed('checkout = "release"'), null)
  writeFileSync(file, text.replace('path = "tree"', 'path = "moved"'))
  await daemon.stop()

  const next = await site.start()
  assert.equal((await next.target('site')).filesAt, null)
  const run = await next.ended(await next.accepted({ before, after: commit }))
  const { deployed, filesAt } = await next.target('site')
  assert.deepEqual([run.trigger, run.state, deployed?.commit, filesAt], ['push', 'succeeded', commit, commit])
  assert.equal(readFileSync(join(site.directory, 'moved/file.txt'), 'utf8'), '1')
})

test('a commit that takes a failed one back reaches the tree, though it differs from the deployed one in none of the paths', async (t) => {
  const { site, origin, read } = await inPlace(t, 'paths = ["file.txt"]')
  const daemon = await site.start()
  const send = async (files: Parameters<typeof origin.commit>[0]) =>
    (await daemon.ended(await daemon.accepted({ after: await origin.commit(files) }))).state
  assert.equal(await send({ 'file.txt': 'good' }), 'succeeded')
  assert.equal(await send({ 'file.txt': 'bad', fail: '' }), 'failed')
  assert.equal(await send({ 'file.txt': 'good', fail: null }), 'succeeded')
  assert.equal(read('file.txt'), 'good')
  assert.equal(await send({ other: '1' }), 'skipped')
})

test('a force push back to what is deployed brings the files back to it', async (t) => {
  const { site, origin, read } = await inPlace(t)
  const daemon = await site.start()
  const good = await origin.commit({ 'file.txt': 'good' })
  await daemon.ended(await daemon.accepted({ after: good }))
  const bad = await origin.commit({ 'file.txt': 'bad', fail: '' })
  assert.equal((await daemon.ended(await daemon.accepted({ after: bad }))).state, 'failed')
  await origin.forceTo(good)
  const back = await daemon.ended(await daemon.accepted({ before: bad, after: good, guid: 'back' }))
  assert.deepEqual([back.state, back.commit, read('file.txt')], ['succeeded', good, 'good'])
  assert.deepEqual([(await daemon.target('site')).filesAt, (await daemon.target('site')).state], [good, 'ok'])
})

test('a crash while the script runs is recovered in the same tree', async (t) => {
  const { site, origin, read } = await inPlace(t)
  site.script('acme/site', 'echo run >> "$OUT/runs"', 'test -e "$OUT/go" || sleep 600')
  const first = await site.start()
  const commit = await origin.commit({ 'file.txt': 'new' })
  await first.accepted({ after: commit })
  await until('the script', () => site.lines('runs').length === 1)
  await first.kill()
  mkdirSync(join(site.out, 'go'))
  const second = await site.start()
  await second.quiet()
  const view = await second.target('site')
  assert.deepEqual([view.deployed?.commit, view.filesAt, read('file.txt')], [commit, commit, 'new'])
})

test('each of several branches has a tree of its own, which stays when the branch goes', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('acme/site', 'true')
  site.script('gone.sh', 'echo "$PWD" > "$OUT/gone"')
  mkdirSync(join(site.directory, 'trees'))
  site.configure('[target.site]\nrepo = "acme/site"\npath = "trees/{branch}"\nbranches = "*"\non_delete = "gone.sh"')
  const daemon = await site.start()
  await origin.branch('x', 'main')
  const after = await origin.commit({ 'file.txt': 'x' })
  await daemon.ended(await daemon.accepted({ branch: 'x', after }))
  await origin.deleteBranch('x')
  const run = await daemon.ended(await daemon.accepted({ branch: 'x', before: after, after: null }))
  assert.equal(run.state, 'succeeded')
  assert.deepEqual(site.lines('gone'), [join(site.directory, 'trees/x')])
  assert.equal(readFileSync(join(site.directory, 'trees/x/file.txt'), 'utf8'), 'x')
})

test('edits outlive a stop, a crash and a failure in the middle of the checkout, and the run tells where they are', async (t) => {
  const { site, origin, path } = await inPlace(t)
  const slow = site.script('slow', 'echo $$ > "$OUT/slow"; while [ ! -e "$OUT/go" ]; do sleep 0.05; done; exit 1')
  const first = await origin.commit({ '.gitattributes': '*.slow filter=slow', 'file.txt': '1', 'x.slow': '1' })
  const begin = await site.start()
  await begin.ended(await begin.accepted({ after: first }))
  await git(path, 'config', 'filter.slow.smudge', slow)
  await git(path, 'config', 'filter.slow.clean', 'cat')
  await git(path, 'config', 'filter.slow.required', 'true')
  const savedBy = (run: number, name = 'edits.patch') => textOf(join(site.dataDir, 'runs', String(run), name))
  writeFileSync(join(path, 'file.txt'), 'my edit\n')
  const id = await begin.accepted({ after: await origin.commit({ 'file.txt': '2', 'x.slow': '2' }) })
  await until('a checkout that hangs', () => site.read('slow') !== '')
  assert.equal(await begin.stop(), 0)
  rmSync(join(site.out, 'slow'))

  // The same run, once more.
  const resumed = await site.start()
  await until('a checkout that hangs again', () => site.read('slow') !== '')
  await resumed.kill()
  assert.match(savedBy(id), /^\+my edit$/m)
  assert.doesNotMatch(savedBy(id, 'edits-2.patch'), /my edit/)

  const last = await site.start()
  assert.match((await last.ended(id)).detail ?? '', /runs\/\d+\/edits.patch/)
  const log = await last.log(id)
  assert.ok(log.startsWith(`[landfall: edits were saved as a patch before they were undone: ${site.dataDir}`), log)
  writeFileSync(join(site.out, 'go'), '')
  await until('the failure', async () => (await last.runs()).some(({ state }) => state === 'fetch-failed'))
  await git(path, 'checkout', '--force', first, '--', 'file.txt')
  writeFileSync(join(path, 'file.txt'), 'another edit\n')
  const failed = await last.ended(await last.accepted({ after: await origin.commit({ 'x.slow': '3' }) }))
  assert.match(failed.detail ?? '', new RegExp(`edits were saved .*/runs/${failed.id}/edits.patch`))
  assert.match(savedBy(failed.id), /^\+another edit$/m)
})

test('a path that leads to a sealed release is refused, until the link is removed', async (t) => {
  const { site, origin, path } = await inPlace(t)
  const as = (checkout: string) => site.configure(`[target.site]\nrepo = "acme/site"\n${checkout}`)
  as('current = "tree"\non_failure = "told"')
  site.script('told', 'pwd > "$OUT/told"')
  const first = await site.start()
  const live = await origin.commit({ 'file.txt': '1' })
  await first.ended(await first.accepted({ after: live }))
  await first.stop()
  const sealed = readlinkSync(path)

  as('checkout = "inplace"\npath = "tree"\non_failure = "told"')
  const daemon = await site.start()
  const refused = await daemon.ended(await daemon.accepted({ after: await origin.commit({ 'file.txt': '2' }) }))
  assert.deepEqual([refused.state, refused.reason], ['unstartable', null])
  assert.match(refused.detail ?? '', /tree leads to .*, which is inside data_dir \(.*\).*; remove the link, and/)
  await until('the report', () => site.read('told') !== '')
  assert.doesNotMatch(site.read('told'), /releases/)
  assert.equal(readFileSync(join(sealed, 'file.txt'), 'utf8'), '1')
  assert.equal(existsSync(join(sealed, '.git', 'landfall')), false)

  rmSync(path)
  const made = await daemon.ended(await daemon.accepted({ after: await origin.commit({ 'file.txt': '3' }) }))
  assert.equal(made.state, 'succeeded', made.detail ?? '')
  assert.equal(readFileSync(join(sealed, 'file.txt'), 'utf8'), '1')
})
