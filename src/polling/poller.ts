import { isDeepStrictEqual } from 'node:util'
import PQueue from 'p-queue'
import type { Config, Target } from '../config/config.ts'
import { hasCode, messageOf } from '../errors.ts'
import { instanceKey, isNameOf } from '../instances.ts'
import type { Clock, Instance, Log } from '../model.ts'
import type { Remotes } from '../remotes.ts'
import type { Queued, RunOrder, Store } from '../stores/store.ts'
import type { Remote, RemoteRefs, Work } from '../work.ts'
import { createLook, type Follower, type PollResult } from './look.ts'
import type { Silences } from './silences.ts'

const AT_ONCE_PER_HOST = 4
const LONGEST_BACK_OFF_MS = 60 * 60_000
/** After a run found that the remote lags behind; sooner where `poll` is. */
const SOON_MS = 5000
/** How often a repository is polled whose hook fell silent. */
const SILENT_POLL_MS = 30_000

export interface Poller {
  /** Polls everything now, and from then on by each target's `poll`. */
  start(): Promise<void>
  /** Starts no more polls; resolves when none is under way. */
  stop(): Promise<void>
  /**
   * Gets ready for another configuration. To be called at once by whoever has put it in force: what is new or changed is polled
   * soon, what is gone no more, and a poll that is under way looks at nothing any more.
   */
  prepare(next: Config): Promise<() => void>
  /** An instance was first seen: it is polled from now on. */
  add(instance: Instance): void
  soon(instance: string): void
  /** One poll of every target, also of those with `poll = "off"`; takes up failed commits again. */
  once(): Promise<readonly PollResult[]>
}

export interface PollerParts {
  readonly config: () => Config
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly remotes: Remotes
  readonly silences: Silences
  /** Throws `aborted` where the configuration has nothing to do with an order any more. */
  readonly queue: (orders: readonly RunOrder[]) => Promise<Queued>
  readonly log: Log
  readonly now: Clock
}

/** The followers that one listing serves: one (remote, user). By the name of their instance, or what all of theirs begin with. */
interface Group {
  readonly remote: Remote
  readonly members: Map<string, Follower>
  timer: NodeJS.Timeout | null
  failures: number
  isPolling: boolean
  /** Asked for while a poll was under way. */
  soon: boolean
}

/** The pushes that no webhook announced. */
export function createPoller(parts: PollerParts): Poller {
  const { config, store, workOf, remotes, silences, log, now } = parts
  let groups = new Map<string, Group>()
  const groupOf = new Map<string, Group>()
  const pools = new Map<string, PQueue>()
  const underWay = new Set<Promise<unknown>>()
  const stopping = new AbortController()
  const look = createLook({ ...parts, stopping: stopping.signal })

  /** Every target in every repository: those that the file names, and those of globs that were seen before. */
  async function known({ targets }: Config): Promise<readonly Follower[]> {
    // So that it is known before anything has come of it. Branches are known once they are seen.
    const single = targets.filter(({ repoIsGlob, follows }) => !repoIsGlob && follows.kind !== 'branches')
    await Promise.all(single.map((target) => store.seen(instanceKey(target, target.repo, null), now())))
    // Last: an instance that comes later is added by whoever has seen it.
    const seen = await store.instances()
    return targets.flatMap((target) => {
      if (!target.repoIsGlob) return [{ target, repo: target.repo }]
      const own = seen.filter((one) => one.target === target.name && isNameOf(target, one.repo))
      return [...new Set(own.map(({ repo }) => repo))].map((repo) => ({ target, repo }))
    })
  }

  function join(follower: Follower, into: Map<string, Group>): Group {
    const remote = remotes.of(follower.target, follower.repo)
    const group = into.get(remote.mirror) ?? {
      remote,
      members: new Map<string, Follower>(),
      timer: null,
      failures: 0,
      isPolling: false,
      soon: false,
    }
    group.members.set(nameOf(follower), follower)
    into.set(remote.mirror, group)
    return group
  }

  function watch(follower: Follower): void {
    if (follower.target.pollMs === null) return
    const group = join(follower, groups)
    groupOf.set(nameOf(follower), group)
    if (group.timer === null) schedule(group, 0)
  }

  function schedule(group: Group, delayMs: number): void {
    if (stopping.signal.aborted) return
    if (group.timer !== null) clearTimeout(group.timer)
    group.timer = setTimeout(() => {
      untilEnded(pollAndGoOn(group)).catch((cause: unknown) => log.error('bug', { cause }))
    }, delayMs)
  }

  /** A stop waits for it. */
  async function untilEnded<T>(polling: Promise<T>): Promise<T> {
    underWay.add(polling)
    try {
      return await polling
    } finally {
      underWay.delete(polling)
    }
  }

  async function pollAndGoOn(group: Group): Promise<void> {
    group.isPolling = true
    let delayMs = ownInterval(group)
    try {
      await poll(group, false, () => isCurrent(group))
      delayMs = await nextDelay(group)
    } catch (cause) {
      // One target's trouble, or the store's, must not end the polling of the others.
      log.error('poll went wrong', { url: group.remote.url, cause })
    }
    group.isPolling = false
    if (!isCurrent(group)) return
    schedule(group, group.soon ? soonMs(group) : delayMs)
    group.soon = false
  }

  async function nextDelay(group: Group): Promise<number> {
    const ownMs = ownInterval(group)
    if (group.failures > 0) {
      const backedOff = jittered(ownMs * 2 ** Math.min(group.failures, 20))
      // A target that polls less than once an hour does not poll more for its remote being down.
      return Math.max(ownMs, Math.min(LONGEST_BACK_OFF_MS, backedOff))
    }
    const members = [...group.members.values()]
    const silent = members.some(({ target, repo }) => target.hook !== null && silences.isWatched(target.hook, repo))
    const delayMs = jittered(silent ? Math.min(SILENT_POLL_MS, ownMs) : ownMs)
    // Two polls confirm a tip, or that a branch is gone, only if `poll` lies between them, jitter or not.
    const instances = await Promise.all(members.map(async (member) => ({ member, all: await instancesOf(member) })))
    const confirmIn = instances.flatMap(({ member, all }) =>
      all.flatMap(({ doubt, goneSince }) => {
        const since = doubt?.since ?? goneSince
        return since ? [since + (member.target.pollMs ?? 0) - now()] : []
      }),
    )
    return Math.max(delayMs, ...confirmIn.filter((waitMs) => waitMs < 1.25 * delayMs))
  }

  /** A reload has put another group in the place of this one, or none. */
  function isCurrent(group: Group): boolean {
    return groups.get(group.remote.mirror) === group
  }

  function ownInterval({ members }: Group): number {
    return Math.min(...[...members.values()].map(({ target }) => target.pollMs ?? Number.POSITIVE_INFINITY))
  }

  function soonMs(group: Group): number {
    return Math.min(SOON_MS, ownInterval(group))
  }

  async function instancesOf({ target, repo }: Follower): Promise<readonly Instance[]> {
    if (target.follows.kind === 'branches') return await store.instancesOf(target.name, repo)
    const instance = await store.instance(instanceKey(target, repo, null).name)
    return instance === null ? [] : [instance]
  }

  async function poll(group: Group, retryFailed: boolean, goesOn: () => boolean): Promise<readonly PollResult[]> {
    const names = [...group.members.keys()]
    let refs: RemoteRefs
    try {
      refs = await list(group)
    } catch (cause) {
      if (hasCode(cause, 'aborted')) return []
      return failed(group, names, cause)
    }
    if (group.failures > 0) log.info('poll works again', { url: group.remote.url, afterFailures: group.failures })
    group.failures = 0
    const results: PollResult[] = []
    for (const follower of group.members.values()) {
      if (stopping.signal.aborted || !goesOn()) break
      results.push(...(await lookSafely(group, follower, refs, retryFailed)))
    }
    return results
  }

  /** One target's trouble is its own. */
  async function lookSafely({ remote }: Group, follower: Follower, refs: RemoteRefs, retryFailed: boolean) {
    try {
      return await look(follower, remote, refs, retryFailed)
    } catch (cause) {
      if (hasCode(cause, 'aborted')) return []
      // `lost` and `unstartable`: the launcher of its account has ended, or cannot become it.
      const isItsOwn = (['remote', 'git', 'lost', 'unstartable'] as const).some((code) => hasCode(cause, code))
      if (!isItsOwn) throw cause
      const detail = messageOf(cause)
      log.warn('poll failed', { targets: [nameOf(follower)], url: remote.url, detail })
      return [{ target: nameOf(follower), reason: 'failed', detail } as const]
    }
  }

  async function list({ remote, members }: Group): Promise<RemoteRefs> {
    const targets = [...members.values()].map(({ target }) => target)
    const named = targets.flatMap(({ follows }) => (follows.kind === 'branch' ? [follows.branch] : []))
    const branches = targets.some(({ follows }) => follows.kind === 'branches') ? 'all' : [...new Set(named)]
    const tags = targets.some(({ follows }) => follows.kind === 'tags')
    const timeoutMs = Math.min(...targets.map(({ fetchTimeoutMs }) => fetchTimeoutMs))
    const host = hostOf(remote.url)
    const pool = pools.get(host) ?? new PQueue({ concurrency: AT_ONCE_PER_HOST })
    pools.set(host, pool)
    const [first] = targets
    if (first === undefined) throw new Error('nothing is polled for nobody')
    return pool.add(() => workOf(first).listRefs({ remote, branches, tags, timeoutMs }, stopping.signal))
  }

  function failed(group: Group, names: readonly string[], cause: unknown): readonly PollResult[] {
    group.failures += 1
    const detail = messageOf(cause)
    log.warn('poll failed', { targets: names, url: group.remote.url, failures: group.failures, detail })
    return names.map((target) => ({ target, reason: 'failed', detail }))
  }

  function takeOver(followers: readonly Follower[], before: Config, next: Config): void {
    const old = groups
    groups = new Map()
    groupOf.clear()
    for (const follower of followers) {
      if (follower.target.pollMs !== null) groupOf.set(nameOf(follower), join(follower, groups))
    }
    for (const [mirror, was] of old) {
      const group = groups.get(mirror)
      if (group !== undefined && isSame(was, group, before, next)) {
        // With its timer, its back-off, and the poll that may be under way.
        groups.set(mirror, was)
        for (const name of was.members.keys()) groupOf.set(name, was)
        continue
      }
      if (was.timer !== null) clearTimeout(was.timer)
      if (group !== undefined) group.failures = was.failures
    }
    for (const group of groups.values()) if (group.timer === null) schedule(group, 0)
  }

  return {
    async start() {
      for (const follower of await known(config())) watch(follower)
    },
    async prepare(next) {
      const before = config()
      const followers = await known(next)
      return () => takeOver(followers, before, next)
    },
    async stop() {
      stopping.abort()
      for (const { timer } of groups.values()) if (timer !== null) clearTimeout(timer)
      await Promise.allSettled(underWay)
    },
    add(instance) {
      const target = config().targets.find(({ name }) => name === instance.target)
      if (target === undefined) return
      const follower = { target, repo: instance.repo }
      if (!groupOf.has(nameOf(follower))) watch(follower)
    },
    soon(instance) {
      // Without the branch: all instances of a target in a repository are polled together.
      const group = groupOf.get(instance.replace(/@.*/s, ''))
      if (group?.isPolling) group.soon = true
      else if (group !== undefined) schedule(group, soonMs(group))
    },
    async once() {
      const all = new Map<string, Group>()
      const notPolled: string[] = []
      for (const follower of await known(config())) {
        // Git is not this target's business, unless the file says that it polls.
        if (follower.target.checkout === 'none' && follower.target.pollMs === null) notPolled.push(nameOf(follower))
        else join(follower, all)
      }
      const polls = [...all.values()].map((group) => untilEnded(poll(group, true, () => true)))
      const detail = 'nothing to poll: checkout = "none"'
      return [
        ...(await Promise.all(polls)).flat(),
        ...notPolled.map((target) => ({ target, reason: 'up-to-date', detail }) as const),
      ]
    },
  }
}

function nameOf({ target, repo }: Follower): string {
  return instanceKey(target, repo, null).name
}

/** Whether a reload has left alone what is polled, for whom, and with what. */
function isSame(was: Group, is: Group, before: Config, after: Config): boolean {
  const about = ({ remote, members }: Group, { hooks }: Config) => [
    remote,
    [...members].map(([name, { target, repo }]) => [name, target, repo, hooks.find((one) => one.name === target.hook)]),
  ]
  return isDeepStrictEqual(about(was, before), about(is, after))
}

function jittered(ms: number): number {
  return Math.round(ms * (0.9 + 0.2 * Math.random()))
}

/** `github.com` of a URL or of `git@github.com:path`; one name for all local paths. */
function hostOf(url: string): string {
  return URL.parse(url)?.hostname ?? /^(?:[^@/]+@)?([^:/]+):/.exec(url)?.[1] ?? 'local'
}
