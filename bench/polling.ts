/** What it costs to ask two hundred remotes that have nothing new, beside a loop of bare `git ls-remote`. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Daemon, startDaemon, untilIdle } from './daemon.ts'
import {
  childrenOf,
  cpuSecondsOf,
  cpuSecondsWithChildren,
  end,
  execute,
  freePort,
  onPath,
  start,
  until,
} from './processes.ts'
import { makeRemotes } from './repositories.ts'
import { atMost, type Bench, type Line, median, medianRatio, milliseconds, type Result, type Row } from './table.ts'

const REMOTES = 200
/** Of one host, landfall asks so many remotes at once. */
const AT_ONCE = 4
/** A launcher starts git for us: what may come on top of git itself. */
const GOAL = 1.3
const PATIENCE_MS = 300_000

/** Where remotes are asked for, and what git must know to get there. */
interface Place {
  readonly name: string
  readonly url: (n: number) => string
  readonly env: Readonly<Record<string, string>>
}

async function measure({ directory, program, quick }: Bench): Promise<Result> {
  const remotes = join(directory, 'remotes')
  await mkdir(remotes)
  await makeRemotes(remotes, REMOTES, { commits: 20, files: 20 })
  const local: Place = { name: 'by path', url: (n) => join(remotes, `${n}.git`), env: {} }
  const https = onPath('openssl') === null ? null : await serveHttps(directory, remotes)
  const lines: Line[] = []
  const notes: string[] = []
  try {
    for (const place of https === null ? [local] : [local, https.place]) {
      const home = join(directory, `landfall-${lines.length}`)
      const compared = await compare({ program, home, place, rounds: quick ? 3 : 5 })
      lines.push(...compared.lines)
      notes.push(...compared.notes)
    }
  } finally {
    if (https !== null) await end(https.child, 'SIGKILL')
  }
  if (https === null) notes.push('openssl is not on the PATH (Debian: apt-get install openssl): https was skipped')
  return { lines, notes }
}

// --- A forge over TLS ---------------------------------------------------------------------------------------------

/** With an authority that is thrown away. */
async function serveHttps(directory: string, remotes: string): Promise<{ place: Place; child: ChildProcess }> {
  const certificate = join(directory, 'certificate.pem')
  const key = join(directory, 'key.pem')
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  await execute('openssl', [
    'req',
    '-x509',
    ...curve,
    '-nodes',
    '-days',
    '2',
    ...subject,
    '-keyout',
    key,
    '-out',
    certificate,
  ])
  const port = await freePort()
  const server = fileURLToPath(new URL('./git-https.ts', import.meta.url))
  const child = start(process.execPath, [server, String(port), remotes, certificate, key])
  // A proxy is no way to this machine.
  const env = { GIT_SSL_CAINFO: certificate, no_proxy: 'localhost', NO_PROXY: 'localhost' }
  const place: Place = { name: 'over https', url: (n) => `https://localhost:${port}/${n}.git`, env }
  await until('an answer of the forge', () => lists(place))
  return { place, child }
}

async function lists({ url, env }: Place): Promise<boolean> {
  const asked = execute('git', ['ls-remote', url(1)], { env: { ...process.env, ...env } })
  return asked.then(
    () => true,
    () => false,
  )
}

// --- Side by side -------------------------------------------------------------------------------------------------

interface Cost {
  /** Milliseconds of processor time a remote: user and system, with every process that was started. */
  readonly cpu: number
  /** Milliseconds of it in the daemon's own process, and in the launcher's. */
  readonly daemon: number
  readonly launcher: number
  /** Milliseconds for all of them. */
  readonly wall: number
}

interface Comparing {
  readonly program: string
  readonly home: string
  readonly place: Place
  readonly rounds: number
}

async function compare({ program, home, place, rounds }: Comparing): Promise<Result> {
  await mkdir(home)
  const daemon = await startDaemon({ program, directory: home, targets: targetsAt(place), env: place.env })
  const ours: Cost[] = []
  const bare: Cost[] = []
  try {
    await daemon.once() // finds them all, if the start has not; the second finds nothing
    await untilIdle(daemon, PATIENCE_MS)
    await pollAll(daemon)
    for (let round = 0; round < rounds; round += 1) {
      // Each goes first in every other round.
      if (round % 2 === 0) ours.push(await pollAll(daemon))
      bare.push(await loop(home, place))
      if (round % 2 === 1) ours.push(await pollAll(daemon))
    }
  } finally {
    await daemon.stop()
  }
  return report(place, ours, bare)
}

/** Without a checkout, so that the first look at them leaves nothing that matters here. */
function targetsAt({ url }: Place): string {
  const target = (_: unknown, index: number) =>
    `[target.site${index + 1}]\nrepo = "acme/site${index + 1}"\nurl = "${url(index + 1)}"\nbranches = "main"\ncheckout = "none"\nrun = ["/bin/true"]\npoll = "24h"\nuser = "root"\n`
  return Array.from({ length: REMOTES }, target).join('')
}

async function pollAll(daemon: Daemon): Promise<Cost> {
  const launcher = childrenOf(daemon.pid)
  const read = () => ({
    own: cpuSecondsOf(daemon.pid) ?? Number.NaN,
    launcher: launcher.reduce((sum, pid) => sum + (cpuSecondsOf(pid) ?? Number.NaN), 0),
    all: [daemon.pid, ...launcher].reduce((sum, pid) => sum + (cpuSecondsWithChildren(pid) ?? Number.NaN), 0),
  })
  const before = read()
  const at = performance.now()
  const told = await daemon.once()
  if (told.length !== REMOTES || told.some(({ reason }) => reason !== 'up-to-date'))
    throw new Error('a remote had something new, or could not be asked')
  const wall = performance.now() - at
  const after = read()
  const each = (seconds: number) => (seconds * 1000) / REMOTES
  return {
    cpu: each(after.all - before.all),
    daemon: each(after.own - before.own),
    launcher: each(after.launcher - before.launcher),
    wall,
  }
}

/** The same question to the same remotes, as many at once and in the same language, by xargs. */
async function loop(home: string, { url, env }: Place): Promise<Cost> {
  const list = join(home, 'urls')
  await writeFile(list, Array.from({ length: REMOTES }, (_, index) => `${url(index + 1)}\n`).join(''))
  const command = ['git', 'ls-remote', '--symref', '--', '{}', 'HEAD', 'refs/heads/main']
  const before = cpuSecondsWithChildren(process.pid) ?? Number.NaN
  const ownBefore = cpuSecondsOf(process.pid) ?? Number.NaN
  const at = performance.now()
  const child = start('xargs', ['-a', list, '-P', String(AT_ONCE), '-I', '{}', ...command], {
    env: { ...process.env, ...env, LANG: 'C' },
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  const wall = performance.now() - at
  if (code !== 0) throw new Error(`git ls-remote failed: ${code}`)
  const own = (cpuSecondsOf(process.pid) ?? Number.NaN) - ownBefore
  const cpu = (cpuSecondsWithChildren(process.pid) ?? Number.NaN) - before - own
  return { cpu: (cpu * 1000) / REMOTES, daemon: 0, launcher: 0, wall }
}

function report({ name }: Place, ours: readonly Cost[], bare: readonly Cost[]): Result {
  const of = (costs: readonly Cost[], field: keyof Cost) => costs.map((cost) => cost[field])
  const middle = (costs: readonly Cost[], field: keyof Cost) => milliseconds(median(of(costs, field)))
  return {
    lines: [
      {
        what: `processor time a poll of ${REMOTES} unchanged remotes ${name}, beside git ls-remote`,
        ours: middle(ours, 'cpu'),
        beside: middle(bare, 'cpu'),
        ...atMost(GOAL, medianRatio(of(ours, 'cpu'), of(bare, 'cpu'))),
      },
      {
        what: `the same, until all ${REMOTES} have answered`,
        ours: middle(ours, 'wall'),
        beside: middle(bare, 'wall'),
        ratio: medianRatio(of(ours, 'wall'), of(bare, 'wall')),
        toReach: '',
        ok: null,
      },
    ],
    notes: [
      `${name}: ${ours.length} rounds, medians; of ours, a poll took ${middle(ours, 'daemon')} in the daemon itself and ${middle(ours, 'launcher')} in the launcher itself, the rest is git`,
    ],
  }
}

export const polling: Row = {
  name: 'polling',
  about: 'asking 200 unchanged remotes, beside bare git ls-remote',
  measure,
}
