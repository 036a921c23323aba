/** Which commit is deployed when deliveries are replayed, late or out of order, and when history is rewritten. */
import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { short } from '../src/decide.ts'
import type { Sha } from '../src/model.ts'
import { createSite, type Daemon, type Site } from './support/daemon.ts'
import { git, type Origin, sha } from './support/git.ts'
import { until } from './support/until.ts'

interface Scene {
  readonly site: Site
  readonly origin: Origin
  readonly daemon: Daemon
  deployed(): Promise<Sha | undefined>
  /** Posts a move of main, and resolves to how its run ended. */
  announce(before: Sha | null, after: Sha, guid?: string): Promise<string>
}

/** A daemon with a target on main that writes down each commit that its script is run for. */
async function scene(t: TestContext, more = ''): Promise<Scene> {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'echo $LANDFALL_COMMIT >> $OUT/runs')
  site.configure(`[target.site]\nrepo = "acme/site"\nbranches = "main"\nscript = "deploy.sh"\n${more}`)
  const daemon = await site.start()
  return {
    site,
    origin,
    daemon,
    deployed: async () => (await daemon.target('site')).deployed?.commit,
    async announce(before, after, guid) {
      const run = await daemon.accepted({ before, after, ...(guid === undefined ? {} : { guid }) })
      const { state, reason } = await daemon.ended(run)
      return reason === null ? state : `${state}: ${reason}`
    },
  }
}

for (const queue of ['sequential', 'evict']) {
  test(`with ${queue}, deliveries out of order and a storm of replays never move what is deployed backwards`, async (t) => {
    const { site, origin, daemon, deployed } = await scene(t, `queue = "${queue}"`)
    const commits: Sha[] = []
    for (const a of ['1', '2', '3', '4']) commits.push(await origin.commit({ a }))
    const pushes = commits.map((after, n) => ({ before: commits[n - 1] ?? null, after, guid: `push-${n}` }))
    for (const n of [2, 0, 3, 1]) await daemon.post(pushes[n] ?? assert.fail())
    await daemon.quiet()
    const tip = commits[3]
    assert.equal(await deployed(), tip)
    const positions = site.lines('runs').map((commit) => commits.indexOf(sha(commit)))
    assert.deepEqual(
      positions,
      positions.toSorted((one, other) => one - other),
      'never an older commit after a newer one',
    )

    const ranBefore = site.lines('runs').length
    // Each of the older ones again and again, under its own id and under others: none is answered by running a script.
    for (let round = 0; round < 100; round += 1) {
      const push = pushes[round % 3] ?? assert.fail()
      const guid = round % 2 === 0 ? push.guid : `replay-${round}`
      const { status } = await daemon.post({ ...push, guid })
      assert.ok(status === 200 || status === 202, String(status))
    }
    await daemon.quiet()
    assert.equal(await deployed(), tip)
    assert.equal(site.lines('runs').length, ranBefore)
    const replayed = (await daemon.runs()).filter(({ trigger }) => trigger === 'redelivery')
    assert.ok(replayed.length > 0)
    for (const { state, reason } of replayed) {
      assert.ok(state === 'superseded' || reason === 'already-deployed', `${state} ${reason}`)
    }
  })
}

test('a force push that a delivery announces is followed, and a replay of it is not', async (t) => {
  const { origin, deployed, announce } = await scene(t)
  const base = sha(await git(origin.work, 'rev-parse', 'HEAD'))
  const a = await origin.commit({ a: '1' })
  assert.equal(await announce(base, a), 'succeeded')
  await git(origin.work, 'reset', '--quiet', '--hard', base)
  await git(origin.work, 'commit', '--quiet', '--allow-empty', '-m', 'rewritten')
  const b = sha(await git(origin.work, 'rev-parse', 'HEAD'))
  await origin.forceTo(b)
  assert.equal(await announce(a, b, 'forced'), 'succeeded')
  await origin.forceTo(a)
  assert.equal(await announce(b, a), 'succeeded')
  assert.equal(await deployed(), a)
  // The remote (or whoever answers for it) shows b again, and all that says so is an old delivery.
  await origin.forceTo(b)
  assert.equal(await announce(a, b, 'forced'), 'skipped: diverged')
  assert.equal(await announce(null, b, 'who says that nothing was there before'), 'skipped: diverged')
  assert.equal(await announce(base, b, 'who says that the base was there before'), 'skipped: diverged')
  assert.equal(await deployed(), a)
})

for (const queue of ['sequential', 'evict']) {
  test(`with ${queue}, two force pushes in a row that deliveries announce are followed, and no replay of them is`, async (t) => {
    const { site, origin, daemon, deployed, announce } = await scene(t, `queue = "${queue}"\nlane = "one"`)
    const base = sha(await git(origin.work, 'rev-parse', 'HEAD'))
    const rewritten = async (message: string) => {
      await git(origin.work, 'reset', '--quiet', '--hard', base)
      await git(origin.work, 'commit', '--quiet', '--allow-empty', '-m', message)
      const commit = sha(await git(origin.work, 'rev-parse', 'HEAD'))
      await origin.forceTo(commit)
      return commit
    }
    await announce(null, base)
    site.script('deploy.sh', 'echo $LANDFALL_COMMIT >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
    const a = await origin.commit({ a: '1' })
    await daemon.accepted({ before: base, after: a })
    await until('the script', () => site.lines('runs').includes(a))
    const [b, c] = [await rewritten('b'), await rewritten('c')]
    await daemon.accepted({ before: a, after: b, guid: 'a to b' })
    await daemon.accepted({ before: b, after: c, guid: 'b to c' })
    writeFileSync(join(site.out, 'go'), '')
    await daemon.quiet()
    assert.deepEqual([await deployed(), site.lines('runs')], [c, [base, a, c]])
    // The remote lags, and what is heard are the deliveries of old.
    await origin.forceTo(b)
    assert.equal(await announce(a, b, 'a to b'), 'skipped: diverged')
    assert.equal(await announce(b, c, 'b to c'), 'skipped: diverged')
    await origin.forceTo(a)
    assert.equal(await announce(a, b, 'a to b'), 'skipped: diverged')
    assert.equal(await announce(base, a, 'again, by another id'), 'skipped: diverged')
    assert.equal(await deployed(), c)
  })
}

test('a force push that nobody announced is followed once two polls, `poll` apart, agree', async (t) => {
  const { origin, daemon, deployed, announce, site } = await scene(t, 'poll = "2s"')
  const base = sha(await git(origin.work, 'rev-parse', 'HEAD'))
  const a = await origin.commit({ a: '1' })
  await announce(base, a)
  await origin.forceTo(base)
  await until('the second poll', async () => (await deployed()) === base)
  const [doubtful, followed] = (await daemon.runs()).slice(-2)
  assert.deepEqual([doubtful?.trigger, doubtful?.state, doubtful?.reason], ['poll', 'skipped', 'stale'])
  assert.deepEqual([followed?.trigger, followed?.state, followed?.commit], ['poll', 'succeeded', base])
  assert.deepEqual(site.lines('runs'), [a, base], 'the doubtful one has not run the script')
  const apart = Date.parse(followed?.queuedAt ?? '') - Date.parse(doubtful?.queuedAt ?? '')
  assert.ok(apart >= 2000, `only ${apart} ms apart`)
})

test('a replica that lags behind is not followed, and the newer commit stays until it has caught up', async (t) => {
  const { origin, deployed, announce, site } = await scene(t)
  const a = await origin.commit({ a: '1' })
  const b = await origin.commit({ a: '2' })
  assert.equal(await announce(null, b), 'succeeded')
  await git(origin.path, 'update-ref', 'refs/heads/main', a)
  assert.equal(await announce(a, b, 'again'), 'skipped: stale')
  assert.equal(await announce(null, a, 'late'), 'skipped: stale')
  await git(origin.path, 'update-ref', 'refs/heads/main', b)
  const c = await origin.commit({ a: '3' })
  assert.equal(await announce(b, c), 'succeeded')
  assert.deepEqual([await deployed(), site.lines('runs')], [c, [b, c]])
})

test('a branch that is deleted leaves what is deployed, and is followed again when it returns', async (t) => {
  const { origin, daemon, deployed, announce } = await scene(t)
  const a = await origin.commit({ a: '1' })
  await announce(null, a)
  await origin.deleteBranch('main')
  const deletion = await daemon.post({ before: a, after: null })
  assert.deepEqual([deletion.status, deletion.body.targets?.[0]?.reason], [200, 'ref-deleted'])
  assert.equal(await announce(null, a, 'an old one'), 'skipped: ref-gone')
  assert.equal(await deployed(), a)
  const b = await origin.commit({ a: '2' })
  assert.equal(await announce(null, b), 'succeeded')
  assert.equal(await deployed(), b)
})

test('a run that takes the tip, since the announced commit is not on the branch, says so whatever its end', async (t) => {
  const { origin, daemon, site, announce } = await scene(t)
  const a = await origin.commit({ a: '1' })
  await announce(null, a)
  const lost = await origin.commit({ a: '2' })
  await announce(a, lost)
  await origin.forceTo(a)
  const b = await origin.commit({ b: '1' })
  await announce(lost, b)
  const tellOf = async (guid: string) => {
    const { state, commit, reason, detail } = await daemon.ended(await daemon.accepted({ after: lost, guid }))
    return { state, commit, reason, detail }
  }
  const c = await origin.commit({ b: '2' })
  const taken = `the announced ${short(lost)} is not on the branch any more; the tip ${short(c)} was taken`
  assert.deepEqual(await tellOf('late'), { state: 'succeeded', commit: c, reason: 'announced-missing', detail: taken })
  site.script('deploy.sh', 'exit 3')
  const d = await origin.commit({ b: '3' })
  const failed = await tellOf('later')
  assert.deepEqual([failed.state, failed.commit, failed.reason], ['failed', d, 'announced-missing'])
  assert.match(failed.detail ?? '', /is not on the branch any more; the tip \w+ was taken; .*\b3\b/)
})

test('a commit that is announced before it can be fetched is waited for', async (t) => {
  const { origin, daemon, site, announce } = await scene(t)
  const a = await origin.commit({ a: '1' })
  await announce(null, a)
  await git(origin.work, 'commit', '--quiet', '--allow-empty', '-m', 'late')
  const late = sha(await git(origin.work, 'rev-parse', 'HEAD'))
  const run = await daemon.accepted({ before: a, after: late })
  await until('the wait', () => daemon.logged('announced commit not there yet').length > 0)
  await git(origin.work, 'push', '--quiet', 'origin', 'HEAD')
  const { state, commit } = await daemon.ended(run)
  assert.deepEqual([state, commit, site.lines('runs')], ['succeeded', late, [a, late]])
})

test('a force push is followed also where a poll had queued it before its delivery came', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'echo $LANDFALL_COMMIT >> $OUT/runs')
  site.script('busy.sh', 'touch $OUT/busy; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure(
    `[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\nbranches = "main"\nlane = "one"
     [target.busy]\nrepo = "acme/other"\nscript = "busy.sh"\ncheckout = "none"\nlane = "one"`,
  )
  const daemon = await site.start()
  const base = sha(await git(origin.work, 'rev-parse', 'HEAD'))
  const a = await origin.commit({ a: '1' })
  await daemon.ended(await daemon.accepted({ after: a }))
  await daemon.accepted({ repo: 'acme/other', after: a })
  await until('the busy lane', () => existsSync(join(site.out, 'busy')))
  await origin.forceTo(base)
  const { items } = await daemon.api<{ items: { target: string; run: number }[] }>('once', 'POST')
  const polled = items.find(({ target }) => target === 'site')?.run ?? 0
  assert.equal(await daemon.accepted({ before: a, after: base }), polled)
  writeFileSync(join(site.out, 'go'), '')
  assert.equal((await daemon.ended(polled)).state, 'succeeded')
  assert.equal((await daemon.target('site')).deployed?.commit, base)
})
