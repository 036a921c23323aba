import { chmodSync, closeSync, existsSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { LandfallError, messageOf } from '../errors.ts'
import type { Run } from '../model.ts'
import { createGroupWrite } from './group.ts'
import { createJourney } from './journey.ts'
import { createPayloads } from './payloads.ts'
import { createQueueing } from './queueing.ts'
import { createReads } from './reads.ts'
import { toRun } from './rows.ts'
import { migrate } from './schema.ts'
import type { Store } from './store.ts'

export interface SqliteParts {
  readonly dataDir: string
  /** How long two deliveries can be the same one; read with each delivery. */
  readonly keepDeliveriesMs: number
}

/**
 * Opens `landfall.db` in `dataDir`, which exists, and brings its schema up to date. The caller owns the directory
 * (`data-dir.ts`). Throws `start` where the file cannot be opened, is no database, or was written by a newer version.
 */
export async function openSqlite(parts: SqliteParts): Promise<Store> {
  const { dataDir } = parts
  const file = join(dataDir, 'landfall.db')
  let db: DatabaseSync | null = null
  try {
    db = openDatabase(file)
    migrate(db, file)
    return await createStore(db, parts)
  } catch (cause) {
    db?.close()
    if (cause instanceof LandfallError) throw cause
    throw new LandfallError('start', `${file} cannot be opened: ${messageOf(cause)}`, { cause })
  }
}

/**
 * A run as it stands in the database of another process, which may have ended; null where it cannot be read.
 * Nothing in it is changed.
 */
export function readRun(dataDir: string, id: number): Run | null {
  let db: DatabaseSync | null = null
  try {
    db = new DatabaseSync(join(dataDir, 'landfall.db'), { readOnly: true })
    const row = db.prepare('select * from runs where id = ?').get(id)
    return row === undefined ? null : toRun(row)
  } catch {
    return null
  } finally {
    db?.close()
  }
}

async function createStore(db: DatabaseSync, parts: SqliteParts): Promise<Store> {
  const queueing = createQueueing(db)
  const write = createGroupWrite(db, queueing.forget)
  const payloads = await createPayloads({ db, write, directory: join(parts.dataDir, 'payloads') })
  return {
    ...createJourney({ db, write, queueing, payloads, keepDeliveriesMs: () => parts.keepDeliveriesMs }),
    ...createReads(db),
    payload: payloads.read,
    async close() {
      if (!db.isOpen) return
      // Ends with the group that is open, which must not be cut off.
      await write(() => {}).catch(() => {})
      if (db.isOpen) db.close()
    },
  }
}

function openDatabase(file: string): DatabaseSync {
  // Made by us, so that it is ours alone from its first byte; SQLite gives the WAL the same mode.
  if (!existsSync(file)) closeSync(openSync(file, 'a', 0o600))
  chmodSync(file, 0o600)
  const db = new DatabaseSync(file, { enableForeignKeyConstraints: true })
  // Pages of 4 kB, the default: delivery ids and body hashes are random, so a group writes a page of index for nearly each.
  // A checkpoint every 16 MB instead of 4: index pages that many groups have written are copied once.
  db.exec(
    'pragma wal_autocheckpoint = 4000; pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 5000',
  )
  return db
}
