/** What remotes have lately been found to have, so that the runs of one push ask for it once. */

/** A push moves several targets of a repository within moments; what is older than this is history. */
const SHARED_MS = 10_000

export interface Recent<T> {
  /**
   * What was found of `ref` by a fetch that began when an order was due already, or later, so that it has seen all that the
   * order could mean, and that ended just now.
   */
  recall(mirror: string, ref: string, dueAt: number): T | undefined
  /** Tells of a fetch that has just ended well. `beganAt` is from before the remote was first asked. */
  remember(mirror: string, ref: string, beganAt: number, found: T): void
  /** The mirror was made anew: nothing is in it because it was fetched once. */
  forget(mirror: string): void
}

interface Finding<T> {
  readonly beganAt: number
  readonly endedAt: number
  readonly found: T
}

/** In the memory of this process: after a restart everything is fetched anew. Times are of `Date.now()`. */
export function createRecent<T>(): Recent<T> {
  const mirrors = new Map<string, Map<string, Finding<T>>>()

  return {
    recall(mirror, ref, dueAt) {
      const last = mirrors.get(mirror)?.get(ref)
      return last !== undefined && isRecent(last.endedAt) && dueAt <= last.beganAt ? last.found : undefined
    },

    remember(mirror, ref, beganAt, found) {
      for (const refs of mirrors.values()) {
        for (const [name, { endedAt }] of refs) if (!isRecent(endedAt)) refs.delete(name)
      }
      const refs = mirrors.get(mirror) ?? new Map<string, Finding<T>>()
      mirrors.set(mirror, refs.set(ref, { beganAt, endedAt: Date.now(), found }))
    },

    forget(mirror) {
      mirrors.delete(mirror)
    },
  }
}

/** Not in the future either, where a clock that was set back puts it. */
function isRecent(endedAt: number): boolean {
  const ageMs = Date.now() - endedAt
  return ageMs >= 0 && ageMs <= SHARED_MS
}
