/** A thousand targets, and a delivery for each of them at once, beside a shell that does the same git and starts the same scripts. */
import { once } from 'node:events'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import { type Daemon, startDaemon, untilIdle } from './daemon.ts'
import { childrenOf, cpuSecondsOf, cpuSecondsWithChildren, execute, memoryOf, start } from './processes.ts'
import { GIT_ENV, makeRemotes, type Remote } from './repositories.ts'
import { HOOK_PATH, type Signed, sign } from './requests.ts'
import {
  type Bench,
  type Line,
  median,
  megabytes,
  milliseconds,
  perSecond,
  quantile,
  type Result,
  type Row,
} from './table.ts'

/** What both sides run at once: `max_jobs`, and `xargs -P`. */
const JOBS = 4
const CONNECTIONS = 32
const FILES = 20
/** A push of so many commits; the last one of them writes the first file anew, which the script reads. */
const COMMITS = FILES
const PATIENCE_MS = 600_000

async function measure({ directory, program, quick }: Bench): Promise<Result> {
  const count = quick ? 200 : 1000
  const pushes = quick ? 1 : 3
  const rig = await makeRig({ directory, program, count, pushes })
  const rounds: Round[] = []
  try {
    // The first push finds no mirror and no clone.
    for (let push = 0; push <= pushes; push += 1) {
      await Promise.all(rig.remotes.map((remote) => remote.moveTo(push * COMMITS)))
      await execute('sync')
      // Each goes first in every other round: the second finds the remotes' files in memory.
      const early = push % 2 === 0 ? await landfallRound(rig, push) : null
      await execute('sync')
      const shell = await shellRound(rig, push)
      await execute('sync')
      rounds.push({ ours: early ?? (await landfallRound(rig, push)), shell })
    }
    const memory = memoryOf(rig.daemon.pid)
    const launchers = childrenOf(rig.daemon.pid).map((pid) => megabytes(memoryOf(pid).most))
    return report(rig, rounds, { daemon: memory.most, launchers })
  } finally {
    await rig.daemon.stop()
  }
}

interface Rig {
  readonly directory: string
  readonly count: number
  readonly remotes: readonly Remote[]
  readonly daemon: Daemon
  /** Where the scripts of either side leave a line each. */
  readonly traces: { readonly ours: string; readonly shell: string }
}

interface Making {
  readonly directory: string
  readonly program: string
  readonly count: number
  readonly pushes: number
}

async function makeRig({ directory, program, count, pushes }: Making): Promise<Rig> {
  const home = join(directory, 'landfall')
  for (const name of ['remotes', 'mirrors', 'trees', 'landfall/scripts']) {
    await mkdir(join(directory, name), { recursive: true })
  }
  const traces = { ours: join(directory, 'ours'), shell: join(directory, 'shell') }
  // Builtins only: what the scripts take is not what is compared.
  const script = (trace: string) =>
    `#!/bin/sh\nread -r line < dir0/file0.txt\necho "$LANDFALL_TARGET $LANDFALL_COMMIT $line" >> ${trace}\n`
  await writeFile(join(home, 'scripts', 'deploy'), script(traces.ours), { mode: 0o755 })
  await writeFile(join(directory, 'deploy'), script(traces.shell), { mode: 0o755 })
  await writeFile(join(directory, 'round'), SHELL, { mode: 0o755 })
  const remotes = await makeRemotes(join(directory, 'remotes'), count, { commits: pushes * COMMITS + 1, files: FILES })
  const target = ({ path }: Remote, index: number) =>
    `[target.site${index + 1}]\nrepo = "acme/site${index + 1}"\nurl = "${path}"\nbranches = "main"\nscript = "deploy"\npoll = "off"\nuser = "root"\n`
  const keys = `max_jobs = ${JOBS}\n`
  const daemon = await startDaemon({ program, directory: home, targets: remotes.map(target).join(''), keys })
  return { directory, count, remotes, daemon, traces }
}

interface Side {
  /** Seconds until the last one had ended, and seconds of processor time for all of them. */
  readonly seconds: number
  readonly cpu: number
  /** Scripts that ran once, of the right commit and in a checkout of it. */
  readonly right: number
}
interface Ours extends Side {
  readonly acknowledged: number
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
  readonly succeeded: number
  /** Of `cpu`, what the daemon's own process took, and what the launcher's. */
  readonly daemonCpu: number
  readonly launcherCpu: number
}
interface Round {
  readonly ours: Ours
  readonly shell: Side
}

// --- landfall -----------------------------------------------------------------------------------------------------

async function landfallRound({ daemon, remotes, count, traces }: Rig, push: number): Promise<Ours> {
  const launchers = childrenOf(daemon.pid)
  const sumOf = (pids: readonly number[], of: typeof cpuSecondsOf) =>
    pids.reduce((sum, pid) => sum + (of(pid) ?? Number.NaN), 0)
  const cpu = () => ({
    all: sumOf([daemon.pid, ...launchers], cpuSecondsWithChildren),
    daemon: sumOf([daemon.pid], cpuSecondsOf),
    launcher: sumOf(launchers, cpuSecondsOf),
  })
  const commit = commitOf(remotes, push)
  const before = commitOf(remotes, Math.max(0, push - 1))
  const deliveries = remotes.map((_, index) => sign({ repo: `acme/site${index + 1}`, after: commit, before }))
  await rm(traces.ours, { force: true })
  const cpuBefore = cpu()
  const at = performance.now()
  const acks = await sendAtOnce(daemon.url, deliveries)
  const ackedMs = performance.now() - at
  await untilIdle(daemon, PATIENCE_MS)
  const seconds = (performance.now() - at) / 1000
  const cpuAfter = cpu()
  const times = acks.map(({ ms }) => ms)
  return {
    acknowledged: acks.filter(({ status }) => status === 202).length,
    perSecond: (count / ackedMs) * 1000,
    p50: median(times),
    p99: quantile(times, 0.99),
    seconds,
    cpu: cpuAfter.all - cpuBefore.all,
    daemonCpu: cpuAfter.daemon - cpuBefore.daemon,
    launcherCpu: cpuAfter.launcher - cpuBefore.launcher,
    succeeded: await succeededWith(daemon, commit),
    right: rightOf(await readFile(traces.ours, 'utf8'), commit, push),
  }
}

function commitOf([first]: readonly Remote[], push: number): string {
  return first?.commits[push * COMMITS] ?? ''
}

interface Ack {
  readonly status: number
  readonly ms: number
}

/** Over so many connections, each of which sends its next one when the last was answered. */
async function sendAtOnce(url: string, deliveries: readonly Signed[]): Promise<readonly Ack[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  const waiting = [...deliveries]
  const acks: Ack[] = []
  const sender = async (): Promise<void> => {
    for (let delivery = waiting.pop(); delivery !== undefined; delivery = waiting.pop()) {
      const at = performance.now()
      acks.push({ status: await sendOne(url, delivery, agent), ms: performance.now() - at })
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, sender))
  agent.destroy()
  return acks
}

async function sendOne(url: string, { headers, body }: Signed, agent: Agent): Promise<number> {
  const asking = request(`${url}${HOOK_PATH}`, { method: 'POST', headers, agent })
  asking.end(body)
  const [response] = await once(asking, 'response')
  response.resume()
  await once(response, 'end')
  return response.statusCode
}

async function succeededWith(daemon: Daemon, commit: string): Promise<number> {
  let count = 0
  let page: string | null = ''
  while (page !== null) {
    const told = await daemon.get(`runs?state=succeeded&limit=500${page}`)
    const { items, next } = told as unknown as RunPage
    count += items.filter((run) => run.commit === commit).length
    page = next === null ? null : `&before=${next}`
  }
  return count
}

interface RunPage {
  readonly items: readonly { readonly commit: string | null }[]
  readonly next: string | null
}

/** Of the lines that scripts left, how many are right and of a target of their own. */
function rightOf(trace: string, commit: string, push: number): number {
  const lines = trace.split('\n').filter((line) => line.endsWith(` ${commit} 0 at ${push * COMMITS}`))
  return new Set(lines).size
}

// --- The shell ----------------------------------------------------------------------------------------------------

/** `round <directory> <push> <commit> <number>…` */
const SHELL = `#!/bin/sh
cd "$1" || exit
push=$2 commit=$3
shift 3
for n; do
  if [ -d "mirrors/$n.git" ]
  then git -C "mirrors/$n.git" fetch --quiet origin +refs/heads/main:refs/heads/main
  else git clone --quiet --bare "remotes/$n.git" "mirrors/$n.git"
  fi &&
  git -C "mirrors/$n.git" worktree add --quiet --detach "$PWD/trees/$n-$push" main &&
  (cd "trees/$n-$push" && LANDFALL_TARGET=site$n LANDFALL_COMMIT=$commit ../../deploy)
done
`

/** As many at once; a shell for 25 of them, so that its own start hardly counts. */
async function shellRound({ directory, remotes, traces }: Rig, push: number): Promise<Side> {
  const commit = commitOf(remotes, push)
  await rm(traces.shell, { force: true })
  const list = join(directory, 'numbers')
  await writeFile(list, remotes.map((_, index) => `${index + 1}\n`).join(''))
  const cpuBefore = cpuSecondsWithChildren(process.pid) ?? Number.NaN
  const at = performance.now()
  const args = ['-a', list, '-P', String(JOBS), '-n', '25', join(directory, 'round'), directory, String(push), commit]
  await once(start('xargs', args, { env: GIT_ENV, stdio: ['ignore', 'ignore', 'inherit'] }), 'exit')
  return {
    seconds: (performance.now() - at) / 1000,
    cpu: (cpuSecondsWithChildren(process.pid) ?? Number.NaN) - cpuBefore,
    right: rightOf(await readFile(traces.shell, 'utf8'), commit, push),
  }
}

// --- What came of it ----------------------------------------------------------------------------------------------

interface Memory {
  readonly daemon: number
  readonly launchers: readonly string[]
}

function report({ count }: Rig, rounds: readonly Round[], { daemon, launchers }: Memory): Result {
  const [first, ...later] = rounds
  if (first === undefined) throw new Error('no round')
  const ours = rounds.map((round) => round.ours)
  const least = (field: 'acknowledged' | 'succeeded' | 'right') => Math.min(...ours.map((round) => round[field]))
  const all = (what: string, reached: number): Line => ({
    what: `${count} targets, a delivery for each at once: ${what}`,
    ours: String(reached),
    beside: '',
    ratio: null,
    toReach: String(count),
    ok: reached === count,
  })
  const middle = (sides: readonly Side[], field: 'seconds' | 'cpu') => median(sides.map((side) => side[field]))
  const compare = (what: string, some: readonly Round[], field: 'seconds' | 'cpu'): Line => ({
    what,
    ours: `${middle(
      some.map((round) => round.ours),
      field,
    ).toFixed(1)} s`,
    beside: `${middle(
      some.map((round) => round.shell),
      field,
    ).toFixed(1)} s`,
    ratio: median(some.map((round) => round.ours[field] / round.shell[field])),
    toReach: '',
    ok: null,
  })
  const shown = (what: string, value: string): Line => ({
    what,
    ours: value,
    beside: '',
    ratio: null,
    toReach: '',
    ok: null,
  })
  return {
    lines: [
      all('acknowledged', least('acknowledged')),
      all('runs that succeeded', Math.min(least('succeeded'), least('right'))),
      shown(
        'the same, acknowledged durably while runs execute',
        perSecond(median(ours.map((round) => round.perSecond))),
      ),
      shown('the same, p99 of the acknowledgement', milliseconds(median(ours.map((round) => round.p99)))),
      compare('until the last run has ended, beside a shell that fetches and adds work trees', later, 'seconds'),
      compare('the same, processor time', later, 'cpu'),
      compare(
        'until the last run has ended where nothing was fetched before, beside a shell that clones',
        [first],
        'seconds',
      ),
      shown('resident memory of the daemon, at most', megabytes(daemon)),
    ],
    notes: [
      `${later.length} rounds after the first, ${JOBS} at once on both sides, ${CONNECTIONS} connections; in each round: ${rounds.map(told).join('; ')}`,
      `scripts of the shell that were right: ${rounds.map(({ shell }) => shell.right).join(', ')}; the launcher at most ${launchers.join(', ')}`,
    ],
  }
}

function told({ ours, shell }: Round): string {
  const parts = `daemon ${ours.daemonCpu.toFixed(1)}, launcher ${ours.launcherCpu.toFixed(1)}`
  return `${ours.seconds.toFixed(1)} beside ${shell.seconds.toFixed(1)} s (processor ${ours.cpu.toFixed(1)}, of it ${parts}, beside ${shell.cpu.toFixed(1)} s), ${perSecond(ours.perSecond)}, p50 ${milliseconds(ours.p50)}, p99 ${milliseconds(ours.p99)}`
}

export const thousand: Row = {
  name: 'thousand',
  about: 'a thousand targets, and a delivery for each at once',
  measure,
}
