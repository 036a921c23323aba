/** How runs end, and what follows from each end, through the whole program. */
import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { createSite, processesOf, SECRET } from './support/daemon.ts'
import { git, sha } from './support/git.ts'
import { lives, pidIn } from './support/scripts.ts'
import { until } from './support/until.ts'

const AFTER = sha('a'.repeat(40))

test('each way in which a script can end, or not begin, is told apart', async (t) => {
  const site = createSite(t)
  await site.origin('acme/site')
  const cases: Record<string, { script?: string; lines?: string[]; more?: string; ends: string }> = {
    zero: { lines: ['exit 0'], ends: 'succeeded 0' },
    seven: { lines: ['exit 7'], ends: 'failed 7' },
    signal: { lines: ['kill -9 $$'], ends: 'failed SIGKILL' },
    late: { lines: ['sleep 600'], more: 'timeout = "300ms"\nkill_grace = "200ms"', ends: 'timed-out' },
    closed: { lines: ['exec >&- 2>&-; exit 0'], ends: 'succeeded 0' },
    missing: { script: 'nowhere.sh', ends: 'unstartable' },
    interpreter: { lines: [], ends: 'unstartable' },
    plain: { lines: ['exit 0'], ends: 'unstartable' },
    writable: { lines: ['exit 0'], ends: 'unstartable' },
    folder: { script: 'open/deploy.sh', lines: ['exit 0'], ends: 'unstartable' },
    outside: { script: 'link.sh', ends: 'unstartable' },
    argv: { more: 'run = ["./none"]', ends: 'unstartable' },
  }
  for (const [name, { script = `${name}.sh`, lines }] of Object.entries(cases)) if (lines) site.script(script, ...lines)
  const scripts = join(site.directory, 'scripts')
  writeFileSync(join(scripts, 'interpreter.sh'), '#!/nowhere/bin/interpreter\n')
  chmodSync(join(scripts, 'plain.sh'), 0o644)
  chmodSync(join(scripts, 'writable.sh'), 0o757)
  chmodSync(join(scripts, 'open'), 0o777)
  writeFileSync(join(site.directory, 'outside.sh'), '#!/bin/sh\n', { mode: 0o755 })
  symlinkSync(join(site.directory, 'outside.sh'), join(scripts, 'link.sh'))
  const tables = Object.entries(cases).map(([name, { script = `${name}.sh`, more = '' }]) => {
    const program = more.includes('run =') ? '' : `script = "${script}"`
    return `[target.${name}]\nrepo = "acme/site"\ncheckout = "none"\nlane = "${name}"\n${program}\n${more}`
  })
  site.configure(`${tables.join('\n')}\n[target.convention]\nrepo = "acme/site"\ncheckout = "none"`)
  const daemon = await site.start()
  const { body } = await daemon.post({ after: AFTER })
  const found: Record<string, string> = {}
  for (const { target, run } of body.targets ?? []) {
    const { state, reason, exitCode, signal } = await daemon.ended(run ?? 0)
    found[target] = [state, reason, exitCode, signal].filter((part) => part !== null).join(' ')
  }
  const expected = Object.entries(cases).map(([name, { ends }]) => [name, ends])
  assert.deepEqual(found, { ...Object.fromEntries(expected), convention: 'skipped no-script' })
  assert.deepEqual(await daemon.runs('&state=queued'), [], 'without retries nothing comes again')
  const { items } = await daemon.api<{ items: { name: string; state: string }[] }>('targets')
  const broken = items.filter(({ state }) => state === 'broken').map(({ name }) => name)
  assert.deepEqual(
    broken,
    Object.keys(cases).filter((name) => name !== 'zero' && name !== 'closed'),
  )
})

test('with one slot for all lanes, the oldest run goes first, whatever lane it is in', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $LANDFALL_RUN >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure('[target.any]\nrepo = "acme/*"\ncheckout = "none"\nscript = "deploy.sh"', 'max_jobs = 1')
  const daemon = await site.start()
  const order = ['one', 'two', 'two', 'three', 'one', 'two']
  for (const [n, name] of order.entries())
    await daemon.accepted({ repo: `acme/${name}`, after: sha(`${n + 1}`.repeat(40)) })
  await until('the first', () => site.lines('runs').length === 1)
  writeFileSync(join(site.out, 'go'), '')
  await daemon.quiet()
  assert.deepEqual(site.lines('runs'), ['1', '2', '3', '4', '5', '6'])
})

test('a script that removes its own checkout has failed, and `current` stays', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  const live = join(site.directory, 'live')
  site.script('deploy.sh', '[ ! -e bad ] || rm -rf "$LANDFALL_CHECKOUT"')
  site.configure(`[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\ncurrent = "${live}"`)
  const daemon = await site.start()
  const good = await origin.commit({ a: '1' })
  await daemon.ended(await daemon.accepted({ after: good }))
  const run = await daemon.ended(await daemon.accepted({ after: await origin.commit({ bad: '1' }) }))
  assert.deepEqual([run.state, run.detail], ['failed', 'the script removed its own checkout'])
  assert.equal(readlinkSync(live), join(site.dataDir, 'releases/site', good))
})

test('a `current` that is a directory is left alone, and says so before anything is run', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'touch $OUT/ran')
  mkdirSync(join(site.directory, 'live'))
  site.configure(`[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\ncurrent = "${site.directory}/live"`)
  const daemon = await site.start()
  const run = await daemon.ended(await daemon.accepted({ after: await origin.commit({ a: '1' }) }))
  assert.deepEqual([run.state, existsSync(join(site.out, 'ran'))], ['unstartable', false])
  assert.match(run.detail ?? '', /live is no symlink/)
  assert.ok(statSync(join(site.directory, 'live')).isDirectory())
})

test('past its deadline a script is ended with all that it started, and a background child never holds the lane', async (t) => {
  const site = createSite(t)
  site.script(
    'late.sh',
    'trap "" TERM',
    '(trap "" TERM; while :; do sleep 1; done) & echo $! > $OUT/child',
    'echo $$ > $OUT/late; while :; do sleep 1; done',
  )
  site.script('daemon.sh', 'sleep 600 & echo $! > $OUT/background; echo started')
  const target = (name: string) =>
    `[target.${name}]\nrepo = "acme/site"\ncheckout = "none"\nlane = "${name}"\nscript = "${name}.sh"\n`
  site.configure(`${target('late')}timeout = "1s"\nkill_grace = "300ms"\n${target('daemon')}`)
  const daemon = await site.start()
  // Where the script got no processor before its deadline, there was nothing to be ended: once more.
  for (let n = 1; n <= 9 && site.read('late') === ''; n += 1) {
    const { body } = await daemon.post({ after: sha(`${n}`.repeat(40)) })
    const [late, background] = await Promise.all((body.targets ?? []).map(({ run }) => daemon.ended(run ?? 0)))
    assert.deepEqual([late?.state, background?.state], ['timed-out', 'succeeded'])
  }
  for (const name of ['late', 'child', 'background']) {
    assert.ok(!lives(await pidIn(join(site.out, name))), `${name} is still there`)
  }
  assert.deepEqual(processesOf(site.dataDir), [])
})

test('a retry waits outside the lane, counts its attempts, and only the last failure is reported', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script(
    'fail.sh',
    'echo $LANDFALL_TRIGGER $LANDFALL_ATTEMPT $LANDFALL_COMMIT >> $OUT/attempts; [ -e $OUT/mended ] || exit 3',
  )
  site.script('soft.sh', 'echo $LANDFALL_TRIGGER $LANDFALL_ATTEMPT >> $OUT/soft; [ $LANDFALL_ATTEMPT = 2 ] || exit 75')
  site.script(
    'report.sh',
    'echo $(basename $0) $LANDFALL_TARGET $LANDFALL_RESULT:$LANDFALL_EXIT >> $OUT/reports; grep -c "" $LANDFALL_LOG > $OUT/log-lines',
  )
  site.script(
    'better.sh',
    'echo recovered $LANDFALL_TARGET $LANDFALL_RESULT:$LANDFALL_EXIT $LANDFALL_CHECKOUT >> $OUT/reports; exit 1',
  )
  // The last of each push. It holds the lane until it may go, so that no retry starts meanwhile, however long this takes.
  site.script(
    'hold.sh',
    'touch "$OUT/held-$LANDFALL_COMMIT"; until [ -e "$OUT/go-$LANDFALL_COMMIT" ]; do sleep 0.05; done',
  )
  const held = (commit: string) => until('the holder', () => existsSync(join(site.out, `held-${commit}`)))
  const letGo = (commit: string) => writeFileSync(join(site.out, `go-${commit}`), '')
  const reports = 'on_failure = "report.sh"\non_success = "report.sh"\non_recovery = "better.sh"\nlane = "one"'
  site.configure(
    `[target.hard]\nrepo = "acme/site"\nscript = "fail.sh"\nretries = 1\n${reports}
     [target.soft]\nrepo = "acme/site"\nscript = "soft.sh"\n${reports}
     [target.hold]\nrepo = "acme/site"\nscript = "hold.sh"\nlane = "one"`,
  )
  const daemon = await site.start()
  const after = await origin.commit({ a: '1' })
  const { body } = await daemon.post({ after })
  await held(after)
  const [hard, soft] = await Promise.all((body.targets ?? []).map(({ run }) => daemon.run(run ?? 0)))
  assert.deepEqual([hard?.state, hard?.exitCode, hard?.reason], ['failed', 3, null])
  assert.deepEqual([soft?.state, soft?.exitCode, soft?.reason], ['failed', 75, 'tempfail'])
  const waiting = await daemon.runs('&state=queued')
  assert.deepEqual(
    waiting.map(({ target, trigger, attempt, announced }) => [target, trigger, attempt, announced]),
    [
      ['hard', 'retry', 2, after],
      ['soft', 'retry', 2, after],
    ],
  )
  for (const { notBefore, queuedAt } of waiting) {
    const delay = Date.parse(notBefore ?? '') - Date.parse(queuedAt)
    assert.ok(delay >= 9000 && delay <= 11_000, `${delay} ms`)
  }
  assert.deepEqual(
    await daemon.target('hard').then(({ state }) => state),
    'new',
    'nothing is broken while a retry waits',
  )
  assert.deepEqual(site.lines('reports'), [])

  letGo(after)
  await daemon.quiet()
  assert.deepEqual(site.lines('attempts'), [`push 1 ${after}`, `retry 2 ${after}`])
  assert.deepEqual(site.lines('soft'), ['push 1', 'retry 2'])
  await until('both reports', () => site.lines('reports').length === 2)
  assert.deepEqual(site.lines('reports').toSorted(), ['report.sh hard failed:3', 'report.sh soft succeeded:0'])
  assert.equal((await daemon.target('hard')).state, 'broken')

  // A newer run takes the place of a retry that waits.
  const second = await origin.commit({ a: '2' })
  await daemon.accepted({ before: after, after: second })
  await held(second)
  const retry = (await daemon.runs('&state=queued')).find(({ target }) => target === 'hard')
  writeFileSync(join(site.out, 'mended'), '')
  const third = await origin.commit({ a: '3' })
  const last = await daemon.accepted({ after: third })
  for (const commit of [second, third]) letGo(commit)
  await daemon.ended(last)
  const superseded = await daemon.run(retry?.id ?? 0)
  assert.deepEqual([superseded.state, superseded.supersededBy], ['superseded', last])
  await until('on_recovery', () => site.lines('reports').some((line) => line.startsWith('recovered')))
  const line = site.lines('reports').find((one) => one.startsWith('recovered'))
  assert.equal(
    line,
    `recovered hard succeeded:0 ${site.dataDir}/releases/hard/${await git(origin.work, 'rev-parse', 'HEAD')}`,
  )
  assert.equal((await daemon.run(last)).state, 'succeeded', 'what a report does changes nothing')
  assert.equal((await daemon.target('hard')).state, 'ok')
})

test('a redelivery brings the retry that waits forward, and runs the target that has failed for good', async (t) => {
  const site = createSite(t)
  site.script('later.sh', 'echo $LANDFALL_ATTEMPT >> $OUT/later; [ $LANDFALL_ATTEMPT -ge 6 ] || exit 75')
  site.script('failing.sh', 'exit 1')
  const target = (name: string) =>
    `[target.${name}]\nrepo = "acme/site"\nscript = "${name}.sh"\ncheckout = "none"\nlane = "${name}"`
  site.configure(`${target('later')}\n${target('failing')}`)
  const daemon = await site.start()
  const push = { after: AFTER, guid: 'once and again' }
  await daemon.post(push)
  const before = performance.now()
  for (let attempt = 1; attempt < 6; attempt += 1) {
    const [, retry] = await until('a retry that waits', async () => {
      const runs = (await daemon.runs('&target=later')).toReversed()
      const others = await daemon.runs('&target=failing')
      const isThere = runs[0]?.attempt === attempt + 1 && others.every(({ finishedAt }) => finishedAt !== null)
      return isThere ? [runs, runs[0]] : null
    })
    const { status, body } = await daemon.post(push)
    assert.deepEqual([status, body.targets?.[0]?.run], [202, retry?.id])
    assert.equal((await daemon.run(body.targets?.[1]?.run ?? 0)).trigger, 'redelivery')
  }
  await until('the last attempt', () => site.lines('later').length === 6)
  // Each waits twice as long as the one before it: 310 s, if nobody had pressed the button.
  assert.ok(performance.now() - before < 150_000)
  await daemon.quiet()
  assert.deepEqual(
    (await daemon.runs('&target=later')).map(({ state }) => state),
    ['failed', 'failed', 'failed', 'failed', 'failed', 'succeeded'],
  )
})

test('where `activate` fails, `current` is switched back and the old release is activated again', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  const live = join(site.directory, 'live')
  site.script('deploy.sh', 'touch built')
  site.script(
    'reload.sh',
    `echo $LANDFALL_COMMIT $(basename $PWD) $(basename $(readlink ${live})) >> $OUT/activations`,
    '! [ -e bad ]',
  )
  site.configure(`[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\ncurrent = "${live}"\nactivate = "reload.sh"`)
  const daemon = await site.start()
  const firstBad = await origin.commit({ bad: '1' })
  const first = await daemon.ended(await daemon.accepted({ after: firstBad }))
  assert.deepEqual([first.state, first.reason], ['failed', 'activate'])
  assert.throws(() => readlinkSync(live), 'nothing was live before')

  const good = await origin.commit({ bad: null })
  await daemon.ended(await daemon.accepted({ after: good }))
  const bad = await origin.commit({ bad: '2' })
  const run = await daemon.ended(await daemon.accepted({ before: good, after: bad }))
  assert.deepEqual([run.state, run.reason], ['failed', 'activate'])
  assert.equal(readlinkSync(live), join(site.dataDir, 'releases/site', good))
  assert.deepEqual(site.lines('activations').slice(1), [
    `${good} ${good} ${good}`,
    `${bad} ${bad} ${bad}`,
    `${good} ${good} ${good}`,
  ])
  await until('the removal', () => !readdirSync(join(site.dataDir, 'releases/site')).includes(bad))
  assert.equal((await daemon.target('site')).deployed?.commit, good)
})

test('a log is capped and shows no secret that the script was given', async (t) => {
  const site = createSite(t)
  const token = 'tok-9f8e7d6c5b4a'
  writeFileSync(join(site.directory, 'token'), `${token}\n`, { mode: 0o600 })
  site.script(
    'deploy.sh',
    `echo first; echo "$TOKEN"; printf '%s' "$TOKEN"; head -c 3000000 /dev/zero | tr "\\0" x; echo; echo "$TOKEN" >&2; echo last`,
  )
  site.script('after.sh', 'echo "again $TOKEN"; cat $LANDFALL_LOG | wc -c > $OUT/size')
  site.configure(
    `[target.site]\nrepo = "acme/site"\ncheckout = "none"\nscript = "deploy.sh"\nmax_log = "64KB"\non_success = "after.sh"\nenv = { TOKEN = { file = "token" } }`,
  )
  const daemon = await site.start()
  const run = await daemon.ended(await daemon.accepted({ after: AFTER }))
  assert.equal(run.state, 'succeeded')
  const log = await daemon.log(run.id)
  assert.ok(log.length <= 65_536 + 200, `${log.length} bytes`)
  const shape = log.replace(/x+/g, 'x')
  assert.match(shape, /^first\n\*\*\*\n\*\*\*x\n\[landfall: \d+ bytes left out\]\nx\n\*\*\*\nlast\n$/)
  await until('on_success', () => Number(site.read('size')) > 0)
  await until('the report', () => daemon.logged('reported').length === 1)
  const secret = await git(site.directory, 'grep', '--no-index', '-l', '-a', token, '--', 'data').catch(() => '')
  assert.equal(secret, '', 'the token is nowhere in data_dir')
  assert.ok(!daemon.output().includes(token))
})

test('whoever sees that a run has failed finds nothing left of its checkout', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  // So much that its removal takes longer than asking for the run's end.
  site.script('deploy.sh', 'mkdir built && cd built && seq 10000 | xargs touch', 'exit 7')
  site.configure('[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"')
  const daemon = await site.start()
  const run = await daemon.accepted({ after: await origin.commit({ a: '1' }) })
  assert.equal((await daemon.ended(run)).state, 'failed')
  assert.deepEqual(readdirSync(join(site.dataDir, 'releases/site')), [])
})

test('a failing script’s checkout is removed, and a failing rerun leaves the sealed release as it is', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  const live = join(site.directory, 'live')
  site.script('deploy.sh', 'echo $LANDFALL_RUN > built', '[ "$LANDFALL_TRIGGER" = push ] && ! [ -e bad ]')
  site.configure(`[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\ncurrent = "${live}"`)
  const daemon = await site.start()
  const good = await origin.commit({ a: '1' })
  const push = { after: good, guid: 'one' }
  await daemon.ended(await daemon.accepted(push))
  const releases = join(site.dataDir, 'releases/site')
  const before = { live: readlinkSync(live), inode: statSync(join(releases, good)).ino, names: readdirSync(releases) }
  for (const run of [
    await daemon.accepted(push),
    await daemon.accepted({ after: await origin.commit({ bad: '1' }) }),
  ]) {
    assert.equal((await daemon.ended(run)).state, 'failed')
    const now = { live: readlinkSync(live), inode: statSync(join(releases, good)).ino, names: readdirSync(releases) }
    assert.deepEqual(now, before)
  }
  assert.equal((await daemon.target('site')).deployed?.run, 1)
  assert.equal(site.read('../live/built').trim(), '1')
})

test('a log does not show a secret of landfall’s own that a script has come upon', async (t) => {
  const site = createSite(t)
  await site.origin('acme/site')
  site.script('acme/site', `cat '${site.directory}/landfall.toml'; printf %s '${SECRET}' | base64`)
  site.configure('[target.site]\nrepo = "acme/site"\ncheckout = "none"')
  const daemon = await site.start()
  const run = await daemon.ended(await daemon.accepted({ after: AFTER }))
  const log = await daemon.log(run.id)
  assert.match(log, /secrets = \["\*\*\*"\]/)
  assert.ok(!log.includes(Buffer.from(SECRET).toString('base64').slice(0, 12)))
})
