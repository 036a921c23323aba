/** What the start of a process costs a process that holds much memory, and what it costs through a small one. */
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { execute, memoryOf } from './processes.ts'
import { type Bench, type Line, median, megabytes, milliseconds, type Result, type Row } from './table.ts'

const SIZES_MB = [0, 50, 100]

interface Cost {
  /** How long the call keeps the event loop. */
  readonly blocked: number
  /** From the call until the end of the process is known. */
  readonly whole: number
}

async function inProcess(): Promise<Cost> {
  const at = performance.now()
  const child = spawn('/bin/true', { stdio: 'ignore', detached: true })
  const blocked = performance.now() - at
  await once(child, 'exit')
  return { blocked, whole: performance.now() - at }
}

async function throughLauncher(launcher: ChildProcess): Promise<Cost> {
  const at = performance.now()
  launcher.send({ argv: ['/bin/true'] })
  const blocked = performance.now() - at
  await once(launcher, 'message')
  return { blocked, whole: performance.now() - at }
}

/** In a process of its own, whose memory is what is said and not what earlier rows have left. */
async function measure({ quick }: Bench): Promise<Result> {
  const args = [fileURLToPath(import.meta.url), String(quick ? 50 : 200)]
  const { stdout } = await execute(process.execPath, args)
  return { lines: JSON.parse(stdout) as Line[], notes: [] }
}

async function measureHere(pairs: number): Promise<Line[]> {
  const launcher = fork(fileURLToPath(new URL('./spawn-launcher.ts', import.meta.url)))
  const ballast: Buffer[] = []
  const lines: Line[] = []
  try {
    for (const size of SIZES_MB) {
      while (ballast.length < size) ballast.push(Buffer.alloc(1024 * 1024, 1))
      lines.push(await compare(launcher, pairs))
    }
  } finally {
    launcher.disconnect()
  }
  return lines
}

async function compare(launcher: ChildProcess, pairs: number): Promise<Line> {
  const own: Cost[] = []
  const launched: Cost[] = []
  for (let pair = 0; pair < pairs; pair += 1) {
    own.push(await inProcess())
    launched.push(await throughLauncher(launcher))
  }
  const middle = (costs: readonly Cost[], field: keyof Cost) => median(costs.map((cost) => cost[field]))
  const told = (costs: readonly Cost[]) =>
    `${middle(costs, 'blocked').toFixed(3)} of ${milliseconds(middle(costs, 'whole'))}`
  return {
    what: `event loop blocked by starting /bin/true at ${megabytes(memoryOf(process.pid).now)} resident, launcher beside in-process`,
    ours: told(launched),
    beside: told(own),
    ratio: middle(launched, 'blocked') / middle(own, 'blocked'),
    toReach: '',
    ok: null,
  }
}

export const spawning: Row = {
  name: 'spawn',
  about: 'starting a process in the daemon, or through a launcher',
  measure,
}

if (import.meta.main) console.log(JSON.stringify(await measureHere(Number(process.argv[2]))))
