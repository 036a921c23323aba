/**
 * Which commit a run deploys, and whether a poll makes a run: pure functions over what a fetch or a listing has just told.
 * T is the tip of the ref, C the commit that the trigger named, D the deployed commit.
 */
import type { Doubt, QueuePolicy, RunReason, Sha, Trigger } from './model.ts'
import type { Relation } from './work.ts'

export interface Situation {
  readonly trigger: Trigger
  readonly policy: QueuePolicy
  /** Names of the tags, where the target follows tags: their order takes the place of ancestry. Null: it follows a branch. */
  readonly tags: Tags | null
  /** A person named C (`deploy --commit`, `rollback`): nothing but C will do. */
  readonly named: boolean
  readonly tip: Sha | null
  readonly announced: Sha | null
  readonly deployed: Sha | null
  readonly rejected: readonly Sha[]
  readonly tipToDeployed: Relation
  readonly announcedInTip: 'yes' | 'no' | 'missing'
  readonly announcedToDeployed: Relation
  /** What a delivery (no redelivery, no duplicate) said that C replaces; null where none said so. */
  readonly before: Sha | null
  /** All such moves of this ref that were announced after the one to D, in any order. */
  readonly moves: readonly Move[]
  /** Two polls at least `poll` apart saw C as the tip. */
  readonly pollsAgree: boolean
  /** A failed script has left the files of a tree in place at another commit than D. */
  readonly filesAreElsewhere: boolean
}

/** What a delivery (no redelivery, no duplicate) announced: one commit in the place of another. */
export interface Move {
  readonly before: Sha
  readonly after: Sha
}

export interface Tags {
  /** The one that comes first by the target's order. */
  readonly tip: string | null
  readonly announced: string | null
  readonly deployed: string | null
}

export type Decision =
  | { readonly kind: 'deploy'; readonly commit: Sha; readonly reason: RunReason | null; readonly detail: string | null }
  | {
      readonly kind: 'skip'
      readonly reason: RunReason
      readonly detail: string
      /** A tip that was not followed, for polls to confirm. */
      readonly doubt: Sha | null
      readonly pollSoon: boolean
    }
  | { readonly kind: 'refuse'; readonly detail: string }

export function decide(now: Situation): Decision {
  if (now.named) return decideNamed(now)
  const { tip, deployed, tags } = now
  if (tip === null)
    return skip(
      'ref-gone',
      tags === null ? 'the branch is not on the remote any more' : 'no tag that fits is on the remote',
    )
  if (tags !== null && now.tipToDeployed === 'behind') return tagBehind(tags)
  if (leadsAway(now) && !mayFollow(now)) return doubtful(now, tip)

  const commit = now.policy !== 'evict' && tags === null && deploysAnnounced(now) ? now.announced : tip
  if (commit === null) return skip('ref-gone', 'there is no commit to deploy')
  if (commit === deployed && !now.filesAreElsewhere && !runsAgain(now)) return alreadyDeployed(now, commit)
  if (now.rejected.includes(commit)) return skip('rejected', `${short(commit)} was rejected by a rollback`)
  return { kind: 'deploy', commit, ...substitution(now, commit) }
}

function decideNamed({ announced, announcedInTip, announcedToDeployed, trigger }: Situation): Decision {
  if (announced === null || announcedInTip === 'missing') {
    return {
      kind: 'refuse',
      detail: 'the named commit is not on the remote; check it with git log and name it in full',
    }
  }
  if (trigger === 'manual' && announcedToDeployed === 'behind') {
    return { kind: 'refuse', detail: `${short(announced)} is older than what is deployed: that is a rollback` }
  }
  return { kind: 'deploy', commit: announced, ...AS_ANNOUNCED }
}

/**
 * True where T is not a descendant of D, nor D itself. A D that the remote no longer has counts as diverged; but that D has no
 * tag only says that the target has begun to follow tags.
 */
function leadsAway({ tipToDeployed, deployed, tags }: Situation): boolean {
  if (deployed === null || (tags !== null && tipToDeployed === 'unknown')) return false
  return tipToDeployed !== 'ahead' && tipToDeployed !== 'same'
}

/** The deployed tag is gone from the remote. That is nobody's word to go back, however often polls see it. */
function tagBehind({ tip, deployed }: Tags): Decision {
  return skip('stale', `${tip} comes before ${deployed}, which is deployed and stays`)
}

/**
 * A force push is believed when a fresh delivery announced just this move, or two polls saw it: from D, to a commit that T
 * is or contains. The "contains" covers a push that follows the forced one before its run has started. A T that is neither
 * has been seen by nobody yet.
 */
function mayFollow(now: Situation): boolean {
  const { before, deployed, announced, tip, announcedInTip, pollsAgree } = now
  const isFromDeployed = before !== null && before === deployed
  return ((isFromDeployed || pollsAgree) && (announced === tip || announcedInTip === 'yes')) || isOneOfManySteps(now)
}

/**
 * Several force pushes in a row are believed too: where this delivery's move is one of a chain of announced ones from D to T,
 * or to a commit that T contains. What has been left by a further move is no end of a chain: a remote that shows it lags.
 */
function isOneOfManySteps({ moves, before, deployed, announced, tip, announcedInTip }: Situation): boolean {
  if (before === null || deployed === null || announced === null || tip === null) return false
  const isLeft = (commit: Sha): boolean => moves.some((move) => move.before === commit)
  const isToTip = leads(moves, announced, tip) || (announcedInTip === 'yes' && !isLeft(announced))
  return isToTip && !isLeft(tip) && leads(moves, deployed, before)
}

/** Whether a chain of moves, perhaps of none, goes from one commit to the other. */
function leads(moves: readonly Move[], from: Sha, to: Sha): boolean {
  const reached = new Set([from])
  // What is added while it is gone through comes up in its turn.
  for (const commit of reached) for (const move of moves) if (move.before === commit) reached.add(move.after)
  return reached.has(to)
}

function doubtful({ tipToDeployed, deployed, tags }: Situation, tip: Sha): Decision {
  const from = deployed === null ? 'nothing' : short(deployed)
  if (tags !== null) {
    const detail = `the tag ${tags.tip} was moved from the deployed ${from} to ${short(tip)}, and no delivery announced that; followed once two polls agree`
    return { kind: 'skip', reason: 'diverged', detail, doubt: tip, pollSoon: true }
  }
  if (tipToDeployed === 'behind') {
    const detail = `the remote's tip ${short(tip)} is older than the deployed ${from}; followed once two polls agree`
    return { kind: 'skip', reason: 'stale', detail, doubt: tip, pollSoon: true }
  }
  const detail = `the remote's tip ${short(tip)} does not descend from the deployed ${from}, and no delivery announced that; followed once two polls agree`
  return { kind: 'skip', reason: 'diverged', detail, doubt: tip, pollSoon: true }
}

/** Where C is missing the remote lags behind, so that what it has yet to show is looked for soon. */
function alreadyDeployed(now: Situation, commit: Sha): Decision {
  const { tags } = now
  if (tags?.announced && tags.announced !== tags.tip && now.announcedInTip !== 'missing') {
    return skip('stale', `the tag ${tags.announced} comes before ${tags.tip}, which is deployed`)
  }
  const detail = substitution(now, commit).detail ?? `${short(commit)} is deployed already`
  return { ...skip('already-deployed', detail), pollSoon: now.announcedInTip === 'missing' && now.announced !== null }
}

/** `sequential` deploys C if T contains it and it is neither D nor an ancestor of D. */
function deploysAnnounced({ announced, deployed, announcedInTip, announcedToDeployed }: Situation): boolean {
  if (announced === null || announcedInTip !== 'yes' || announced === deployed) return false
  return deployed === null || (announcedToDeployed !== 'behind' && announcedToDeployed !== 'same')
}

/** Whether the script runs once more for a commit that is deployed already. */
function runsAgain({ trigger, announced, deployed, tags }: Situation): boolean {
  switch (trigger) {
    case 'manual':
    case 'retry':
    case 'recovery':
    case 'rollback':
    case 'event':
      return true
    case 'redelivery':
      // The Redeliver button of the deployed push asks for it again; that of an older push counts as a push.
      // Forges name an annotated tag by an object of its own, so tags are compared by name.
      return tags === null ? announced === deployed : tags.announced === tags.deployed
    case 'push':
    case 'poll':
    case 'once':
    case 'unfreeze':
      return false
  }
}

interface Substitution {
  readonly reason: RunReason | null
  readonly detail: string | null
}

const AS_ANNOUNCED: Substitution = { reason: null, detail: null }

/** Why another commit than the announced one is deployed. One that is merely older needs no reason. */
function substitution({ announced, announcedInTip, tags }: Situation, commit: Sha): Substitution {
  if (announced === null || announced === commit) return AS_ANNOUNCED
  const taken = tags === null ? `the tip ${short(commit)}` : tags.tip
  const missed = tags === null ? `the announced ${short(announced)}` : `the announced tag ${tags.announced}`
  if (announcedInTip === 'missing') {
    return { reason: 'announced-missing', detail: `${missed} is not on the remote; ${taken} was taken` }
  }
  if (tags !== null) {
    return tags.announced === tags.tip
      ? AS_ANNOUNCED
      : { reason: null, detail: `the tag ${tags.announced} comes before ${tags.tip}, which was taken` }
  }
  return announcedInTip === 'no'
    ? { reason: 'announced-missing', detail: `${missed} is not on the branch any more; ${taken} was taken` }
    : AS_ANNOUNCED
}

function skip(reason: RunReason, detail: string) {
  return { kind: 'skip', reason, detail, doubt: null, pollSoon: false } as const
}

export function short(commit: string): string {
  return commit.slice(0, 10)
}

// --- Polls --------------------------------------------------------------------------------------------------------

export interface PollSituation {
  readonly tip: Sha | null
  readonly deployed: Sha | null
  readonly considered: Sha | null
  readonly doubt: Doubt | null
  /** How far apart two polls must lie to confirm a doubtful tip, milliseconds. */
  readonly confirmAfterMs: number
  /** `landfall once`: also takes up a commit whose last run failed. */
  readonly retryFailed: boolean
  readonly broken: boolean
  /** As in `Situation`. */
  readonly filesAreElsewhere: boolean
  readonly now: number
}

export interface PollDecision {
  readonly run: { readonly tip: Sha; readonly pollsAgree: boolean } | null
  /** What to remember; null forgets an earlier doubt, since two polls agree only if none between them disagrees. */
  readonly doubt: Doubt | null
}

export function decidePoll(seen: PollSituation): PollDecision {
  const { tip, doubt, now } = seen
  if (tip === null || (tip === seen.deployed && !seen.filesAreElsewhere)) return { run: null, doubt: null }
  if (doubt !== null && doubt.tip === tip) {
    // Of a clock that was set back, the time is taken anew: it might be years before it comes again.
    if (doubt.since === null || doubt.since > now) return { run: null, doubt: { tip, since: now } }
    const agrees = now - doubt.since >= seen.confirmAfterMs
    return { run: agrees ? { tip, pollsAgree: true } : null, doubt }
  }
  const due = tip !== seen.considered || (seen.retryFailed && seen.broken)
  return { run: due ? { tip, pollsAgree: false } : null, doubt: null }
}
