/** A target's incarnations: their names, what a delivery means for each, and what the end of a run changes. */
import picomatch from 'picomatch'
import type { Config, Hook, Target } from './config/config.ts'
import type { Instance, Outcome, Received, Run, Sha } from './model.ts'
import type { InstanceKey, InstancePatch, Route, Routing, RunOrder } from './stores/store.ts'

/** `site`, or `site:acme/blog` where the target's `repo` is a glob: one instance for each repository. */
export function instanceKey(target: Target, repo: string): InstanceKey {
  if (!target.repoIsGlob) return { name: target.name, target: target.name, repo: target.repo }
  return { name: `${target.name}:${repo.toLowerCase()}`, target: target.name, repo }
}

/** The target that an instance belongs to, as far as the file still has it. */
export function targetOf({ targets }: Config, instance: string): Target | undefined {
  const [name] = instance.split(':')
  return targets.find((target) => target.name === name)
}

/** Asked of the configuration each time, and not kept with the run: two lanes for one instance would overlap. */
export function laneOf(config: Config, { target: instance, repo }: Run): string {
  const target = targetOf(config, instance)
  if (target === undefined) return instance
  return target.lane ?? `${target.hook ?? 'poll'}/${repo.toLowerCase()}`
}

/** Repository names are compared without case; `*` stops at `/`, `**` does not. */
export function matchesRepository(pattern: string, repo: string): boolean {
  return matcher(pattern)(repo.toLowerCase())
}

/** Patterns are the configuration's, so these are few. Extended globs would make a small language of them. */
const matchers = new Map<string, (repo: string) => boolean>()
function matcher(pattern: string): (repo: string) => boolean {
  const known = matchers.get(pattern)
  if (known !== undefined) return known
  const made = picomatch(pattern.toLowerCase(), { noextglob: true, dot: true, nonegate: true })
  matchers.set(pattern, made)
  return made
}

/** What a delivery means, target by target in file order. `defaultBranchOf` tells what a fetch has last seen. */
export function routeDelivery(
  config: Config,
  hook: Hook,
  received: Received,
  defaultBranchOf: (instance: string) => string | null,
): Routing {
  const { repo } = received
  if (repo === null) {
    const detail = `the event ${received.forgeEvent ?? ''} names no repository`
    return { kind: 'nowhere', reason: 'no-target', detail }
  }
  if (hook.repos !== null && !hook.repos.some((pattern) => matchesRepository(pattern, repo))) {
    const detail = `hook ${hook.name} may not speak for ${repo}; its repos are ${hook.repos.join(', ')}`
    return { kind: 'nowhere', reason: 'repository-not-allowed', detail }
  }
  const targets = config.targets.filter((target) => target.hook === hook.name && matchesRepository(target.repo, repo))
  if (targets.length === 0) {
    return { kind: 'nowhere', reason: 'no-target', detail: `no target of hook ${hook.name} follows ${repo}` }
  }
  return { kind: 'routes', routes: targets.flatMap((target) => routesTo(target, repo, received, defaultBranchOf)) }
}

function routesTo(
  target: Target,
  repo: string,
  received: Received,
  defaultBranchOf: (instance: string) => string | null,
): readonly Route[] {
  const instance = instanceKey(target, repo)
  if (!target.events.includes(received.event ?? '')) {
    const detail = `${target.name} runs on ${target.events.join(', ')}, not on ${received.forgeEvent ?? 'this event'}`
    return [{ kind: 'reason', instance, reason: 'event', detail }]
  }
  return received.changes.map((change): Route => {
    const { ref, before, after } = change
    const wrong = wrongRef(target, ref, defaultBranchOf(instance.name), received.defaultBranch)
    if (wrong !== null) return { kind: 'reason', instance, reason: 'ref', detail: wrong }
    if (after === null) {
      return { kind: 'reason', instance, reason: 'ref-deleted', detail: `${ref} was deleted; what is deployed stays` }
    }
    const order = orderFor(target, repo, { trigger: 'push', ref, announced: after, before })
    return { kind: 'run', order: { ...order, event: received.event ?? 'push' } }
  })
}

/** Why the target does not follow `ref`; null where it does. */
function wrongRef(target: Target, ref: string, known: string | null, hinted: string | null): string | null {
  if (target.branch !== null) {
    return ref === `refs/heads/${target.branch}` ? null : `${target.name} follows branch ${target.branch}, not ${ref}`
  }
  // The remote may have a new default branch that no fetch has seen yet: either is enough, since the run asks the remote.
  const defaults = [known, hinted].filter((branch) => branch !== null)
  if (defaults.length === 0 && ref.startsWith('refs/heads/')) return null
  if (defaults.some((branch) => ref === `refs/heads/${branch}`)) return null
  return `${target.name} follows the default branch${defaults[0] === undefined ? '' : ` (${defaults[0]})`}, not ${ref}`
}

export function orderFor(
  target: Target,
  repo: string,
  cause: Pick<RunOrder, 'trigger' | 'ref' | 'announced'> & Partial<Pick<RunOrder, 'before' | 'pollsAgree'>>,
): RunOrder {
  return {
    instance: instanceKey(target, repo),
    policy: target.queue,
    event: 'push',
    before: null,
    pollsAgree: false,
    ...cause,
  }
}

export interface RunEnding {
  readonly instance: Instance
  readonly run: Run
  readonly outcome: Outcome
  /** The commit that the run came to a decision about. */
  readonly considered: Sha | null
  readonly at: number
  /** A retry or a recovery follows, so nothing is broken yet. */
  readonly goesOn: boolean
}

/** What the end of a run changes for its instance. */
export function afterRun({ instance, run, outcome, considered, at, goesOn }: RunEnding): InstancePatch {
  const broken: InstancePatch = goesOn ? {} : { state: 'broken' }
  const seen: InstancePatch = considered === null ? {} : { considered }
  // A run that did not come as far as a decision was still an attempt at what its trigger named.
  const attempted: InstancePatch = considered === null && run.announced !== null ? { considered: run.announced } : seen
  switch (outcome.end) {
    case 'succeeded':
      return { state: 'ok', ...(run.commit === null ? {} : afterDeploy(instance, run.id, run.commit, at)) }
    case 'failed':
    case 'timed-out':
    case 'unstartable':
    case 'interrupted':
      return { ...broken, ...attempted, doubt: null }
    case 'fetch-failed':
      // Not considered: the next poll takes it up again, even after the last retry.
      return broken
    case 'skipped':
      return seen
    case 'cancelled':
    case 'superseded':
      return {}
  }
}

function afterDeploy(instance: Instance, run: number, commit: Sha, at: number): InstancePatch {
  const before = instance.deployed?.commit
  return {
    deployed: { commit, run, at },
    ...(before !== undefined && before !== commit ? { deployedBefore: before } : {}),
    considered: commit,
    doubt: null,
  }
}
