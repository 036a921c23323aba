/** SIGHUP: what a daemon takes over from its file while it runs, and what stays as it was. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, readFileSync, readlinkSync, renameSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import test from 'node:test'
import type { TargetView } from '../src/admin/views.ts'
import { FORGE } from '../src/forges/index.ts'
import { start as startProgram } from './support/cli.ts'
import { createSite, type Daemon, SECRET, type Site } from './support/daemon.ts'
import { commit } from './support/nouns.ts'
import { until } from './support/until.ts'

/** A target that git is not asked for: what counts here is the script. */
const bare = (name: string, ...more: string[]) =>
  [`[target.${name}]`, 'repo = "acme/site"', 'script = "deploy.sh"', 'checkout = "none"', ...more, ''].join('\n')
/** Writes down when it begins and ends, and waits in between until it may go. */
const SLOW = [
  'echo "start $LANDFALL_TARGET $LANDFALL_RUN" >> $OUT/runs',
  'until [ -e $OUT/go ] || [ -e $OUT/go-$LANDFALL_RUN ]; do sleep 0.05; done',
  'echo "end $LANDFALL_TARGET $LANDFALL_RUN" >> $OUT/runs',
]

/** Asks for a reload, and resolves to the line that tells how it went. */
async function reload(daemon: Daemon): Promise<Record<string, unknown>> {
  const answers = ['reloaded', 'not reloaded']
  const before = answers.map((event) => daemon.logged(event).length)
  daemon.signal('SIGHUP')
  return await until(
    'the answer to a hangup',
    () => answers.flatMap((event, n) => daemon.logged(event).slice(before[n]))[0],
  )
}

const go = (site: Site, run?: number) => writeFileSync(join(site.out, run === undefined ? 'go' : `go-${run}`), '')
const started = (site: Site, run: number) =>
  until(`the start of run ${run}`, () => site.lines('runs').some((line) => line.endsWith(` ${run}`)))
const live = async (daemon: Daemon) =>
  (await daemon.api<{ readonly items: readonly TargetView[] }>('targets')).items.map(({ name }) => name)

// --- The file -----------------------------------------------------------------------------------------------------

test('a bad file is reported mistake by mistake and changes nothing; once it is mended it is taken over', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $COLOUR >> $OUT/colours')
  const config = join(site.directory, 'landfall.toml')
  site.configure(bare('site', 'env = { COLOUR = "red" }'))
  const daemon = await site.start()
  site.configure(bare('site', 'env = { COLOUR = "blue" }', 'timout = "5m"', 'retries = "many"'))
  assert.deepEqual((await reload(daemon))['hint'], 'the old configuration stays')
  const mistakes = daemon.logged('mistake').map(({ mistake }) => String(mistake))
  assert.equal(mistakes.length, 2, mistakes.join('\n'))
  assert.ok(mistakes.every((mistake) => mistake.startsWith(`${config}:`)))
  assert.match(mistakes.join('\n'), /timout/)
  await daemon.ended(await daemon.accepted({ after: commit(1) }))

  site.configure(bare('site', 'env = { COLOUR = "blue" }'))
  const { msg, added, removed, changed } = await reload(daemon)
  assert.deepEqual([msg, added, removed, changed], ['reloaded', [], [], ['site']])
  await daemon.ended(await daemon.accepted({ after: commit(2) }))
  assert.deepEqual(site.lines('colours'), ['red', 'blue'])
  const entry = await reload(daemon)
  assert.deepEqual([entry['msg'], entry['hint']], ['reloaded', 'nothing changed'])
})

test('a file that is gone, or that others may write, is refused and the old configuration stays', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'true')
  site.configure(bare('site'))
  const file = join(site.directory, 'landfall.toml')
  const daemon = await site.start()
  renameSync(file, `${file}.away`)
  assert.equal((await reload(daemon))['msg'], 'not reloaded')
  assert.match(String(daemon.logged('mistake').at(-1)?.['mistake']), /there is no such file/)
  site.configure(bare('site', 'timeout = "1m"'))
  chmodSync(file, 0o666)
  assert.equal((await reload(daemon))['msg'], 'not reloaded')
  assert.match(String(daemon.logged('mistake').at(-1)?.['mistake']), /chmod/)
  chmodSync(file, 0o600)
  writeFileSync(join(site.directory, '.env'), 'A=1\n')
  chmodSync(join(site.directory, '.env'), 0o666)
  assert.equal((await reload(daemon))['msg'], 'not reloaded')
  chmodSync(join(site.directory, '.env'), 0o600)
  assert.deepEqual((await reload(daemon))['changed'], ['site'])
  assert.equal((await daemon.ended(await daemon.accepted({ after: commit(1) }))).state, 'succeeded')
})

test('what only a start can change is named and stays, and all the rest is taken over', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $COLOUR >> $OUT/colours')
  site.configure(bare('site'))
  const file = join(site.directory, 'landfall.toml')
  const daemon = await site.start()
  site.configure(bare('site', 'env = { COLOUR = "blue" }'))
  const text = readFileSync(file, 'utf8')
    .replace(`data_dir = "${site.dataDir}"`, `data_dir = "${site.directory}/elsewhere"`)
    .replace('listen = "127.0.0.1:0"', 'listen = "127.0.0.1:1"\nsocket_mode = "0660"')
  writeFileSync(file, text)
  assert.deepEqual((await reload(daemon))['changed'], ['site'])
  assert.deepEqual(daemon.logged('needs a restart')[0]?.['keys'], ['data_dir', 'server.listen', 'server.socket_mode'])
  await daemon.ended(await daemon.accepted({ after: commit(1) }))
  assert.deepEqual(site.lines('colours'), ['blue'])
  assert.equal(existsSync(join(site.directory, 'elsewhere')), false)

  const inside = `[target.other]\nrepo = "acme/other"\nscript = "deploy.sh"\ncurrent = "${site.dataDir}/live"\n`
  writeFileSync(file, `${text}${inside}`)
  assert.equal((await reload(daemon))['msg'], 'not reloaded', 'the file was judged by the other data_dir')
})

// --- Hooks --------------------------------------------------------------------------------------------------------

test('a secret that is rotated in .env counts from the next delivery on', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'true')
  site.configure(bare('site'))
  const file = join(site.directory, 'landfall.toml')
  writeFileSync(file, readFileSync(file, 'utf8').replace(`"${SECRET}"`, '{ env = "HOOK_SECRET" }'))
  const environment = (secret: string) =>
    writeFileSync(join(site.directory, '.env'), `HOOK_SECRET="${secret}"\n`, { mode: 0o600 })
  environment(SECRET)
  const daemon = await site.start()
  await daemon.accepted({ after: commit(1) })
  environment('another secret')
  await reload(daemon)
  assert.equal((await daemon.post({ after: commit(2) })).status, 401)
  assert.equal((await daemon.post({ after: commit(2), secret: 'another secret' })).status, 202)
})

test('a delivery whose body is still on its way is judged by the new configuration alone', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'true')
  site.configure(bare('site'))
  const file = join(site.directory, 'landfall.toml')
  const daemon = await site.start()
  const compose = (secret: string) => {
    const push = { event: 'push', repo: 'acme/site', ref: 'refs/heads/main', before: null, guid: secret } as const
    return FORGE.github.compose({ ...push, after: commit(1) }, secret, Date.now())
  }
  const [old, fresh] = [SECRET, 'another secret'].map((secret) => {
    const { headers, body } = compose(secret)
    const length = { 'content-length': String(Buffer.byteLength(body)) }
    const asked = request(`${daemon.url}/hooks/github`, { method: 'POST', headers: { ...headers, ...length } })
    asked.write(body.slice(0, 10))
    const status = new Promise((resolve) => asked.on('response', (answer) => resolve(answer.resume().statusCode)))
    return { status, end: () => asked.end(body.slice(10)) }
  })
  // A whole request after theirs has been answered: theirs have begun.
  assert.equal((await fetch(`${daemon.url}/healthz`)).status, 200)
  writeFileSync(file, readFileSync(file, 'utf8').replace(SECRET, 'another secret'))
  await reload(daemon)
  old?.end()
  fresh?.end()
  assert.deepEqual([await old?.status, await fresh?.status], [401, 202])
})

test('a hook that is removed is not found, and a new one is served', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'true')
  site.configure(bare('site'))
  const file = join(site.directory, 'landfall.toml')
  const daemon = await site.start()
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.replace('[hook.github]', '[hook.other]\nforge = "github"'))
  await reload(daemon)
  assert.equal((await daemon.post({ after: commit(1) })).status, 404)
  assert.equal((await daemon.post({ after: commit(1), hook: 'other' })).status, 202)
})

// --- Runs ---------------------------------------------------------------------------------------------------------

test('queued runs take the new settings, and what runs ends by those it began with', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', ...SLOW)
  site.script('other.sh', 'echo $COLOUR >> $OUT/colours; exit 7')
  site.script('late.sh', 'sleep 600')
  site.script('old-report.sh', 'echo $LANDFALL_RUN >> $OUT/old-reports')
  site.script('new-report.sh', 'echo $LANDFALL_RUN $LANDFALL_RESULT >> $OUT/new-reports')
  // In the lane of the other. Only its deadline is of interest: a script that has one need not get to do anything before it.
  const late = (...more: string[]) => bare('late', ...more).replace('deploy.sh', 'late.sh')
  site.configure(bare('site', 'env = { COLOUR = "red" }', 'on_success = "old-report.sh"') + late())
  const daemon = await site.start()
  const first = await daemon.accepted({ after: commit(1) })
  await started(site, first)
  const second = await daemon.accepted({ after: commit(2) })
  site.configure(
    bare('site', 'env = { COLOUR = "blue" }', 'on_failure = "new-report.sh"').replace('deploy.sh', 'other.sh') +
      late('timeout = "300ms"'),
  )
  await reload(daemon)
  go(site, first)
  assert.equal((await daemon.ended(first)).state, 'succeeded')
  const { state, exitCode } = await daemon.ended(second)
  assert.deepEqual([state, exitCode], ['failed', 7])
  assert.equal((await daemon.runs()).find(({ target }) => target === 'late')?.state, 'timed-out')
  assert.deepEqual(site.lines('colours'), ['blue'])
  assert.deepEqual(site.lines('old-reports'), [String(first)])
  await until('the report', () => site.lines('new-reports').length === 1)
  assert.deepEqual(site.lines('new-reports'), [`${second} failed`])
})

test('a removed target: queued runs and retries are cancelled at once, the running one ends as it began, and nothing starts any more', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', ...SLOW)
  site.script('fail.sh', 'exit 1')
  site.script('report.sh', 'echo $LANDFALL_TARGET >> $OUT/reports')
  const docs = bare('docs', 'events = ["push"]').replace('acme/site', 'acme/docs')
  // In one lane, so that the retry does not start even where its time comes before the reload.
  const flaky = bare('flaky', 'lane = "one"', 'retries = 3')
    .replace('acme/site', 'acme/flaky')
    .replace('deploy.sh', 'fail.sh')
  site.configure(bare('site', 'lane = "one"', 'on_success = "report.sh"') + flaky + docs)
  const daemon = await site.start()
  const failing = await daemon.accepted({ repo: 'acme/flaky', after: commit(1) })
  const first = await daemon.accepted({ after: commit(1) })
  await started(site, first)
  const [second, third] = [await daemon.accepted({ after: commit(2) }), await daemon.accepted({ after: commit(3) })]
  await daemon.ended(failing)
  const retry = (await daemon.runs()).find(({ trigger }) => trigger === 'retry')
  assert.equal(retry?.state, 'queued')

  site.configure(docs)
  assert.deepEqual((await reload(daemon))['removed'], ['site', 'flaky'])
  for (const id of [second, third, retry.id]) {
    const { state, reason, detail } = await daemon.run(id)
    assert.deepEqual([state, reason], ['cancelled', 'target-removed'])
    assert.match(detail ?? '', /is not in the configuration any more/)
  }
  assert.equal((await daemon.run(first)).state, 'running')
  assert.deepEqual(await live(daemon), ['docs'])
  const { status, body } = await daemon.post({ after: commit(4) })
  assert.deepEqual([status, (body as { reason?: string }).reason], [200, 'no-target'])
  assert.equal(daemon.logged('target removed').length, 2)
  go(site)
  assert.equal((await daemon.ended(first)).state, 'succeeded')
  await until('the report', () => site.lines('reports').length === 1)
  assert.equal((await daemon.target('site')).deployed?.commit, commit(1), 'it is told by its name')
  assert.equal((await daemon.runs()).length, 5)
})

test('a run that fails after its target was removed is not retried, and its failure is reported', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', ...SLOW, 'exit 1')
  site.script('report.sh', 'echo $LANDFALL_RESULT >> $OUT/reports')
  const docs = bare('docs').replace('acme/site', 'acme/docs')
  site.configure(bare('site', 'retries = 3', 'on_failure = "report.sh"') + docs)
  const daemon = await site.start()
  const run = await daemon.accepted({ after: commit(1) })
  await started(site, run)
  site.configure(docs)
  await reload(daemon)
  go(site)
  assert.equal((await daemon.ended(run)).state, 'failed')
  await until('the report', () => site.lines('reports').length === 1)
  assert.equal((await daemon.runs()).length, 1)
})

test('what was queued for a target that is gone at a start is cancelled at once, not in its turn', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', ...SLOW)
  const docs = bare('docs').replace('acme/site', 'acme/docs')
  site.configure(bare('site') + docs, 'max_jobs = 1')
  const daemon = await site.start()
  const first = await daemon.accepted({ repo: 'acme/docs', after: commit(1) })
  await started(site, first)
  const second = await daemon.accepted({ after: commit(1) })
  await daemon.kill()
  site.configure(docs, 'max_jobs = 1')
  const next = await site.start()
  const recovery = (await next.runs()).find(({ trigger }) => trigger === 'recovery')
  await started(site, recovery?.id ?? assert.fail('no recovery'))
  const { state, reason } = await next.run(second)
  assert.deepEqual([state, reason], ['cancelled', 'target-removed'])
  go(site)
  await next.quiet()
})

test('a renamed target is a removed and a new one: the new one deploys at first sight, and what the old one deployed stays', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', ...SLOW)
  const current = join(site.directory, 'live')
  const target = (name: string) =>
    `[target.${name}]\nrepo = "acme/site"\nbranches = "main"\nscript = "deploy.sh"\npoll = "1s"\ncurrent = "${current}"\n`
  site.configure(target('site'))
  const daemon = await site.start()
  const tip = await origin.commit({ a: '1' })
  go(site)
  await until('the deployment', async () => (await daemon.target('site')).deployed?.commit === tip)
  await daemon.quiet()
  site.configure(target('web'))
  const { added, removed } = await reload(daemon)
  assert.deepEqual([added, removed], [['web'], ['site']])
  await until('the deployment', async () => {
    const web = await daemon.target('web').catch(() => null)
    return web?.deployed?.commit === tip
  })
  await daemon.quiet()
  assert.equal(readlinkSync(current), join(site.dataDir, 'releases/web', tip))
  assert.ok(existsSync(join(site.dataDir, 'releases/site', tip)))
  assert.deepEqual(await live(daemon), ['web'])
})

// --- Lanes --------------------------------------------------------------------------------------------------------

test('while a run goes on whose target has moved to another lane, both lanes wait, and so does its instance', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', ...SLOW)
  const targets = (lane: string) =>
    bare('site', `lane = "${lane}"`) +
    bare('docs', 'lane = "y"').replace('acme/site', 'acme/docs') +
    bare('blog', 'lane = "x"').replace('acme/site', 'acme/blog') +
    bare('free', 'lane = "z"').replace('acme/site', 'acme/free')
  site.configure(targets('x'))
  const daemon = await site.start()
  const first = await daemon.accepted({ after: commit(1) })
  await started(site, first)
  site.configure(targets('y'))
  await reload(daemon)
  const waiting = [
    await daemon.accepted({ repo: 'acme/docs', after: commit(1) }),
    await daemon.accepted({ after: commit(2) }),
    await daemon.accepted({ repo: 'acme/blog', after: commit(1) }),
  ]
  // The fourth has a lane of its own: when it has started, the others could have.
  const last = await daemon.accepted({ repo: 'acme/free', after: commit(1) })
  await started(site, last)
  for (const id of waiting) assert.equal((await daemon.run(id)).state, 'queued')
  go(site, first)
  await daemon.ended(first)
  const [docs = 0, second = 0, blog = 0] = waiting
  await Promise.all([started(site, docs), started(site, blog)])
  assert.equal((await daemon.run(second)).state, 'queued', 'it is in the lane of docs now')
  go(site)
  await daemon.quiet()
  const order = site.lines('runs')
  assert.ok(order.indexOf(`end docs ${docs}`) < order.indexOf(`start site ${second}`), order.join('\n'))
})

test('a max_jobs that was raised lets more runs start at once', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', ...SLOW)
  const targets = bare('site') + bare('docs').replace('acme/site', 'acme/docs')
  site.configure(targets, 'max_jobs = 1')
  const daemon = await site.start()
  await started(site, await daemon.accepted({ after: commit(1) }))
  const second = await daemon.accepted({ repo: 'acme/docs', after: commit(1) })
  site.configure(targets, 'max_jobs = 2')
  await reload(daemon)
  await started(site, second)
  go(site)
  await daemon.quiet()
})

// --- Another repository -------------------------------------------------------------------------------------------

const GIT = '[target.site]\nrepo = "acme/site"\nbranches = "main"\nscript = "deploy.sh"\n'

test('a target that follows another repository begins anew, and what of the old one still ran says nothing of it', async (t) => {
  const site = createSite(t)
  const [old, other] = [await site.origin('acme/site'), await site.origin('acme/other')]
  site.script('deploy.sh', 'echo "$LANDFALL_REPO $LANDFALL_COMMIT [$LANDFALL_PREVIOUS]" >> $OUT/deployed', ...SLOW)
  site.configure(GIT)
  const daemon = await site.start()
  const before = await old.commit({ a: '1' })
  const first = await daemon.accepted({ after: before })
  go(site, first)
  await daemon.ended(first)
  const second = await daemon.accepted({ before, after: await old.commit({ a: '2' }) })
  await started(site, second)
  const third = await daemon.accepted({ after: await old.commit({ a: '3' }) })

  site.configure(GIT.replace('acme/site', 'acme/other'))
  await reload(daemon)
  const { state, reason, detail } = await daemon.run(third)
  assert.deepEqual([state, reason], ['cancelled', 'target-removed'])
  assert.match(detail ?? '', /follows acme\/other now, not acme\/site/)
  assert.deepEqual([(await daemon.target('site')).deployed, (await daemon.target('site')).repo], [null, 'acme/other'])
  go(site)
  assert.equal((await daemon.ended(second)).state, 'succeeded')
  assert.equal((await daemon.target('site')).deployed, null)

  const tip = await other.commit({ b: '1' })
  const run = await daemon.accepted({ repo: 'acme/other', after: tip })
  assert.equal((await daemon.ended(run)).state, 'succeeded')
  assert.equal((await daemon.target('site')).deployed?.commit, tip)
  assert.equal(site.lines('deployed').at(-1), `acme/other ${tip} []`)
})

test('a repository that the file calls by a new name, and the old one an alias, goes on where it was', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'echo "$LANDFALL_REPO $LANDFALL_COMMIT [$LANDFALL_PREVIOUS]" >> $OUT/deployed', ...SLOW)
  site.configure(GIT)
  const daemon = await site.start()
  const [one, two, three] = [
    await origin.commit({ a: '1' }),
    await origin.commit({ a: '2' }),
    await origin.commit({ a: '3' }),
  ]
  const first = await daemon.accepted({ after: one })
  await started(site, first)
  const second = await daemon.accepted({ before: one, after: two })
  renameSync(join(site.directory, 'forge/acme/site'), join(site.directory, 'forge/acme/renamed'))
  site.configure(`${GIT.replace('acme/site', 'acme/renamed')}aliases = ["acme/site"]\n`)
  await reload(daemon)
  go(site)
  assert.deepEqual([(await daemon.ended(first)).state, (await daemon.ended(second)).state], ['succeeded', 'succeeded'])
  await daemon.ended(await daemon.accepted({ repo: 'acme/renamed', before: two, after: three }))
  assert.deepEqual(site.lines('deployed'), [
    `acme/site ${one} []`,
    `acme/renamed ${two} [${one}]`,
    `acme/renamed ${three} [${two}]`,
  ])
})

// --- Polls --------------------------------------------------------------------------------------------------------

test('a target that is new or polls more often is polled soon, and one that is gone no more', async (t) => {
  const site = createSite(t)
  const [origin, other] = [await site.origin('acme/site'), await site.origin('acme/other')]
  site.script('deploy.sh', 'true')
  const polled = (name: string, poll: string) =>
    `[target.${name}]\nrepo = "acme/${name}"\nbranches = "main"\nscript = "deploy.sh"\npoll = "${poll}"\n`
  const deployed = async (name: string) => (await daemon.target(name).catch(() => null))?.deployed?.commit
  site.configure(polled('site', '1h'))
  const daemon = await site.start()
  await until('the first sight', () => deployed('site'))
  const tip = await origin.commit({ a: '1' })
  site.configure(polled('site', '1s') + polled('other', '1h'))
  await reload(daemon)
  await until('the poll of what is polled more often', async () => (await deployed('site')) === tip)
  await until('the poll of what is new', () => deployed('other'))
  await daemon.quiet()

  site.configure(polled('other', '1s'))
  await reload(daemon)
  const before = (await daemon.runs()).length
  await origin.commit({ a: '2' })
  const last = await other.commit({ a: '2' })
  await until('the poll of the other', async () => (await deployed('other')) === last)
  assert.equal((await daemon.runs()).length, before + 1)
})

// --- Signals ------------------------------------------------------------------------------------------------------

test('a storm of hangups amid deliveries loses none, and the last file counts', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $COLOUR $LANDFALL_RUN >> $OUT/runs')
  const last = bare('last').replace('acme/site', 'acme/last')
  const file = (n: number) => bare('site', `env = { COLOUR = "${n}" }`, `lane = "${n % 3}"`) + (n === 40 ? last : '')
  site.configure(file(0))
  const daemon = await site.start()
  const runs: number[] = []
  for (let n = 1; n <= 40; n += 1) {
    site.configure(file(n))
    daemon.signal('SIGHUP')
    if (n % 2 === 0) runs.push(await daemon.accepted({ after: commit(n) }))
  }
  const added = () => daemon.logged('reloaded').flatMap((entry) => (entry['added'] as string[] | undefined) ?? [])
  await until('the last file', () => added().includes('last'))
  await daemon.quiet()
  assert.deepEqual(
    (await daemon.runs()).map(({ id, state }) => [id, state]),
    runs.map((id) => [id, 'succeeded']),
  )
  const run = await daemon.accepted({ after: commit(41) })
  await daemon.ended(run)
  assert.equal(site.lines('runs').at(-1), `40 ${run}`)
})

test('hangups while it starts do not end it', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'true')
  site.configure(bare('site'))
  const { child, stdout, ended } = startProgram(['serve', '-c', join(site.directory, 'landfall.toml')], {
    cwd: site.directory,
  })
  t.after(() => child.kill('SIGKILL'))
  let hangups = 0
  await until('a daemon that listens', () => {
    assert.equal(child.signalCode ?? child.exitCode, null, 'it has ended')
    if (hearsHangups(child.pid ?? 0) && child.kill('SIGHUP')) hangups += 1
    return stdout().includes('"listening"')
  })
  assert.ok(hangups > 0)
  await until('the answer to the last', () => stdout().includes('"reloaded"'))
  // Before its directory is removed.
  child.kill('SIGKILL')
  await ended
})

/** Whether the program, once it has started itself over, listens for SIGHUP; before that node has no listener yet. */
function hearsHangups(pid: number): boolean {
  const read = (name: string) => readFileSync(`/proc/${pid}/${name}`, 'utf8')
  const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(read('status'))?.[1] ?? '0'
  return read('cmdline').includes('semi-space') && (BigInt(`0x${caught}`) & 1n) === 1n
}

test('a hangup while it stops changes nothing, and the stop goes on', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', ...SLOW)
  site.configure(bare('site'), 'drain = "wait"')
  const daemon = await site.start()
  const run = await daemon.accepted({ after: commit(1) })
  await started(site, run)
  daemon.signal('SIGTERM')
  await until('the stop', () => daemon.logged('stopping').length === 1)
  site.configure(bare('docs').replace('acme/site', 'acme/docs'))
  assert.match(String((await reload(daemon))['why']), /stopping/)
  go(site)
  assert.equal(await daemon.exited, 0)
})
