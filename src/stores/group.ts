import type { DatabaseSync } from 'node:sqlite'
import { LandfallError, messageOf, systemCode } from '../errors.ts'

/**
 * Group commit: writes of one turn of the event loop share one transaction and so one fsync. The promise of a write
 * resolves when its transaction is on disk. A write that throws is undone alone; a commit that fails undoes all of them.
 */
export type GroupWrite = <T>(work: () => T) => Promise<T>

/** `onUndone` is called whenever writes were undone, so that nothing is remembered that is not on disk. */
export function createGroupWrite(db: DatabaseSync, onUndone: () => void): GroupWrite {
  const begin = db.prepare('begin immediate')
  const commit = db.prepare('commit')
  const savepoint = db.prepare('savepoint one')
  const release = db.prepare('release one')
  const undo = db.prepare('rollback to one')
  let isOpen = false
  let waiting: ((failure: unknown) => void)[] = []

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
    for (const tell of group) tell(failure)
  }

  function alone<T>(work: () => T): T {
    savepoint.run()
    try {
      const value = work()
      release.run()
      return value
    } catch (cause) {
      if (db.isTransaction) undoOne()
      onUndone()
      throw cause
    }
  }

  function undoOne(): void {
    try {
      undo.run()
      release.run()
    } catch {
      rollBack(db) // half a write must not be committed with the others
    }
  }

  return function write<T>(work: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      try {
        if (!isOpen) open()
        const value = alone(work)
        waiting.push((failure) => (failure === null ? resolve(value) : reject(failure)))
      } catch (cause) {
        const failure = storeError(cause)
        // A full disk can end the whole transaction. What comes next in this turn must not take its place unnoticed.
        if (isOpen && !db.isTransaction) end(failure)
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
