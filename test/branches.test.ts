/** Targets that follow several branches: an instance each, through the whole program. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import type { DeliveryView } from '../src/admin/views.ts'
import { pathName } from '../src/config/at-branch.ts'
import { landfall } from './support/cli.ts'
import { createSite, type Daemon, type Push, type Site } from './support/daemon.ts'
import { git, sha } from './support/git.ts'
import { until } from './support/until.ts'

interface Previews {
  readonly site: Site
  /** Where a branch is live. */
  current(branch: string): string
  names(daemon: Daemon): Promise<readonly string[]>
}

/** Previews of `main` and of every `feature/…`, whose script writes down what it was told. */
async function previews(
  t: TestContext,
  more = '',
): Promise<Previews & { origin: Awaited<ReturnType<Site['origin']>> }> {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  mkdirSync(join(site.directory, 'live'))
  site.script(
    'acme/site',
    'echo "$LANDFALL_TARGET $LANDFALL_BRANCH $HOST" >> "$OUT/runs"',
    'echo kept > "$LANDFALL_DATA/kept"',
  )
  site.script(
    'gone.sh',
    'echo "$LANDFALL_EVENT $LANDFALL_BRANCH $LANDFALL_PREVIOUS $PWD" >> "$OUT/gone"',
    'test ! -e "$OUT/fail"',
  )
  site.configure(
    `[target.site]\nrepo = "acme/site"\nbranches = ["main", "feature/*"]\ncurrent = "live/{branch}"\nenv = { HOST = "{branch}.example.com" }\non_delete = "gone.sh"\n${more}`,
  )
  return {
    site,
    origin,
    current: (branch) => join(site.directory, 'live', pathName(branch)),
    async names(daemon) {
      const { items } = await daemon.api<{ items: readonly { name: string }[] }>('targets')
      return items.map(({ name }) => name)
    },
  }
}

test('each branch has its own state, history, release, link, environment and data', async (t) => {
  const { site, origin, current, names } = await previews(t)
  const daemon = await site.start()
  const main = sha(await git(origin.path, 'rev-parse', 'main'))
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  const runs = [await daemon.accepted({ after: main }), await daemon.accepted({ branch: 'feature/x', after: feature })]
  for (const run of runs) assert.equal((await daemon.ended(run)).state, 'succeeded')

  assert.deepEqual(await names(daemon), ['site@feature/x', 'site@main'])
  assert.equal((await daemon.target('site@main')).deployed?.commit, main)
  const view = await daemon.target('site@feature/x')
  assert.equal(view.deployed?.commit, feature)
  assert.deepEqual(
    (await daemon.runs('&target=site@feature/x')).map(({ id }) => id),
    [runs[1]],
  )
  assert.deepEqual(site.lines('runs'), [
    'site@main main main.example.com',
    'site@feature/x feature/x feature/x.example.com',
  ])
  assert.equal(readFileSync(join(current('feature/x'), 'file.txt'), 'utf8'), 'x')
  assert.notEqual(readlinkSync(current('main')), readlinkSync(current('feature/x')))
  const other = await daemon.post({ branch: 'wip', after: feature })
  assert.deepEqual([other.status, other.body.targets?.[0]?.reason], [200, 'ref'])
})

test('a deleted branch runs on_delete in what was deployed, and retires the instance with all that it had', async (t) => {
  const { site, origin, current, names } = await previews(t)
  const daemon = await site.start()
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: feature }))
  const release = readlinkSync(current('feature/x'))

  await origin.deleteBranch('feature/x')
  const deletion = { branch: 'feature/x', before: feature, after: null, guid: 'one' } as const
  const run = await daemon.ended(await daemon.accepted(deletion))
  assert.deepEqual([run.state, run.event, run.trigger], ['succeeded', 'delete', 'push'])
  assert.deepEqual(site.lines('gone'), [`delete feature/x ${feature} ${release}`])
  assert.deepEqual(await names(daemon), [])
  await until('everything to be gone', () => !existsSync(release))
  assert.throws(() => readlinkSync(current('feature/x')), { code: 'ENOENT' })

  const again = await daemon.post({ ...deletion, guid: 'two', before: sha('1'.repeat(40)) })
  assert.deepEqual([again.status, again.body.targets?.[0]?.reason], [200, 'ref-deleted'])

  await git(origin.work, 'push', '--quiet', 'origin', 'HEAD')
  const back = await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: feature }))
  assert.deepEqual([back.state, back.previous], ['succeeded', null], 'it begins anew')
  assert.deepEqual(await names(daemon), ['site@feature/x'])
})

test('an old deletion of a branch that has returned retires nothing', async (t) => {
  const { site, origin, current, names } = await previews(t)
  const daemon = await site.start()
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: feature }))
  const run = await daemon.ended(await daemon.accepted({ branch: 'feature/x', before: feature, after: null }))
  assert.deepEqual([run.state, run.reason], ['skipped', 'ref-exists'])
  assert.deepEqual([await names(daemon), site.lines('gone')], [['site@feature/x'], []])
  assert.equal(readFileSync(join(current('feature/x'), 'file.txt'), 'utf8'), 'x')
})

test('a branch that returns while its instance is being retired is deployed as a new one', async (t) => {
  const { site, origin, names } = await previews(t)
  site.script('gone.sh', 'echo gone >> "$OUT/gone"', 'while [ ! -e "$OUT/go" ]; do sleep 0.02; done')
  const daemon = await site.start()
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: feature }))
  await origin.deleteBranch('feature/x')
  const deletion = await daemon.accepted({ branch: 'feature/x', before: feature, after: null })
  await until('the script', () => site.lines('gone').length === 1)
  await git(origin.work, 'push', '--quiet', 'origin', 'HEAD')
  const back = await daemon.accepted({ branch: 'feature/x', after: feature, guid: 'back' })
  mkdirSync(join(site.out, 'go'))
  assert.equal((await daemon.ended(deletion)).state, 'succeeded')
  const run = await daemon.ended(back)
  assert.deepEqual([run.state, run.previous], ['succeeded', null])
  assert.deepEqual(await names(daemon), ['site@feature/x'])
})

test('an on_delete that fails leaves the instance as it is, broken, and a redelivery tries again', async (t) => {
  const { site, origin, current, names } = await previews(t)
  const daemon = await site.start()
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: feature }))
  await origin.deleteBranch('feature/x')
  mkdirSync(join(site.out, 'fail'))
  const deletion = { branch: 'feature/x', before: feature, after: null, guid: 'g' } as const
  assert.equal((await daemon.ended(await daemon.accepted(deletion))).state, 'failed')
  assert.equal((await daemon.target('site@feature/x')).state, 'broken')
  assert.ok(existsSync(current('feature/x')))

  rmdirSync(join(site.out, 'fail'))
  const second = await daemon.ended(await daemon.accepted(deletion))
  assert.deepEqual([second.state, second.trigger], ['succeeded', 'redelivery'])
  assert.deepEqual(await names(daemon), [])
})

test('polls record the branches that are there at first, deploy new ones, and retire what two of them miss', async (t) => {
  const { site, origin, names } = await previews(t, 'poll = "1s"')
  await origin.branch('feature/old', 'main')
  await origin.commit({ 'file.txt': 'old' })
  const daemon = await site.start()
  await until('the branch that is named', async () => (await daemon.target('site@main').catch(() => null))?.deployed)
  assert.deepEqual(await names(daemon), ['site@feature/old', 'site@main'])
  assert.equal((await daemon.target('site@feature/old')).lastRun, null)

  await origin.branch('feature/new', 'main')
  const fresh = await origin.commit({ 'file.txt': 'new' })
  await until(
    'the new branch',
    async () => (await daemon.target('site@feature/new').catch(() => null))?.deployed?.commit === fresh,
  )
  await origin.branch('feature/old')
  const moved = await origin.commit({ 'file.txt': 'moved' })
  await until(
    'the old one, once it moves',
    async () => (await daemon.target('site@feature/old')).deployed?.commit === moved,
  )

  await origin.deleteBranch('feature/new')
  await until('the end of the branch', async () => !(await names(daemon)).includes('site@feature/new'))
  assert.match(site.read('gone'), new RegExp(`^delete feature/new ${fresh} `))
  assert.deepEqual(await names(daemon), ['site@feature/old', 'site@main'])
})

test('landfall send tells of a deletion as the forge would, by what landfall knows of the branch', async (t) => {
  const { site, origin, names } = await previews(t)
  site.script('gone.sh', 'cp "$LANDFALL_PAYLOAD" "$OUT/payload"')
  const daemon = await site.start()
  const file = join(site.directory, 'landfall.toml')
  writeFileSync(file, readFileSync(file, 'utf8').replace('[server]', `[server]\npublic_url = "${daemon.url}"`))
  const send = (...args: string[]) => landfall(['-c', file, 'send', 'github', ...args], { cwd: site.directory })
  await origin.branch('feature/x', 'main')
  const commit = await origin.commit({ 'file.txt': 'x' })
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: commit }))
  await origin.deleteBranch('feature/x')

  const unsaid = await send('--commit', '0'.repeat(40))
  assert.deepEqual([unsaid.code, /all zeros say that a ref is gone.*--ref/.test(unsaid.stderr)], [2, true])
  const sent = await send('--ref', 'feature/x', '--commit', '0'.repeat(64))
  assert.deepEqual(
    [sent.code, /^202 accepted: .*\n {2}site@feature\/x {2}run 2/.test(sent.stdout)],
    [0, true],
    sent.stderr,
  )
  assert.equal((await daemon.ended(2)).state, 'succeeded')
  assert.deepEqual(await names(daemon), [])
  const { before, after, deleted, head_commit } = JSON.parse(site.read('payload'))
  assert.deepEqual([before, after, deleted, head_commit], [commit, '0'.repeat(40), true, null])

  await origin.branch('other', 'main')
  const tip = await origin.commit({ 'file.txt': 'other' })
  assert.equal((await send('--ref', 'other', '--commit', '0'.repeat(40))).code, 0)
  const { items } = await daemon.api<{ items: readonly DeliveryView[] }>('deliveries')
  assert.deepEqual(
    items[0]?.changes,
    [{ ref: 'refs/heads/other', before: tip, after: null }],
    'it is on the remote still',
  )
  const never = await send('--ref', 'never', '--commit', '0'.repeat(40))
  assert.deepEqual([never.code, /both zeros: nothing was pushed/.test(never.stdout)], [1, true])
})

test('a branch that is named like another target’s link does not get it', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  mkdirSync(join(site.directory, 'live'))
  site.script('acme/site', 'true')
  site.configure(
    '[target.prod]\nrepo = "acme/site"\nbranches = "main"\ncurrent = "live/site"\n[target.preview]\nrepo = "acme/site"\nbranches = "**"\ncurrent = "live/{branch}"',
  )
  const daemon = await site.start()
  const main = sha(await git(origin.path, 'rev-parse', 'main'))
  await daemon.accepted({ after: main })
  await daemon.quiet()
  const live = readlinkSync(join(site.directory, 'live/site'))
  await origin.branch('site', 'main')
  const { body } = await daemon.post({ branch: 'site', after: await origin.commit({ 'file.txt': 'evil' }) })
  const run = await daemon.ended(body.targets?.find(({ run: made }) => made !== undefined)?.run ?? 0)
  assert.deepEqual([run.target, run.state], ['preview@site', 'unstartable'])
  assert.match(run.detail ?? '', /which is the target prod's/)
  assert.equal(readlinkSync(join(site.directory, 'live/site')), live)
})

/** Of the one target of several that a push moves. */
async function runOf(daemon: Daemon, push: Push): Promise<number> {
  const { body } = await daemon.post(push)
  return body.targets?.find(({ run }) => run !== undefined)?.run ?? assert.fail(JSON.stringify(body))
}

test('a place that two targets come to by the names of their branches is whose came first, over a restart too', async (t) => {
  for (const [kind, place] of [
    ['release', 'current'],
    ['inplace', 'path'],
  ] as const) {
    const site = createSite(t)
    const origin = await site.origin('acme/site')
    const live = join(site.directory, 'live')
    mkdirSync(live)
    site.script('acme/site', 'true')
    site.script('gone.sh', 'echo "$PWD" >> "$OUT/gone"')
    const target = (name: string, pattern: string, where: string) =>
      `[target.${name}]\nrepo = "acme/site"\nbranches = "${pattern}"\ncheckout = "${kind}"\n${place} = "live/${where}"\non_delete = "gone.sh"\non_failure = "gone.sh"\n`
    site.configure(target('one', 'b-*', '{branch}-x') + target('other', 'x*', 'b-1-{branch}'))
    const push = async (daemon: Daemon, branch: string) => {
      const before = await origin.commit({ 'file.txt': branch })
      await origin.branch(branch, before)
      return await daemon.ended(await runOf(daemon, { branch, after: await origin.commit({ 'file.txt': branch }) }))
    }
    const files = () => readFileSync(join(live, 'b-1-x/file.txt'), 'utf8')
    const first = await site.start()
    assert.equal((await push(first, 'b-1')).state, 'succeeded')
    const refused = async (daemon: Daemon, branch: string) => {
      const { state, detail } = await push(daemon, branch)
      assert.equal(state, 'unstartable', detail ?? '')
      assert.match(
        detail ?? '',
        new RegExp(`^${place} would be ${live}/b-1-x: other@x and one@b-1 both .* one@b-1 was first`),
      )
      assert.equal(files(), 'b-1')
    }
    await refused(first, 'x')
    await first.stop()
    const second = await site.start()
    await refused(second, 'x')
    assert.equal((await push(second, 'b-1')).state, 'succeeded')

    const tip = sha(await git(origin.path, 'rev-parse', 'x'))
    await origin.deleteBranch('x')
    assert.equal(
      (await second.ended(await runOf(second, { branch: 'x', before: tip, after: null }))).state,
      'succeeded',
    )
    assert.equal(files(), 'b-1', 'nor does its end touch what is another’s')
    await second.quiet()
    assert.equal(site.lines('gone').includes(join(live, 'b-1-x')), false)

    const other = sha(await git(origin.path, 'rev-parse', 'b-1'))
    await origin.deleteBranch('b-1')
    await second.ended(await runOf(second, { branch: 'b-1', before: other, after: null }))
    if (kind === 'release') assert.equal((await push(second, 'x')).state, 'succeeded', 'it is free again')
  }
})

test('of two runs that come to one place at the same time one has it', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  mkdirSync(join(site.directory, 'live'))
  site.script('acme/site', 'echo "$LANDFALL_TARGET" >> "$OUT/runs"', 'until test -e "$OUT/go"; do sleep 0.05; done')
  const target = (name: string, pattern: string, where: string) =>
    `[target.${name}]\nrepo = "acme/site"\nlane = "${name}"\nbranches = "${pattern}"\ncurrent = "live/${where}"\n`
  site.configure(target('one', 'b-*', '{branch}-x') + target('other', 'x*', 'b-1-{branch}'))
  const daemon = await site.start()
  const runs: number[] = []
  for (const branch of ['b-1', 'x']) {
    await origin.branch(branch, 'main')
    runs.push(await runOf(daemon, { branch, after: await origin.commit({ 'file.txt': branch }) }))
  }
  const isOver = async () => (await daemon.runs()).filter(({ state }) => state === 'unstartable').length === 1
  await until('the one that comes second', isOver)
  writeFileSync(join(site.out, 'go'), '')
  const states = (await Promise.all(runs.map((run) => daemon.ended(run)))).map(({ state }) => state)
  assert.deepEqual(states.toSorted(), ['succeeded', 'unstartable'])
  assert.equal(site.lines('runs').length, 1)
})

test('branches that were pushed and deleted hold up their lane once and not each', async (t) => {
  const { site, origin } = await previews(t)
  const daemon = await site.start()
  const gone = sha('1'.repeat(40))
  const runs: number[] = []
  for (const n of [1, 2, 3, 4, 5, 6]) {
    runs.push(await daemon.accepted({ branch: `feature/${n}`, after: gone, guid: `g${n}` }))
  }
  const main = sha(await git(origin.path, 'rev-parse', 'main'))
  const run = await daemon.ended(await daemon.accepted({ after: main }))
  assert.equal(run.state, 'succeeded')
  const due = new Map<number, number>()
  for (const id of runs) due.set(id, Date.parse((await daemon.run(id)).queuedAt))
  const waits = daemon.logged('announced commit not there yet').map(({ run: id, time, waitMs }) => {
    return { run: Number(id), waitMs, sinceDueMs: Date.parse(String(time)) - (due.get(Number(id)) ?? Number.NaN) }
  })
  const [first = 0] = runs
  const patience = waits.filter(({ run: id }) => id === first).map(({ waitMs }) => waitMs)
  assert.ok(patience.length > 0)
  assert.deepEqual(patience, [1000, 2000, 4000, 8000].slice(0, patience.length))
  const { finishedAt } = await daemon.run(first)
  const gaveMs = Date.parse(finishedAt ?? '') - (due.get(first) ?? Number.NaN)
  assert.ok(gaveMs > 14_900, `the patience that a late remote gets, and not only ${gaveMs} ms`)
  // One after the other they would have come to a minute and a half; each began to look when the one before it had ended.
  for (const { run: id, sinceDueMs } of waits) {
    assert.ok(sinceDueMs < 30_000, `run ${id} was still waited for ${sinceDueMs} ms after it was due`)
  }
})

test('a branch that was gone before anything came of it leaves no instance, and is one again when it returns', async (t) => {
  const { site, origin, names } = await previews(t)
  const daemon = await site.start()
  const main = sha(await git(origin.path, 'rev-parse', 'main'))
  await daemon.api('once', 'POST')
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  await origin.deleteBranch('feature/x')
  const gone = await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: feature }))
  assert.deepEqual([gone.state, gone.reason], ['skipped', 'ref-gone'])
  assert.deepEqual(await names(daemon), ['site@main'])
  assert.notEqual((await daemon.target('site@feature/x')).retiredAt, null)
  assert.equal(existsSync(join(site.out, 'gone')), false, 'there is nothing to delete')

  await git(origin.path, 'update-ref', 'refs/heads/feature/x', feature)
  const { items } = await daemon.api<{ items: readonly { target: string; run?: number }[] }>('once', 'POST')
  const back = items.find(({ target }) => target === 'site@feature/x')?.run ?? 0
  assert.equal((await daemon.ended(back)).state, 'succeeded')
  assert.deepEqual(await names(daemon), ['site@feature/x', 'site@main'])
  // What is deployed is not given up for one look: that is for a deletion, or for two polls.
  await origin.deleteBranch('feature/x')
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: main }))
  assert.deepEqual(await names(daemon), ['site@feature/x', 'site@main'])
})

test('a branch whose only run had failed when it was gone is still deleted with on_delete', async (t) => {
  const { site, origin, names } = await previews(t)
  site.script('acme/site', 'echo kept > "$LANDFALL_DATA/kept"', 'exit 75')
  const daemon = await site.start()
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  const push = { branch: 'feature/x', after: feature, guid: 'one' }
  assert.equal((await daemon.ended(await daemon.accepted(push))).reason, 'tempfail')
  await origin.deleteBranch('feature/x')
  // Its retry is brought forward, and finds no branch.
  assert.equal((await daemon.ended(await daemon.accepted(push))).reason, 'ref-gone')
  assert.ok((await names(daemon)).includes('site@feature/x'), 'it may have made something')
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', before: feature, after: null }))
  assert.equal(site.lines('gone').length, 1)
  assert.equal((await names(daemon)).includes('site@feature/x'), false)
})

test('polls that miss a branch while its first script runs retire it only after that', async (t) => {
  const { site, origin, names } = await previews(t, 'poll = "1s"')
  site.script('acme/site', 'touch "$OUT/$(basename $LANDFALL_BRANCH)"', 'until [ -e "$OUT/go" ]; do sleep 0.05; done')
  const daemon = await site.start()
  await until('the first script', () => existsSync(join(site.out, 'main')))
  writeFileSync(join(site.out, 'go'), '')
  await daemon.quiet()
  rmSync(join(site.out, 'go'))
  await origin.branch('feature/x', 'main')
  await origin.commit({ 'file.txt': 'x' })
  await until('its script', () => existsSync(join(site.out, 'x')))
  await origin.deleteBranch('feature/x')
  const deletion = async () => (await daemon.runs()).find(({ event }) => event === 'delete')
  const isOver = async () => (await daemon.target('site@feature/x')).retiredAt !== null
  await until('two polls', async () => (await deletion()) !== undefined || (await isOver()))
  assert.equal(await isOver(), false, 'its script is at work')
  writeFileSync(join(site.out, 'go'), '')
  await until('the retirement', isOver)
  assert.equal(site.lines('gone').length, 1)
  assert.deepEqual(await names(daemon), ['site@main'])
})

test('a wider pattern takes in branches that are there without deploying them', async (t) => {
  const { site, origin, names } = await previews(t, 'poll = "1s"')
  await origin.branch('fix/old', 'main')
  await origin.commit({ 'file.txt': 'old' })
  const first = await site.start()
  await until('main', async () => (await first.target('site@main').catch(() => null))?.deployed)
  await first.stop()
  const file = join(site.directory, 'landfall.toml')
  writeFileSync(file, readFileSync(file, 'utf8').replace('"feature/*"', '"feature/*", "fix/*"'))
  const second = await site.start()
  await until('the old branch', async () => (await names(second)).includes('site@fix/old'))
  await second.api('once', 'POST')
  assert.equal((await second.target('site@fix/old')).lastRun, null)
})

test('a deletion that a crash cut off is taken up again', async (t) => {
  const { site, origin, names } = await previews(t)
  site.script('gone.sh', 'echo gone >> "$OUT/gone"', 'test -e "$OUT/go" || sleep 600')
  const first = await site.start()
  await origin.branch('feature/x', 'main')
  const feature = await origin.commit({ 'file.txt': 'x' })
  await first.ended(await first.accepted({ branch: 'feature/x', after: feature }))
  await origin.deleteBranch('feature/x')
  await first.accepted({ branch: 'feature/x', before: feature, after: null })
  await until('the script', () => site.lines('gone').length === 1)
  await first.kill()
  mkdirSync(join(site.out, 'go'))
  const second = await site.start()
  await second.quiet()
  assert.equal((await second.runs()).at(-1)?.trigger, 'recovery')
  assert.deepEqual([await names(second), site.lines('gone').length], [[], 2])
})
