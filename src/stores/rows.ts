/** Rows of the database to nouns. A column holds what we wrote, so these convert and do not check. */
import type { SQLOutputValue } from 'node:sqlite'
import type {
  Change,
  Delivery,
  DeliveryReason,
  Effect,
  ForgeName,
  Instance,
  Phase,
  Release,
  Run,
  RunReason,
  RunState,
  Sha,
  Trigger,
  Verdict,
} from '../model.ts'
import type { Speaker } from './store.ts'

export type Row = Record<string, SQLOutputValue>

const text = (value: SQLOutputValue | undefined): string => (typeof value === 'string' ? value : '')
const textOrNull = (value: SQLOutputValue | undefined): string | null => (typeof value === 'string' ? value : null)
const int = (value: SQLOutputValue | undefined): number => Number(value ?? 0)
const intOrNull = (value: SQLOutputValue | undefined): number | null => (typeof value === 'number' ? value : null)
const sha = (value: SQLOutputValue | undefined): Sha | null => (typeof value === 'string' ? (value as Sha) : null)

export function toRun(row: Row): Run {
  return {
    id: int(row['id']),
    target: text(row['target']),
    repo: text(row['repo']),
    ref: textOrNull(row['ref']),
    announced: sha(row['announced']),
    before: sha(row['before']),
    commit: sha(row['commit_id']),
    previous: sha(row['previous']),
    trigger: text(row['trigger']) as Trigger,
    event: text(row['event']),
    delivery: intOrNull(row['delivery']),
    state: text(row['state']) as RunState,
    reason: textOrNull(row['reason']) as RunReason | null,
    detail: textOrNull(row['detail']),
    attempt: int(row['attempt']),
    softAttempts: int(row['soft_attempts']),
    interruptions: int(row['interruptions']),
    pollsAgree: int(row['polls_agree']) === 1,
    exitCode: intOrNull(row['exit_code']),
    signal: textOrNull(row['signal']),
    phases: JSON.parse(text(row['phases'])) as Phase[],
    place: int(row['place']),
    notBefore: intOrNull(row['not_before']),
    queuedAt: int(row['queued_at']),
    startedAt: intOrNull(row['started_at']),
    finishedAt: intOrNull(row['finished_at']),
    supersededBy: intOrNull(row['superseded_by']),
  }
}

/** What the next run of an instance asks of one that waits. Nearly each delivery does, and a whole row costs five times as much. */
export type Waiting = Pick<Run, 'id' | 'announced' | 'before' | 'trigger' | 'place' | 'notBefore'>

export function toWaiting(row: Row): Waiting {
  return {
    id: int(row['id']),
    announced: sha(row['announced']),
    before: sha(row['before']),
    trigger: text(row['trigger']) as Trigger,
    place: int(row['place']),
    notBefore: intOrNull(row['not_before']),
  }
}

export function toInstance(row: Row): Instance {
  const deployed = sha(row['deployed_commit'])
  const wanted = sha(row['wanted_commit'])
  const doubt = sha(row['doubt_tip'])
  return {
    name: text(row['name']),
    target: text(row['target']),
    repo: text(row['repo']),
    branch: textOrNull(row['branch']),
    state: text(row['state']) as Instance['state'],
    deployed: deployed && { commit: deployed, run: int(row['deployed_run']), at: int(row['deployed_at']) },
    deployedBefore: sha(row['deployed_before']),
    wanted: wanted && { commit: wanted, at: int(row['wanted_at']) },
    considered: sha(row['considered']),
    rejected: JSON.parse(text(row['rejected'])) as Sha[],
    doubt: doubt && { tip: doubt, since: intOrNull(row['doubt_since']) },
    defaultBranch: textOrNull(row['default_branch']),
    livesAt: textOrNull(row['lives_at']),
    filesAt: sha(row['files_at']),
    activating: intOrNull(row['activating']),
    goneSince: intOrNull(row['gone_since']),
    retiredAt: intOrNull(row['retired_at']),
    firstSeenAt: int(row['first_seen_at']),
  }
}

export function toDelivery(row: Row): Delivery {
  return {
    id: int(row['id']),
    hook: text(row['hook']),
    forge: text(row['forge']) as ForgeName,
    guid: textOrNull(row['guid']),
    event: textOrNull(row['event']),
    forgeEvent: textOrNull(row['forge_event']),
    verdict: text(row['verdict']) as Verdict,
    reason: textOrNull(row['reason']) as DeliveryReason | null,
    detail: textOrNull(row['detail']),
    repeats: intOrNull(row['repeats']),
    repo: textOrNull(row['repo']),
    changes: JSON.parse(text(row['changes'])) as Change[],
    targets: JSON.parse(text(row['targets'])) as Effect[],
    receivedAt: int(row['received_at']),
  }
}

export function toRelease(row: Row): Release {
  return {
    instance: text(row['instance']),
    commit: text(row['commit_id']) as Sha,
    run: int(row['run']),
    directory: text(row['directory']),
  }
}

export function toSpeaker(row: Row): Speaker {
  return {
    hook: text(row['hook']),
    repo: text(row['repo']),
    firstHeard: int(row['first_heard']),
    lastHeard: int(row['last_heard']),
    silentSince: intOrNull(row['silent_since']),
  }
}
