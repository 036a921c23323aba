/** One task at a time for each key, first come first served; different keys do not wait for each other. */
import { LandfallError } from '../errors.ts'

export type Locked = <T>(key: string, signal: AbortSignal | undefined, task: () => Promise<T>) => Promise<T>

/** An aborted signal lets a waiting caller go with `aborted`; a task that has begun looks after itself. */
export function createLocks(): Locked {
  /** Settles when the last in line is done; never rejects. */
  const tails = new Map<string, Promise<void>>()
  return async function locked(key, signal, task) {
    const before = tails.get(key) ?? Promise.resolve()
    const { promise: done, resolve: release } = Promise.withResolvers<void>()
    const tail = before.then(() => done)
    tails.set(key, tail)
    try {
      await turnOrAbort(before, signal)
      return await task()
    } finally {
      release()
      if (tails.get(key) === tail) tails.delete(key)
    }
  }
}

async function turnOrAbort(turn: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const aborted = () => resolve()
  signal?.addEventListener('abort', aborted, { once: true })
  if (!signal?.aborted) await Promise.race([turn, promise])
  signal?.removeEventListener('abort', aborted)
  if (signal?.aborted) throw new LandfallError('aborted', 'stopped while waiting for another use of the same mirror')
}
