/** From the delivery to the script's first instruction, beside a shell that only fetches and adds a work tree. */
import { once } from 'node:events'
import { constants, openSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Daemon, startDaemon } from './daemon.ts'
import { end, execute, start, until } from './processes.ts'
import { GIT_ENV, makeRemote, type Remote } from './repositories.ts'
import { post } from './requests.ts'
import { type Bench, median, milliseconds, type Result, type Row } from './table.ts'

const HISTORY = 2000
const FILES = 200
const WARM_UP = 5
/** What landfall may take beyond the shell, for receiving, recording, linking and starting a script. */
const ALLOWANCE_MS = 25
/** What a run leaves to be tidied up shall not weigh on the other one's turn. */
const REST_MS = 150

async function measure({ directory, program, quick }: Bench): Promise<Result> {
  const pairs = (quick ? 10 : 40) + WARM_UP
  const remote = await makeRemote(join(directory, 'remote.git'), { commits: HISTORY + pairs, files: FILES })
  await remote.moveTo(HISTORY - 1)
  const shell = await startShell(directory, remote)
  const bell = await makeBell(join(directory, 'bell'))
  const daemon = await startWithScript({ directory, program, remote, bell: bell.file })
  const times: Pair[] = []
  try {
    for (let pair = 0; pair < pairs; pair += 1) {
      const commit = remote.commits[HISTORY + pair] ?? ''
      await remote.moveTo(HISTORY + pair)
      const ours = () => landfallOnce(daemon, bell, commit)
      // Each goes first in half of the pairs: the second finds the remote's files in memory.
      const early = pair % 2 === 0 ? await ours() : null
      const theirs = await shell.once(commit)
      await sleep(REST_MS)
      times.push({ shell: theirs, ...(early ?? (await ours())) })
    }
  } finally {
    await daemon.stop()
    await end(shell.child, 'SIGKILL')
    bell.close()
  }
  return report(times.slice(WARM_UP))
}

interface Ours {
  readonly ours: number
  /** Milliseconds by phase, as the run itself tells them. */
  readonly phases: Readonly<Record<string, number>>
}
type Pair = Ours & { readonly shell: number }

function report(times: readonly Pair[]): Result {
  const ours = median(times.map((time) => time.ours))
  const shell = median(times.map((time) => time.shell))
  const ratio = ours / (shell + ALLOWANCE_MS)
  const names = [...new Set(times.flatMap(({ phases }) => Object.keys(phases)))]
  const phases = names.map(
    (name) => `${name} ${milliseconds(median(times.map((time) => time.phases[name] ?? Number.NaN)))}`,
  )
  return {
    lines: [
      {
        what: 'delivery to first instruction of its script, beside git fetch && git worktree add + 25 ms',
        ours: milliseconds(ours),
        beside: `${milliseconds(shell)} + 25`,
        ratio,
        toReach: '≤ 1.1×',
        ok: ratio <= 1.1,
      },
    ],
    notes: [`${times.length} pairs, medians; where ours went: ${phases.join(', ')}`],
  }
}

// --- landfall -----------------------------------------------------------------------------------------------------

interface Parts {
  readonly directory: string
  readonly program: string
  readonly remote: Remote
  readonly bell: string
}

async function startWithScript({ directory, program, remote, bell }: Parts): Promise<Daemon> {
  const home = join(directory, 'landfall')
  await mkdir(join(home, 'scripts'), { recursive: true })
  // A builtin: its first instruction starts no process.
  await writeFile(join(home, 'scripts', 'ring'), `#!/bin/sh\necho "$LANDFALL_COMMIT" > ${bell}\n`, { mode: 0o755 })
  const target = `[target.site]\nrepo = "acme/site"\nurl = "${remote.path}"\nbranches = "main"\nscript = "ring"\nqueue = "evict"\npoll = "off"\nuser = "root"\n`
  return startDaemon({ program, directory: home, targets: target })
}

async function landfallOnce(daemon: Daemon, bell: Bell, commit: string): Promise<Ours> {
  const at = performance.now()
  const rung = bell.next()
  const answer = await post(daemon.url, { repo: 'acme/site', after: commit })
  const answeredMs = performance.now() - at
  if (answer.status !== 202) throw new Error(`${answer.status} ${answer.text}`)
  const text = await rung
  const ours = performance.now() - at
  if (text !== commit) throw new Error(`${text} was deployed, not ${commit}`)
  const run = await until('the end of the run', () => ended(daemon, answer.text), 20)
  await sleep(REST_MS)
  return { ours, phases: { answer: answeredMs, ...phasesOf(run) } }
}

interface RunView {
  readonly queuedAt: string
  readonly startedAt: string
  readonly finishedAt: string | null
  readonly state: string
  readonly phases: readonly { readonly name: string; readonly startedAt: string; readonly ms: number }[]
}

async function ended(daemon: Daemon, answer: string): Promise<RunView | null> {
  const { targets } = JSON.parse(answer) as { targets: { run: number }[] }
  const run = (await daemon.get(`runs/${targets[0]?.run}`)) as unknown as RunView
  return run.finishedAt === null ? null : run
}

/** Between the phases too: what lies before the fetch, and before the script. */
function phasesOf(run: RunView): Readonly<Record<string, number>> {
  const told: Record<string, number> = {}
  let before = Date.parse(run.queuedAt)
  for (const { name, startedAt, ms } of run.phases) {
    told[`before ${name}`] = Date.parse(startedAt) - before
    told[name] = ms
    before = Date.parse(startedAt) + ms
  }
  return told
}

/** A named pipe that a script writes a line to: heard at once, and without a process of its own. */
interface Bell {
  readonly file: string
  /** The next line. */
  next(): Promise<string>
  close(): void
}

async function makeBell(file: string): Promise<Bell> {
  await execute('mkfifo', [file])
  // Read and write: with an end of our own, the pipe never ends.
  const socket = new Socket({ fd: openSync(file, constants.O_RDWR | constants.O_NONBLOCK), readable: true })
  return {
    file,
    async next() {
      const [line] = (await once(socket, 'data')) as [Buffer]
      return line.toString().trim()
    },
    close: () => void socket.destroy(),
  }
}

// --- The shell ----------------------------------------------------------------------------------------------------

/** One shell for all turns, so that its own start does not count. */
async function startShell(directory: string, remote: Remote) {
  const clone = join(directory, 'clone')
  await execute('git', ['clone', '--quiet', remote.path, clone], { env: GIT_ENV })
  const loop = `while read -r commit; do
    git fetch --quiet && git worktree add --quiet --detach "../trees/$commit" origin/main && echo "$commit" || echo failed
  done`
  const child = start('/bin/sh', ['-c', loop], { cwd: clone, env: GIT_ENV, stdio: ['pipe', 'pipe', 'inherit'] })
  const { stdin, stdout } = child
  if (stdin === null || stdout === null) throw new Error('the shell has no pipes')
  const lines = createInterface({ input: stdout })
  return {
    child,
    async once(commit: string): Promise<number> {
      const at = performance.now()
      stdin.write(`${commit}\n`)
      const [line] = (await once(lines, 'line')) as [string]
      if (line !== commit) throw new Error(`the shell said ${line}`)
      return performance.now() - at
    },
  }
}

export const latency: Row = {
  name: 'latency',
  about: 'from the delivery to the first instruction of its script',
  measure,
}
