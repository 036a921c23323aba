/** What Linux's /proc says about processes, and ending those that an earlier landfall left behind. */
import { readdirSync, readFileSync, realpathSync } from 'node:fs'
import { isAbsolute, relative, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { systemCode } from './errors.ts'
import type { Log } from './model.ts'
import type { ProcessMark } from './work.ts'

/** How long a killed process may take to vanish. Only one that waits for a device or a dead file server takes longer. */
const KILL_WAIT_MS = 10_000
/** How often more is looked where nothing is found, but something is in the middle of an exec: for a second and a half. */
const UNSURE_LOOKS = 20
/** The kernel's own threads are this one and its children. They never have an environment. */
const KTHREADD = 2

export interface Process {
  readonly pid: number
  readonly parent: number
  readonly group: number
  /** Clock ticks since boot; with the pid it names one process for as long as the machine is up. */
  readonly startTime: number
  /** Ended, but not yet collected by its parent. It holds nothing and cannot be signalled. */
  readonly zombie: boolean
}

/** The process as it is now, or null where there is none. */
export function processOf(pid: number): Process | null {
  const stat = readProc(pid, 'stat')
  if (stat === null) return null
  // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const field = (number: number): string => fields[number - 3] ?? ''
  return {
    pid,
    zombie: field(3) === 'Z' || field(3) === 'X',
    parent: Number(field(4)),
    group: Number(field(5)),
    startTime: Number(field(22)),
  }
}

/** Field 22 of /proc/<pid>/stat, or null where there is no such process. */
export function startTimeOf(pid: number): number | null {
  return processOf(pid)?.startTime ?? null
}

/** The living members of a process group. */
export function groupMembers(group: number): readonly Process[] {
  return allProcesses().filter((process) => process.group === group && !process.zombie)
}

/** Signals a whole group. False where it has no member, or none that we may signal. */
export function signalGroup(group: number, signal: NodeJS.Signals): boolean {
  // kill(-1) reaches every process there is, kill(-0) our own group.
  if (!Number.isSafeInteger(group) || group <= 1) throw new RangeError(`${group} is no process group of a script`)
  return signalled(-group, signal)
}

/** Resolves to true once the group has no living member, or to false after `withinMs`. */
export async function groupEmptied(group: number, withinMs: number): Promise<boolean> {
  const until = performance.now() + withinMs
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 100)) {
    if (!groupLives(group)) return true
    const leftMs = until - performance.now()
    if (leftMs <= 0) return false
    await sleep(Math.min(pauseMs, leftMs))
  }
}

function groupLives(group: number): boolean {
  // kill(2) answers at once for the usual case, an empty group, but also counts zombies, which stay where pid 1 collects none.
  return signalled(-group, 0) && groupMembers(group).length > 0
}

export interface LeftoverParts {
  /** Group leaders that unfinished runs recorded. */
  readonly marks: readonly ProcessMark[]
  /** Ids of unfinished runs. */
  readonly runs: ReadonlySet<number>
  /** Run ids count from 1 in every data directory: it tells our run 7 from another landfall's. */
  readonly dataDir: string
  readonly log: Log
}

/**
 * Kills what unfinished runs of an earlier landfall left running, and resolves to how many processes that were once they are
 * gone. A process is a leftover if
 *
 * - its environment has `LANDFALL_RUN` of one of `runs`, and no `LANDFALL_DATA` outside `dataDir`; or
 * - it is in a recorded group that is provably the recorded one: the leader still has the recorded start time, or the
 *   leader is gone and another member carries our environment. An id alone proves nothing: ids are recycled.
 *
 * This process, its ancestors and pid 1 are never touched, so a landfall that a script started does not end itself.
 */
export async function endLeftovers(parts: LeftoverParts): Promise<number> {
  const ended = new Map<string, Process>()
  const until = performance.now() + KILL_WAIT_MS
  let unsureLooks = UNSURE_LOOKS
  for (let pauseMs = 5; ; pauseMs = Math.min(pauseMs * 2, 100)) {
    // Looked for anew each time: one that was just forked is found in the next round.
    const { found, isSure } = findLeftovers(parts)
    // On its way out a process shows nothing any more, and may still hold a file or a lock.
    const leftovers = found.length > 0 ? found : [...ended.values()].filter(isThere)
    if (leftovers.length === 0 && (isSure || unsureLooks === 0)) return ended.size
    if (leftovers.length === 0) unsureLooks -= 1
    if (performance.now() > until) {
      parts.log.error('leftovers-remain', { pids: leftovers.map((process) => process.pid) })
      return ended.size
    }
    for (const process of leftovers) {
      if (endProcess(process)) ended.set(`${process.pid} ${process.startTime}`, process)
    }
    await sleep(pauseMs)
  }
}

/** Not `isSure`: a process was there that could not be told from others just now. */
function findLeftovers({ marks, runs, dataDir }: LeftoverParts): { found: readonly Process[]; isSure: boolean } {
  const spared = ourselves()
  const living = allProcesses().filter((process) => !process.zombie && !spared.has(process.pid))
  const environments = new Map(living.map((process) => [process, environmentOf(process.pid)]))
  const carriers = new Set(living.filter((process) => carriesOurs(environments.get(process), runs, dataDir)))
  const groups = new Map<number, ProcessMark>()
  for (const mark of marks) {
    if (provablyOurs(mark, carriers)) groups.set(mark.pid, mark)
  }
  const found = living.filter((process) => {
    const mark = groups.get(process.group)
    return carriers.has(process) || (mark !== undefined && process.startTime >= mark.startTime)
  })
  const starting = living.filter((process) => environments.get(process) === 'starting')
  return { found, isSure: starting.every(({ pid, parent }) => pid === KTHREADD || parent === KTHREADD) }
}

function provablyOurs(mark: ProcessMark, carriers: ReadonlySet<Process>): boolean {
  const leader = processOf(mark.pid)
  if (leader !== null) return leader.startTime === mark.startTime && leader.group === mark.pid
  return [...carriers].some((process) => process.group === mark.pid && process.startTime >= mark.startTime)
}

type Environment = readonly string[] | 'starting' | undefined

/**
 * Undefined of another account's process, and of one that has ended meanwhile. `starting`: in the middle of an exec it shows
 * neither its environment nor its arguments, and in a moment it will.
 */
export function environmentOf(pid: number): Environment {
  // It has none only if it shows none again and again: an exec may have ended between two looks, or begun.
  for (let look = 0; look < 3; look += 1) {
    const shown = readProc(pid, 'environ')
    if (shown !== '') return shown?.split('\0')
    if (readProc(pid, 'cmdline') === '') return 'starting'
  }
  return []
}

function carriesOurs(environment: Environment, runs: ReadonlySet<number>, dataDir: string): boolean {
  if (environment === 'starting') return false
  const run = variable(environment, 'LANDFALL_RUN')
  if (run === undefined || !/^[1-9]\d{0,15}$/.test(run) || !runs.has(Number(run))) return false
  const data = variable(environment, 'LANDFALL_DATA')
  return data === undefined || data === '' || lies(data, dataDir)
}

function variable(environment: readonly string[] | undefined, name: string): string | undefined {
  return environment?.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1)
}

/** True for a path that is `directory` or lies in it, as written or with symlinks followed. */
function lies(path: string, directory: string): boolean {
  const inside = (from: string, to: string): boolean => {
    const way = relative(from, to)
    return way !== '..' && !way.startsWith('../') && !isAbsolute(way)
  }
  return inside(resolve(directory), resolve(path)) || inside(followed(directory), followed(path))
}

function followed(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return resolve(path)
  }
}

function ourselves(): ReadonlySet<number> {
  const spared = new Set([1])
  for (let pid = process.pid; pid > 0 && !spared.has(pid); pid = processOf(pid)?.parent ?? 0) spared.add(pid)
  return spared
}

function isThere({ pid, startTime }: Process): boolean {
  const now = processOf(pid)
  return now !== null && now.startTime === startTime && !now.zombie
}

function endProcess({ pid, startTime }: Process): boolean {
  // Looked at once more: between the scan and now the process may have ended and its id gone to another.
  return startTimeOf(pid) === startTime && signalled(pid, 'SIGKILL')
}

function signalled(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return false
    // Somebody is there, but belongs to another account (a child behind sudo).
    if (systemCode(error) === 'EPERM') return signal === 0
    throw error
  }
}

function allProcesses(): Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => processOf(Number(name)))
    .filter((process) => process !== null)
}

/** Read synchronously: /proc is memory, and a child that has just been spawned must not be collected meanwhile. */
function readProc(pid: number, file: 'stat' | 'environ' | 'cmdline'): string | null {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return null
  }
}
