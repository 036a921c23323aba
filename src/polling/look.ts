/** What a listing of a remote's refs means for the instances that follow them: runs, a record, or nothing. */
import type { Follows, Target } from '../config/config.ts'
import { decidePoll, short } from '../decide.ts'
import { matchesRefName } from '../globs.ts'
import { deletionOf, filesAreElsewhere, hasWorked, instanceKey, MOST_ASKED, orderFor } from '../instances.ts'
import type { Clock, Instance, Log, Sha } from '../model.ts'
import type { Queued, RunOrder, Store } from '../stores/store.ts'
import type { ChosenTag, Remote, RemoteRefs, Work } from '../work.ts'
import type { Silences } from './silences.ts'

/** What `landfall once` learns of one instance, or of a target that has none. */
export type PollResult =
  | { readonly target: string; readonly run: number }
  | {
      readonly target: string
      readonly reason: 'up-to-date' | 'recorded' | 'ref-gone' | 'unconfirmed' | 'failed'
      readonly detail: string
    }

/** A target in one repository: one instance, or where it follows several branches, one for each. */
export interface Follower {
  readonly target: Target
  readonly repo: string
}

export interface LookParts {
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly silences: Silences
  readonly queue: (orders: readonly RunOrder[]) => Promise<Queued>
  readonly log: Log
  readonly now: Clock
  readonly stopping: AbortSignal
}

/** A ref as the remote has it. */
interface Seen {
  /** Full name; null where the remote has no default branch. */
  readonly ref: string | null
  readonly tip: Sha | null
  /** The tag object of an annotated tag, which forges announce instead of the commit. */
  readonly object: Sha | null
  /** It was not there when this process last looked. */
  readonly isNew: boolean
}

export type Look = (
  follower: Follower,
  remote: Remote,
  refs: RemoteRefs,
  retryFailed: boolean,
) => Promise<readonly PollResult[]>

/** `retryFailed` is `landfall once`, which also takes up a commit whose last run failed. */
export function createLook({ store, workOf, silences, queue, log, now, stopping }: LookParts): Look {
  /** The choice among tags is asked for again only when the tags are others. */
  const chosenTags = new Map<string, { readonly listing: string; readonly chosen: ChosenTag | null }>()
  /** Branches that were there at the last look, by what was looked for. */
  const lastBranches = new Map<string, ReadonlySet<string>>()

  return async function look(follower, remote, refs, retryFailed) {
    const { target, repo } = follower
    const { follows } = target
    switch (follows.kind) {
      case 'branches':
        return await lookAtBranches(follower, follows, refs, retryFailed)
      case 'tags': {
        const seen = await lookForTag(follower, follows, remote, refs)
        const { name } = instanceKey(target, repo, null)
        const { tip } = seen
        if (await isFirstListing(follower, tip === null ? [] : [{ branch: null, tip }])) {
          const there =
            tip === null
              ? 'no tag fits yet'
              : `the tags up to ${seen.ref?.slice('refs/tags/'.length)} were there before`
          return [{ target: name, reason: 'recorded', detail: `${there}; the next one is deployed` }]
        }
        return [await lookAt(follower, seen, retryFailed)]
      }
      case 'branch':
      case 'default': {
        const branch = follows.kind === 'branch' ? follows.branch : (refs.head?.branch ?? null)
        const tip = follows.kind === 'branch' ? tipOf(refs, follows.branch) : refs.head?.tip
        const ref = branch === null ? null : `refs/heads/${branch}`
        return [await lookAt(follower, { ref, tip: tip ?? null, object: null, isNew: false }, retryFailed)]
      }
    }
  }

  async function lookForTag(
    { target, repo }: Follower,
    { patterns, order }: Follows & { readonly kind: 'tags' },
    remote: Remote,
    refs: RemoteRefs,
  ): Promise<Seen> {
    const { name } = instanceKey(target, repo, null)
    const fitting = Object.entries(refs.tags).filter(([tag]) => matchesRefName(patterns, tag))
    const listing = JSON.stringify([order, fitting.map(([tag, { object }]) => [tag, object])])
    let known = chosenTags.get(name)
    if (known?.listing !== listing) {
      const asked = { remote, patterns, order, timeoutMs: target.fetchTimeoutMs }
      known = { listing, chosen: fitting.length === 0 ? null : await workOf(target).chooseTag(asked, stopping) }
      chosenTags.set(name, known)
    }
    const { chosen } = known
    const object = chosen === null ? null : (refs.tags[chosen.tag]?.object ?? null)
    return { ref: chosen && `refs/tags/${chosen.tag}`, tip: chosen?.commit ?? null, object, isNew: false }
  }

  /** What is there at a first listing is only recorded, save branches that the file names outright. */
  async function isFirstListing(
    { target, repo }: Follower,
    found: readonly { readonly branch: string | null; readonly tip: Sha }[],
  ): Promise<boolean> {
    // A wider pattern is a first look again, or it would deploy all that it takes in.
    const { follows, name } = target
    const listing = follows.kind === 'branches' ? `${name} ${follows.patterns.toSorted().join(' ')}` : name
    if (await store.wasListed(listing, repo)) return false
    const instances = found.map(({ branch, tip }) => ({ instance: instanceKey(target, repo, branch), tip }))
    await store.listed({ listing, repo, found: instances }, now())
    return true
  }

  // --- Several branches ---------------------------------------------------------------------------------------------

  async function lookAtBranches(
    follower: Follower,
    { patterns }: Follows & { readonly kind: 'branches' },
    refs: RemoteRefs,
    retryFailed: boolean,
  ): Promise<readonly PollResult[]> {
    const { target, repo } = follower
    const { name } = instanceKey(target, repo, null)
    const tips = new Map(Object.entries(refs.branches).filter(([branch]) => matchesRefName(patterns, branch)))
    const lookedFor = JSON.stringify([name, repo, patterns])
    const before = lastBranches.get(lookedFor)
    lastBranches.set(lookedFor, new Set(tips.keys()))

    const byPattern = [...tips].filter(([branch]) => !patterns.includes(branch))
    const isFirst = await isFirstListing(
      follower,
      byPattern.map(([branch, tip]) => ({ branch, tip })),
    )
    const results: PollResult[] = []
    if (isFirst) {
      const detail = `branches that fit were there before: ${byPattern.length}; each is deployed when it moves`
      results.push({ target: name, reason: 'recorded', detail })
    }
    for (const [branch, tip] of tips) {
      if (isFirst && !patterns.includes(branch)) continue
      const isNew = before !== undefined && !before.has(branch)
      results.push(await lookAt(follower, { ref: `refs/heads/${branch}`, tip, object: null, isNew }, retryFailed))
    }
    // A remote without any branch is a mistake of somebody's, and what follows a deletion cannot be undone.
    const isEmpty = Object.keys(refs.branches).length === 0
    for (const instance of isEmpty ? [] : await store.instancesOf(target.name, repo)) {
      if (instance.branch === null || instance.retiredAt !== null || tipOf(refs, instance.branch) !== null) continue
      // Of a time when the file had other patterns: it is not this target's any more.
      if (!matchesRefName(patterns, instance.branch)) continue
      results.push(await lookForGone(target, instance, instance.branch, retryFailed))
    }
    if (results.length > 0) return results
    return [{ target: name, reason: 'up-to-date', detail: `no branch fits ${patterns.join(', ')}` }]
  }

  /** Two polls at least `poll` apart must agree that a branch is gone, since what follows cannot be undone. */
  async function lookForGone(
    target: Target,
    { name, repo, state, goneSince, deployed }: Instance,
    branch: string,
    retryFailed: boolean,
  ): Promise<PollResult> {
    const detail = `branch ${branch} is not on the remote`
    if (goneSince === null || goneSince > now()) {
      await store.remember(name, { goneSince: now() })
      return { target: name, reason: 'ref-gone', detail: `${detail}; retired once two polls agree` }
    }
    if (now() - goneSince < (target.pollMs ?? 0)) {
      return { target: name, reason: 'ref-gone', detail: `${detail}; retired once two polls agree` }
    }
    const isNew = deployed === null && state === 'new'
    if (isNew && !hasWorked(await store.runs({ target: name, state: null, limit: MOST_ASKED, before: null }))) {
      await store.remember(name, { retiredAt: now() })
      return { target: name, reason: 'ref-gone', detail: `${detail}, and nothing was deployed from it: retired` }
    }
    // A deletion whose script fails is the operator's to look at, not the next poll's.
    if (state === 'broken' && goneSince === HANDED_OVER && !retryFailed)
      return { target: name, reason: 'ref-gone', detail }
    await store.remember(name, { goneSince: HANDED_OVER })
    return await queued(deletionOf(target, repo, branch, retryFailed ? 'once' : 'poll'))
  }

  // --- One ref ------------------------------------------------------------------------------------------------------

  async function lookAt(follower: Follower, seen: Seen, retryFailed: boolean): Promise<PollResult> {
    const { target, repo } = follower
    const { ref, tip } = seen
    const order = orderFor(target, repo, { trigger: retryFailed ? 'once' : 'poll', ref, announced: tip })
    const key = order.instance
    const instance = await store.instance(key.name)
    const branch = ref?.startsWith('refs/heads/') ? ref.slice('refs/heads/'.length) : null
    if (
      target.follows.kind === 'default' &&
      branch !== null &&
      branch !== instance?.defaultBranch &&
      instance !== null
    ) {
      await store.remember(key.name, { defaultBranch: branch })
    }
    const known = instance?.retiredAt === null ? instance : null
    if (known !== null && known.goneSince !== null && tip !== null) await store.remember(key.name, { goneSince: null })
    const { run, doubt } = decidePoll({
      tip,
      deployed: known?.deployed?.commit ?? null,
      considered: known?.considered ?? null,
      doubt: known?.doubt ?? null,
      confirmAfterMs: target.pollMs ?? 0,
      retryFailed,
      broken: known?.state === 'broken',
      filesAreElsewhere: known !== null && filesAreElsewhere(target, known),
      now: now(),
    })
    if (known !== null && (doubt?.tip !== known.doubt?.tip || doubt?.since !== known.doubt?.since)) {
      await store.remember(key.name, { doubt })
    }
    if (tip !== null) silences.found(target, key, { ...seen, tip })
    if (run === null) return unmoved(key.name, ref, tip, doubt !== null)
    return await queued({ ...order, announced: run.tip, pollsAgree: run.pollsAgree })
  }

  async function queued(order: RunOrder): Promise<PollResult> {
    const target = order.instance.name
    const made = (await queue([order])).runs[0]
    if (made === undefined) throw new Error('an order came back without a run')
    const commit = order.announced && short(order.announced)
    if (made.isNew) log.info('poll found', { target, run: made.run, ref: order.ref, commit, trigger: order.trigger })
    return { target, run: made.run }
  }
}

/** A branch may have any name, also one that every object has. */
function tipOf({ branches }: RemoteRefs, branch: string): Sha | null {
  return Object.hasOwn(branches, branch) ? (branches[branch] ?? null) : null
}

/** In the place of the time when a branch was first missed: the deletion has its run. */
const HANDED_OVER = 0

function unmoved(target: string, ref: string | null, tip: Sha | null, doubtful: boolean): PollResult {
  if (tip === null) {
    const branch = ref?.replace('refs/heads/', 'branch ') ?? 'what it follows'
    return { target, reason: 'ref-gone', detail: `${branch} is not on the remote` }
  }
  if (doubtful) {
    const detail = `the tip ${short(tip)} does not descend from what is deployed; followed once two polls agree`
    return { target, reason: 'unconfirmed', detail }
  }
  return { target, reason: 'up-to-date', detail: `nothing new: the tip is ${short(tip)}` }
}
