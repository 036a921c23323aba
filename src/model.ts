/** The nouns of landfall, and its seams. Times are integer milliseconds since the epoch, durations milliseconds, sizes bytes. */

declare const shaBrand: unique symbol
/** A git object id: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits, never all zeros. Made by `parseSha` alone. */
export type Sha = string & { readonly [shaBrand]: true }

/** The commit id in `text`, in lower case, or null where it is none. All zeros, a forge's way to say "no commit", is none. */
export function parseSha(text: unknown): Sha | null {
  if (typeof text !== 'string' || !/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/i.test(text)) return null
  return isZeroSha(text) ? null : (text.toLowerCase() as Sha)
}

/** Forges write "there was nothing" and "it is gone" as 40 or 64 zeros. */
export function isZeroSha(text: unknown): boolean {
  return typeof text === 'string' && /^(?:0{40}|0{64})$/.test(text)
}

// --- What a forge says --------------------------------------------------------------------------------------------

export const FORGES = ['github', 'gitlab'] as const
export type ForgeName = (typeof FORGES)[number]

/** One ref that moved. `before` is null for a new ref, `after` is null for a deleted one. */
export interface Change {
  /** Full name: `refs/heads/main`, `refs/tags/v1`. */
  readonly ref: string
  readonly before: Sha | null
  readonly after: Sha | null
}

export const REPOSITORY = /^[A-Za-z0-9_][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_.-]+){1,20}$/

/** True for `owner/name` or `group/sub/name` that is safe in a URL and in a path. */
export function isRepository(text: unknown): text is string {
  return (
    typeof text === 'string' &&
    text.length <= 400 &&
    REPOSITORY.test(text) &&
    text.split('/').every((part) => part !== '.' && part !== '..' && !part.startsWith('-') && !/\.git$/i.test(part))
  )
}

/** True for a full ref name that git would accept (git check-ref-format) and that no program mistakes for an option. */
export function isRef(text: unknown): text is string {
  return (
    typeof text === 'string' &&
    text.length <= 1000 &&
    text.startsWith('refs/') &&
    !/[\p{Cc} ~^:?*[\\]|\.\.|@\{|\/\/|\.$|\/$/u.test(text) &&
    text.split('/').every((part) => part !== '' && !part.startsWith('.') && !part.endsWith('.lock')) &&
    !/^refs\/(?:heads|tags)\/-/.test(text) &&
    text.split('/').length >= 3
  )
}

// --- Deliveries ---------------------------------------------------------------------------------------------------

export type Verdict = 'accepted' | 'ping' | 'ignored' | 'duplicate' | 'invalid'
/** Why a whole delivery came to nothing. */
export type DeliveryReason = 'no-target' | 'repository-not-allowed'
/** Why one target was not moved by a delivery. */
export type TargetReason = 'event' | 'ref' | 'ref-deleted' | 'frozen' | 'renamed'

/** What a delivery meant for one instance: a run, or a reason with a sentence. */
export type Effect =
  | { readonly target: string; readonly run: number }
  | { readonly target: string; readonly reason: TargetReason; readonly detail: string }

export interface Delivery {
  readonly id: number
  readonly hook: string
  readonly forge: ForgeName
  readonly guid: string | null
  readonly event: string | null
  readonly forgeEvent: string | null
  readonly verdict: Verdict
  readonly reason: DeliveryReason | null
  readonly detail: string | null
  /** The earlier delivery that this one repeats. */
  readonly repeats: number | null
  readonly repo: string | null
  readonly changes: readonly Change[]
  readonly targets: readonly Effect[]
  readonly receivedAt: number
}

/** A verified delivery on its way into the store. */
export interface Received {
  readonly hook: string
  readonly forge: ForgeName
  readonly kind: 'event' | 'ping' | 'invalid'
  readonly guid: string | null
  readonly event: string | null
  readonly forgeEvent: string | null
  readonly repo: string | null
  readonly repoId: number | null
  readonly changes: readonly Change[]
  readonly defaultBranch: string | null
  /** Why it is invalid. */
  readonly detail: string | null
  /** SHA-256 of the body as it came. */
  readonly bodyHash: Uint8Array
  /** The JSON text for scripts, as raw deflate; `bytes` is its length before. */
  readonly payload: { readonly compressed: Uint8Array; readonly bytes: number }
  readonly receivedAt: number
}

/** What is on disk of a delivery, and what the forge is told. */
export interface Receipt {
  readonly delivery: number
  readonly verdict: Verdict
  readonly reason: DeliveryReason | null
  readonly detail: string | null
  readonly targets: readonly Effect[]
}

// --- Runs ---------------------------------------------------------------------------------------------------------

export type Trigger =
  | 'push'
  | 'poll'
  | 'redelivery'
  | 'event'
  | 'manual'
  | 'rollback'
  | 'retry'
  | 'recovery'
  | 'unfreeze'
  | 'once'

/** What waiting runs of an instance do to each other: contract, section 3. */
export type QueuePolicy = 'sequential' | 'evict' | 'parallel'

export const RUN_ENDS = [
  'succeeded',
  'failed',
  'timed-out',
  'cancelled',
  'superseded',
  'interrupted',
  'fetch-failed',
  'unstartable',
  'skipped',
] as const
export type RunEnd = (typeof RUN_ENDS)[number]
export type RunState = 'queued' | 'running' | RunEnd

export type RunReason =
  // any end: the announced commit is not on the ref, and its tip was taken
  | 'announced-missing'
  // skipped
  | 'already-deployed'
  | 'stale'
  | 'diverged'
  | 'ref-gone'
  | 'no-script'
  | 'rejected'
  | 'paths'
  // a deletion was announced, and the branch is there
  | 'ref-exists'
  // failed
  | 'tempfail'
  | 'activate'
  | 'interruptions'
  // interrupted
  | 'crash'
  | 'shutdown'
  // cancelled
  | 'target-removed'

export type PhaseName = 'fetch' | 'checkout' | 'script' | 'activate'

export interface Phase {
  readonly name: PhaseName
  readonly startedAt: number
  readonly ms: number
}

export interface Run {
  readonly id: number
  /** The instance's name. */
  readonly target: string
  readonly repo: string
  /** Null until a first fetch has told the default branch. */
  readonly ref: string | null
  /** C: what the trigger named. */
  readonly announced: Sha | null
  /** What the forge said C replaced; carried over when a newer push takes a waiting one's place. */
  readonly before: Sha | null
  /** What the run deploys, known once it has decided. */
  readonly commit: Sha | null
  /** D when the run decided. */
  readonly previous: Sha | null
  readonly trigger: Trigger
  readonly event: string
  readonly delivery: number | null
  readonly state: RunState
  readonly reason: RunReason | null
  /** A sentence for people beside `reason`. */
  readonly detail: string | null
  /** From 1; a retry counts on. */
  readonly attempt: number
  /** How often fetch failures and exit 75 were retried already (their budget is not `retries`). */
  readonly softAttempts: number
  /** Interruptions in a row before this run. */
  readonly interruptions: number
  /** Two polls at least `poll` apart saw this tip, so that it may be followed although it has diverged. */
  readonly pollsAgree: boolean
  readonly exitCode: number | null
  readonly signal: string | null
  readonly phases: readonly Phase[]
  /** The position in the lane: its own id, or that of the waiting run whose place it took. */
  readonly place: number
  /** A retry waits outside the lane until then. */
  readonly notBefore: number | null
  readonly queuedAt: number
  readonly startedAt: number | null
  readonly finishedAt: number | null
  readonly supersededBy: number | null
}

/** How a run ended, as the runner tells the store. */
export interface Outcome {
  readonly end: RunEnd
  readonly reason: RunReason | null
  readonly detail: string | null
  readonly exitCode: number | null
  readonly signal: string | null
}

// --- Instances ----------------------------------------------------------------------------------------------------

/** A tip that diverged from, or lies behind, what is deployed, and when a poll first saw it (null: no poll has yet). */
export interface Doubt {
  readonly tip: Sha
  readonly since: number | null
}

export interface Instance {
  /** `site`, `site:acme/blog` where the target's `repo` is a glob, `site@feature/x` where its `branches` are several. */
  readonly name: string
  /** The target's name in the configuration. */
  readonly target: string
  readonly repo: string
  /** The one branch of an instance of several (`feature/x`); null where the target follows one ref. */
  readonly branch: string | null
  readonly state: 'new' | 'ok' | 'broken'
  /** D. */
  readonly deployed: { readonly commit: Sha; readonly run: number; readonly at: number } | null
  /** The commit that was deployed before D. */
  readonly deployedBefore: Sha | null
  /** The newest commit that somebody announced or a poll found. */
  readonly wanted: { readonly commit: Sha; readonly at: number } | null
  /** The last tip that was deployed, attempted, skipped or rejected: a poll queues nothing for it again. */
  readonly considered: Sha | null
  readonly rejected: readonly Sha[]
  readonly doubt: Doubt | null
  /** The remote's default branch as last seen (`main`), for targets that follow it. */
  readonly defaultBranch: string | null
  /** The link or working tree that its runs have last made their own, absolute; null before the first that has one. */
  readonly livesAt: string | null
  /** What the files of a working tree at `livesAt` are at; null where there is none, or it is not known. */
  readonly filesAt: Sha | null
  /** The run whose `activate` has begun, and was followed neither by a success nor by one for the old release; null for none. */
  readonly activating: number | null
  /** Since when polls have not found its branch; null while it is there, or nobody has looked. */
  readonly goneSince: number | null
  /** When its branch was deleted and its releases were removed; such an instance begins anew should the branch return. */
  readonly retiredAt: number | null
  readonly firstSeenAt: number
}

/** A sealed release on disk. */
export interface Release {
  readonly instance: string
  readonly commit: Sha
  readonly run: number
  readonly directory: string
}

// --- Seams --------------------------------------------------------------------------------------------------------

/** Structured log: a fixed event and fields. Never a secret, a payload, or a URL with a token. */
export interface Log {
  debug(event: string, fields?: Record<string, unknown>): void
  info(event: string, fields?: Record<string, unknown>): void
  warn(event: string, fields?: Record<string, unknown>): void
  error(event: string, fields?: Record<string, unknown>): void
}

/** Milliseconds since the epoch. */
export type Clock = () => number
