import PQueue from 'p-queue'
import type { Config, Target } from './config/config.ts'
import { decidePoll, short } from './decide.ts'
import { hasCode, messageOf } from './errors.ts'
import { instanceKey, orderFor } from './instances.ts'
import type { Clock, Instance, Log, Sha } from './model.ts'
import type { Remotes } from './remotes.ts'
import type { Silences } from './silences.ts'
import type { Queued, RunOrder, Store } from './stores/store.ts'
import type { Remote, RemoteRefs, Work } from './work.ts'

const AT_ONCE_PER_HOST = 4
const LONGEST_BACK_OFF_MS = 60 * 60_000
/** After a run found that the remote lags behind; sooner where `poll` is. */
const SOON_MS = 5000
/** How often a repository is polled whose hook fell silent. */
const SILENT_POLL_MS = 30_000

/** What `landfall once` learns of one instance. */
export type PollResult =
  | { readonly target: string; readonly run: number }
  | {
      readonly target: string
      readonly reason: 'up-to-date' | 'ref-gone' | 'unconfirmed' | 'failed'
      readonly detail: string
    }

export interface Poller {
  /** Polls everything now, and from then on by each target's `poll`. */
  start(): Promise<void>
  /** Starts no more polls; resolves when none is under way. */
  stop(): Promise<void>
  /** An instance was first seen: it is polled from now on. */
  add(instance: Instance): void
  soon(instance: string): void
  /** One poll of every target, also of those with `poll = "off"`; takes up failed commits again. */
  once(): Promise<readonly PollResult[]>
}

export interface PollerParts {
  readonly config: () => Config
  readonly store: Store
  readonly work: Work
  readonly remotes: Remotes
  readonly silences: Silences
  readonly queue: (orders: readonly RunOrder[]) => Promise<Queued>
  readonly log: Log
  readonly now: Clock
}

/** The instances that one listing serves: one (remote, user). */
interface Group {
  readonly remote: Remote
  readonly members: Map<string, Target>
  timer: NodeJS.Timeout | null
  failures: number
  isPolling: boolean
  /** Asked for while a poll was under way. */
  soon: boolean
}

/** The pushes that no webhook announced. */
export function createPoller(parts: PollerParts): Poller {
  const { config, store, work, remotes, silences, queue, log, now } = parts
  const groups = new Map<string, Group>()
  const groupOf = new Map<string, Group>()
  const pools = new Map<string, PQueue>()
  const underWay = new Set<Promise<unknown>>()
  const stopping = new AbortController()

  /** Every instance of every target: those that the file names, and those of globs that were seen before. */
  async function known(): Promise<readonly { target: Target; instance: Instance }[]> {
    const seen = await store.instances()
    const found = config().targets.map(async (target) => {
      if (target.repoIsGlob) {
        return seen.filter((one) => one.target === target.name).map((instance) => ({ target, instance }))
      }
      return [{ target, instance: await store.seen(instanceKey(target, target.repo), now()) }]
    })
    return (await Promise.all(found)).flat()
  }

  function join(target: Target, instance: Instance, into: Map<string, Group>): Group {
    const remote = remotes.of(target, instance.repo)
    const group = into.get(remote.mirror) ?? {
      remote,
      members: new Map<string, Target>(),
      timer: null,
      failures: 0,
      isPolling: false,
      soon: false,
    }
    group.members.set(instance.name, target)
    into.set(remote.mirror, group)
    return group
  }

  function watch(target: Target, instance: Instance): void {
    if (target.pollMs === null) return
    const group = join(target, instance, groups)
    groupOf.set(instance.name, group)
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
      await poll(group, false)
      delayMs = await nextDelay(group)
    } catch (cause) {
      // One target's trouble, or the store's, must not end the polling of the others.
      log.error('poll went wrong', { url: group.remote.url, cause })
    }
    group.isPolling = false
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
    const instances = await Promise.all([...group.members.keys()].map((name) => store.instance(name)))
    const silent = instances.some((instance) => instance !== null && isSilent(group, instance))
    const delayMs = jittered(silent ? Math.min(SILENT_POLL_MS, ownMs) : ownMs)
    // Two polls confirm a tip only if `poll` lies between them, jitter or not.
    const confirmIn = instances.flatMap((instance) =>
      instance?.doubt?.since ? [instance.doubt.since + confirmAfter(group, instance.name) - now()] : [],
    )
    return Math.max(delayMs, ...confirmIn.filter((waitMs) => waitMs < 1.25 * delayMs))
  }

  function ownInterval({ members }: Group): number {
    return Math.min(...[...members.values()].map(({ pollMs }) => pollMs ?? Number.POSITIVE_INFINITY))
  }

  function soonMs(group: Group): number {
    return Math.min(SOON_MS, ownInterval(group))
  }

  function isSilent(group: Group, { name, repo }: Instance): boolean {
    const hook = group.members.get(name)?.hook ?? null
    return hook !== null && silences.isWatched(hook, repo)
  }

  function confirmAfter(group: Group, instance: string): number {
    return group.members.get(instance)?.pollMs ?? 0
  }

  async function poll(group: Group, retryFailed: boolean): Promise<readonly PollResult[]> {
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
    for (const name of names) {
      if (stopping.signal.aborted) break
      const target = group.members.get(name)
      const instance = await store.instance(name)
      if (target !== undefined && instance !== null) results.push(await look(target, instance, refs, retryFailed))
    }
    return results
  }

  async function list({ remote, members }: Group): Promise<RemoteRefs> {
    const targets = [...members.values()]
    const branches = [...new Set(targets.flatMap(({ branch }) => (branch === null ? [] : [branch])))]
    const timeoutMs = Math.min(...targets.map(({ fetchTimeoutMs }) => fetchTimeoutMs))
    const host = hostOf(remote.url)
    const pool = pools.get(host) ?? new PQueue({ concurrency: AT_ONCE_PER_HOST })
    pools.set(host, pool)
    return pool.add(() => work.listRefs({ remote, branches, timeoutMs }, stopping.signal))
  }

  function failed(group: Group, names: readonly string[], cause: unknown): readonly PollResult[] {
    group.failures += 1
    const detail = messageOf(cause)
    log.warn('poll failed', { targets: names, url: group.remote.url, failures: group.failures, detail })
    return names.map((target) => ({ target, reason: 'failed', detail }))
  }

  async function look(target: Target, instance: Instance, refs: RemoteRefs, retryFailed: boolean): Promise<PollResult> {
    const { name } = instance
    const branch = target.branch ?? refs.head?.branch ?? null
    const tip = target.branch === null ? (refs.head?.tip ?? null) : (refs.branches[target.branch] ?? null)
    if (target.branch === null && branch !== null && branch !== instance.defaultBranch) {
      await store.remember(name, { defaultBranch: branch })
    }
    const { run, doubt } = decidePoll({
      tip,
      deployed: instance.deployed?.commit ?? null,
      considered: instance.considered,
      doubt: instance.doubt,
      confirmAfterMs: target.pollMs ?? 0,
      retryFailed,
      broken: instance.state === 'broken',
      now: now(),
    })
    if (doubt?.tip !== instance.doubt?.tip || doubt?.since !== instance.doubt?.since) {
      await store.remember(name, { doubt })
    }
    if (tip !== null) silences.found(target, instance, tip)
    if (run === null) return unmoved(name, branch, tip, doubt !== null)

    const trigger = retryFailed ? 'once' : 'poll'
    const ref = branch === null ? null : `refs/heads/${branch}`
    const order = orderFor(target, instance.repo, { trigger, ref, announced: run.tip, pollsAgree: run.pollsAgree })
    const { runs } = await queue([order])
    const made = runs[0]
    if (made === undefined) throw new Error('an order came back without a run')
    if (made.isNew) log.info('poll found', { target: name, run: made.run, commit: short(run.tip), trigger })
    return { target: name, run: made.run }
  }

  function unmoved(target: string, branch: string | null, tip: Sha | null, doubtful: boolean): PollResult {
    if (tip === null) return { target, reason: 'ref-gone', detail: `branch ${branch ?? ''} is not on the remote` }
    if (doubtful) {
      const detail = `the tip ${short(tip)} does not descend from what is deployed; followed once two polls agree`
      return { target, reason: 'unconfirmed', detail }
    }
    return { target, reason: 'up-to-date', detail: `nothing new: the tip is ${short(tip)}` }
  }

  return {
    async start() {
      for (const { target, instance } of await known()) watch(target, instance)
    },
    async stop() {
      stopping.abort()
      for (const { timer } of groups.values()) if (timer !== null) clearTimeout(timer)
      await Promise.allSettled(underWay)
    },
    add(instance) {
      const target = config().targets.find(({ name }) => name === instance.target)
      if (target !== undefined && !groupOf.has(instance.name)) watch(target, instance)
    },
    soon(instance) {
      const group = groupOf.get(instance)
      if (group?.isPolling) group.soon = true
      else if (group !== undefined) schedule(group, soonMs(group))
    },
    async once() {
      const all = new Map<string, Group>()
      for (const { target, instance } of await known()) {
        // Git is not this target's business, unless the file says that it polls.
        if (target.checkout === 'none' && target.pollMs === null) continue
        join(target, instance, all)
      }
      return (await Promise.all([...all.values()].map((group) => untilEnded(poll(group, true))))).flat()
    },
  }
}

function jittered(ms: number): number {
  return Math.round(ms * (0.9 + 0.2 * Math.random()))
}

/** `github.com` of a URL or of `git@github.com:path`; one name for all local paths. */
function hostOf(url: string): string {
  return URL.parse(url)?.hostname ?? /^(?:[^@/]+@)?([^:/]+):/.exec(url)?.[1] ?? 'local'
}
