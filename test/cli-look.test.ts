/** The verbs that look: status, runs, deliveries, show and logs, for people and for programs. */
import assert from 'node:assert/strict'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { landfall, onTerminal, start } from './support/cli.ts'
import { createSite, type Site } from './support/daemon.ts'
import { sha } from './support/git.ts'
import { until } from './support/until.ts'

const commit = (n: number) => sha(String(n).repeat(40).slice(0, 40))
/** A target that git is not asked for. */
const BARE = '[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\ncheckout = "none"\n'

/** One target, whose script prints its commit and fails at commits that begin with 2. */
async function served(t: TestContext) {
  const site = createSite(t)
  site.script('deploy.sh', 'echo "at $LANDFALL_COMMIT"; case $LANDFALL_COMMIT in 2*) exit 7;; esac')
  site.configure(BARE)
  const daemon = await site.start()
  return { site, daemon, look: looking(site) }
}

function looking(site: Site) {
  const called = { cwd: site.directory, env: { LANDFALL_CONFIG: join(site.directory, 'landfall.toml') } }
  return Object.assign((...args: string[]) => landfall(args, called), {
    start: (...args: string[]) => start(args, called),
    async onTerminal(...args: string[]) {
      const { stdout } = await onTerminal(args, { ...called, env: { ...called.env, NO_COLOR: '1' } })
      return stdout.replaceAll('\r\n', '\n')
    },
    inColour: (...args: string[]) => onTerminal(args, called),
  })
}

test('--json prints exactly what the API answers', async (t) => {
  const { daemon, look } = await served(t)
  const run = await daemon.accepted({ after: commit(1) })
  await daemon.ended(run)
  await daemon.post({ repo: 'acme/other', after: commit(1) })
  const same = async (args: readonly string[], path: string) => {
    const { code, stdout } = await look(...args, '--json')
    assert.equal(code, 0)
    assert.deepEqual(JSON.parse(stdout), await daemon.api(path), args.join(' '))
  }
  await same(['status'], 'targets')
  await same(['status', 'site'], 'targets/site')
  await same(['runs'], 'runs')
  await same(['runs', '--target', 'nope'], 'runs?target=nope')
  await same(['deliveries', '--verdict', 'ignored'], 'deliveries?verdict=ignored')
  await same(['show', String(run)], `runs/${run}`)
  const { stdout } = await look('logs', String(run), '--json')
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, string>)
  assert.deepEqual(
    events.map(({ event, data }) => [event, data]),
    [
      ['log', `at ${commit(1)}\n`],
      ['end', 'succeeded'],
    ],
  )
})

test('off a terminal each thing is a line of tab-separated fields, without heading or colour', async (t) => {
  const { daemon, look } = await served(t)
  const [good, bad] = [await daemon.accepted({ after: commit(1) }), await daemon.accepted({ after: commit(2) })]
  const ended = await daemon.ended(bad)
  const runs = (await look('runs')).stdout.split('\n')
  assert.equal(runs.length, 3)
  assert.match(runs[0] ?? '', new RegExp(`^${bad}\tsite\t${commit(2)}\tpush\tfailed\t${ended.finishedAt}\t\\d+$`))
  assert.match(runs[1] ?? '', new RegExp(`^${good}\tsite\t${commit(1)}\tpush\tsucceeded\t`))
  assert.equal((await look('status')).stdout, `site\tbroken\t${commit(1)}\t${commit(2)}\t-\t0\t${bad}\tfailed\t-\n`)
  const [delivery] = (await look('deliveries')).stdout.split('\n')
  assert.match(delivery ?? '', /^2\t\S+Z\tgithub\tpush\tacme\/site\tmain\taccepted: run 2$/)
  const facts = (await look('show', String(bad))).stdout
  for (const fact of [
    `run\t${bad}`,
    'state\tfailed',
    'exit code\t7',
    'trigger\tpush, delivery 2',
    `queued\t${ended.queuedAt}`,
  ]) {
    assert.ok(facts.split('\n').includes(fact), facts)
  }
  assert.match(facts, /^phases\t.*script \d+$/m)
})

test('filters and pages choose what is listed', async (t) => {
  const { daemon, look } = await served(t)
  for (const n of [1, 2, 3]) await daemon.ended(await daemon.accepted({ after: commit(n) }))
  await daemon.post({ repo: 'acme/other', after: commit(1) })
  const ids = async (...args: string[]) =>
    (await look(...args)).stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => Number(line.split('\t')[0]))
  assert.deepEqual(await ids('runs'), [3, 2, 1])
  assert.deepEqual(await ids('runs', '--state', 'failed'), [2])
  assert.deepEqual(await ids('runs', '--limit', '1', '--before', '3'), [2])
  assert.deepEqual(await ids('runs', '--target', 'nope'), [])
  assert.deepEqual(await ids('deliveries', '--repo', 'ACME/other'), [4])
  assert.deepEqual(await ids('deliveries', '--verdict', 'accepted', '--limit', '2'), [3, 2])
  assert.deepEqual(await ids('deliveries', '--hook', 'nope'), [])
})

test('the cursor of a list leads to what is older, and is null where nothing is', async (t) => {
  const { daemon } = await served(t)
  for (const n of [1, 2, 3, 4]) await daemon.ended(await daemon.accepted({ after: commit(n) }))
  for (const list of ['runs', 'deliveries']) {
    const page = async (query: string) => {
      const { items, next } = await daemon.api<{ items: { id: number }[]; next: string | null }>(`${list}?${query}`)
      return [items.map(({ id }) => id), next]
    }
    assert.deepEqual(await page('limit=3'), [[4, 3, 2], '2'])
    assert.deepEqual(await page('limit=3&before=2'), [[1], null])
    assert.deepEqual(await page('limit=2'), [[4, 3], '3'])
    assert.deepEqual(await page('limit=2&before=3'), [[2, 1], null], `a full last page of ${list}`)
  }
})

test('on a terminal there are tables of at most 80 columns, relative times, and what to do next', async (t) => {
  const { daemon, look } = await served(t)
  const empty = await Promise.all(['runs', 'deliveries', 'status'].map((verb) => look.onTerminal(verb)))
  assert.match(empty[0] ?? '', /No run yet\..*landfall once/)
  assert.match(empty[1] ?? '', /No delivery yet\..*\n.*landfall send/)
  await daemon.ended(await daemon.accepted({ after: commit(1) }))
  const bad = await daemon.accepted({ after: commit(2) })
  await daemon.ended(bad)
  const [status, one, runs, deliveries, show] = await Promise.all(
    [['status'], ['status', 'site'], ['runs'], ['deliveries'], ['show', String(bad)]].map((args) =>
      look.onTerminal(...args),
    ),
  )
  assert.match(
    status ?? '',
    /^TARGET +STATE +DEPLOYED +NEXT +LAST RUN\nsite +broken +1111111111 (?:just now|\d+ (?:s|min) ago) +wants 2222222222 +2 failed\n$/,
  )
  assert.match(one ?? '', /^site {2}broken\n[\s\S]*deployed +1{40} by run 1[\s\S]*wanted +2{40}[\s\S]*landfall logs 2/)
  assert.match(runs ?? '', /^RUN +TARGET +COMMIT +TRIGGER +STATE +WHEN +TOOK\n2 +site +2222222222 +push +failed /)
  assert.match(deliveries ?? '', /^DELIVERY +WHEN +HOOK +EVENT +REPOSITORY +REF +VERDICT\n2 .* accepted: run 2\n/)
  assert.match(show ?? '', /^Run 2 {2}failed\n[\s\S]*why +.*exited with 7\n[\s\S]*landfall logs 2/)
  for (const text of [status, one, runs, deliveries, show]) {
    assert.deepEqual(
      text?.split('\n').filter((line) => line.length > 80),
      [],
    )
  }
  assert.ok((await look.inColour('runs')).stdout.includes('\u001b[31mfailed\u001b[39m'))
})

test('status names a hook that polling has overtaken, and one that never spoke', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('_default', 'true')
  site.configure('[target.site]\nrepo = "acme/site"\npoll = "1s"')
  const config = join(site.directory, 'landfall.toml')
  const text = readFileSync(config, 'utf8')
  writeFileSync(config, text.replace('[hook.github]', '[hook.github]\nmissed_after = "100ms"'))
  const daemon = await site.start()
  const look = looking(site)
  assert.match(
    await look.onTerminal('status'),
    /site: no delivery has come for acme\/site yet.*\n.*landfall send github --repo acme\/site/,
  )
  assert.match((await look('status')).stdout, /\tnever-heard\n$/)
  await daemon.post({ after: await origin.commit({ a: '1' }) })
  await daemon.quiet()
  assert.match((await look('status')).stdout, /\tsucceeded\t-\n$/)
  await origin.commit({ a: '2' })
  await until('silence', async () => (await daemon.target('site')).silentSince)
  assert.match(
    await look.onTerminal('status'),
    /site: the hook github is silent since .*\n.*look at the deliveries\n.*webhook/,
  )
  assert.match((await look('status')).stdout, /\tsilent since \d{4}-\d\d-\d\dT\S+Z\n$/)
})

test('logs -f shows a log as it grows and ends with the run; without -f it shows what is there', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo first; until [ -e $OUT/go ]; do sleep 0.05; done; echo last; exit 7')
  site.configure(BARE)
  const daemon = await site.start()
  const look = looking(site)
  const run = String(await daemon.accepted({ after: commit(1) }))
  const following = look.start('logs', run, '-f')
  await until('the first line', () => following.stdout() === 'first\n')
  assert.equal((await look('logs', run)).stdout, 'first\n')
  const waiting = await daemon.accepted({ after: commit(2) })
  const none = await look('logs', String(waiting))
  assert.deepEqual([none.code, none.stdout], [0, ''])
  assert.match(none.stderr, /is queued and has no log yet; follow it with: landfall logs \d+ -f/)
  writeFileSync(join(site.out, 'go'), '')
  const { code, stdout } = await following.ended
  assert.equal(code, 0, 'the log was shown, however the run ended')
  assert.match(stdout, /^first\nlast\n/)
})

test('what does not exist is exit code 1 and a sentence', async (t) => {
  const { look } = await served(t)
  const missing = [
    ['show', '99'],
    ['logs', '99'],
    ['logs', '99', '--json', '-f'],
    ['status', 'site:acme/blog'],
  ]
  for (const args of missing) {
    const { code, stdout, stderr } = await look(...args)
    assert.deepEqual([code, stdout], [1, ''], args.join(' '))
    assert.match(
      stderr,
      /^(?:there is no run 99|no target site:acme\/blog has been seen); see landfall (?:runs|status)\n$/,
    )
  }
})

test('a reader that has seen enough ends the program quietly', async (t) => {
  const { daemon, look, site } = await served(t)
  site.script('deploy.sh', 'head -c 3000000 /dev/zero | tr "\\\\0" "x"')
  const run = await daemon.accepted({ after: commit(3) })
  await daemon.ended(run)
  const reading = look.start('logs', String(run))
  reading.child.stdout?.once('data', () => reading.child.stdout?.destroy())
  const { code, stderr } = await reading.ended
  assert.deepEqual([code, stderr], [0, ''])
})

test('status tells of a pattern by its branches, of a retired one as such, and wants nothing that was left alone', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('acme/site', 'true')
  site.script('gone.sh', 'true')
  site.configure(
    '[target.site]\nrepo = "acme/site"\nbranches = "feature/*"\npaths = ["*.txt"]\non_delete = "gone.sh"\npoll = "off"',
  )
  const daemon = await site.start()
  const look = looking(site)
  assert.equal((await look('status', 'site')).stderr, 'no target site has been seen; see landfall status\n')

  await origin.branch('feature/x', 'main')
  const after = await origin.commit({ 'file.txt': 'x' })
  await daemon.ended(await daemon.accepted({ branch: 'feature/x', after }))
  const skipped = await origin.commit({ 'docs/a.md': 'x' })
  assert.equal((await daemon.ended(await daemon.accepted({ branch: 'feature/x', after: skipped }))).reason, 'paths')
  const shown = await look.onTerminal('status', 'site')
  assert.match(shown, /^site@feature\/x +ok +\w{10} \S.* {2}- +2 skipped: paths$/m)
  assert.equal(JSON.parse((await look('status', 'site', '--json')).stdout).items.length, 1)

  await origin.deleteBranch('feature/x')
  const deletion = { branch: 'feature/x', before: skipped, after: null } as const
  assert.equal((await daemon.ended(await daemon.accepted(deletion))).state, 'succeeded')
  assert.match(await look.onTerminal('status', 'site@feature/x'), /retired +(?:just now|\d+ (?:s|min) ago)/)
})

const VERBS = [['status'], ['status', 'site'], ['runs'], ['deliveries'], ['show', '1'], ['logs', '1']]

test('who looks is answered although the file has got mistakes since, and is told so in one line', async (t) => {
  const { site, daemon, look } = await served(t)
  await daemon.ended(await daemon.accepted({ after: commit(1) }))
  const before = await Promise.all(VERBS.map((verb) => look(...verb)))
  site.configure(`${BARE}brunches = "main"\nuser = 7\n[hook.github.typo]\n`)
  const after = await Promise.all(VERBS.map((verb) => look(...verb)))
  const file = join(site.directory, 'landfall.toml')
  for (const [index, { code, stdout, stderr }] of after.entries()) {
    assert.deepEqual([code, stdout], [0, before[index]?.stdout], VERBS[index]?.join(' '))
    assert.match(stderr, /^\S+landfall\.toml has mistakes, .*: landfall check\n$/)
  }
  const flagged = await landfall(['-c', file, 'status'], { cwd: site.directory })
  assert.match(flagged.stderr, new RegExp(`told by: landfall -c ${file} check\n$`))
  assert.equal((await look('check')).code, 2)
})

test('a file that is no TOML, or whose data_dir is wrong, or that others may write, tells nobody where to look', async (t) => {
  const { site, look } = await served(t)
  const file = join(site.directory, 'landfall.toml')
  const text = readFileSync(file, 'utf8')
  const refused = async (written: string, why: RegExp) => {
    writeFileSync(file, written)
    const { code, stdout, stderr } = await look('status')
    assert.deepEqual([code, stdout], [2, ''], stderr)
    assert.match(stderr, why)
  }
  await refused(`${text}[target.site\n`, /:\d+:\d+: syntax: /)
  await refused(text.replace(/^data_dir = .*$/m, 'data_dir = 5'), /:1:1: data_dir: must be a string/)
  await refused(text.replace(/^data_dir = .*$/m, 'data_dir = ""'), /:1:1: data_dir: must be a path/)
  chmodSync(file, 0o602)
  await refused(`${text}typo = 1\n`, /can be written by everybody/)
})
