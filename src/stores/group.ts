import type { DatabaseSync } from 'node:sqlite'
import { LandfallError, messageOf, systemCode } from '../errors.ts'

/**
 * Group commit: writes of one turn of the event loop share one transaction and so one fsync. The promise of a write
 * resolves when its transaction is on disk. A write that throws is undone alone; a commit that fails undoes all of them.
 * `work` may be done more than once: of all times but the last, nothing is left but gaps in numbers that it gave.
 */
export type GroupWrite = <T>(work: () => T) => Promise<T>

interface Waiting {
  readonly again: () => void
  readonly tell: (failure: unknown) => void
}

/** `onUndone` is called whenever writes were undone, so that nothing is remembered that is not on disk. */
export function createGroupWrite(db: DatabaseSync, onUndone: () => void): GroupWrite {
  const begin = db.prepare('begin immediate')
  const commit = db.prepare('commit')
  let isOpen = false
  let waiting: Waiting[] = []

  function open(): void {
    begin.run()
    isOpen = true
    // Two turns of the loop: what arrived while the first requests were verified joins them, half as many again under load.
    setImmediate(() => setImmediate(settle))
  }

  function settle(): void {
    if (!isOpen) return
    try {
      commit.run()
      end(null)
    } catch (cause) {
      rollBack(db)
      end(storeError(cause))
    }
  }

  function end(failure: unknown): void {
    const group = waiting
    waiting = []
    isOpen = false
    if (failure !== null) onUndone()
    for (const { tell } of group) tell(failure)
  }

  /** The last write has thrown half-way. No savepoint a write: each would copy every page that its write changes. */
  function undoLast(failure: unknown): void {
    if (!db.isTransaction) {
      // A full disk can end the whole transaction. What comes next in this turn must not take its place unnoticed.
      end(failure)
      return
    }
    onUndone()
    try {
      rollBack(db)
      begin.run()
      for (const { again } of waiting) again()
    } catch (cause) {
      rollBack(db)
      end(storeError(cause))
    }
  }

  return function write<T>(work: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      try {
        if (!isOpen) open()
        let value = work()
        waiting.push({
          again: () => {
            value = work()
          },
          tell: (failure) => (failure === null ? resolve(value) : reject(failure)),
        })
      } catch (cause) {
        const failure = storeError(cause)
        if (isOpen) undoLast(failure)
        reject(failure)
      }
    })
  }
}

/** SQLite's primary codes for our own mistakes: error, constraint, mismatch, misuse, range. */
const BUGS = new Set([1, 19, 20, 21, 25])

/** A failure of the disk or the database as `store`; a bug stays what it is, since no waiting mends it. */
export function storeError(cause: unknown): unknown {
  if (cause instanceof LandfallError || isBug(cause)) return cause
  return new LandfallError('store', `the store failed: ${messageOf(cause)}; check the disk of data_dir`, { cause })
}

function isBug(cause: unknown): boolean {
  const code = systemCode(cause)
  if (code === 'ERR_SQLITE_ERROR') {
    return cause instanceof Error && 'errcode' in cause && BUGS.has(Number(cause.errcode) & 0xff)
  }
  // A closed database, and ENOSPC and the like from the payloads' files, are no bugs.
  return code !== 'ERR_INVALID_STATE' && !/^E[A-Z0-9]+$/.test(code ?? '')
}

function rollBack(db: DatabaseSync): void {
  if (db.isTransaction) db.exec('rollback')
}
