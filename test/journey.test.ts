/** Signed push → real git → real script → stored outcome, through the whole program. */
import assert from 'node:assert/strict'
import { existsSync, lstatSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { createSite } from './support/daemon.ts'
import { git, sha } from './support/git.ts'
import { until } from './support/until.ts'

const SITE = '[target.site]\nrepo = "acme/site"\nbranches = "main"\nscript = "deploy.sh"\n'
const GITLAB_KEY = `whsec_${Buffer.alloc(32, 7).toString('base64')}`

test('a signed push is fetched, run in the contract’s environment, released, made current and activated', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site', { commits: 3, files: 2 })
  const current = join(site.directory, 'live')
  site.script(
    'deploy.sh',
    'tr "\\0" "\\n" < /proc/self/environ > $OUT/env',
    'printf "%s\\n" "$0" "$@" > $OUT/args',
    'pwd > $OUT/cwd; wc -c > $OUT/stdin; cp $LANDFALL_PAYLOAD $OUT/payload; stat -c %a%u $LANDFALL_PAYLOAD > $OUT/mode',
    'cat $LANDFALL_CHANGED > $OUT/changed; tr "\\0" "\\n" < $LANDFALL_CHANGED_Z > $OUT/changed-z; touch built',
  )
  site.script('reload.sh', 'readlink -f $OUT/../live > $OUT/activated; pwd >> $OUT/activated')
  site.configure(
    `${SITE}current = "${current}"\nactivate = "reload.sh"\nenv = { COLOUR = "red", CI = "no" }\npass_env = ["LANG"]`,
  )
  const daemon = await site.start()
  const after = await origin.commit({ 'a b.txt': '1', 'dir0/file0.txt': 'changed' })
  const { status, body } = await daemon.post({ after, guid: 'the-first' })
  assert.deepEqual([status, body], [202, { delivery: 1, verdict: 'accepted', targets: [{ target: 'site', run: 1 }] }])

  const run = await daemon.ended(1)
  assert.equal(run.state, 'succeeded', JSON.stringify(run))
  const { announced, commit, previous, ref, trigger, attempt, exitCode } = run
  assert.deepEqual(
    { announced, commit, previous, ref, trigger, attempt, exitCode },
    {
      announced: after,
      commit: after,
      previous: null,
      ref: 'refs/heads/main',
      trigger: 'push',
      attempt: 1,
      exitCode: 0,
    },
  )
  assert.deepEqual(
    run.phases.map(({ name }) => name),
    ['fetch', 'checkout', 'script', 'activate'],
  )

  const release = join(site.dataDir, 'releases/site', after)
  const { username, shell } = userInfo()
  const runDirectory = join(site.dataDir, 'runs/1')
  const expected = {
    HOME: userInfo().homedir,
    PATH: process.env['PATH'],
    USER: username,
    LOGNAME: username,
    SHELL: shell ?? '/bin/sh',
    LANG: 'C.UTF-8',
    TZ: environmentIn(site.read('env'))['TZ'],
    TMPDIR: environmentIn(site.read('env'))['TMPDIR'],
    CI: 'no',
    COLOUR: 'red',
    LANDFALL_RUN: '1',
    LANDFALL_TARGET: 'site',
    LANDFALL_TRIGGER: 'push',
    LANDFALL_EVENT: 'push',
    LANDFALL_FORGE_EVENT: 'push',
    LANDFALL_HOOK: 'github',
    LANDFALL_DELIVERY: '1',
    LANDFALL_REPO: 'acme/site',
    LANDFALL_OWNER: 'acme',
    LANDFALL_NAME: 'site',
    LANDFALL_REF: 'refs/heads/main',
    LANDFALL_BRANCH: 'main',
    LANDFALL_TAG: '',
    LANDFALL_COMMIT: after,
    LANDFALL_PREVIOUS: '',
    LANDFALL_CHANGED: join(runDirectory, 'changed'),
    LANDFALL_CHANGED_Z: join(runDirectory, 'changed-z'),
    LANDFALL_PAYLOAD: join(runDirectory, 'payload.json'),
    LANDFALL_CHECKOUT: release,
    LANDFALL_ATTEMPT: '1',
    LANDFALL_DATA: join(site.dataDir, 'data/site'),
  }
  // The shell that execs `tr` sets these three by itself.
  const { PWD: _pwd, OLDPWD: _old, SHLVL: _level, _: _underscore, ...given } = environmentIn(site.read('env'))
  assert.deepEqual(given, expected)
  assert.ok(given['TZ'] !== '' && given['TMPDIR'] !== '')
  assert.deepEqual(site.lines('args').slice(1), ['push', join(runDirectory, 'payload.json')])
  assert.deepEqual([site.lines('cwd'), site.lines('stdin')], [[release], ['0']])
  assert.equal(site.read('mode').trim(), `600${process.getuid?.()}`)
  assert.equal(JSON.parse(site.read('payload')).after, after)
  const all = ['a b.txt', 'dir0/file0.txt', 'dir1/file1.txt']
  assert.deepEqual([site.lines('changed'), site.lines('changed-z')], [all, all])

  assert.equal(readlinkSync(current), release)
  assert.deepEqual(site.lines('activated'), [release, release])
  assert.ok(lstatSync(join(release, '.git')).isDirectory())
  assert.equal(await git(release, 'rev-parse', 'HEAD'), after)
  assert.equal(await git(release, 'rev-list', '--count', 'HEAD'), '4')
  await assert.rejects(git(release, 'symbolic-ref', 'HEAD'), 'HEAD is detached')
  assert.ok(!existsSync(join(release, '.git/objects/info/alternates')))

  const { deployed, wanted, state, queued, running } = await daemon.target('site')
  assert.deepEqual([deployed?.commit, deployed?.run, wanted?.commit, state], [after, 1, after, 'ok'])
  assert.deepEqual([queued, running], [0, null])
  const delivery = await daemon.delivery(1)
  assert.deepEqual(
    [delivery.guid, delivery.verdict, delivery.targets, delivery.changes[0]?.after],
    ['the-first', 'accepted', [{ target: 'site', run: 1 }], after],
  )
  const next = await origin.commit({ 'new.txt': '1', 'a b.txt': null })
  await daemon.ended(await daemon.accepted({ before: after, after: next }))
  assert.deepEqual(site.lines('changed'), ['a b.txt', 'new.txt'])
  assert.equal(environmentIn(site.read('env'))['LANDFALL_PREVIOUS'], after)
})

test('the same delivery is a duplicate while its run goes on, and a redelivery that runs the script again later', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script(
    'deploy.sh',
    'echo $LANDFALL_TRIGGER $LANDFALL_COMMIT $PWD >> $OUT/runs',
    'until [ -e $OUT/go ]; do sleep 0.05; done',
  )
  site.configure(`${SITE}current = "${site.directory}/live"`)
  const daemon = await site.start()
  const after = await origin.commit({ a: '1' })
  const push = { after, guid: 'one' }
  await daemon.accepted(push)
  await until('the script', () => site.lines('runs').length === 1)
  const again = await daemon.post(push)
  assert.deepEqual(
    [again.status, again.body],
    [200, { delivery: 1, verdict: 'duplicate', targets: [{ target: 'site', run: 1 }] }],
  )
  const sameBody = await daemon.post({ after, guid: 'another id, the same body' })
  assert.deepEqual([sameBody.status, sameBody.body.verdict], [200, 'duplicate'])
  const announcedAgain = await daemon.post({ before: sha('1'.repeat(40)), after, guid: 'two' })
  assert.deepEqual([announcedAgain.status, announcedAgain.body.targets], [202, [{ target: 'site', run: 1 }]])
  writeFileSync(join(site.out, 'go'), '')
  await daemon.ended(1)
  const first = readlinkSync(`${site.directory}/live`)

  const redelivered = await daemon.post(push)
  assert.deepEqual([redelivered.status, redelivered.body.verdict], [202, 'accepted'])
  const run = await daemon.ended(redelivered.body.targets?.[0]?.run ?? 0)
  assert.deepEqual([run.state, run.trigger, run.commit, run.previous], ['succeeded', 'redelivery', after, after])
  const [, second] = site.lines('runs').map((line) => line.split(' '))
  assert.deepEqual(second?.slice(0, 2), ['redelivery', after])
  assert.notEqual(second?.[2], first, 'a fresh directory, never the live one')
  assert.equal(await git(`${site.directory}/live`, 'rev-parse', 'HEAD'), after)
  assert.equal((await daemon.runs()).length, 2)
})

test('GitLab announces by token and by signing key, and a signed hook takes no bare token', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('group/sub/site')
  site.script('deploy.sh', 'echo $LANDFALL_HOOK $LANDFALL_FORGE_EVENT $LANDFALL_OWNER $LANDFALL_NAME >> $OUT/runs')
  const clone = `clone = "${site.directory}/forge/{repo}/origin.git"`
  const target = (name: string) => `[target.${name}]\nhook = "${name}"\nrepo = "group/sub/site"\nscript = "deploy.sh"`
  site.configure(
    `[hook.token]\nforge = "gitlab"\nsecrets = ["a token"]\n${clone}\n${target('token')}
     [hook.signed]\nforge = "gitlab"\nsecrets = ["${GITLAB_KEY}"]\n${clone}\n${target('signed')}`,
  )
  const daemon = await site.start()
  const after = await origin.commit({ a: '1' })
  const push = { repo: 'group/sub/site', forge: 'gitlab', after } as const
  await daemon.ended(await daemon.accepted({ ...push, hook: 'token', secret: 'a token' }))
  await daemon.ended(await daemon.accepted({ ...push, hook: 'signed', secret: GITLAB_KEY }))
  assert.deepEqual(site.lines('runs'), ['token Push Hook group/sub site', 'signed Push Hook group/sub site'])
  const bare = await daemon.post({ ...push, hook: 'signed', secret: 'a token' })
  assert.deepEqual([bare.status, bare.body], [401, { error: 'unauthentic' }])
})

test('a target without a hook is deployed at first sight and polled, with a payload made for its scripts', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('lib/tool')
  const first = sha(await git(origin.work, 'rev-parse', 'HEAD'))
  site.script(
    'deploy.sh',
    'echo $LANDFALL_TRIGGER $LANDFALL_COMMIT $LANDFALL_BRANCH >> $OUT/runs; cp $LANDFALL_PAYLOAD $OUT/payload',
  )
  site.configure(
    `[hook.other]\nforge = "github"\nsecrets = ["x"]\n[target.tool]\nrepo = "lib/tool"\nurl = "${origin.path}"\nscript = "deploy.sh"\npoll = "1s"`,
  )
  const daemon = await site.start()
  await until('first sight', () => site.lines('runs').length === 1)
  const second = await origin.commit({ a: '2' })
  await until('the poll', () => site.lines('runs').length === 2)
  assert.deepEqual(site.lines('runs'), [`poll ${first} main`, `poll ${second} main`])
  await daemon.quiet()
  assert.deepEqual(JSON.parse(site.read('payload')), {
    ref: 'refs/heads/main',
    before: first,
    after: second,
    repository: { full_name: 'lib/tool', name: 'tool', owner: { login: 'lib' } },
  })
  assert.equal((await daemon.target('tool')).hook, null)
})

test('a target without branches follows the default branch, also where that changes', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'echo $LANDFALL_BRANCH >> $OUT/runs')
  site.configure('[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"')
  const daemon = await site.start()
  await daemon.ended(await daemon.accepted({ after: await origin.commit({ a: '1' }) }))
  await origin.branch('trunk', 'main')
  const side = await daemon.post({ branch: 'trunk', after: await origin.commit({ a: '2' }) })
  assert.deepEqual([side.status, side.body.targets?.[0]?.reason], [200, 'ref'])
  await git(origin.path, 'symbolic-ref', 'HEAD', 'refs/heads/trunk')
  const after = await origin.commit({ a: '3' })
  await daemon.api('once', 'POST')
  await until('the new default branch', async () => (await daemon.target('site')).deployed?.commit === after)
  assert.deepEqual(site.lines('runs'), ['main', 'trunk'])
})

test('a glob makes an instance a repository, each with the script of its convention, and polls it from then on', async (t) => {
  const site = createSite(t)
  const [blog, shop] = [await site.origin('acme/Blog'), await site.origin('acme/shop')]
  site.script('github/acme/blog', 'echo blog $LANDFALL_TRIGGER $LANDFALL_TARGET $LANDFALL_REPO >> $OUT/runs')
  site.script('acme/_default', 'echo default $LANDFALL_TRIGGER $LANDFALL_TARGET $LANDFALL_REPO >> $OUT/runs')
  site.configure('[target.site]\nrepo = "acme/*"\npoll = "1s"')
  const daemon = await site.start()
  await daemon.ended(await daemon.accepted({ repo: 'acme/Blog', after: await blog.commit({ a: '1' }) }))
  await daemon.ended(await daemon.accepted({ repo: 'acme/shop', after: await shop.commit({ a: '1' }) }))
  const stranger = await daemon.post({ repo: 'evil/site', after: sha('1'.repeat(40)) })
  assert.equal(stranger.body.verdict, 'ignored')
  await blog.commit({ a: '2' })
  await until('the poll', () => site.lines('runs').length === 3)
  assert.deepEqual(site.lines('runs'), [
    'blog push site:acme/blog acme/Blog',
    'default push site:acme/shop acme/shop',
    'blog poll site:acme/blog acme/Blog',
  ])
  await daemon.quiet()
  const { items } = await daemon.api<{ items: { name: string }[] }>('targets')
  assert.deepEqual(
    items.map(({ name }) => name),
    ['site:acme/blog', 'site:acme/shop'],
  )
})

/** Two repositories, each with a target, whose scripts are this; two pushes to each of them, until all have ended. */
async function twoRepositories(t: TestContext, lane: string, ...script: string[]) {
  const site = createSite(t)
  const origins = [await site.origin('acme/a'), await site.origin('acme/b')]
  site.script('deploy.sh', ...script)
  site.configure(
    ['a', 'b'].map((name) => `[target.${name}]\nrepo = "acme/${name}"\nscript = "deploy.sh"\n${lane}`).join('\n'),
  )
  const daemon = await site.start()
  for (const round of ['1', '2']) {
    for (const [n, repo] of ['acme/a', 'acme/b'].entries()) {
      await daemon.accepted({ repo, after: (await origins[n]?.commit({ round })) ?? null })
    }
  }
  await daemon.quiet()
  return { site, states: (await daemon.runs()).map(({ state }) => state) }
}

const FOUR_SUCCESSES = Array.from({ length: 4 }, () => 'succeeded')

test('a lane that two repositories share never runs both at once', async (t) => {
  const alone = ['mkdir $OUT/busy || touch $OUT/overlap', 'sleep 0.4', 'rmdir $OUT/busy']
  const { site, states } = await twoRepositories(t, 'lane = "web"', ...alone)
  assert.deepEqual(states, FOUR_SUCCESSES)
  assert.ok(!existsSync(join(site.out, 'overlap')))
})

test('two repositories with lanes of their own run beside each other', async (t) => {
  // Neither ends before the other has started.
  const together = ['touch $OUT/$LANDFALL_NAME', 'until [ -e $OUT/a ] && [ -e $OUT/b ]; do sleep 0.05; done']
  const { states } = await twoRepositories(t, '', ...together)
  assert.deepEqual(states, FOUR_SUCCESSES)
})

test('of twenty pushes at once with `evict`, two or three are run, and the last one is deployed', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site', { commits: 21 })
  site.script(
    'deploy.sh',
    'mkdir $OUT/busy || touch $OUT/overlap',
    'echo $LANDFALL_COMMIT >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done; sleep 0.3',
    'rmdir $OUT/busy',
  )
  site.configure(`${SITE}queue = "evict"`)
  const daemon = await site.start()
  const commits = (await git(origin.work, 'rev-list', '--reverse', 'HEAD')).split('\n').map(sha)
  const pushes = commits.slice(1).map((after, n) => daemon.accepted({ before: commits[n] ?? null, after }))
  await Promise.all(pushes)
  // Not before: what comes after the end of a run is a run of its own.
  writeFileSync(join(site.out, 'go'), '')
  await daemon.quiet()
  const performed = (await daemon.runs()).filter(({ state }) => state !== 'superseded')
  assert.ok(performed.length <= 3, `${performed.length} runs`)
  assert.equal((await daemon.target('site')).deployed?.commit, commits.at(-1))
  assert.ok(!existsSync(join(site.out, 'overlap')))
  const evicted = (await daemon.runs()).filter(({ state }) => state === 'superseded')
  for (const { id, supersededBy } of evicted) assert.ok((supersededBy ?? 0) > id)
})

test('without a checkout the script gets an empty directory, and git is not touched', async (t) => {
  const site = createSite(t)
  site.script(
    'deploy.sh',
    'ls -A | wc -l > $OUT/files; pwd > $OUT/cwd; echo "$LANDFALL_COMMIT$LANDFALL_CHANGED" > $OUT/commit; touch x',
  )
  site.configure(`${SITE.replace('branches = "main"', '')}checkout = "none"`)
  const daemon = await site.start()
  const after = sha('c'.repeat(40))
  const run = await daemon.ended(await daemon.accepted({ after }))
  assert.deepEqual([run.state, run.commit], ['succeeded', after])
  assert.deepEqual([site.lines('files'), site.lines('commit')], [['0'], [after]])
  await until('the removal', () => !existsSync(site.lines('cwd')[0] ?? ''))
  assert.deepEqual(readdirSync(join(site.dataDir, 'mirrors')), [])
})

test('two targets on one repository run each for itself, and the failure of one is its own', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('bad.sh', 'exit 3')
  site.script('good.sh', 'echo $LANDFALL_TARGET >> $OUT/runs')
  site.configure(
    `[target.bad]\nrepo = "acme/site"\nscript = "bad.sh"\n[target.good]\nrepo = "acme/site"\nscript = "good.sh"
     [target.lost]\nrepo = "acme/site"\nscript = "good.sh"\nurl = "${site.directory}/nowhere.git"`,
  )
  const daemon = await site.start()
  const { body } = await daemon.post({ after: await origin.commit({ a: '1' }) })
  const ids = (body.targets ?? []).map(({ run }) => run ?? 0)
  const ends = await Promise.all(ids.map(async (id) => (await daemon.ended(id)).state))
  assert.deepEqual(ends, ['failed', 'succeeded', 'fetch-failed'])
  assert.deepEqual(site.lines('runs'), ['good'])
  assert.deepEqual([(await daemon.target('bad')).state, (await daemon.target('good')).state], ['broken', 'ok'])
})

function environmentIn(text: string): Record<string, string> {
  const lines = text.split('\n').filter((line) => line.includes('='))
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
}
