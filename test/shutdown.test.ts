/** Start and stop: what a signal means for scripts, for fetches, for the queue and for those who knock meanwhile. */
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sha } from '../src/model.ts'
import { createSite, processesOf, type Site } from './support/daemon.ts'
import { git, sha } from './support/git.ts'
import { lives, pidIn, textOf } from './support/scripts.ts'
import { until } from './support/until.ts'

const commit = (n: number) => sha(String(n).repeat(40).slice(0, 40))
/** A target that git is not asked for: what counts here is the script. */
const BARE = '[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\ncheckout = "none"\n'

test('a script that ends within the drain time ends as it would have, and those who knock are told to come again', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo start >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done; echo end >> $OUT/runs')
  site.configure(BARE, 'drain = "wait"')
  const daemon = await site.start()
  const first = await daemon.accepted({ after: commit(1) })
  const [second, third] = [await daemon.accepted({ after: commit(2) }), await daemon.accepted({ after: commit(3) })]
  await until('the script', () => site.lines('runs').length === 1)
  daemon.signal('SIGTERM')
  await until('the stop', () => daemon.logged('stopping').length === 1)
  const refused = await daemon.post({ after: commit(4) })
  assert.deepEqual([refused.status, refused.retryAfter !== undefined], [503, true])
  assert.equal((await fetch(`${daemon.url}/healthz`)).status, 503)
  assert.equal((await daemon.run(first)).state, 'running', 'the socket tells what is waited for')
  writeFileSync(join(site.out, 'go'), '')
  assert.equal(await daemon.exited, 0)

  const next = await site.start()
  await next.quiet()
  const runs = await next.runs()
  assert.deepEqual(
    runs.map(({ id, state }) => [id, state]),
    [first, second, third].map((id) => [id, 'succeeded']),
  )
  const starts = runs.map(({ startedAt }) => startedAt ?? '')
  assert.deepEqual(starts, starts.toSorted(), 'in the order in which they were queued')
})

test('over the drain time a script gets TERM, then KILL; its run is interrupted and never taken up again', async (t) => {
  const site = createSite(t)
  site.script(
    'deploy.sh',
    'trap "echo TERM >> $OUT/signals" TERM; (trap "" TERM; while :; do sleep 1; done) & echo $! > $OUT/child',
    'echo $$ > $OUT/pid; while :; do sleep 0.1; done',
  )
  site.script('report.sh', 'touch $OUT/reported')
  site.configure(`${BARE}kill_grace = "500ms"\non_failure = "report.sh"`, 'drain = "300ms"')
  let run = 0
  // Where the script got no processor between the two signals, it could not write down the first: once more.
  while (run < 9 && site.read('signals') === '') {
    const daemon = await site.start()
    run = await daemon.accepted({ after: commit(run + 1) })
    const pids = [await pidIn(join(site.out, 'pid')), await pidIn(join(site.out, 'child'))]
    for (const name of ['pid', 'child']) rmSync(join(site.out, name))
    const before = performance.now()
    assert.equal(await daemon.stop(), 0)
    assert.ok(performance.now() - before >= 800, 'drain and grace were given')
    assert.deepEqual(pids.map(lives), [false, false])
  }
  assert.deepEqual(site.lines('signals'), ['TERM'])

  const next = await site.start()
  const { state, reason } = await next.run(run)
  assert.deepEqual([state, reason, (await next.runs()).length], ['interrupted', 'shutdown', run])
  assert.equal((await next.target('site')).state, 'broken')
})

test('a script that stops landfall itself neither holds it up nor is run again', async (t) => {
  const site = createSite(t)
  site.script(
    'deploy.sh',
    'echo start >> $OUT/runs; until [ -e $OUT/daemon ]; do sleep 0.05; done; kill -TERM $(cat $OUT/daemon); sleep 600',
  )
  site.configure(`${BARE}kill_grace = "1s"`, 'drain = "500ms"')
  const daemon = await site.start()
  const run = await daemon.accepted({ after: commit(1) })
  await until('the script', () => site.lines('runs').length === 1)
  writeFileSync(join(site.out, 'daemon'), String(daemon.pid))
  assert.equal(await daemon.exited, 0)
  const next = await site.start()
  const { state, reason } = await next.run(run)
  assert.deepEqual([state, reason], ['interrupted', 'shutdown'])
  assert.deepEqual([(await next.runs()).length, site.lines('runs').length], [1, 1])
})

test('an activation that stops landfall is followed at the next start by one of the old release, which may stop it once more', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'exit 0')
  site.script(
    'reload.sh',
    'pwd >> $OUT/active; [ -e $OUT/stops ] || exit 0',
    'until [ -s $OUT/daemon ]; do sleep 0.05; done; kill -TERM $(cat $OUT/daemon); exec sleep 600',
  )
  const lines = ['script = "deploy.sh"', 'branches = "main"', 'activate = "reload.sh"', 'kill_grace = "1s"']
  site.configure(`[target.site]\nrepo = "acme/site"\n${lines.join('\n')}`, 'drain = "500ms"')
  const release = (commit: Sha) => join(site.dataDir, 'releases/site', commit)
  let daemon = await site.start()
  const good = await origin.commit({ a: '1' })
  await daemon.ended(await daemon.accepted({ after: good }))
  writeFileSync(join(site.out, 'stops'), '')
  const bad = await origin.commit({ a: '2' })
  const run = await daemon.accepted({ before: good, after: bad })
  for (const expected of [
    [good, bad],
    [good, bad, good],
  ]) {
    await until('the activation', () => site.lines('active').length === expected.length)
    writeFileSync(join(site.out, 'daemon'), String(daemon.pid))
    assert.equal(await daemon.exited, 0)
    assert.deepEqual(site.lines('active'), expected.map(release))
    rmSync(join(site.out, 'daemon'))
    daemon = await site.start()
  }
  rmSync(join(site.out, 'stops'))
  const { state, reason } = await daemon.run(run)
  assert.deepEqual([state, reason], ['interrupted', 'shutdown'])
  const next = await origin.commit({ a: '3' })
  assert.equal((await daemon.ended(await daemon.accepted({ before: bad, after: next }))).state, 'succeeded')
  assert.deepEqual(site.lines('active'), [good, bad, good, next].map(release), 'and no more')
})

test('a run that still fetches goes back to its place in the queue, and is performed after the restart', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'echo $LANDFALL_RUN >> $OUT/runs')
  site.configure('[target.site]\nrepo = "acme/site"\nbranches = "main"\nscript = "deploy.sh"')
  const daemon = await site.start()
  const unpushed = async (message: string) => {
    await git(origin.work, 'commit', '--quiet', '--allow-empty', '-m', message)
    return sha(await git(origin.work, 'rev-parse', 'HEAD'))
  }
  const [before, after] = [await unpushed('late'), await unpushed('later')]
  // Announced before they are pushed, so that the fetch is repeated for seconds.
  const early = await daemon.accepted({ after: before })
  const second = await daemon.accepted({ after })
  await until('the wait', () => daemon.logged('announced commit not there yet').length > 0)
  assert.equal(await daemon.stop(), 0)
  assert.deepEqual(site.lines('runs'), [])
  await git(origin.work, 'push', '--quiet', 'origin', 'HEAD')
  const next = await site.start()
  await next.quiet()
  const runs = await next.runs()
  assert.deepEqual(
    runs.map(({ id, trigger }) => [id, trigger]),
    [
      [early, 'push'],
      [second, 'push'],
    ],
  )
  assert.equal((await next.target('site')).deployed?.commit, after)
})

test('a second signal ends it at once, with all that runs; the next start takes the run up again', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $LANDFALL_TRIGGER >> $OUT/runs; [ $LANDFALL_TRIGGER = recovery ] || sleep 600')
  site.configure(BARE, 'drain = "wait"')
  const daemon = await site.start()
  const first = await daemon.accepted({ after: commit(1) })
  await until('the script', () => site.lines('runs').length === 1)
  daemon.signal('SIGTERM')
  await until('the stop', () => daemon.logged('stopping').length === 1)
  daemon.signal('SIGINT')
  assert.notEqual(await daemon.exited, 0)
  await until('the end of the script', () => processesOf(site.dataDir).length === 0)
  const next = await site.start()
  await next.quiet()
  assert.deepEqual(site.lines('runs'), ['push', 'recovery'])
  const { state, reason } = await next.run(first)
  assert.deepEqual([state, reason], ['interrupted', 'crash'])
})

test('a start that an address refuses says so, exits 1, and has begun nothing that was queued', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $LANDFALL_RUN >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure(BARE)
  const daemon = await site.start()
  await daemon.accepted({ after: commit(1) })
  await until('the script', () => site.lines('runs').length === 1)
  const second = await site.refused()
  assert.equal(second.code, 1)
  assert.match(second.output, /another landfall is at work in/)
  assert.ok(!second.output.includes('    at '), second.output)
  await daemon.accepted({ after: commit(2) })
  await daemon.kill()

  const taken = createServer().listen(0, '127.0.0.1')
  t.after(() => taken.close())
  await until('the port', () => taken.listening)
  const address = taken.address()
  const port = typeof address === 'object' ? address?.port : 0
  configureAt(site, `127.0.0.1:${port}`)
  const refused = await site.refused()
  assert.deepEqual([refused.code, site.lines('runs')], [1, ['1']])
  assert.match(refused.output, new RegExp(`127.0.0.1:${port}: another process listens there`))
  site.configure(BARE)
  writeFileSync(join(site.out, 'go'), '')
  const next = await site.start()
  await next.quiet()
  assert.deepEqual(
    (await next.runs()).map(({ id, state }) => [id, state]),
    [
      [1, 'interrupted'],
      [2, 'succeeded'],
      [3, 'succeeded'],
    ],
  )
})

test('a data_dir that cannot be one is told in a line, with exit code 1', async (t) => {
  const site = createSite(t, { dataDir: '/dev/null/data' })
  site.configure(BARE)
  const { code, output } = await site.refused()
  assert.deepEqual([code, output.trim().split('\n').length], [1, 1], output)
  assert.match(output, /data_dir \/dev\/null\/data cannot be used: a part of the path is a file/)
})

test('stopped at any moment of polls and fetches, it ends clean, and what was queued is performed by a later start', async (t) => {
  const site = createSite(t)
  const names = ['a', 'b', 'c']
  const origins = await Promise.all(names.map((name) => site.origin(`acme/${name}`)))
  site.script('deploy.sh', 'sleep 0.1')
  const tables = names.map(
    (name) => `[target.${name}]\nrepo = "acme/${name}"\nbranches = "main"\nscript = "deploy.sh"\npoll = "1s"`,
  )
  site.configure(tables.join('\n'))
  let commits: Sha[] = []
  for (const delayMs of [0, 30, 90, 200, 400]) {
    const daemon = await site.start()
    commits = await Promise.all(origins.map((origin) => origin.commit({ delay: String(delayMs) })))
    for (const [n, after] of commits.entries()) await daemon.accepted({ repo: `acme/${names[n]}`, after })
    await sleep(delayMs)
    assert.equal(await daemon.stop(), 0)
    assert.doesNotMatch(daemon.output(), /"level":50/, 'no error is logged')
  }
  const daemon = await site.start()
  await daemon.quiet()
  for (const [n, after] of commits.entries())
    assert.equal((await daemon.target(names[n] ?? '')).deployed?.commit, after)
  const ends = new Set((await daemon.runs()).map(({ state }) => state))
  for (const end of ends) assert.ok(['succeeded', 'skipped'].includes(end), end)
})

test('an idle daemon stops within a second, also while a sender keeps a connection open', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'exit 0')
  site.configure(BARE)
  const took: number[] = []
  // This machine may stall for longer than a stop takes, but not each time.
  while (took.length < 5 && Math.min(...took) >= 5000) {
    const daemon = await site.start()
    await daemon.ended(await daemon.accepted({ after: commit(took.length + 1) })) // fetch keeps its connection alive
    const before = performance.now()
    assert.equal(await daemon.stop(), 0)
    took.push(performance.now() - before)
  }
  assert.ok(Math.min(...took) < 5000, took.join(' '))
})

function configureAt(site: Site, listen: string): void {
  site.configure(BARE)
  const file = join(site.directory, 'landfall.toml')
  writeFileSync(file, textOf(file).replace('127.0.0.1:0', listen), { mode: 0o600 })
}

test('a file that never answers does not keep landfall from stopping, and the run that looks at it is taken up again', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  const path = join(site.directory, 'tree')
  // What whoever owns the tree can do to the next run.
  site.script('acme/site', 'rm -f .git/landfall; mkfifo .git/landfall')
  site.configure(`[target.site]\nrepo = "acme/site"\npath = "${path}"\nkill_grace = "100ms"`, 'drain = "100ms"')
  const daemon = await site.start()
  await daemon.ended(await daemon.accepted({ after: await origin.commit({ 'file.txt': '1' }) }))
  const second = await origin.commit({ 'file.txt': '2' })
  const run = await daemon.accepted({ after: second })
  await until('the checkout', async () => (await daemon.run(run)).commit === second)
  assert.equal(await daemon.stop(), 0)
  rmSync(join(path, '.git/landfall'))
  const next = await site.start()
  await next.quiet()
  assert.equal((await next.target('site')).deployed?.commit, second)
})
