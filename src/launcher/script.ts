/** One process group, one deadline, one way of ending. */
import { spawn } from 'node:child_process'
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { hasCode, messageOf } from '../errors.ts'
import { groupEmptied, groupMembers, signalGroup, startTimeOf } from '../processes.ts'
import type { ProcessMark, ScriptEnd, ScriptOrder, Work } from '../work.ts'
import { noProgram, whyUnstartable } from './executable.ts'
import { openLog } from './log-file.ts'
import { createPipes, type Pipe, readPipe } from './pipe.ts'

/** How long a killed group may take to vanish before its run ends without it: it hangs in a device or on a file server. */
const KILL_WAIT_MS = 5000
/** setTimeout takes anything longer (25 days) for 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1

export interface ScriptParts {
  /** Told what does not change how a script ends: an event and its fields. */
  readonly warn: (event: string, fields: Record<string, unknown>) => void
}

export interface Scripts extends Pick<Work, 'runScript'> {
  /** Kills every group at once, for a process that is about to end. */
  killAll(): void
}

interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}
/** A script that has started. Its pid is also its group's id. */
interface Started extends ProcessMark {
  readonly exited: Promise<Exit>
}

/**
 * Scripts run in a session and process group of their own, with nothing on standard input. Whatever the end, when
 * `runScript` resolves the group is gone and the log is complete. Only what has left the group can outlive it.
 */
export function createScripts({ warn }: ScriptParts): Scripts {
  const pipes = createPipes()
  const groups = new Set<number>()

  return {
    async runScript(order, started, signal) {
      const obstacle = await noProgram(order)
      if (obstacle !== null) return { kind: 'unstartable', detail: obstacle }
      const log = await openLog(order.log)
      try {
        const pipe = await pipes.take()
        const script = await start(order, pipe, signal)
        if ('kind' in script) return script
        groups.add(script.pid)
        const output = readPipe(pipe.readFd, (chunk) => log.write(chunk))
        try {
          started({ pid: script.pid, startTime: script.startTime })
          return await supervise(script, order, signal)
        } finally {
          await clear(script.pid)
          await output.drain()
          groups.delete(script.pid)
        }
      } catch (error) {
        if (hasCode(error, 'unstartable')) return { kind: 'unstartable', detail: error.message }
        throw error
      } finally {
        const { lostBytes, cause } = await log.end()
        if (cause !== null) warn('log-incomplete', { file: order.log.file, lostBytes, cause: messageOf(cause) })
      }
    },
    killAll() {
      for (const group of groups) signalGroup(group, 'SIGKILL')
      pipes.clear()
    },
  }

  /** Nothing of the group stays, save what hangs in the kernel. */
  async function clear(group: number): Promise<void> {
    if (!signalGroup(group, 'SIGKILL') || (await groupEmptied(group, KILL_WAIT_MS))) return
    warn('script-survived', { group, pids: groupMembers(group).map((member) => member.pid) })
  }
}

/** Starts the script, or says why not; then the pipe is closed. The end that is the script's is closed here either way. */
async function start(order: ScriptOrder, pipe: Pipe, signal: AbortSignal | undefined): Promise<Started | ScriptEnd> {
  const { promise: exited, resolve } = Promise.withResolvers<Exit>()
  const { promise: failed, resolve: fail } = Promise.withResolvers<unknown>()
  const { argv, cwd, env } = order
  const [program, ...args] = argv
  try {
    // Asked as late as possible: from here to the start nothing waits.
    if (signal?.aborted) return notStarted({ kind: 'aborted' })
    const stdio: ['ignore', number, number] = ['ignore', pipe.writeFd, pipe.writeFd]
    const child = spawn(program, args, { cwd, env, detached: true, stdio })
    child.once('error', fail)
    // Not `close`, which waits for everybody who holds the output.
    child.once('exit', (code, killedBy) => resolve({ code, signal: killedBy }))
    // In the same turn as the start: even a script that has ended already is still there to be looked at.
    if (child.pid !== undefined) return { pid: child.pid, startTime: startTimeOf(child.pid) ?? 0, exited }
  } catch (error) {
    fail(error)
  } finally {
    closeSync(pipe.writeFd)
  }
  return notStarted({ kind: 'unstartable', detail: await whyUnstartable(order, await failed) })

  function notStarted(end: ScriptEnd): ScriptEnd {
    closeSync(pipe.readFd)
    return end
  }
}

/** Waits for the end of the script, or brings it about: TERM at the deadline or on abort, then the grace for the whole group. */
async function supervise(script: Started, order: ScriptOrder, signal: AbortSignal | undefined): Promise<ScriptEnd> {
  const stop = Promise.withResolvers<'timed-out' | 'aborted'>()
  const deadline = setTimeout(() => stop.resolve('timed-out'), Math.min(order.timeoutMs, MAX_TIMER_MS))
  const abort = (): void => stop.resolve('aborted')
  signal?.addEventListener('abort', abort, { once: true })
  try {
    const first = await Promise.race([script.exited, stop.promise])
    if (typeof first === 'object') return endOf(first)
    await terminate(script, order.killGraceMs)
    return { kind: first }
  } finally {
    clearTimeout(deadline)
    signal?.removeEventListener('abort', abort)
  }
}

function endOf({ code, signal }: Exit): ScriptEnd {
  return signal === null ? { kind: 'exited', code: code ?? 1 } : { kind: 'killed', signal }
}

/**
 * The grace is the whole group's, not only the leader's: a shell dies of TERM at once, while the program it waits for still
 * writes its state down.
 */
async function terminate({ pid, exited }: Started, graceMs: number): Promise<void> {
  signalGroup(pid, 'SIGTERM')
  const until = performance.now() + graceMs
  const grace = new AbortController()
  await Promise.race([exited, sleep(Math.min(graceMs, MAX_TIMER_MS), null, { signal: grace.signal }).catch(() => null)])
  grace.abort()
  await groupEmptied(pid, Math.max(0, until - performance.now()))
}
