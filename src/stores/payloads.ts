import { createHash, randomUUID } from 'node:crypto'
import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { DatabaseSync } from 'node:sqlite'
import type { Received } from '../model.ts'
import { CODEC, unpackPayload } from '../payload-codec.ts'
import { type GroupWrite, storeError } from './group.ts'

/** Larger ones would make the database's pages, its WAL and every commit beside them slow. */
const MAX_ROW_BYTES = 64 * 1024

export interface Payloads {
  /** Puts a big payload into a file and syncs it; null for one that goes into its row. To be awaited before `insert`. */
  readonly stage: (payload: Received['payload']) => Promise<string> | null
  /** Removes a staged file that no transaction took over. */
  readonly discard: (file: string) => Promise<void>
  /** Inside a transaction. */
  readonly insert: (delivery: number, payload: Received['payload'], file: string | null) => void
  readonly read: (delivery: number) => Promise<string | null>
  /** Removes the payloads of deliveries received before `before`. */
  readonly prune: (before: number) => Promise<void>
}

export async function createPayloads(parts: {
  readonly db: DatabaseSync
  readonly write: GroupWrite
  readonly directory: string
}): Promise<Payloads> {
  const { db, write, directory } = parts
  const insert = db.prepare('insert into payloads (delivery, bytes, codec, data, file) values (?, ?, ?, ?, ?)')
  const select = db.prepare('select codec, data, file from payloads where delivery = ?')
  const files = db.prepare('select file from payloads where file is not null')
  const filesBefore = db.prepare(
    'select file from payloads where file is not null and delivery in (select id from deliveries where received_at < ?)',
  )
  const remove = db.prepare(
    'delete from payloads where delivery in (select id from deliveries where received_at < ?) and delivery not in (select delivery from runs where finished_at is null and delivery is not null)',
  )

  await mkdir(directory, { recursive: true, mode: 0o700 })
  await removeOrphans()

  /** Files whose transaction never came: we died between the two. */
  async function removeOrphans(): Promise<void> {
    const known = new Set(files.all().map((row) => row['file']))
    const orphans = (await readdir(directory)).filter((name) => !known.has(name))
    await Promise.all(orphans.map((name) => rm(join(directory, name), { force: true })))
  }

  async function discard(name: string): Promise<void> {
    await rm(join(directory, name), { force: true }).catch(() => {}) // the next start removes it as an orphan
  }

  async function writeSynced(bytes: Uint8Array): Promise<string> {
    const name = `${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}-${randomUUID()}`
    const handle = await open(join(directory, name), 'wx', 0o600)
    try {
      await handle.writeFile(bytes)
      await handle.sync()
    } catch (cause) {
      await discard(name) // half a payload on a full disk is in the way of its mending
      throw cause
    } finally {
      await handle.close()
    }
    const folder = await open(directory, 'r')
    try {
      await folder.sync()
    } finally {
      await folder.close()
    }
    return name
  }

  return {
    stage: ({ compressed }) => (compressed.length > MAX_ROW_BYTES ? writeSynced(compressed) : null),

    discard,

    insert(delivery, { compressed, bytes }, file) {
      insert.run(delivery, bytes, CODEC, file === null ? compressed : null, file)
    },

    async read(delivery) {
      try {
        const row = select.get(delivery)
        if (row === undefined) return null
        const { data, file } = row
        const compressed = data instanceof Uint8Array ? data : await readFile(join(directory, String(file)))
        return unpackPayload(compressed, Number(row['codec']))
      } catch (cause) {
        throw storeError(cause)
      }
    },

    async prune(before) {
      const doomed = filesBefore.all(before).map((row) => String(row['file']))
      await write(() => remove.run(before))
      const kept = new Set(files.all().map((row) => row['file']))
      await Promise.all(
        doomed.filter((name) => !kept.has(name)).map((name) => rm(join(directory, name), { force: true })),
      )
    },
  }
}
