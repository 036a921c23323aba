import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { createLanes, type Lanes } from '../src/lanes.ts'
import type { Run } from '../src/model.ts'
import { keptLog } from './support/log.ts'
import { aRun } from './support/nouns.ts'
import { until } from './support/until.ts'

interface Stage {
  readonly lanes: Lanes
  /** Ids in the order in which they were started. */
  readonly started: number[]
  /** Ids of what is being performed. */
  readonly running: Set<number>
  readonly entries: ReturnType<typeof keptLog>['entries']
  /** Ends a run that is being performed. */
  end(run: number, failure?: Error): Promise<void>
  queue(...runs: Run[]): void
}

function stage({ maxJobs = 4, now = () => 0 }: { maxJobs?: number; now?: () => number } = {}): Stage {
  const { log, entries } = keptLog()
  const started: number[] = []
  const open = new Map<number, PromiseWithResolvers<void>>()
  const running = new Set<number>()
  const lanesBusy = new Set<string>()
  const lanes = createLanes({
    laneOf: (run) => run.target,
    maxJobs,
    log,
    now,
    async perform(run) {
      assert.ok(!lanesBusy.has(run.target), `two runs of ${run.target} overlap`)
      assert.ok(running.size < maxJobs, 'more runs than max_jobs')
      lanesBusy.add(run.target)
      running.add(run.id)
      started.push(run.id)
      const ending = Promise.withResolvers<void>()
      open.set(run.id, ending)
      try {
        await ending.promise
      } finally {
        lanesBusy.delete(run.target)
        running.delete(run.id)
      }
    },
  })
  return {
    lanes,
    started,
    running,
    entries,
    async end(run, failure) {
      const ending = open.get(run)
      assert.ok(ending, `run ${run} is not being performed`)
      if (failure === undefined) ending.resolve()
      else ending.reject(failure)
      await turn()
      await turn()
    },
    queue: (...runs) => lanes.apply({ queued: runs, superseded: [] }),
  }
}

const run = (id: number, lane: string, change: Partial<Run> = {}): Run =>
  aRun({ id, target: lane, place: id, ...change })

test('runs of one lane never overlap, and are served by place', async () => {
  const { queue, started, end } = stage()
  queue(run(1, 'a'), run(3, 'a'), run(2, 'a'))
  assert.deepEqual(started, [1])
  await end(1)
  assert.deepEqual(started, [1, 2])
  await end(2)
  await end(3)
  assert.deepEqual(started, [1, 2, 3])
})

test('lanes run beside each other, but no more runs than max_jobs', async () => {
  const { queue, running, end } = stage({ maxJobs: 2 })
  queue(run(1, 'a'), run(2, 'b'), run(3, 'c'))
  assert.deepEqual([...running], [1, 2])
  await end(2)
  assert.deepEqual([...running], [1, 3])
})

test('a free slot goes to the lane with the oldest run', async () => {
  const { queue, started, end } = stage({ maxJobs: 1 })
  queue(run(1, 'a'), run(4, 'b'), run(2, 'c'), run(3, 'a'))
  await end(1)
  await end(2)
  await end(3)
  assert.deepEqual(started, [1, 2, 3, 4])
})

test('a lane that gets an older run while it waits for a slot comes sooner', async () => {
  const { queue, started, end } = stage({ maxJobs: 1 })
  queue(run(1, 'a'), run(9, 'b'), run(5, 'c'))
  queue(run(10, 'b', { place: 3 }))
  await end(1)
  await end(10)
  await end(5)
  assert.deepEqual(started, [1, 10, 5, 9])
})

test('a run that was superseded is not performed, and the newer one has its place', async () => {
  const { lanes, queue, started, end } = stage({ maxJobs: 1 })
  queue(run(1, 'a'), run(2, 'a'), run(3, 'b'))
  lanes.apply({ queued: [run(4, 'a', { place: 2 })], superseded: [2] })
  assert.equal(lanes.size(), 3)
  await end(1)
  await end(4)
  assert.deepEqual(started, [1, 4, 3])
})

test('superseding what is being performed does not disturb it', async () => {
  const { lanes, queue, started, end } = stage()
  queue(run(1, 'a'))
  lanes.apply({ queued: [run(2, 'a')], superseded: [1] })
  assert.deepEqual(started, [1])
  await end(1)
  assert.deepEqual(started, [1, 2])
  await end(2)
  assert.equal(lanes.size(), 0)
})

/** Timers and the clock stand still until they are moved. */
function fakeTime(t: TestContext): void {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 0 })
}

test('a retry enters its lane at its time and not before', async (t) => {
  fakeTime(t)
  const { lanes, queue, started, end } = stage({ now: Date.now })
  queue(run(1, 'a', { notBefore: 10_000 }))
  await lanes.idle()
  t.mock.timers.tick(9999)
  assert.deepEqual(started, [])
  assert.equal(lanes.size(), 1)
  t.mock.timers.tick(1)
  assert.deepEqual(started, [1])
  await end(1)
})

test('a clock that was set back makes no retry wait longer than ten minutes', async (t) => {
  fakeTime(t)
  const { queue, started, end } = stage({ now: Date.now })
  queue(run(1, 'a', { notBefore: 2 * 86_400_000 }))
  t.mock.timers.tick(600_000)
  assert.deepEqual(started, [1])
  await end(1)
})

test('a retry whose time has passed while nobody ran enters at once', () => {
  const { queue, started } = stage({ now: () => 10_000 })
  queue(run(1, 'a', { notBefore: 9000 }))
  assert.deepEqual(started, [1])
})

test('a retry that is superseded while it waits never enters', async (t) => {
  fakeTime(t)
  const { lanes, queue, started } = stage({ now: Date.now })
  queue(run(1, 'a', { notBefore: 10_000 }))
  lanes.apply({ queued: [], superseded: [1] })
  t.mock.timers.tick(20_000)
  assert.deepEqual(started, [])
  assert.equal(lanes.size(), 0)
})

test('a late timer does not make runs of a lane overlap', async (t) => {
  fakeTime(t)
  const { queue, started, end } = stage({ now: Date.now })
  queue(run(2, 'a'), run(1, 'a', { notBefore: 10_000 }))
  t.mock.timers.tick(10_000)
  assert.deepEqual(started, [2])
  await end(2)
  assert.deepEqual(started, [2, 1])
})

test('a drain starts nothing more and waits for what runs', async (t) => {
  fakeTime(t)
  const { lanes, queue, started, end, entries } = stage({ maxJobs: 1, now: Date.now })
  queue(run(1, 'a'), run(2, 'a'), run(3, 'b'), run(4, 'c', { notBefore: 1000 }))
  let isOver = false
  const drained = lanes.drain().then(() => {
    isOver = true
  })
  queue(run(5, 'd'), run(6, 'd', { notBefore: 1000 }))
  t.mock.timers.tick(60_000)
  await turn()
  assert.equal(isOver, false)
  await end(1)
  await drained
  assert.deepEqual(started, [1])
  assert.deepEqual(entries, [], 'a drain is no mishap')
})

test('a drain leaves no timer behind that would keep the process alive', async (t) => {
  const { lanes, queue } = stage({ now: () => 0 })
  const before = process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
  queue(run(1, 'a', { notBefore: 600_000 }))
  await lanes.drain()
  queue(run(2, 'a', { notBefore: 600_000 }))
  t.after(() => lanes.apply({ queued: [], superseded: [1, 2] }))
  assert.equal(process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length, before)
})

test('a run whose performing throws is logged and does not block its lane', async () => {
  const { queue, started, end, entries, lanes } = stage()
  queue(run(1, 'a'), run(2, 'a'))
  await end(1, new Error('a bug'))
  assert.deepEqual(started, [1, 2])
  await end(2)
  assert.deepEqual(
    entries.map(({ level, event, fields }) => [level, event, fields['run']]),
    [['error', 'bug', 1]],
  )
  assert.equal(lanes.size(), 0)
})

test('idle comes when nothing runs and nothing waits', async () => {
  const { lanes, queue, end } = stage({ maxJobs: 1 })
  queue(run(1, 'a'), run(2, 'a'), run(3, 'b'))
  let isIdle = false
  const idle = lanes.idle().then(() => {
    isIdle = true
  })
  for (const id of [1, 2, 3]) {
    assert.equal(isIdle, false)
    await end(id)
  }
  await idle
})

test('however runs come and go, lanes never overlap and every run that stays is performed once', async () => {
  const { lanes, queue, started, running, end } = stage({ maxJobs: 3 })
  const superseded = new Set<number>()
  let seed = 42
  const random = (below: number): number => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31
    return seed % below
  }
  for (let id = 1; id <= 300; id += 1) {
    queue(run(id, `lane ${random(7)}`))
    const old = id - random(5)
    if (old > 0 && random(4) === 0 && !started.includes(old)) {
      lanes.apply({ queued: [], superseded: [old] })
      superseded.add(old)
    }
    const [one] = running
    if (one !== undefined && random(2) === 0) await end(one)
  }
  await until('all have ended', async () => {
    for (const one of Array.from(running)) await end(one)
    return lanes.size() === 0
  })
  assert.equal(new Set(started).size, started.length)
  assert.equal(started.length, 300 - superseded.size)
})
