import type { Lanes } from './lanes.ts'
import type { Log } from './model.ts'
import type { Report } from './runs/ending.ts'
import type { Runner } from './runs/runner.ts'
import type { Store } from './stores/store.ts'

export interface RecoveryParts {
  readonly store: Store
  readonly runner: Runner
  readonly lanes: Lanes
  readonly log: Log
  /** Ends what is left of these runs' processes. */
  readonly endLeftovers: (runs: readonly number[]) => Promise<void>
  /** Removes what no sealed release owns. */
  readonly sweep: () => Promise<void>
  /** Tells the store what the configuration has changed since it was last read. */
  readonly reconfigure: () => Promise<void>
}

/**
 * After a crash: what was running is ended and taken up again, what was queued goes on in order. Resolves to the reports and
 * activations that are due, which may take as long as scripts do.
 */
export async function recover({
  store,
  runner,
  lanes,
  log,
  endLeftovers,
  sweep,
  reconfigure,
}: RecoveryParts): Promise<readonly Report[]> {
  const left = await store.unfinished()
  const marks = await store.marks()
  // From here on deliveries are recorded, however long the rest takes.
  await reconfigure()
  // Queued runs too: one may have been claimed in a transaction that the crash cut off. And the marks of finished ones: a
  // report may still have been running.
  await endLeftovers([...left.map(({ id }) => id), ...marks.map(({ run }) => run)])
  // Before any run makes a directory of its own, which nothing has sealed yet either.
  await sweep().catch((cause: unknown) => log.error('releases not swept', { cause }))
  const unfinished = await store.unfinished()
  const running = unfinished.filter((run) => run.state === 'running')
  // Each waits for the launcher of its own account, and none for another's.
  const reports = await Promise.all(running.map((run) => runner.interrupted(run)))
  const queued = unfinished.filter((run) => run.state === 'queued')
  lanes.apply({ queued, superseded: [] })
  if (unfinished.length > 0) log.info('recovered', { interrupted: running.length, queued: queued.length })
  const halfway = (await store.instances()).filter(({ activating }) => activating !== null)
  const makeGood = async () => void (await Promise.all(halfway.map((instance) => runner.makeGood(instance))))
  return [...reports, makeGood]
}
