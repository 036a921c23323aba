import PQueue from 'p-queue'
import type { Clock, Log, Run } from './model.ts'
import type { QueueChange } from './stores/store.ts'

/** A cache of what is queued in the store: who runs next. */
export interface Lanes {
  /** Takes over what a transaction has changed in the queue. */
  apply(change: QueueChange): void
  /**
   * The configuration has changed: what waits moves to the lanes that it has now, by place, and what is being performed keeps
   * the lanes that it had, beside the one that it has now, until it ends.
   */
  rearrange(maxJobs: number): void
  /** Unfinished runs here: in the lanes, waiting for their time, or being performed. */
  size(): number
  /** Starts nothing any more; resolves when what is being performed has ended. */
  drain(): Promise<void>
  /** Resolves when nothing is performed and nothing waits, save retries whose time has not come. */
  idle(): Promise<void>
}

export interface LanesParts {
  /** Performs one run to its end. It has caught everything that can be expected; what it throws is a bug. */
  readonly perform: (run: Run) => Promise<void>
  /** Asked when a run enters, and again when the lanes are rearranged. Null: it waits for no other run, nor any for it. */
  readonly laneOf: (run: Run) => string | null
  /** Runs at once over all lanes. */
  readonly maxJobs: number
  readonly log: Log
  readonly now: Clock
}

/** The delay of a retry is at most this: runs/attempts.ts. */
const LONGEST_WAIT_MS = 10 * 60_000

interface Lane {
  /** Among the lanes here, and of its request for a slot. */
  readonly id: string
  /** Null for that of a run which waits for no other. */
  readonly name: string | null
  /** By place; only the first is served. */
  readonly waiting: Run[]
  /** It has asked for a slot, which has not come yet. */
  isAsking: boolean
}

/**
 * One run of a lane at a time, and one of an instance, lanes with the oldest first run before others. A lane that has work and
 * is free asks the shared queue for a slot once; which run it serves is decided when the slot comes, since a newer push may
 * have taken the place by then.
 */
export function createLanes({ perform, laneOf, maxJobs, log, now }: LanesParts): Lanes {
  // No p-queue timeout here: it frees the slot while the work still runs. The script owns its deadline.
  const slots = new PQueue({ concurrency: maxJobs })
  const lanes = new Map<string, Lane>()
  const timers = new Map<number, NodeJS.Timeout>()
  /** Each run that is here, with the lane it waits in; null where it waits for its time, or is being performed. */
  const here = new Map<number, Lane | null>()
  /** What is being performed, with what nobody else may have until it ends. */
  const performed = new Map<Run, Set<string>>()
  let draining = false

  function apply({ queued, superseded }: QueueChange): void {
    for (const id of superseded) drop(id)
    for (const run of queued) add(run)
  }

  function add(run: Run): void {
    if (draining) return // the store has it, and the next start
    // A start finds in the store what has come during it, and is told of it as well.
    if (here.has(run.id)) return
    here.set(run.id, null)
    // No longer than a retry ever waits, or a clock that was set back while we were down would make days of it.
    const wait = run.notBefore === null ? 0 : Math.min(run.notBefore - now(), LONGEST_WAIT_MS)
    if (wait > 0) enterLater(run, wait)
    else enter(run)
  }

  function enterLater(run: Run, wait: number): void {
    const timer = setTimeout(() => {
      timers.delete(run.id)
      enter(run)
    }, wait)
    timers.set(run.id, timer)
  }

  function enter(run: Run): void {
    const name = laneOf(run)
    const id = name === null ? `run ${run.id}` : `lane ${name}`
    const lane = lanes.get(id) ?? { id, name, waiting: [], isAsking: false }
    lanes.set(id, lane)
    here.set(run.id, lane)
    const at = lane.waiting.findLastIndex((other) => comesBefore(other, run)) + 1
    lane.waiting.splice(at, 0, run)
    if (at === 0 && lane.isAsking) slots.setPriority(id, -run.place)
    else ask(lane)
  }

  function ask(lane: Lane): void {
    const first = lane.waiting[0]
    if (draining || first === undefined || lane.isAsking || !isFree(first, lane.name)) return
    lane.isAsking = true
    slots
      .add(() => serve(lane), { id: lane.id, priority: -first.place })
      .catch((cause: unknown) => log.error('bug', { lane: lane.name, cause }))
  }

  async function serve(lane: Lane): Promise<void> {
    lane.isAsking = false
    const run = lane.waiting[0]
    // Since the lane asked, another may have come in its way. When that has ended, the lane asks again.
    if (run !== undefined && !draining && isFree(run, lane.name)) {
      lane.waiting.shift()
      here.set(run.id, null)
      await performAlone(run, lane.name)
      here.delete(run.id)
    }
    if (lane.waiting.length === 0 && lanes.get(lane.id) === lane) lanes.delete(lane.id)
    for (const other of lanes.values()) ask(other)
  }

  async function performAlone(run: Run, lane: string | null): Promise<void> {
    performed.set(run, new Set(holds(run, lane)))
    try {
      await perform(run)
    } catch (cause) {
      log.error('bug', { run: run.id, target: run.target, cause })
    }
    performed.delete(run)
  }

  function isFree(run: Run, lane: string | null): boolean {
    // Without a lane too it waits for a run of its instance that began when there was one.
    const wanted = lane === null ? [instanceOf(run)] : holds(run, lane)
    return [...performed.values()].every((held) => wanted.every((one) => !held.has(one)))
  }

  function rearrange(jobs: number): void {
    for (const [run, held] of performed) for (const one of holds(run, laneOf(run))) held.add(one)
    // All are out before the first is in again: none is served in a lane that it has no more.
    const waiting = [...lanes.values()].flatMap((lane) => lane.waiting.splice(0))
    slots.concurrency = jobs
    for (const run of waiting.toSorted((one, other) => (comesBefore(one, other) ? -1 : 1))) enter(run)
  }

  function drop(id: number): void {
    clearTimeout(timers.get(id))
    timers.delete(id)
    const waiting = here.get(id)?.waiting ?? []
    here.delete(id)
    // Not found: it is being performed, and sees that its claim fails.
    const at = waiting.findIndex((other) => other.id === id)
    if (at >= 0) waiting.splice(at, 1)
  }

  return {
    apply,
    rearrange,
    size: () => here.size,
    idle: () => slots.onIdle(),
    async drain() {
      draining = true
      for (const timer of timers.values()) clearTimeout(timer)
      timers.clear()
      // What waits for a slot finds out in its turn: clearing p-queue would reject it as an error.
      await slots.onIdle()
    },
  }
}

function comesBefore(one: Run, other: Run): boolean {
  return one.place < other.place || (one.place === other.place && one.id < other.id)
}

function holds(run: Run, lane: string | null): readonly string[] {
  return lane === null ? [] : [`lane ${lane}`, instanceOf(run)]
}

function instanceOf({ target }: Run): string {
  return `instance ${target}`
}
