import type { Config, Target } from '../config/config.ts'
import { short } from '../decide.ts'
import type { Clock, Log, Received, Sha } from '../model.ts'
import type { InstanceKey, Store } from '../stores/store.ts'

/** How long a repository is polled more often after its hook fell silent. */
const WATCH_MS = 10 * 60_000
/** Announced commits remembered for a (hook, repository). A poll looks for the newest. */
const MAX_REMEMBERED = 256

/**
 * Notices webhooks that never came: a change that polling found, that no delivery announces within the hook's
 * `missed_after`, from a (hook, repository) that has spoken before.
 */
export interface Silences {
  /** A verified delivery came: its pair is not silent. */
  heard(received: Received): void
  /** A poll saw the tip of an instance's ref; `isNew`: the ref was not there at the poll before. */
  found(target: Target, instance: InstanceKey, seen: SeenTip): void
  /** True while the pair is to be polled more often. */
  isWatched(hook: string, repo: string): boolean
  stop(): void
}

export interface SeenTip {
  readonly tip: Sha
  /** What else a delivery may call it: the object of an annotated tag. */
  readonly object: Sha | null
  readonly isNew: boolean
}

export function createSilences(parts: {
  readonly config: () => Config
  readonly store: Store
  readonly log: Log
  readonly now: Clock
  /** The pair fell silent: its next poll may be due earlier. */
  readonly onSilent: (instance: string) => void
}): Silences {
  const { config, store, log, now, onSilent } = parts
  const announced = new Map<string, Set<Sha>>()
  /** By instance and what it follows: other refs, or another repository, have moved no tip. */
  const lastTips = new Map<string, Sha>()
  const watchedUntil = new Map<string, number>()
  const hinted = new Set<string>()
  const timers = new Set<NodeJS.Timeout>()
  /** Changes that wait for their delivery: several instances of a repository see the same one. */
  const awaited = new Set<string>()

  const pairOf = (hook: string, repo: string): string => `${hook} ${repo.toLowerCase()}`

  function remember(pair: string, commit: Sha): void {
    const commits = announced.get(pair) ?? new Set()
    announced.set(pair, commits)
    commits.add(commit)
    for (const oldest of commits) {
      if (commits.size <= MAX_REMEMBERED) break
      commits.delete(oldest)
    }
  }

  async function check(hook: string, instance: InstanceKey, { tip, object }: SeenTip, foundAt: number): Promise<void> {
    const pair = pairOf(hook, instance.repo)
    if ([tip, object].some((id) => id !== null && announced.get(pair)?.has(id))) return
    const speakers = await store.speakers()
    const speaker = speakers.find((one) => pairOf(one.hook, one.repo) === pair)
    const fields = { hook, repo: instance.repo, target: instance.name, commit: short(tip) }
    if (speaker === undefined || speaker.firstHeard > foundAt) {
      if (!hinted.has(pair)) log.info('never-heard', { ...fields, hint: 'no webhook has come for this repository yet' })
      hinted.add(pair)
      return
    }
    await store.fellSilent(hook, instance.repo, now())
    watchedUntil.set(pair, now() + WATCH_MS)
    const hint = 'the hook is silent: look at the deliveries in the forge’s webhook settings'
    log.warn('missed webhook', { ...fields, hint })
    onSilent(instance.name)
  }

  return {
    heard({ hook, repo, changes }) {
      if (repo === null) return
      const pair = pairOf(hook, repo)
      watchedUntil.delete(pair)
      for (const { after } of changes) if (after !== null) remember(pair, after)
    },

    found(target, instance, seen) {
      const { tip, isNew } = seen
      const followed = JSON.stringify([instance.name, instance.repo, target.follows])
      const before = lastTips.get(followed)
      lastTips.set(followed, tip)
      // The first look since this start: whatever moved while we were down was announced to nobody.
      if (target.hook === null || before === tip || (before === undefined && !isNew)) return
      const hook = config().hooks.find(({ name }) => name === target.hook)
      if (hook === undefined) return
      const change = `${pairOf(hook.name, instance.repo)} ${tip}`
      if (awaited.has(change)) return
      awaited.add(change)
      const foundAt = now()
      const timer = setTimeout(() => {
        timers.delete(timer)
        awaited.delete(change)
        check(hook.name, instance, seen, foundAt).catch((cause: unknown) => log.error('bug', { cause }))
      }, hook.missedAfterMs)
      timers.add(timer)
    },

    isWatched: (hook, repo) => (watchedUntil.get(pairOf(hook, repo)) ?? 0) > now(),

    stop() {
      for (const timer of timers) clearTimeout(timer)
      timers.clear()
    },
  }
}
