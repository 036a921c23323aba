/** Ends what a library spawned for us and gave no handle to: found through /proc by a mark in the environment. */
import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { environmentOf, type Process, processOf } from '../processes.ts'

/** From TERM, on which git removes its lock files, to KILL. */
const TERM_MS = 500
/** How long KILL is repeated for processes that still appear, or that sit in an uninterruptible call. */
const KILL_MS = 5_000
const POLL_MS = 15

/**
 * Ends every process that has `name=value` in its environment, and what these started: TERM, a short grace, KILL.
 * Resolves once none is left, or after about five seconds.
 */
export async function endMarked(name: string, value: string): Promise<void> {
  // Remembered over the rounds: a child that cleared its environment is known by its parent only while that lives.
  const found = new Map<number, number>()
  for (const [signal, patienceMs] of [
    ['SIGTERM', TERM_MS],
    ['SIGKILL', KILL_MS],
  ] as const) {
    const until = performance.now() + patienceMs
    const told = new Set<number>()
    for (let seen = look(); seen.alive.length > 0 || !seen.isSure; seen = look()) {
      for (const pid of seen.alive) {
        if (signal === 'SIGKILL' || !told.has(pid)) send(pid, signal)
        told.add(pid)
      }
      if (performance.now() > until) break
      await sleep(POLL_MS)
    }
  }

  /** Not `isSure`: a child of ours has just been started, and does not show yet whether it is meant. */
  function look(): { alive: readonly number[]; isSure: boolean } {
    const processes = livingProcesses()
    let isSure = true
    for (const { pid, parent, startTime } of processes.values()) {
      const environment = environmentOf(pid)
      if (environment === 'starting') isSure &&= parent !== process.pid
      else if (environment?.includes(`${name}=${value}`)) found.set(pid, startTime)
    }
    const isFound = (pid: number) => found.has(pid) && found.get(pid) === processes.get(pid)?.startTime
    for (let grown = true; grown; ) {
      grown = false
      for (const { pid, parent, startTime } of processes.values()) {
        if (isFound(pid) || !isFound(parent)) continue
        found.set(pid, startTime)
        grown = true
      }
    }
    return { alive: [...processes.keys()].filter(isFound), isSure }
  }
}

/** Every process but zombies and ourselves. */
function livingProcesses(): Map<number, Process> {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
  const living = pids.map((name) => processOf(Number(name)))
  return new Map(living.flatMap((one) => (one && !one.zombie ? [[one.pid, one] as const] : [])))
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // gone meanwhile
  }
}
