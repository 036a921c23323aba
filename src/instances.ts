/** A target's incarnations: their names, what a delivery means for each, and what the end of a run changes. */
import { atBranch } from './config/at-branch.ts'
import type { Config, Hook, Target } from './config/config.ts'
import { matchesRefName, matchesRepository } from './globs.ts'
import type { Change, Instance, Outcome, Received, Run, Sha } from './model.ts'
import type { InstanceKey, InstancePatch, Route, Routing, RunOrder } from './stores/store.ts'

// --- Names --------------------------------------------------------------------------------------------------------

/** `site`; `site:acme/blog` where `repo` is a glob; `site@feature/x` where `branches` are several. */
export function instanceKey(target: Target, repo: string, branch: string | null): InstanceKey {
  const ofRepository = target.repoIsGlob ? `:${repo.toLowerCase()}` : ''
  const own = target.follows.kind === 'branches' ? branch : null
  return {
    name: `${target.name}${ofRepository}${own === null ? '' : `@${own}`}`,
    target: target.name,
    repo: repositoryOf(target, repo),
    branch: own,
  }
}

/**
 * The target that an instance belongs to, with `{branch}` filled in; undefined where the file has none for it any more: the
 * target is gone, its pattern of repositories or branches is another one, or it follows another kind of refs.
 */
export function targetOf({ targets }: Config, instance: string): Target | undefined {
  const [, name, repo, own = null] = /^([^:@]+)(?::([^@]*))?(?:@(.+))?$/s.exec(instance) ?? []
  const target = targets.find((one) => one.name === name)
  if (target === undefined) return undefined
  const { follows } = target
  if (target.repoIsGlob ? repo === undefined || !isNameOf(target, repo) : repo !== undefined) return undefined
  if ((follows.kind === 'branches') !== (own !== null)) return undefined
  if (follows.kind === 'branches' && !matchesRefName(follows.patterns, own ?? '')) return undefined
  const branch = follows.kind === 'branch' ? follows.branch : own
  return branch === null ? target : atBranch(target, branch)
}

/** The same for a run, or for an instance as it is remembered: undefined too where the target follows another repository now. */
export function targetOfRun(
  config: Config,
  { target: instance, repo }: Pick<Run, 'target' | 'repo'>,
): Target | undefined {
  const target = targetOf(config, instance)
  return target !== undefined && isNameOf(target, repo) ? target : undefined
}

/** Why the file has no target for a run any more, as a sentence. */
export function whyGone({ targets }: Config, { target: instance, repo }: Pick<Run, 'target' | 'repo'>): string {
  const name = instance.replace(/[:@].*/s, '')
  const target = targets.find((one) => one.name === name)
  if (target === undefined) return `the target ${name} is not in the configuration any more`
  if (!isNameOf(target, repo)) return `the target ${name} follows ${target.repo} now, not ${repo}`
  return `${instance} is not what the target ${name} follows any more`
}

/** What the file calls the repository now of which a run was queued. */
export function repositoryOf(target: Target, repo: string): string {
  return target.repoIsGlob ? repo : target.repo
}

/**
 * Null: the run waits for no other. Asked of the configuration each time, and not kept with the run: two lanes for one instance
 * would overlap.
 */
export function laneOf(config: Config, { target: instance, repo }: Pick<Run, 'target' | 'repo'>): string | null {
  const target = targetOf(config, instance)
  if (target === undefined) return instance
  if (target.queue === 'parallel') return null
  return target.lane ?? `${target.hook ?? 'poll'}/${repositoryOf(target, repo).toLowerCase()}`
}

// --- Routing ------------------------------------------------------------------------------------------------------

/** What is known when a delivery comes. */
export interface Knowledge {
  /** An instance by its name; null where none was seen, or it is retired. */
  readonly instance: (name: string) => Instance | null
  /** The name under which the forge's number of the delivery's repository was last heard of; null where it never was. */
  readonly knownAs: string | null
  /** Whether the name that the delivery gives its repository is last known as that of another number. */
  readonly isTaken: boolean
}

/** What a delivery means, target by target in file order. */
export function routeDelivery(config: Config, hook: Hook, received: Received, knowledge: Knowledge): Routing {
  const { repo, repoId } = received
  if (repo === null) {
    const detail = `the event ${received.forgeEvent ?? ''} names no repository`
    return { kind: 'nowhere', reason: 'no-target', detail }
  }
  const known = knowledge.knownAs ?? repo
  if (hook.repos !== null && !hook.repos.some((pattern) => matchesRepository(pattern, repo))) {
    const detail = `hook ${hook.name} may not speak for ${repo}; its repos are ${hook.repos.join(', ')}`
    return { kind: 'nowhere', reason: 'repository-not-allowed', detail }
  }
  const targets = config.targets.filter((target) => target.hook === hook.name)
  const isRenamed = !sameName(known, repo)
  /** A name in the file is a person's word, unless another repository had it last; a pattern is none. */
  const isMeant = (target: Target): boolean =>
    isNameOf(target, repo) &&
    (!isRenamed || isOwnName(target, known) || (isOwnName(target, repo) && !knowledge.isTaken))
  const isFollowed = isRenamed && targets.some((target) => isMeant(target) && isOwnName(target, repo))
  const routes = targets.flatMap((target): readonly Route[] => {
    if (isMeant(target)) return routesTo(target, repo, received, knowledge)
    if (!isRenamed) return []
    // Told to those who had it under its old name, or would have it under the new one.
    const concerns = isNameOf(target, repo) || (isNameOf(target, known) && !isFollowed)
    return concerns ? [renamed(target, known, repo)] : []
  })
  if (routes.length === 0) {
    return { kind: 'nowhere', reason: 'no-target', detail: `no target of hook ${hook.name} follows ${repo}` }
  }
  // A name that no target has accepted is not believed, so that the known one goes on being the repository's.
  const isBelieved = !routes.every((route) => route.kind === 'reason' && route.reason === 'renamed')
  const isNews = repoId !== null && isBelieved && knowledge.knownAs !== repo
  return { kind: 'routes', routes, learns: isNews ? { id: repoId, repo } : null }
}

/** Repository names, whatever their case. */
export function sameName(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase()
}

/** Whether the target follows a repository of this name. */
export function isNameOf(target: Target, repo: string): boolean {
  const isIt = target.repoIsGlob ? matchesRepository(target.repo, repo) : sameName(target.repo, repo)
  return isIt || target.aliases.some((alias) => sameName(alias, repo))
}

/** Whether the file says that this very name is the repository's: a pattern names none in particular. */
function isOwnName({ repo, repoIsGlob, aliases }: Target, name: string): boolean {
  return (!repoIsGlob && sameName(repo, name)) || aliases.some((alias) => sameName(alias, name))
}

function renamed(target: Target, known: string, repo: string): Route {
  const instance = instanceKey(target, known, null)
  const detail = `the repository known as ${known} is now called ${repo}; if that is meant, write aliases = ["${target.repoIsGlob || !sameName(target.repo, known) ? known : repo}"] for ${target.name}`
  return { kind: 'reason', instance: { ...instance, name: target.name }, reason: 'renamed', detail }
}

function routesTo(target: Target, repo: string, received: Received, knowledge: Knowledge): readonly Route[] {
  if (!target.events.includes(received.event ?? '')) {
    const detail = `${target.name} runs on ${target.events.join(', ')}, not on ${received.forgeEvent ?? 'this event'}`
    return [{ kind: 'reason', instance: instanceKey(target, repo, null), reason: 'event', detail }]
  }
  return received.changes.map((change) => routeChange(target, repo, change, received, knowledge))
}

function routeChange(
  target: Target,
  repo: string,
  { ref, before, after }: Change,
  received: Received,
  { instance: instanceOf }: Knowledge,
): Route {
  const branch = branchOf(ref)
  const instance = instanceKey(target, repo, null)
  const wrong = wrongRef(target, ref, instanceOf(instance.name)?.defaultBranch ?? null, received.defaultBranch)
  if (wrong !== null) return { kind: 'reason', instance, reason: 'ref', detail: wrong }
  const order = orderFor(target, repo, { trigger: 'push', ref, announced: after, before })
  const known = instanceOf(order.instance.name)
  if (after !== null) return { kind: 'run', order: { ...order, event: received.event ?? 'push' } }
  if (target.follows.kind === 'branches' && known !== null) {
    return { kind: 'run', order: deletionOf(target, repo, branch ?? '', 'push') }
  }
  const detail =
    target.follows.kind === 'branches'
      ? `${ref} was deleted; nothing was deployed from it`
      : `${ref} was deleted; what is deployed stays`
  return { kind: 'reason', instance: order.instance, reason: 'ref-deleted', detail }
}

/** Why the target does not follow `ref`; null where it does. */
function wrongRef(target: Target, ref: string, known: string | null, hinted: string | null): string | null {
  const { name, follows } = target
  const [branch, tag] = [branchOf(ref), tagOf(ref)]
  switch (follows.kind) {
    case 'branch':
      return branch === follows.branch ? null : `${name} follows branch ${follows.branch}, not ${ref}`
    case 'branches':
      if (branch !== null && matchesRefName(follows.patterns, branch)) return null
      return `${name} follows the branches ${follows.patterns.join(', ')}, not ${ref}`
    case 'tags':
      if (tag !== null && matchesRefName(follows.patterns, tag)) return null
      return `${name} follows the tags ${follows.patterns.join(', ')}, not ${ref}`
    case 'default': {
      // The remote may have a new default branch that no fetch has seen yet: either is enough, since the run asks the remote.
      const defaults = [known, hinted].filter((one) => one !== null)
      if (branch !== null && (defaults.length === 0 || defaults.includes(branch))) return null
      return `${name} follows the default branch${defaults[0] === undefined ? '' : ` (${defaults[0]})`}, not ${ref}`
    }
  }
}

const HEADS = 'refs/heads/'
const TAGS = 'refs/tags/'

/** `main` of `refs/heads/main`; null for any other ref. */
export function branchOf(ref: string | null): string | null {
  return ref?.startsWith(HEADS) ? ref.slice(HEADS.length) : null
}

/** `v1.0` of `refs/tags/v1.0`; null for any other ref. */
export function tagOf(ref: string | null): string | null {
  return ref?.startsWith(TAGS) ? ref.slice(TAGS.length) : null
}

export function orderFor(
  target: Target,
  repo: string,
  cause: Pick<RunOrder, 'trigger' | 'ref' | 'announced'> & Partial<Pick<RunOrder, 'before' | 'pollsAgree'>>,
): RunOrder {
  return {
    instance: instanceKey(target, repo, branchOf(cause.ref)),
    policy: target.queue,
    event: 'push',
    before: null,
    pollsAgree: false,
    ...cause,
  }
}

/** landfall's own event: the branch of an instance is gone. Such a run retires the instance. */
export const DELETE = 'delete'

export function deletionOf(target: Target, repo: string, branch: string, trigger: 'push' | 'poll' | 'once'): RunOrder {
  return { ...orderFor(target, repo, { trigger, ref: `${HEADS}${branch}`, announced: null }), event: DELETE }
}

/** The link or the tree of a target at its branch; null where it has neither. */
export function livePathOf({ current, path }: Target): string | null {
  return current ?? path
}

/** What the files of the target's tree are at; null where it has none, or was given another path since the last run. */
export function filesOf({ checkout, path }: Target, { livesAt, filesAt }: Instance): Sha | null {
  return checkout === 'inplace' && livesAt === path ? filesAt : null
}

/** A failed script leaves the files of a tree in place where it has found them, which is not what is deployed. */
export function filesAreElsewhere(target: Target, instance: Instance): boolean {
  const { deployed } = instance
  return target.checkout === 'inplace' && deployed !== null && filesOf(target, instance) !== deployed.commit
}

// --- Ends ---------------------------------------------------------------------------------------------------------

export interface RunEnding {
  readonly instance: Instance
  readonly run: Run
  readonly outcome: Outcome
  /** The commit that the run came to a decision about. */
  readonly considered: Sha | null
  readonly at: number
  /** A retry or a recovery follows, so nothing is broken yet. */
  readonly goesOn: boolean
  /** No run of the instance before it has had a commit. */
  readonly isFirst: boolean
}

/** What the end of a run changes for its instance. */
export function afterRun({ instance, run, outcome, considered, at, goesOn, isFirst }: RunEnding): InstancePatch {
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
      return outcome.reason === 'ref-gone' && isFirst && isNothingYet(instance) ? { ...seen, retiredAt: at } : seen
    case 'cancelled':
    case 'superseded':
      return {}
  }
}

/** How many of its runs an instance is asked for, to see whether it has worked. */
export const MOST_ASKED = 500

/**
 * Whether one of these runs of an instance, newest first, has come as far as a commit, so that its script may have made
 * something, or be at it. What was made before a deletion went with it.
 */
export function hasWorked(runs: readonly Run[]): boolean {
  const deletion = runs.findIndex(({ event, state }) => event === DELETE && state === 'succeeded')
  return runs.slice(0, deletion < 0 ? runs.length : deletion).some(({ commit }) => commit !== null)
}

/** One of the branches of a pattern that nothing was made of: should it return, the instance is as new as it is now. */
function isNothingYet({ branch, state, deployed }: Instance): boolean {
  return branch !== null && state === 'new' && deployed === null
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
