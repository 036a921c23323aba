/** Nouns as the API shows them: camelCase, times ISO 8601 UTC. */
import type { Delivery, Instance, Run, Sha } from '../model.ts'

const time = (ms: number): string => new Date(ms).toISOString()
const timeOrNull = (ms: number | null): string | null => (ms === null ? null : time(ms))

export type RunView = ReturnType<typeof viewRun>
export type TargetView = ReturnType<typeof viewTarget>
export type DeliveryView = ReturnType<typeof viewDelivery>

export function viewRun(run: Run) {
  const { id, target, repo, ref, announced, commit, previous, trigger, event, delivery } = run
  const { state, reason, detail, attempt, exitCode, signal, supersededBy } = run
  return {
    id,
    target,
    repo,
    ref,
    announced,
    commit,
    previous,
    trigger,
    event,
    delivery,
    state,
    reason,
    detail,
    attempt,
    exitCode,
    signal,
    phases: run.phases.map(({ name, startedAt, ms }) => ({ name, startedAt: time(startedAt), ms })),
    queuedAt: time(run.queuedAt),
    notBefore: timeOrNull(run.notBefore),
    startedAt: timeOrNull(run.startedAt),
    finishedAt: timeOrNull(run.finishedAt),
    supersededBy,
  }
}

export interface TargetFacts {
  /** What the files of its working tree in place are at. */
  readonly filesAt: Sha | null
  readonly hook: string | null
  readonly last: Run | null
  readonly running: number | null
  readonly queued: number
  /** Since when the hook has not announced what polling finds for this repository. */
  readonly silentSince: number | null
  /** Whether a delivery has ever come for this repository; null where it has no hook. */
  readonly heard: boolean | null
}

export function viewTarget(instance: Instance, facts: TargetFacts) {
  const { name, target, repo, state, deployed, wanted, rejected } = instance
  return {
    name,
    target,
    repo,
    hook: facts.hook,
    state,
    // Holds come with the verbs that set them; the name is part of the shape already.
    hold: null,
    deployed: deployed && { ...deployed, at: time(deployed.at) },
    wanted: wanted && { ...wanted, at: time(wanted.at) },
    filesAt: facts.filesAt,
    retiredAt: timeOrNull(instance.retiredAt),
    rejected,
    running: facts.running,
    queued: facts.queued,
    lastRun: facts.last && viewRun(facts.last),
    silentSince: timeOrNull(facts.silentSince),
    heard: facts.heard,
  }
}

export function viewDelivery(delivery: Delivery) {
  return {
    id: delivery.id,
    hook: delivery.hook,
    forge: delivery.forge,
    guid: delivery.guid,
    event: delivery.event,
    forgeEvent: delivery.forgeEvent,
    verdict: delivery.verdict,
    reason: delivery.reason,
    detail: delivery.detail,
    repeats: delivery.repeats,
    repo: delivery.repo,
    changes: delivery.changes,
    targets: delivery.targets,
    receivedAt: time(delivery.receivedAt),
  }
}
