import PQueue from 'p-queue'
import type { Clock, Log, Run } from './model.ts'
import type { QueueChange } from './stores/store.ts'

/** A cache of what is queued in the store: who runs next. */
export interface Lanes {
  /** Takes over what a transaction has changed in the queue. */
  apply(change: QueueChange): void
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
  /** Asked when a run comes here; the same from then on. */
  readonly laneOf: (run: Run) => string
  /** Runs at once over all lanes. */
  readonly maxJobs: number
  readonly log: Log
  readonly now: Clock
}

/** The delay of a retry is at most this: runs/attempts.ts. */
const LONGEST_WAIT_MS = 10 * 60_000

interface Lane {
  /** By place; only the first is served. */
  readonly waiting: Run[]
  state: 'idle' | 'asking' | 'serving'
}

/**
 * One run of a lane at a time, lanes with the oldest first run before others. A lane that has work asks the shared queue for
 * a slot once; which run it serves is decided when the slot comes, since a newer push may have taken the place by then.
 */
export function createLanes({ perform, laneOf, maxJobs, log, now }: LanesParts): Lanes {
  // No p-queue timeout here: it frees the slot while the work still runs. The script owns its deadline.
  const slots = new PQueue({ concurrency: maxJobs })
  const lanes = new Map<string, Lane>()
  const timers = new Map<number, NodeJS.Timeout>()
  /** Each run that is here, with its lane. */
  const here = new Map<number, string>()
  let draining = false

  function apply({ queued, superseded }: QueueChange): void {
    for (const id of superseded) drop(id)
    for (const run of queued) add(run)
  }

  function add(run: Run): void {
    if (draining) return // the store has it, and the next start
    here.set(run.id, laneOf(run))
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
    const name = here.get(run.id) ?? laneOf(run)
    const lane = lanes.get(name) ?? { waiting: [], state: 'idle' }
    lanes.set(name, lane)
    const at = lane.waiting.findLastIndex((other) => comesBefore(other, run)) + 1
    lane.waiting.splice(at, 0, run)
    if (at === 0 && lane.state === 'asking') slots.setPriority(name, -run.place)
    else ask(name, lane)
  }

  function ask(name: string, lane: Lane): void {
    const first = lane.waiting[0]
    if (draining || first === undefined || lane.state !== 'idle') return
    lane.state = 'asking'
    slots
      .add(() => serve(name, lane), { id: name, priority: -first.place })
      .catch((cause: unknown) => log.error('bug', { lane: name, cause }))
  }

  async function serve(name: string, lane: Lane): Promise<void> {
    const run = draining ? undefined : lane.waiting.shift()
    if (run !== undefined) {
      lane.state = 'serving'
      try {
        await perform(run)
      } catch (cause) {
        log.error('bug', { run: run.id, target: run.target, cause })
      }
      here.delete(run.id)
    }
    lane.state = 'idle'
    if (lane.waiting.length === 0) lanes.delete(name)
    else ask(name, lane)
  }

  function drop(id: number): void {
    const name = here.get(id)
    if (name === undefined) return
    here.delete(id)
    clearTimeout(timers.get(id))
    timers.delete(id)
    const waiting = lanes.get(name)?.waiting ?? []
    // Not found: it is being performed, and sees that its claim fails.
    const at = waiting.findIndex((other) => other.id === id)
    if (at >= 0) waiting.splice(at, 1)
  }

  return {
    apply,
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
