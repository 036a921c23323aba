import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { createLanes, type Lanes } from '../src/lanes.ts'
import type { Run } from '../src/model.ts'
import { keptLog } from './support/log.ts'
import { aRun } from './support/nouns.ts'
import { until } from './support/until.ts'

interface Stage {
  readonly lanes: Lanes
  /** Instances are in the lane of their own name, unless this says otherwise; null is none. */
  readonly laneNow: Map<string, string | null>
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
  const laneNow = new Map<string, string | null>()
  const lanes = createLanes({
    laneOf: ({ target }) => laneNow.get(target) ?? (laneNow.has(target) ? null : target),
    maxJobs,
    log,
    now,
    async perform(run) {
      if (!laneNow.has(run.target)) assert.ok(!lanesBusy.has(run.target), `two runs of ${run.target} overlap`)
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
    laneNow,
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

test('a run that is told of twice, as a start does, is performed once', async () => {
  const { lanes, queue, started, end } = stage({ maxJobs: 1 })
  queue(run(1, 'a'), run(2, 'a'))
  queue(run(1, 'a'), run(2, 'a'))
  assert.equal(lanes.size(), 2)
  await end(1)
  await end(2)
  assert.deepEqual([started, lanes.size()], [[1, 2], 0])
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

test('a retry that is brought forward enters at once, and not again at its time', async (t) => {
  fakeTime(t)
  const { lanes, queue, started, end } = stage({ now: Date.now })
  queue(run(1, 'a', { notBefore: 10_000 }))
  lanes.apply({ queued: [run(1, 'a', { notBefore: 0 })], superseded: [1] })
  assert.deepEqual(started, [1])
  await end(1)
  t.mock.timers.tick(20_000)
  assert.deepEqual([started, lanes.size()], [[1], 0])
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

// --- Reloads ------------------------------------------------------------------------------------------------------

/** Says where instances run now, and has the lanes rearranged. */
function reload({ lanes, laneNow }: Stage, now: Readonly<Record<string, string | null>>, maxJobs = 4): void {
  for (const [instance, lane] of Object.entries(now)) laneNow.set(instance, lane)
  lanes.rearrange(maxJobs)
}

test('a run whose lane changes while it runs keeps both lanes occupied until it ends', async () => {
  const scene = stage()
  const { queue, started, end } = scene
  reload(scene, { site: 'x', docs: 'y', old: 'x' })
  queue(run(1, 'site'))
  reload(scene, { site: 'y' })
  queue(run(2, 'docs'), run(3, 'old'), run(4, 'site'))
  assert.deepEqual(started, [1])
  await end(1)
  assert.deepEqual(new Set(started), new Set([1, 2, 3]), 'x is free, and y too')
  await end(2)
  assert.equal(started.at(-1), 4)
})

test('what waits moves to its new lane, in order of place', async () => {
  const scene = stage()
  const { queue, started, end } = scene
  reload(scene, { blog: 'x', site: 'x', docs: 'y' })
  queue(run(1, 'blog'), run(2, 'docs'), run(3, 'site'), run(4, 'docs'), run(5, 'site'))
  reload(scene, { site: 'y' })
  await end(1)
  assert.deepEqual(started, [1, 2])
  for (const id of [2, 3, 4]) await end(id)
  assert.deepEqual(started, [1, 2, 3, 4, 5])
})

test('in two lanes that became one while both were served nothing starts before both have ended', async () => {
  const scene = stage()
  const { queue, started, end } = scene
  queue(run(1, 'a'), run(2, 'b'))
  reload(scene, { a: 'one', b: 'one' })
  queue(run(3, 'a'), run(4, 'b'))
  await end(1)
  assert.deepEqual(started, [1, 2])
  await end(2)
  assert.deepEqual(started, [1, 2, 3])
  await end(3)
  assert.deepEqual(started, [1, 2, 3, 4])
})

test('a lane that waits for a slot gives it back if a reload brings a run into the lane', async () => {
  const scene = stage({ maxJobs: 2 })
  const { queue, started, end } = scene
  reload(scene, { a: 'x', b: 'y', c: 'z' }, 2)
  queue(run(1, 'a'), run(2, 'b'), run(3, 'c'), run(4, 'd'))
  reload(scene, { a: 'z' }, 2)
  await end(2)
  assert.deepEqual(started, [1, 2, 4])
  await end(1)
  assert.deepEqual(started, [1, 2, 4, 3])
})

test('lanes that a reload sets free are served oldest run first', async () => {
  const scene = stage({ maxJobs: 3 })
  const { queue, started, end } = scene
  reload(scene, { a: 'x', c: 'x', b: 'y', d: 'y' }, 3)
  queue(run(1, 'a'), run(2, 'b'), run(4, 'c'), run(3, 'd'))
  reload(scene, { c: 'c', d: 'd' }, 3)
  assert.deepEqual(started, [1, 2, 3])
  await end(2)
  assert.deepEqual(started, [1, 2, 3, 4])
})

test('lanes that were one run beside each other after a reload', async () => {
  const scene = stage()
  const { queue, started, end } = scene
  reload(scene, { a: 'one', b: 'one', c: 'one' })
  queue(run(1, 'a'), run(2, 'b'), run(3, 'c'))
  reload(scene, { a: 'a', b: 'b', c: 'c' })
  assert.deepEqual(started, [1, 2, 3], 'at once: theirs are free')
  queue(run(4, 'a'))
  await end(2)
  assert.deepEqual(started, [1, 2, 3])
  await end(1)
  assert.deepEqual(started, [1, 2, 3, 4])
})

test('a target that becomes parallel waits once more for the run that began in a lane', async () => {
  const scene = stage()
  const { queue, started, end } = scene
  queue(run(1, 'a'), run(2, 'a'), run(3, 'a'))
  reload(scene, { a: null })
  assert.deepEqual(started, [1])
  await end(1)
  assert.deepEqual(started, [1, 2, 3])
})

test('a target that is parallel no more starts nothing before all that runs has ended', async () => {
  const scene = stage()
  const { queue, started, end } = scene
  reload(scene, { a: null })
  queue(run(1, 'a'), run(2, 'a'))
  assert.deepEqual(started, [1, 2])
  reload(scene, { a: 'a' })
  queue(run(3, 'a'), run(4, 'a'))
  await end(1)
  assert.deepEqual(started, [1, 2])
  await end(2)
  assert.deepEqual(started, [1, 2, 3])
})

test('another max_jobs counts at once, for more and for less', async () => {
  const scene = stage({ maxJobs: 4 })
  const { queue, started, end } = scene
  reload(scene, {}, 1)
  queue(run(1, 'a'), run(2, 'b'), run(3, 'c'), run(4, 'd'))
  assert.deepEqual(started, [1])
  reload(scene, {}, 3)
  await turn()
  assert.deepEqual(started, [1, 2, 3])
  reload(scene, {}, 2)
  await end(1)
  assert.deepEqual(started, [1, 2, 3])
  await end(2)
  assert.deepEqual(started, [1, 2, 3, 4])
})

test('a retry enters the lane that its instance has when its time comes', async (t) => {
  fakeTime(t)
  const scene = stage({ now: Date.now })
  const { queue, started, end } = scene
  queue(run(1, 'b'), run(2, 'a', { notBefore: 10_000 }))
  reload(scene, { a: 'b' })
  t.mock.timers.tick(10_000)
  assert.deepEqual(started, [1])
  await end(1)
  assert.deepEqual(started, [1, 2])
})

test('a run that a reload has moved can still be superseded', async () => {
  const scene = stage()
  const { lanes, queue, started, end } = scene
  reload(scene, { a: 'x', b: 'x' })
  queue(run(1, 'a'), run(2, 'b'), run(3, 'b'))
  reload(scene, { b: 'y' })
  assert.deepEqual(started, [1, 2])
  lanes.apply({ queued: [], superseded: [3] })
  await end(1)
  await end(2)
  assert.deepEqual(started, [1, 2])
  assert.equal(lanes.size(), 0)
})

const INSTANCES = ['a', 'b', 'c', 'd'] as const
const step = fc.oneof(
  fc.record({ kind: fc.constant('queue'), instance: fc.constantFrom(...INSTANCES), back: fc.nat(3) }),
  fc.record({ kind: fc.constant('end'), which: fc.nat() }),
  fc.record({ kind: fc.constant('supersede'), back: fc.nat(5) }),
  fc.record({
    kind: fc.constant('reload'),
    lanes: fc.array(fc.constantFrom('x', 'y', 'z', null), { minLength: 4, maxLength: 4 }),
    maxJobs: fc.integer({ min: 1, max: 4 }),
  }),
)

test('whatever reloads come in between, no run starts beside one that has, or had, its lane or its instance', async () => {
  const story = fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
    const laneNow = new Map<string, string | null>(INSTANCES.map((name) => [name, name]))
    const laneOf = ({ target }: Run): string | null => laneNow.get(target) ?? null
    /** What is being performed: every lane that it has had since it began. */
    const open = new Map<Run, { readonly lanes: Set<string>; readonly ending: PromiseWithResolvers<void> }>()
    const started: number[] = []
    const gone = new Set<number>()
    let jobs = 2
    const lanes = createLanes({
      laneOf,
      maxJobs: jobs,
      log: keptLog().log,
      now: () => 0,
      async perform(one) {
        const lane = laneOf(one)
        for (const [other, { lanes: had }] of open) {
          const sharesInstance = other.target === one.target && had.size > 0
          if (sharesInstance || (lane !== null && had.has(lane))) trouble.push(`${one.id} beside ${other.id}`)
        }
        if (open.size >= jobs) trouble.push(`${one.id} is one too many`)
        if (gone.has(one.id)) trouble.push(`${one.id} was superseded`)
        const ending = Promise.withResolvers<void>()
        open.set(one, { lanes: new Set(lane === null ? [] : [lane]), ending })
        started.push(one.id)
        await ending.promise
        open.delete(one)
      },
    })
    const trouble: string[] = []
    let queued = 0
    const endOne = async (which: number) => {
      const one = [...open.values()][which % Math.max(1, open.size)]
      one?.ending.resolve()
      for (let n = 0; n < 3; n += 1) await turn()
    }
    for (const now of steps) {
      if (now.kind === 'queue') {
        queued += 1
        const place = Math.max(1, queued - now.back)
        lanes.apply({ queued: [run(queued, now.instance, { place })], superseded: [] })
      } else if (now.kind === 'end') await endOne(now.which)
      else if (now.kind === 'supersede') {
        const id = queued - now.back
        if (id < 1 || started.includes(id)) continue
        gone.add(id)
        lanes.apply({ queued: [], superseded: [id] })
      } else {
        now.lanes.forEach((lane, n) => void laneNow.set(INSTANCES[n] ?? 'a', lane))
        jobs = now.maxJobs
        for (const [one, { lanes: had }] of open) {
          const lane = laneOf(one)
          if (lane !== null) had.add(lane)
        }
        lanes.rearrange(jobs)
        await turn()
      }
    }
    while (open.size > 0) await endOne(0)
    assert.deepEqual(trouble, [])
    assert.equal(lanes.size(), 0)
    assert.deepEqual(
      started.toSorted((one, other) => one - other),
      Array.from({ length: queued }, (_, n) => n + 1).filter((id) => !gone.has(id)),
      'each is performed once',
    )
  })
  await fc.assert(story, { numRuns: 300 })
})
