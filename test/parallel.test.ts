/** `queue = "parallel"`: no lane. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { createSite } from './support/daemon.ts'
import { sha } from './support/git.ts'
import { until } from './support/until.ts'

test('parallel runs of one target overlap, each at its own commit in a release of its own', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script(
    'acme/site',
    'echo "$LANDFALL_COMMIT $PWD" >> "$OUT/began"',
    'while [ ! -e "$OUT/$LANDFALL_COMMIT" ]; do sleep 0.02; done',
  )
  site.configure('[target.site]\nrepo = "acme/site"\nqueue = "parallel"')
  const daemon = await site.start()
  const commits = [await origin.commit({ a: '1' }), await origin.commit({ a: '2' }), await origin.commit({ a: '3' })]
  const runs = await Promise.all(commits.map((after) => daemon.accepted({ after })))
  await until('all of them at once', () => site.lines('began').length === 3)
  const places = site.lines('began').map((line) => line.split(' '))
  assert.deepEqual(new Set(places.map(([commit]) => commit)), new Set(commits))
  assert.equal(new Set(places.map(([, directory]) => directory)).size, 3)
  for (const commit of commits) mkdirSync(join(site.out, commit))
  for (const run of runs) assert.equal((await daemon.ended(run)).state, 'succeeded')
  assert.equal((await daemon.target('site')).deployed?.commit, commits[2])
})

test('a branch that goes takes the releases of its parallel runs with it, and the links to them', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('acme/site', 'true')
  site.configure('[target.site]\nrepo = "acme/site"\nqueue = "parallel"\nbranches = "f-*"')
  const daemon = await site.start()
  await origin.branch('f-x', 'main')
  const commits = [await origin.commit({ a: '1' }), await origin.commit({ a: '2' })]
  for (const after of commits) await daemon.ended(await daemon.accepted({ branch: 'f-x', after }))
  const releases = join(site.dataDir, 'releases')
  assert.equal(readdirSync(releases, { recursive: true }).length > 4, true)
  await origin.branch('main')
  await origin.deleteBranch('f-x')
  await daemon.ended(await daemon.accepted({ branch: 'f-x', before: commits[1] ?? null, after: null }))
  await until('nothing left', () => readdirSync(releases).length === 0, 10_000)
})

test('what is deployed moves only forward, in whatever order parallel runs end', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('acme/site', 'while [ ! -e "$OUT/$LANDFALL_COMMIT" ]; do sleep 0.02; done')
  site.configure('[target.site]\nrepo = "acme/site"\nqueue = "parallel"')
  const daemon = await site.start()
  const [older, newer] = [await origin.commit({ a: '1' }), await origin.commit({ a: '2' })]
  // Announced in disorder, so that the order of the runs says nothing about that of the commits.
  const runs = { newer: await daemon.accepted({ after: newer }), older: await daemon.accepted({ after: older }) }
  await until('both to run', async () => (await daemon.runs('&state=running')).length === 2)
  mkdirSync(join(site.out, newer))
  assert.equal((await daemon.ended(runs.newer)).state, 'succeeded')
  mkdirSync(join(site.out, older))
  const late = await daemon.ended(runs.older)
  assert.deepEqual([late.state, late.commit], ['succeeded', older])
  const view = await daemon.target('site')
  assert.deepEqual([view.deployed?.commit, view.deployed?.run, view.state], [newer, runs.newer, 'ok'])
})

for (const [newerFails, olderFails, state] of [
  [false, true, 'ok'],
  [true, false, 'broken'],
  [true, true, 'broken'],
] as const) {
  test(`an older parallel run that ${olderFails ? 'fails' : 'succeeds'} late leaves alone that the newest ${newerFails ? 'failed' : 'succeeded'}`, async (t) => {
    const site = createSite(t)
    const origin = await site.origin('acme/site')
    site.script(
      'acme/site',
      'while [ ! -e "$OUT/$LANDFALL_COMMIT" ]; do sleep 0.02; done',
      'test ! -e "$OUT/$LANDFALL_COMMIT/fails"',
    )
    site.configure('[target.site]\nrepo = "acme/site"\nqueue = "parallel"')
    const daemon = await site.start()
    const commits = { older: await origin.commit({ a: '1' }), newer: await origin.commit({ a: '2' }) }
    const runs = {
      older: await daemon.accepted({ after: commits.older }),
      newer: await daemon.accepted({ after: commits.newer }),
    }
    const end = async (which: 'older' | 'newer', fails: boolean) => {
      // At once, or the script would miss what is said in it.
      mkdirSync(join(site.out, `${commits[which]}.made`, ...(fails ? ['fails'] : [])), { recursive: true })
      renameSync(join(site.out, `${commits[which]}.made`), join(site.out, commits[which]))
      assert.equal((await daemon.ended(runs[which])).state, fails ? 'failed' : 'succeeded')
    }
    await until('both to run', async () => (await daemon.runs('&state=running')).length === 2)
    await end('newer', newerFails)
    await end('older', olderFails)
    assert.equal((await daemon.target('site')).state, state)
    // The newest was tried: the polls of another start have no reason to try it again.
    await daemon.stop()
    site.configure('[target.site]\nrepo = "acme/site"\nqueue = "parallel"\npoll = "1s"')
    const again = await site.start()
    const third = await origin.commit({ a: '3' })
    mkdirSync(join(site.out, third))
    await until('a poll', async () => (await again.runs()).length > 2)
    await again.quiet()
    assert.deepEqual((await again.runs()).map(({ announced }) => announced).slice(2), [third])
  })
}

test('parallel runs without a checkout count by their order', async (t) => {
  const site = createSite(t)
  const [first, second] = [sha('1'.repeat(40)), sha('2'.repeat(40))]
  site.script('acme/site', 'while [ ! -e "$OUT/$LANDFALL_COMMIT" ]; do sleep 0.02; done')
  site.configure('[target.site]\nrepo = "acme/site"\nqueue = "parallel"\ncheckout = "none"')
  const daemon = await site.start()
  const runs = [await daemon.accepted({ after: first }), await daemon.accepted({ after: second })]
  mkdirSync(join(site.out, second))
  await daemon.ended(runs[1] ?? 0)
  mkdirSync(join(site.out, first))
  await daemon.ended(runs[0] ?? 0)
  assert.equal((await daemon.target('site')).deployed?.commit, second)
})

test('a parallel run that begins while another activates does not activate what was live before', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('acme/site', 'true')
  site.script(
    'reload.sh',
    'echo "began $LANDFALL_COMMIT" >> "$OUT/activated"',
    'while [ ! -e "$OUT/$LANDFALL_COMMIT" ]; do sleep 0.02; done',
    'echo "ended $LANDFALL_COMMIT" >> "$OUT/activated"',
  )
  site.configure('[target.site]\nrepo = "acme/site"\nqueue = "parallel"\nactivate = "reload.sh"')
  const daemon = await site.start()
  const commits = [await origin.commit({ a: '1' }), await origin.commit({ a: '2' }), await origin.commit({ a: '3' })]
  const [first = sha('1'), second = sha('2'), third = sha('3')] = commits
  const live = await daemon.accepted({ after: first })
  mkdirSync(join(site.out, first))
  assert.equal((await daemon.ended(live)).state, 'succeeded')
  const runs = [await daemon.accepted({ after: second })]
  await until('the second to activate', () => site.lines('activated').includes(`began ${second}`))
  runs.push(await daemon.accepted({ after: third }))
  await until('the third to activate beside it', () => site.lines('activated').includes(`began ${third}`))
  for (const commit of [second, third]) mkdirSync(join(site.out, commit))
  for (const run of runs) assert.equal((await daemon.ended(run)).state, 'succeeded')
  assert.deepEqual(
    site.lines('activated').filter((line) => line === `began ${first}`),
    [`began ${first}`],
  )
})
