import type { Target } from '../config/config.ts'
import { short } from '../decide.ts'
import type { Outcome } from '../model.ts'
import type { Remotes } from '../remotes.ts'
import type { Work } from '../work.ts'
import { Ended, endedBy } from './ended.ts'
import type { Progress } from './ending.ts'
import type { LivePaths } from './live-paths.ts'
import type { Releases } from './releases.ts'
import type { Scripts } from './scripts.ts'

export interface RetirementParts {
  readonly workOf: (target: Target) => Work
  readonly remotes: Remotes
  readonly releases: Releases
  readonly scripts: Scripts
  readonly livePaths: LivePaths
  readonly stopping: AbortSignal
  readonly onPollSoon: (instance: string) => void
}

/**
 * The branch of an instance was deleted: runs `on_delete`. With its success the end of the run retires the instance. What says
 * so is a hint: an old delivery may tell of a branch that has long returned, so the remote is asked first.
 */
export function createRetirement({
  workOf,
  remotes,
  releases,
  scripts,
  livePaths,
  stopping,
  onPollSoon,
}: RetirementParts) {
  async function tipOnRemote({ target, run, instance }: Progress): Promise<string | null> {
    // Git is not this target's business: the payload is believed.
    if (target.checkout === 'none' || instance.branch === null) return null
    const order = { remote: remotes.of(target, run.repo), tags: false, timeoutMs: target.fetchTimeoutMs }
    const { branches } = await workOf(target).listRefs({ ...order, branches: [instance.branch] }, stopping)
    return branches[instance.branch] ?? null
  }

  return async function retire(progress: Progress): Promise<Outcome> {
    const { target, run, instance } = progress
    const tip = await tipOnRemote(progress)
    if (tip !== null) {
      onPollSoon(instance.name)
      throw new Ended('skipped', 'ref-exists', `branch ${instance.branch} is on the remote, at ${short(tip)}`)
    }
    progress.retires = true
    const detail = `branch ${instance.branch} is gone: the instance is retired, with its releases`
    if (target.onDelete === null) return endedBy('succeeded', null, detail)
    const site = await scripts.site(target, run)
    const tree = (await livePaths.whyTaken(target, instance.name)) === null ? target.path : null
    const checkout = target.checkout === 'inplace' ? tree : await releases.deployed(instance)
    // There is no commit to deploy; what was deployed is what came before.
    const last = { ...run, previous: instance.deployed?.commit ?? null }
    const outcome = await scripts.onDelete(target, last, site, checkout)
    return outcome.end === 'succeeded' ? { ...outcome, detail } : outcome
  }
}
