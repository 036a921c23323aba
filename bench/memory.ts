/** What the daemon holds in memory, idle and after many deliveries, and what a delivery leaves on disk. */
import { existsSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Fleet, keepMoving, makeFleet, pushesTo } from './acknowledge.ts'
import { type Daemon, startDaemon } from './daemon.ts'
import { NO_WRK, sendAll, WRK } from './load.ts'
import { childrenOf, memoryOf } from './processes.ts'
import { writeRequests } from './requests.ts'
import { type Bench, type Line, megabytes, type Result, type Row } from './table.ts'

const MAX_IDLE_MB = 110
const MAX_AFTER_MB = 150
const MAX_STORED_BYTES = 2500
const IDLE_MS = 5000
const CHUNK = 10_000
/** The whole benchmark shall end within a quarter of an hour, also where landfall is slow: fewer deliveries are said to be fewer. */
const MAX_SENDING_MS = 120_000

async function measure({ directory, program, quick }: Bench): Promise<Result> {
  if (WRK === null) return { lines: [], notes: [NO_WRK] }
  const deliveries = quick ? 10_000 : 100_000
  const fleet = await makeFleet(directory, CHUNK / 4)
  const daemon = await startDaemon({ program, directory, targets: fleet.targets, keys: 'drain = "2s"\n' })
  const stopMoving = keepMoving(fleet)
  try {
    await sleep(IDLE_MS)
    const idle = memoryOf(daemon.pid)
    const launcher = childrenOf(daemon.pid)[0] ?? daemon.pid
    const launcherIdle = memoryOf(launcher)
    const sent = await sendMany(daemon, fleet, { directory, deliveries })
    const after = memoryOf(daemon.pid)
    const launcherAfter = memoryOf(launcher)
    await sleep(IDLE_MS)
    const later = memoryOf(daemon.pid)
    await daemon.stop()
    const stored = await storedBy(daemon)
    return {
      lines: [
        within('resident memory of the daemon, idle', megabytes(idle.now), idle.now, MAX_IDLE_MB),
        within(`resident memory of the daemon after ${sent} deliveries`, megabytes(after.now), after.now, MAX_AFTER_MB),
        {
          what: `bytes in the database a stored delivery, of ${stored.payload} bytes of payload`,
          ours: `${stored.each} B`,
          beside: '',
          ratio: null,
          toReach: `≤ ${MAX_STORED_BYTES} B`,
          ok: stored.each <= MAX_STORED_BYTES,
        },
      ],
      notes: [
        `the daemon at most ${megabytes(after.most)}, ${IDLE_MS / 1000} s later ${megabytes(later.now)}; its launcher idle ${megabytes(launcherIdle.now)}, after ${megabytes(launcherAfter.now)}`,
        `${stored.deliveries} deliveries stored, with ${stored.runs} runs: those are in the bytes too`,
      ],
    }
  } finally {
    stopMoving()
    await daemon.stop()
  }
}

/** Resolves to how many were sent. */
async function sendMany(daemon: Daemon, fleet: Fleet, { directory, deliveries }: Sending): Promise<number> {
  const deadline = performance.now() + MAX_SENDING_MS
  let sent = 0
  while (sent < deliveries && performance.now() < deadline) {
    const requests = await writeRequests(join(directory, 'requests'), pushesTo(fleet, CHUNK, sent))
    await sendAll(daemon.url, requests)
    sent += CHUNK
  }
  return sent
}

interface Sending {
  readonly directory: string
  readonly deliveries: number
}

function within(what: string, ours: string, bytes: number, megabytesAtMost: number): Line {
  const ok = bytes <= megabytesAtMost * 1024 * 1024
  return { what, ours, beside: '', ratio: null, toReach: `≤ ${megabytesAtMost} MB`, ok }
}

/** Database, WAL after a checkpoint, and payload files, shared among the deliveries. */
async function storedBy({ dataDir }: Daemon) {
  const file = join(dataDir, 'landfall.db')
  const db = new DatabaseSync(file)
  db.exec('pragma wal_checkpoint(truncate)')
  const count = (sql: string) => Number(db.prepare(sql).get()?.['n'])
  const deliveries = count('select count(*) as n from deliveries')
  const runs = count('select count(*) as n from runs')
  const payload = Math.round(count('select avg(bytes) as n from payloads'))
  db.close()
  const payloads = join(dataDir, 'payloads')
  const files = [file, `${file}-wal`, ...(await readdir(payloads)).map((name) => join(payloads, name))]
  let bytes = 0
  for (const path of files.filter((path) => existsSync(path))) bytes += (await stat(path)).size
  return { deliveries, runs, payload, each: Math.round(bytes / deliveries) }
}

export const memory: Row = { name: 'memory', about: 'resident memory, and bytes on disk a delivery', measure }
