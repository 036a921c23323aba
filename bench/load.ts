/** The load tool: Debian's wrk, a process of its own, fed with prepared requests. */
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { cpuSecondsOf, onPath, start } from './processes.ts'
import type { RequestFile } from './requests.ts'

const SCRIPT = fileURLToPath(new URL('./wrk.lua', import.meta.url))

export const WRK = onPath('wrk')
export const NO_WRK = 'wrk is not on the PATH (Debian: apt-get install wrk): rows that need a load tool were skipped'

export interface LoadOrder {
  readonly url: string
  readonly requests: RequestFile
  /** Which request to begin with. */
  readonly first?: number
  readonly seconds: number
  readonly connections?: number
  /** Each connection waits between 0 and so many milliseconds before its next request; 0 sends as fast as it is answered. */
  readonly maxPauseMs?: number
  /** The process that answers, to see what an answer costs it. */
  readonly server?: number | undefined
}

export interface Load {
  readonly perSecond: number
  readonly requests: number
  /** Milliseconds from the first byte sent to the last byte of the answer. */
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** Answers with a status from 400 on, and connections that failed. */
  readonly errors: number
  /** Processors that the tool itself kept busy: near 1, it is the tool that was measured. */
  readonly cpu: number
  /** Milliseconds of processor time that an answer cost the server's process: the same on a busy machine as on a quiet one. */
  readonly serverMs: number
}

export async function load(order: LoadOrder): Promise<Load> {
  const { url, requests, first = 0, seconds, connections = 32, maxPauseMs = 0, server = 0 } = order
  if (WRK === null) throw new Error(NO_WRK)
  const options = ['-t1', `-c${connections}`, `-d${seconds}s`, '-s', SCRIPT, url]
  const script = ['--', requests.file, requests.bytes, first, maxPauseMs, 'again'].map(String)
  const child = start(WRK, [...options, ...script], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  let cpuSeconds = 0
  const serverBefore = cpuSecondsOf(server) ?? 0
  const watch = setInterval(() => {
    cpuSeconds = cpuSecondsOf(child.pid ?? 0) ?? cpuSeconds
  }, 100)
  await once(child, 'close')
  clearInterval(watch)
  const json = text.split('\n').find((line) => line.startsWith('{'))
  if (json === undefined) throw new Error(`wrk said nothing of use: ${text}`)
  const told = JSON.parse(json) as Record<string, number>
  const of = (name: string) => told[name] ?? Number.NaN
  return {
    perSecond: (of('requests') / of('us')) * 1e6,
    requests: of('requests'),
    p50: of('p50'),
    p99: of('p99'),
    max: of('max'),
    errors: of('refused') + of('broken'),
    cpu: cpuSeconds / seconds,
    serverMs: (((cpuSecondsOf(server) ?? Number.NaN) - serverBefore) * 1000) / of('requests'),
  }
}

/** Sends each request once, as fast as they are answered; of the last few, some may be cut off. */
export async function sendAll(url: string, requests: RequestFile): Promise<void> {
  if (WRK === null) throw new Error(NO_WRK)
  const script = ['--', requests.file, requests.bytes, 0, 0, 'exit'].map(String)
  const child = start(WRK, ['-t1', '-c32', '-d600s', '-s', SCRIPT, url, ...script])
  await once(child, 'close')
}
