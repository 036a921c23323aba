/** SIGKILL at any moment: nothing acknowledged is lost, no lane is served twice at once, and nothing goes backwards. */
import assert from 'node:assert/strict'
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunView } from '../src/admin/views.ts'
import type { Sha } from '../src/model.ts'
import { createSite, type Daemon, processesOf, type Site } from './support/daemon.ts'
import { type Origin, sha } from './support/git.ts'
import { lives, pidIn } from './support/scripts.ts'
import { until } from './support/until.ts'

const LIVES = 9
const SEED = Number(process.env['CRASH_SEED'] ?? 20261120)

/** Two repositories with lanes of their own, two that share one; each policy in both. */
const TARGETS = [
  { name: 'a', queue: 'evict', lane: 'github/acme/a' },
  { name: 'b', queue: 'sequential', lane: 'github/acme/b' },
  { name: 'c', queue: 'sequential', lane: 'shared' },
  { name: 'd', queue: 'evict', lane: 'shared' },
] as const

interface Acknowledged {
  readonly run: number
  readonly delivery: number
  readonly after: Sha
}
interface Load {
  readonly name: string
  readonly origin: Origin
  readonly commits: Sha[]
}

test(`killed ${LIVES} times under load, it keeps every promise about runs (seed ${SEED})`, async (t) => {
  const random = seeded(SEED)
  const site = createSite(t)
  const loads: Load[] = []
  for (const { name } of TARGETS)
    loads.push({ name, origin: await site.origin(`acme/${name}`, { files: 20 }), commits: [] })
  configureLoad(site)
  const hang = join(site.out, 'hang')
  writeFileSync(hang, '')
  const acknowledged: Acknowledged[] = []
  const dangling = watchLinks(site)
  t.after(dangling.stop)

  for (let life = 0; life < LIVES; life += 1) {
    const daemon = await site.start()
    const killed = new AbortController()
    const before = acknowledged.length
    const posting = Promise.all(loads.map((load) => postUntil(daemon, load, killed.signal, random, acknowledged)))
    // However slow the machine is, something has been acknowledged, and the first kill hits a run, which hangs until then.
    await until('an acknowledgement', () => acknowledged.length > before)
    if (life === 0) await until('a run', async () => (await daemon.runs('&state=running')).length > 0)
    await sleep(random() * 1200)
    await daemon.kill()
    rmSync(hang, { force: true })
    killed.abort()
    await posting
    if (life % 3 === 1) await site.startAndKill(200 + random() * 300) // in the middle of its recovery
  }
  const daemon = await site.start()
  for (const load of loads) await push(daemon, load, acknowledged)
  await daemon.quiet(600_000)
  await until('the end of all that ran', () => processesOf(site.dataDir).length === 0)
  const runs = await daemon.runs()

  assert.equal(site.read('overlaps'), '', 'no lane was ever served twice at once')
  assert.deepEqual(dangling.seen, [], '`current` never pointed to nothing')
  assert.ok(acknowledged.length > LIVES, `only ${acknowledged.length} deliveries were acknowledged`)
  for (const { run, delivery, after } of acknowledged) {
    assert.ok(reachesAnEnd(runs, run), `run ${run} of delivery ${delivery} came to nothing:\n${tell(runs)}`)
    const { verdict, changes } = await daemon.delivery(delivery)
    assert.deepEqual([verdict, changes[0]?.after], ['accepted', after])
  }
  const interrupted = runs.filter(({ reason }) => reason === 'crash')
  assert.ok(interrupted.length > 0, 'no kill has hit a run: the load is too light')
  assert.equal(interrupted.length, runs.filter(({ trigger }) => trigger === 'recovery').length)
  for (const load of loads) await neverBackwards(daemon, site, load, runs)
  assert.equal(await daemon.stop(), 0)
})

function configureLoad(site: Site): void {
  // The lock is inherited by the child that leaves the group: whoever still has it when the next run starts is found out.
  site.script(
    'deploy.sh',
    'exec 9>> "$OUT/lane-$1"; flock -n 9 || echo "$LANDFALL_RUN $LANDFALL_TARGET" >> $OUT/overlaps',
    'echo "$LANDFALL_RUN $LANDFALL_COMMIT" >> $OUT/journal-$LANDFALL_TARGET',
    'setsid sleep 600 & child=$!',
    '[ ! -e $OUT/hang ] || sleep 600',
    'sleep 0.15; touch finished',
    'kill -9 $child; wait $child; exit 0',
  )
  const tables = TARGETS.map(({ name, queue, lane }) => {
    const own = lane === 'shared' ? 'lane = "shared"' : ''
    const program = `run = ["${site.directory}/scripts/deploy.sh", "${lane.replaceAll('/', '-')}"]`
    const current = `current = "${site.directory}/live-${name}"`
    return `[target.${name}]\nrepo = "acme/${name}"\nbranches = "main"\nqueue = "${queue}"\n${own}\n${program}\n${current}`
  })
  site.configure(`${tables.join('\n')}\n`)
}

async function postUntil(
  daemon: Daemon,
  load: Load,
  killed: AbortSignal,
  random: () => number,
  acknowledged: Acknowledged[],
): Promise<void> {
  for (let n = 0; n < 4 && !killed.aborted; n += 1) {
    await push(daemon, load, acknowledged).catch(() => {}) // it is dead: this one was not acknowledged
    await sleep(random() * 250)
  }
}

async function push(daemon: Daemon, { name, origin, commits }: Load, acknowledged: Acknowledged[]) {
  const before = commits.at(-1) ?? null
  const after = await origin.commit({ n: String(commits.length) })
  commits.push(after)
  const { status, body } = await daemon.post({ repo: `acme/${name}`, before, after })
  if (status !== 202) return
  acknowledged.push({ run: body.targets?.[0]?.run ?? 0, delivery: body.delivery ?? 0, after })
}

/** True where the run has an end of its own, or one that supersedes or recovers it has. */
function reachesAnEnd(runs: readonly RunView[], id: number): boolean {
  const run = runs.find((one) => one.id === id)
  if (run === undefined || run.finishedAt === null) return false
  if (run.state === 'superseded') return run.supersededBy !== null && reachesAnEnd(runs, run.supersededBy)
  if (run.state !== 'interrupted') return ['succeeded', 'skipped'].includes(run.state) || run.reason === 'interruptions'
  const next = runs.find((one) => one.id > id && one.target === run.target && one.trigger === 'recovery')
  return next !== undefined && reachesAnEnd(runs, next.id)
}

function tell(runs: readonly RunView[]): string {
  return runs
    .map(({ id, target, trigger, state, reason, detail }) => [id, target, trigger, state, reason, detail].join(' '))
    .join('\n')
}

async function neverBackwards(daemon: Daemon, site: Site, { name, commits }: Load, runs: readonly RunView[]) {
  const position = (commit: string | null) => commits.indexOf(sha(commit ?? ''))
  const journal = site.lines(`journal-${name}`).map((line) => position(line.split(' ')[1] ?? ''))
  assert.deepEqual(
    journal,
    journal.toSorted((one, other) => one - other),
    `${name} ran for an older commit`,
  )
  const succeeded = runs.filter(({ target, state }) => target === name && state === 'succeeded')
  const inTime = succeeded.toSorted((one, other) => (one.finishedAt ?? '').localeCompare(other.finishedAt ?? ''))
  const deployed = inTime.map(({ commit }) => position(commit))
  assert.deepEqual(
    deployed,
    deployed.toSorted((one, other) => one - other),
    `${name} was deployed backwards`,
  )

  const { deployed: last } = await daemon.target(name)
  assert.equal(last?.commit, commits.at(-1), `${name} is not at its tip`)
  assert.equal(
    readlinkSync(join(site.directory, `live-${name}`)),
    join(site.dataDir, 'releases', name, last?.commit ?? ''),
  )
  const releases = join(site.dataDir, 'releases', name)
  const unsealed = () => readdirSync(releases).filter((entry) => !existsSync(join(releases, entry, 'finished')))
  // The removal of releases that are not kept any longer follows the end of a run.
  await until(`the removal of what nothing has sealed of ${name}`, () => unsealed().length === 0)
}

function watchLinks(site: Site): { readonly seen: string[]; readonly stop: () => void } {
  const seen: string[] = []
  const look = () => {
    for (const { name } of TARGETS) {
      const link = join(site.directory, `live-${name}`)
      // Where it points elsewhere by now, it was switched while we looked.
      const to = pointsTo(link)
      if (to !== null && !existsSync(to) && pointsTo(link) === to) seen.push(link)
    }
  }
  const timer = setInterval(look, 5)
  return { seen, stop: () => clearInterval(timer) }
}

function pointsTo(link: string): string | null {
  return lstatSync(link, { throwIfNoEntry: false }) ? readlinkSync(link) : null
}

/** mulberry32: the same seed, the same kills (as far as a scheduler allows). */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

test('what was answered is there after a kill in that very instant, and is performed', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $LANDFALL_COMMIT >> $OUT/runs')
  site.configure('[target.site]\nrepo = "acme/site"\ncheckout = "none"\nscript = "deploy.sh"\nlane = "one"')
  const answered = new Map<Sha, number>()
  let sent = 0
  // Two kills and no more: the third interruption in a row would rightly end a run as failed.
  for (const answers of [1, 9]) {
    const daemon = await site.start()
    const killed: Promise<void>[] = []
    let mine = 0
    const posts = Array.from({ length: 20 }, async () => {
      sent += 1
      const after = sha(String(sent).padStart(40, '0'))
      answered.set(after, await daemon.accepted({ after }))
      mine += 1
      if (mine === answers) killed.push(daemon.kill())
    })
    await Promise.allSettled(posts) // those that the kill cut off were not answered
    assert.equal(killed.length, 1, 'too few were answered')
    await killed[0]
  }
  const daemon = await site.start()
  await daemon.quiet()
  for (const [after, run] of answered) {
    const { state, announced } = await daemon.run(run)
    assert.equal(announced, after, `run ${run} was forgotten, and its number given to another`)
    assert.ok(state === 'interrupted' || state === 'succeeded', `run ${run} is ${state}`)
    assert.ok(site.lines('runs').includes(after), `run ${run} was never performed`)
  }
})

test('three interruptions in a row are a failure, and `rerun_interrupted = false` leaves it at one', async (t) => {
  const site = createSite(t)
  site.script('deploy.sh', 'echo $LANDFALL_TRIGGER >> $OUT/$LANDFALL_TARGET; exec sleep 600')
  // A report that takes for ever must not keep the next start from serving.
  site.script('report.sh', 'echo $LANDFALL_TARGET $LANDFALL_RESULT >> $OUT/reports; exec sleep 600')
  const target = (name: string, more: string) =>
    `[target.${name}]\nrepo = "acme/site"\ncheckout = "none"\nscript = "deploy.sh"\nlane = "${name}"\non_failure = "report.sh"\n${more}`
  site.configure(`${target('thrice', '')}\n${target('never', 'rerun_interrupted = false')}`)
  let daemon = await site.start()
  await daemon.post({ after: sha('1'.repeat(40)) })
  for (const times of [1, 2, 3]) {
    await until(`start ${times}`, () => site.lines('thrice').length === times && site.lines('never').length === 1)
    // A report that has not begun is lost with the daemon.
    if (times > 1) await until('the first report', () => site.lines('reports').length === 1)
    await daemon.kill()
    daemon = await site.start()
  }
  await until('both reports', () => site.lines('reports').length >= 2)
  const ends = async (name: string) =>
    (await daemon.runs(`&target=${name}`)).map(({ state, reason }) => `${state} ${reason}`)
  assert.deepEqual(await ends('thrice'), ['interrupted crash', 'interrupted crash', 'failed interruptions'])
  assert.deepEqual(await ends('never'), ['interrupted crash'])
  assert.deepEqual(site.lines('thrice'), ['push', 'recovery', 'recovery'])
  assert.deepEqual(site.lines('reports').toSorted(), ['never interrupted', 'thrice failed'])
  for (const name of ['thrice', 'never']) assert.equal((await daemon.target(name)).state, 'broken')
})

test('killed while `activate` ran, it puts the old release back before anything else happens, and activates that', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  const live = join(site.directory, 'live')
  site.script('deploy.sh', 'exit 0')
  site.script('reload.sh', 'pwd >> $OUT/active', '! [ -e hang ] || { touch $OUT/hangs; exec sleep 600; }')
  site.configure(
    `[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\ncurrent = "${live}"\nactivate = "reload.sh"\nrerun_interrupted = false`,
  )
  const daemon = await site.start()
  const good = await origin.commit({ a: '1' })
  await daemon.ended(await daemon.accepted({ after: good }))
  const bad = await origin.commit({ hang: '1' })
  await daemon.accepted({ before: good, after: bad })
  await until('the activation', () => existsSync(join(site.out, 'hangs')))
  assert.equal(readlinkSync(live), join(site.dataDir, 'releases/site', bad))
  await daemon.kill()
  const again = await site.start()
  const release = (commit: string) => join(site.dataDir, 'releases/site', commit)
  assert.equal(readlinkSync(live), release(good))
  assert.deepEqual(readdirSync(join(site.dataDir, 'releases/site')), [good])
  await until('the old release’s activation', () => again.logged('activated again').length > 0)
  assert.deepEqual(site.lines('active'), [good, bad, good].map(release))
  await again.kill()
  // Once: a run that follows finds nothing to make good, and its own activation is the next.
  const last = await site.start()
  const next = await origin.commit({ hang: null })
  assert.equal((await last.ended(await last.accepted({ before: bad, after: next }))).state, 'succeeded')
  assert.deepEqual(site.lines('active'), [good, bad, good, next].map(release))
})

test('the last of three crashes during `activate` is followed by an activation of the old release too', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  site.script('deploy.sh', 'exit 0')
  site.script('reload.sh', 'basename $PWD >> $OUT/active', '! [ -e hang ] || exec sleep 600')
  site.configure('[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"\nactivate = "reload.sh"')
  const daemon = await site.start()
  const good = await origin.commit({ a: '1' })
  await daemon.ended(await daemon.accepted({ after: good }))
  const bad = await origin.commit({ hang: '1' })
  await daemon.accepted({ before: good, after: bad })
  const active = () => site.lines('active').map((name) => name.slice(0, good.length))
  let serving = daemon
  for (const activations of [2, 4, 6]) {
    await until('the activation', () => active().length === activations)
    await serving.kill()
    serving = await site.start()
  }
  await until('the old release’s activation', () => active().length === 7)
  assert.deepEqual(active(), [good, bad, good, bad, good, bad, good])
  const ends = (await serving.runs()).map(({ state, reason }) => `${state} ${reason}`)
  assert.deepEqual(ends.toSorted(), [
    'failed interruptions',
    'interrupted crash',
    'interrupted crash',
    'succeeded null',
  ])
})

test('where only the launcher is killed, its runs are recovered and the daemon goes on', async (t) => {
  const site = createSite(t)
  site.script(
    'deploy.sh',
    'exec 9>> $OUT/lane; flock -n 9 || touch $OUT/overlap',
    'echo $LANDFALL_TRIGGER >> $OUT/runs; [ $LANDFALL_TRIGGER = push ] || exit 0',
    'setsid sleep 600 & echo $! > $OUT/child; echo $$ > $OUT/pid; sleep 600',
  )
  site.configure('[target.site]\nrepo = "acme/site"\ncheckout = "none"\nscript = "deploy.sh"')
  const daemon = await site.start()
  const first = await daemon.accepted({ after: sha('1'.repeat(40)) })
  const pids = [await pidIn(join(site.out, 'pid')), await pidIn(join(site.out, 'child'))]
  process.kill(launcherOf(daemon.pid), 'SIGKILL')
  assert.deepEqual(pick(await daemon.ended(first)), { state: 'interrupted', reason: 'crash' })
  await daemon.quiet()
  const runs = await daemon.runs()
  assert.deepEqual(
    runs.map(({ trigger, state }) => [trigger, state]),
    [
      ['push', 'interrupted'],
      ['recovery', 'succeeded'],
    ],
  )
  assert.deepEqual([...pids.map(lives), existsSync(join(site.out, 'overlap'))], [false, false, false])
})

test('a script that kills its launcher each time fails after three, and another lane goes on', async (t) => {
  const site = createSite(t)
  site.script('bad.sh', 'echo $LANDFALL_TRIGGER >> $OUT/bad; kill -9 $PPID; sleep 600')
  site.script('good.sh', 'echo $LANDFALL_TRIGGER >> $OUT/good')
  const target = (name: string) => `[target.${name}]\nrepo = "acme/${name}"\ncheckout = "none"\nscript = "${name}.sh"`
  site.configure(`${target('bad')}\n${target('good')}`)
  const daemon = await site.start()
  const first = await daemon.accepted({ repo: 'acme/bad', after: sha('1'.repeat(40)) })
  await daemon.ended(first)
  await daemon.quiet()
  const runs = await daemon.runs()
  assert.deepEqual(runs.map(pick), [
    { state: 'interrupted', reason: 'crash' },
    { state: 'interrupted', reason: 'crash' },
    { state: 'failed', reason: 'interruptions' },
  ])
  const good = await daemon.accepted({ repo: 'acme/good', after: sha('2'.repeat(40)) })
  assert.equal((await daemon.ended(good)).state, 'succeeded')
})

function pick({ state, reason }: RunView) {
  return { state, reason }
}

/** The child of the daemon that starts scripts. */
function launcherOf(daemon: number): number {
  const children = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && parentOf(name) === daemon)
  const found = children.find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('launcher-process'))
  return Number(found ?? assert.fail('there is no launcher'))
}

function parentOf(pid: string): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return 0
  }
}
