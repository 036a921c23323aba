/** The program as a person or another program calls it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import PQueue from 'p-queue'
import { systemCode } from '../../src/errors.ts'
import { until } from './until.ts'

const PROGRAM = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Called {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
}

/** Runs the program to its end, off a terminal. */
export async function landfall(args: readonly string[], called: Called): Promise<Ended> {
  return await start(args, called).ended
}

/** The same for many command lines, a few at a time. */
export async function landfallEach(calls: readonly (readonly string[])[], called: Called): Promise<readonly Ended[]> {
  const few = new PQueue({ concurrency: 4 })
  return await Promise.all(calls.map((args) => few.add(() => landfall(args, called))))
}

export interface Started {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  stdout(): string
  stderr(): string
}

export function start(args: readonly string[], { cwd, env = {} }: Called): Started {
  return collect(spawn(process.execPath, [PROGRAM, ...args], { cwd, env: environment(cwd, env) }))
}

function environment(cwd: string, env: Readonly<Record<string, string>>) {
  return { PATH: process.env['PATH'], HOME: cwd, LANG: 'C.UTF-8', ...env }
}

function collect(child: ChildProcess): Started {
  let [stdout, stderr] = ['', '']
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk
  })
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk
  })
  const ended = once(child, 'close').then(([code]) => ({
    code: typeof code === 'number' ? code : null,
    stdout,
    stderr,
  }))
  return { child, ended, stdout: () => stdout, stderr: () => stderr }
}

/**
 * Runs the program on a terminal of 80 columns (util-linux's script makes one), and types each answer when what stands
 * before it has been asked. `stdout` is all that the terminal showed.
 */
export async function onTerminal(
  args: readonly string[],
  called: Called,
  dialogue: readonly (readonly [asked: string, answer: string])[] = [],
): Promise<Ended> {
  const command = `stty cols 80 rows 40; exec ${[process.execPath, PROGRAM, ...args].map((word) => `'${word}'`).join(' ')}`
  const env = environment(called.cwd, { TERM: 'xterm', SHELL: '/bin/sh', ...called.env })
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], { cwd: called.cwd, env })
  const started = collect(child)
  let from = 0
  for (const [asked, answer] of dialogue) {
    await until(`the question "${asked}" in ${started.stdout()}`, () => started.stdout().includes(asked, from))
    from = started.stdout().indexOf(asked, from) + asked.length
    child.stdin?.write(answer)
  }
  return await started.ended
}

/** A daemon, once it listens; it is stopped after the test. */
export async function startServe(
  t: Pick<TestContext, 'after'>,
  args: readonly string[],
  called: Called,
): Promise<Started> {
  const started = start(['serve', ...args], called)
  t.after(async () => {
    started.child.kill('SIGTERM')
    await started.ended
  })
  await until('a daemon that listens', () => {
    if (started.child.exitCode !== null) throw new Error(`it ended: ${started.stdout()}${started.stderr()}`)
    return started.stdout().includes('"listening"')
  })
  return started
}

/**
 * A port of loopback for a program that must be told one. Not one that the system gives away, and no other test gets it while
 * this process lives: nobody takes it before the program does, nor while that is down.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    if (!reserved(port)) continue
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}

const reservations: string[] = []
process.on('exit', () => {
  for (const file of reservations) rmSync(file, { force: true })
})

/** False where another process has it. */
function reserved(port: number): boolean {
  const file = join(tmpdir(), `landfall-port-${port}`)
  try {
    closeSync(openSync(file, 'wx'))
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    throw error
  }
  reservations.push(file)
  return true
}
