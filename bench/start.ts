/** A start with much in the store, beside one with nothing. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { openSqlite } from '../src/stores/sqlite.ts'
import { startDaemon } from './daemon.ts'
import { makeReceived, makeRouting } from './deliveries.ts'
import { execute } from './processes.ts'
import { atMost, type Bench, median, medianRatio, milliseconds, type Result, type Row } from './table.ts'

const GROUP = 500
/** One run at once, which does nothing but wait: what is queued must not compete with the start that is timed. */
const KEYS = 'max_jobs = 1\ndrain = "0s"\n'
const TARGETS = [1, 2, 3, 4]
  .map(
    (n) =>
      `[target.site${n}]\nrepo = "acme/site${n}"\nbranches = "main"\ncheckout = "none"\nrun = ["/bin/sleep", "600"]\nuser = "root"\n`,
  )
  .join('')

async function measure({ directory, program, quick }: Bench): Promise<Result> {
  const deliveries = quick ? 20_000 : 100_000
  const queued = quick ? 2000 : 10_000
  const full = join(directory, 'full')
  await fill(join(full, 'data'), deliveries, queued)
  await execute('sync')
  const times: { readonly full: number[]; readonly empty: number[] } = { full: [], empty: [] }
  for (let round = 0; round < (quick ? 3 : 7); round += 1) {
    for (const [kind, home] of [
      ['full', full],
      ['empty', join(directory, `empty-${round}`)],
    ] as const) {
      const daemon = await startDaemon({ program, directory: home, targets: TARGETS, keys: KEYS })
      times[kind].push(daemon.startMs)
      await daemon.stop()
    }
  }
  return {
    lines: [
      {
        what: `start with ${queued} queued runs and ${deliveries} stored deliveries, beside an empty start`,
        ours: milliseconds(median(times.full)),
        beside: milliseconds(median(times.empty)),
        ...atMost(2, medianRatio(times.full, times.empty)),
      },
    ],
    notes: [],
  }
}

/** By the store's own verb; the last `queued` deliveries make a run each, in four lanes. */
async function fill(dataDir: string, deliveries: number, queued: number): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  const store = await openSqlite({ dataDir, keepDeliveriesMs: 30 * 86_400_000 })
  for (let first = 0; first < deliveries; first += GROUP) {
    const group = Array.from({ length: GROUP }, (_, index) => {
      const n = first + index
      const received = makeReceived(`acme/site${(n % 4) + 1}`)
      return store.record(received, makeRouting(received, n >= deliveries - queued ? `site${(n % 4) + 1}` : null))
    })
    await Promise.all(group)
  }
  await store.close()
}

export const starting: Row = {
  name: 'start',
  about: 'a start with much in the store, beside one with nothing',
  measure,
}
