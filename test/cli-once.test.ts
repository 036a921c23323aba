/** landfall once, with a configuration, with a daemon beside it, and with a URL alone. */
import assert from 'node:assert/strict'
import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { landfall, start } from './support/cli.ts'
import { createSite, type Site } from './support/daemon.ts'
import { createOrigin } from './support/git.ts'
import { textOf } from './support/scripts.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

function onceIn(site: Site) {
  return (...args: string[]) =>
    landfall(['once', '-c', join(site.directory, 'landfall.toml'), ...args], { cwd: site.directory })
}

async function twoTargets(t: TestContext) {
  const site = createSite(t)
  const [one, other] = [await site.origin('acme/one'), await site.origin('acme/other')]
  site.script(
    '_default',
    'echo "at $LANDFALL_COMMIT"; echo $LANDFALL_NAME $LANDFALL_TRIGGER >> $OUT/runs; test ! -e fail',
  )
  site.configure('[target.one]\nrepo = "acme/one"\n[target.other]\nrepo = "acme/other"')
  return { site, one, other, once: onceIn(site) }
}

test('once runs what is due, says one line a target, and a second call runs nothing', async (t) => {
  const { site, one, once } = await twoTargets(t)
  const first = await once()
  assert.deepEqual([first.code, first.stderr], [0, ''])
  assert.match(first.stdout, /^one {4}deployed [0-9a-f]{10} \(run \d\)\nother {2}deployed [0-9a-f]{10} \(run \d\)\n$/)
  const second = await once()
  assert.equal(second.code, 0)
  assert.match(second.stdout, /^one {4}nothing new: the tip is [0-9a-f]{10}\nother {2}nothing new: .*\n$/)
  assert.deepEqual(site.lines('runs').toSorted(), ['one once', 'other once'])

  const commit = await one.commit({ a: '1' })
  const verbose = await once('-v')
  assert.equal(verbose.code, 0)
  assert.ok(verbose.stdout.startsWith(`at ${commit}\none    deployed ${commit.slice(0, 10)} (run 3)\n`), verbose.stdout)
})

test('once waits for an activation that a crash has left due, and the run of that target waits for it too', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'echo deploy >> $OUT/order')
  site.script(
    'reload.sh',
    'trap "echo cut >> $OUT/order; exit 1" TERM; echo "activate $(cat name)" >> $OUT/order',
    '[ ! -e hang ] || { touch $OUT/hangs; exec sleep 600; }',
    '[ ! -e $OUT/slow ] || { until [ -e $OUT/go ]; do sleep 0.05; done; sleep 0.5; rm $OUT/slow; echo done >> $OUT/order; }',
  )
  const lines = ['repo = "acme/site"', 'branches = "main"', 'script = "deploy.sh"', 'activate = "reload.sh"']
  site.configure(`[target.site]\n${lines.join('\n')}\nrerun_interrupted = false`, 'drain = "1ms"')
  const daemon = await site.start()
  await daemon.ended(await daemon.accepted({ after: await origin.commit({ name: 'one' }) }))
  await daemon.accepted({ after: await origin.commit({ name: 'two', hang: '' }) })
  await until('the activation', () => existsSync(join(site.out, 'hangs')))
  await daemon.kill()
  await origin.commit({ name: 'three', hang: null })
  writeFileSync(join(site.out, 'slow'), '')
  const once = onceIn(site)()
  await until('the old release’s activation', () => site.lines('order').length === 5)
  writeFileSync(join(site.out, 'go'), '')
  assert.match((await once).stdout, /^site +deployed/)
  const two = ['deploy', 'activate one', 'deploy', 'activate two']
  assert.deepEqual(site.lines('order'), [...two, 'activate one', 'done', 'deploy', 'activate three'])
})

test('once is exit code 1 if a run fails or a poll does, tries again what failed, and the other target is served', async (t) => {
  const { site, one, other, once } = await twoTargets(t)
  await one.commit({ fail: '' })
  const failed = await once()
  assert.equal(failed.code, 1)
  assert.match(failed.stdout, /^one {4}failed: .*exited with 1 \(run \d\); its log: (\S+)\nother {2}deployed/)
  assert.match(textOf(/its log: (\S+)/.exec(failed.stdout)?.[1] ?? ''), /^at /)
  const again = await once()
  assert.equal(again.code, 1)
  await one.commit({ fail: null })
  renameSync(other.path, `${other.path}.away`)
  const gone = await once()
  assert.equal(gone.code, 1)
  assert.match(gone.stdout, /^one {4}deployed .*\nother {2}poll failed: .*other.*\n$/)
  assert.equal(site.lines('runs').filter((line) => line.startsWith('one')).length, 3)
})

test('once beside a daemon asks it, waits for the end, and makes the same of it', async (t) => {
  const { site, one, once } = await twoTargets(t)
  const daemon = await site.start()
  assert.match((await once()).stdout, /^one {4}deployed .*\nother {2}deployed /)
  const commit = await one.commit({ fail: '' })
  const failed = await once('-v')
  assert.equal(failed.code, 1)
  assert.ok(failed.stdout.startsWith(`at ${commit}\n`), failed.stdout)
  assert.match(failed.stdout, /one {4}failed: .* \(run 3\); its log: landfall logs 3\nother {2}nothing new/)
  assert.equal((await daemon.runs()).length, 3)
  assert.deepEqual(
    (await daemon.runs()).map(({ trigger }) => trigger),
    ['once', 'once', 'once'],
  )
})

test('once follows a run that a newer push has taken the place of', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('_default', 'echo $LANDFALL_COMMIT >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure('[target.site]\nrepo = "acme/site"\nqueue = "evict"')
  const daemon = await site.start()
  await daemon.accepted({ after: await origin.commit({ a: '1' }) })
  await until('the first script', () => site.lines('runs').length === 1)
  await origin.commit({ a: '2' })
  const waiting = start(['once', '-c', join(site.directory, 'landfall.toml')], { cwd: site.directory })
  await until('the run of once', async () => (await daemon.runs('&state=queued')).length === 1)
  const newest = await origin.commit({ a: '3' })
  await daemon.accepted({ after: newest })
  writeFileSync(join(site.out, 'go'), '')
  const { code, stdout } = await waiting.ended
  assert.deepEqual([code, stdout], [0, `site  deployed ${newest.slice(0, 10)} (run 3)\n`])
})

test('once beside a daemon that drains is exit code 3, and once that waited for what the daemon ended tells that end', async (t) => {
  const site = createSite(t)
  await site.origin('acme/site')
  site.script('_default', 'echo started >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure('[target.site]\nrepo = "acme/site"', 'drain = "wait"')
  const daemon = await site.start()
  const call = () => start(['once', '-c', join(site.directory, 'landfall.toml')], { cwd: site.directory })
  const waiting = call()
  await until('the script', () => site.lines('runs').length === 1)
  daemon.signal('SIGTERM')
  await until('the stop', () => daemon.logged('stopping').length === 1)
  const late = await call().ended
  assert.deepEqual([late.code, late.stdout], [3, ''])
  assert.match(late.stderr, /^landfall is stopping; try again when it has been started again\n$/)
  await assert.rejects(daemon.api('once', 'POST'), /: 503 .*"status":503.*landfall is stopping/)
  // Stopped, so that what it sees next is a daemon that is gone.
  waiting.child.kill('SIGSTOP')
  writeFileSync(join(site.out, 'go'), '')
  assert.equal(await daemon.exited, 0)
  waiting.child.kill('SIGCONT')
  const { code, stdout, stderr } = await waiting.ended
  assert.deepEqual([code, stderr], [0, ''])
  assert.match(stdout, /^site {2}deployed [0-9a-f]{10} \(run 1\)\n$/)
})

test('once whose daemon is gone before the run has ended says which run it is, and how to look', async (t) => {
  const site = createSite(t)
  await site.origin('acme/site')
  site.script('_default', 'echo started >> $OUT/runs; sleep 600')
  site.configure('[target.site]\nrepo = "acme/site"')
  const daemon = await site.start()
  const waiting = start(['once', '-c', join(site.directory, 'landfall.toml')], { cwd: site.directory })
  await until('the script', () => site.lines('runs').length === 1)
  await daemon.kill()
  const { code, stderr } = await waiting.ended
  assert.equal(code, 3)
  assert.match(stderr, /^landfall stopped before the end of run 1, which was waited for; .*: landfall show 1\n$/)
})

test('once where another process owns the data_dir, but serves no socket, is exit code 1', async (t) => {
  const site = createSite(t)
  await site.origin('acme/site')
  site.script('_default', 'echo started >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure('[target.site]\nrepo = "acme/site"')
  const first = start(['once', '-c', join(site.directory, 'landfall.toml')], { cwd: site.directory })
  t.after(() => first.child.kill('SIGKILL'))
  await until('the script', () => site.lines('runs').length === 1)
  const second = await onceIn(site)()
  writeFileSync(join(site.out, 'go'), '')
  assert.equal((await first.ended).code, 0)
  assert.deepEqual([second.code, second.stdout], [1, ''])
  assert.match(second.stderr, /^another landfall is at work in \S+, serve or once: wait for its end or stop it/)
})

test('once --url needs no configuration, shows what the command prints, and runs a commit once', async (t) => {
  const cwd = temporaryDirectory(t)
  const origin = await createOrigin(join(cwd, 'forge'))
  const command = [
    'once',
    '--url',
    origin.path,
    '--',
    'sh',
    '-c',
    'echo "args: $0 $1 in $(basename $(dirname $PWD))"; cat file.txt | head -1',
    '-c',
    '--url',
  ]
  const first = await landfall(command, { cwd })
  assert.equal(first.code, 0, first.stderr)
  assert.match(first.stdout, /^args: -c --url in once-[0-9a-f]+\n/)
  assert.match(first.stdout, /forge\/origin {2}deployed [0-9a-f]{10} \(run 1\)\n$/)
  const second = await landfall(command, { cwd })
  assert.equal(second.code, 0)
  assert.match(second.stdout, /^forge\/origin {2}nothing new: the tip is [0-9a-f]{10}\n$/)
  await origin.commit({ a: '1' })
  assert.match((await landfall(command, { cwd })).stdout, /^args: [\s\S]*deployed .* \(run 2\)\n$/)
})

test('once --url is honest: a failing command, one past its time, a branch or a remote that is not there', async (t) => {
  const cwd = temporaryDirectory(t)
  const { path } = await createOrigin(join(cwd, 'forge'))
  const calls: readonly (readonly [args: readonly string[], says: RegExp])[] = [
    [
      ['--data-dir', 'a', '--', 'sh', '-c', 'exit 3'],
      /failed: sh exited with 3 \(run 1\); its log: \S+\/a\/runs\/1\/log/,
    ],
    [['--data-dir', 'b', '--timeout', '300ms', '--', 'sleep', '600'], /timed-out: /],
    [['--data-dir', 'c', '--', './missing'], /unstartable: .*missing/],
    [['--data-dir', 'd', '--branch', 'nope', '--', 'true'], /branch nope is not on the remote/],
    [['--data-dir', 'e', '--url', `${path}.missing`, '--', 'true'], /poll failed: /],
  ]
  for (const [args, says] of calls) {
    const { code, stdout } = await landfall(['once', '--url', path, ...args], { cwd })
    assert.equal(code, 1, args.join(' '))
    assert.match(stdout, says)
  }
  const mended = await landfall(['once', '--url', path, '--data-dir', 'a', '--', 'true'], { cwd })
  assert.deepEqual([mended.code, /deployed/.test(mended.stdout)], [0, true], 'what failed is tried again')
})

test('a signal lets the command end within the drain time, and ends once with exit code 1 or what became of it', async (t) => {
  const cwd = temporaryDirectory(t)
  const { path } = await createOrigin(join(cwd, 'forge'))
  const script = `echo started; until [ -e ${cwd}/go ]; do sleep 0.05; done; echo done > ${cwd}/done`
  const once = start(['once', '--url', path, '-v', '--', 'sh', '-c', script], { cwd })
  t.after(() => once.child.kill('SIGKILL'))
  await until('the command', () => once.stdout().includes('started\n'))
  once.child.kill('SIGINT')
  await until('the stop', () => once.stderr().includes('"stopping"'))
  writeFileSync(join(cwd, 'go'), '')
  const { code } = await once.ended
  assert.ok(code === 0 || code === 1, `ended by itself, with ${code}`)
  assert.equal(textOf(join(cwd, 'done')), 'done\n')
})

test('a second signal ends once at once, and leaves a sentence and no entries of a log', async (t) => {
  const cwd = temporaryDirectory(t)
  const { path } = await createOrigin(join(cwd, 'forge'))
  const once = start(['once', '--url', path, '--', 'sh', '-c', 'echo started; sleep 600'], { cwd })
  t.after(() => once.child.kill('SIGKILL'))
  await until('the command', () => once.stdout().includes('started\n'))
  once.child.kill('SIGINT')
  once.child.kill('SIGTERM')
  const { code, stderr } = await once.ended
  assert.deepEqual([code, stderr], [1, 'stopped by a signal\n'])
})
