import type {
  Delivery,
  DeliveryReason,
  Instance,
  Outcome,
  Phase,
  QueuePolicy,
  Receipt,
  Received,
  Release,
  Run,
  RunState,
  Sha,
  TargetReason,
  Trigger,
} from '../model.ts'
import type { ProcessMark } from '../work.ts'

/** Which instance something concerns; it is remembered when first seen. */
export interface InstanceKey {
  readonly name: string
  readonly target: string
  readonly repo: string
  readonly branch: string | null
}

/** A run to queue. `policy` and what is unfinished decide whether it becomes one. */
export interface RunOrder {
  readonly instance: InstanceKey
  readonly policy: QueuePolicy
  readonly ref: string | null
  readonly announced: Sha | null
  readonly before: Sha | null
  readonly trigger: Trigger
  readonly event: string
  readonly pollsAgree: boolean
}

/** What a delivery means for one instance, before the store has looked at what is unfinished. */
export type Route =
  | { readonly kind: 'run'; readonly order: RunOrder }
  | {
      readonly kind: 'reason'
      readonly instance: InstanceKey
      readonly reason: TargetReason
      readonly detail: string
    }

/** Where a delivery leads: to instances, or nowhere for a reason that concerns it as a whole. */
export type Routing =
  | {
      readonly kind: 'routes'
      readonly routes: readonly Route[]
      /** The name to remember the forge's number for a repository by; null too where it is known by that already. */
      readonly learns: { readonly id: number; readonly repo: string } | null
    }
  | { readonly kind: 'nowhere'; readonly reason: DeliveryReason; readonly detail: string }

/** What changed in the queue; the lanes in memory follow. */
export interface QueueChange {
  readonly queued: readonly Run[]
  /** Runs that left their place: `superseded`, `cancelled` with their target, or retries due earlier, which are in `queued` too. */
  readonly superseded: readonly number[]
}

export interface Recorded extends QueueChange {
  readonly receipt: Receipt
}

export type Queued = QueueChange & {
  /** For each order: the run it made, or the unfinished run that has the commit already. */
  readonly runs: readonly { readonly target: string; readonly run: number; readonly isNew: boolean }[]
}

/** What is known of a run once it has decided. */
export interface Decided {
  readonly ref: string | null
  readonly commit: Sha | null
  readonly previous: Sha | null
  readonly detail: string | null
}

export type InstancePatch = Partial<
  Pick<
    Instance,
    | 'state'
    | 'deployed'
    | 'deployedBefore'
    | 'considered'
    | 'doubt'
    | 'defaultBranch'
    | 'rejected'
    | 'filesAt'
    | 'activating'
    | 'goneSince'
    | 'retiredAt'
  >
>

/** The end of a run and all that follows from it, in one transaction. */
export interface Finish {
  readonly outcome: Outcome
  readonly phases: readonly Phase[]
  readonly at: number
  readonly instance: InstancePatch
  /** The release that the run sealed. */
  readonly sealed: Release | null
  /** Releases that are forgotten with it; their directories are removed afterwards. */
  readonly forgotten: readonly number[]
  /** A retry or a recovery; no retry is made where the instance has another unfinished run. */
  readonly followUp: FollowUp | null
}
export interface FollowUp {
  readonly trigger: 'retry' | 'recovery'
  readonly attempt: number
  readonly softAttempts: number
  readonly interruptions: number
  readonly notBefore: number | null
}

/** What another configuration means for what the store has. */
export interface Reconfiguration {
  /** Runs that the configuration has no target for, each with a sentence for people. */
  readonly gone: readonly { readonly run: number; readonly detail: string }[]
  /** Instances whose target names another repository, or the same one by another name. */
  readonly moved: readonly { readonly instance: string; readonly repo: string; readonly isSame: boolean }[]
}

export interface Listing {
  /** What was listed: a target, with its patterns where other patterns would be another listing. */
  readonly listing: string
  readonly repo: string
  readonly found: readonly { readonly instance: InstanceKey; readonly tip: Sha }[]
}

/** A (hook, repository) from which deliveries have come. */
export interface Speaker {
  readonly hook: string
  readonly repo: string
  readonly firstHeard: number
  readonly lastHeard: number
  /** Since when polling finds what the hook does not announce; null while all is well. */
  readonly silentSince: number | null
}

export interface Page {
  readonly limit: number
  /** Only rows older than this id. */
  readonly before: number | null
}
export interface RunFilter extends Page {
  readonly target: string | null
  readonly state: RunState | null
}
export interface DeliveryFilter extends Page {
  readonly hook: string | null
  readonly repo: string | null
  readonly verdict: string | null
}

/**
 * The truth about deliveries, runs and instances. Verbs of the journey, each one transaction: when a promise resolves, what
 * it says is on disk. All throw `store` where the store cannot be read or written; nothing of that verb is kept then.
 */
export interface Store {
  /** Gives a delivery its verdict and its runs. Same deliveries are told apart within `keepDeliveriesMs`. */
  record(received: Received, routing: Routing): Promise<Recorded>
  /** Runs that no delivery caused. */
  queue(orders: readonly RunOrder[], at: number): Promise<Queued>
  /** Claims a queued run. False where it is not queued any more. */
  started(run: number, at: number): Promise<boolean>
  /** Gives a claimed run back to the queue: a shutdown came before its script had started. */
  returned(run: number): Promise<void>
  decided(run: number, decided: Decided): Promise<void>
  /** A process that belongs to the run, to be ended should we crash. */
  marked(run: number, mark: ProcessMark): Promise<void>
  unmarked(run: number): Promise<void>
  /** Where the instance has begun anew meanwhile, with another repository, the end says nothing of it. */
  finished(run: number, finish: Finish): Promise<QueueChange>
  /** Ends those runs `cancelled` that are still queued. An instance of another repository begins anew. */
  reconfigured(change: Reconfiguration, at: number): Promise<QueueChange>
  /** Queued and running runs, oldest place first. */
  unfinished(): Promise<readonly Run[]>
  /** Processes on record that may still live, with their runs. */
  marks(): Promise<readonly (ProcessMark & { readonly run: number })[]>

  /** The number by which a hook's deliveries last called the repository of this name. */
  numberOf(hook: string, repo: string): Promise<number | null>
  /** The name by which a hook's deliveries last called the repository of this number, where a target believed it. */
  knownAs(hook: string, repositoryId: number): Promise<string | null>
  /** Whether the refs that a target follows in a repository were ever listed: those that are there then are only recorded. */
  wasListed(listing: string, repo: string): Promise<boolean>
  /** The first listing, in one: instances that are not there yet come into being with the tip as considered. */
  listed(listing: Listing, at: number): Promise<void>
  seen(instance: InstanceKey, at: number): Promise<Instance>
  instance(name: string): Promise<Instance | null>
  instances(): Promise<readonly Instance[]>
  /** Of a target in one repository, retired ones included. */
  instancesOf(target: string, repo: string): Promise<readonly Instance[]>
  /** Of a link or tree; who is retired has none. */
  livingAt(path: string): Promise<readonly Instance[]>
  /** A link or tree is this instance's from here on, and no other's; nothing is known of the files there. */
  movedTo(instance: string, path: string): Promise<void>
  remember(instance: string, patch: InstancePatch): Promise<void>
  releases(instance: string): Promise<readonly Release[]>
  allReleases(): Promise<readonly Release[]>

  run(id: number): Promise<Run | null>
  runs(filter: RunFilter): Promise<readonly Run[]>
  /** The newest run of each instance, and how many are unfinished. */
  activity(): Promise<
    ReadonlyMap<string, { readonly last: Run; readonly running: number | null; readonly queued: number }>
  >
  delivery(id: number): Promise<Delivery | null>
  deliveries(filter: DeliveryFilter): Promise<readonly Delivery[]>
  /** The payload as text; null where it has been pruned. */
  payload(delivery: number): Promise<string | null>

  speakers(): Promise<readonly Speaker[]>
  fellSilent(hook: string, repo: string, at: number): Promise<void>

  /** Removes what is older than the configured times; resolves to the runs whose files can go. */
  prune(limits: PruneLimits, at: number): Promise<readonly number[]>
  /** Writes and syncs a row. Throws `store` where that fails. */
  probe(at: number): Promise<void>
  close(): Promise<void>
}

export interface PruneLimits {
  readonly keepDeliveriesMs: number
  readonly keepPayloadsMs: number
  readonly keepRuns: number
}
