/** Which commit a run deploys: the fetch it is decided by, the decision, and whether its difference concerns the target. */
import { setTimeout as wait } from 'node:timers/promises'
import type { Target } from '../config/config.ts'
import { directoryName } from '../data-dir.ts'
import { decide, type Move, short } from '../decide.ts'
import { branchOf, filesAreElsewhere, tagOf } from '../instances.ts'
import type { Clock, Instance, Log, Sha, Trigger } from '../model.ts'
import type { Store } from '../stores/store.ts'
import type { Fetched, Remote, Wanted, Work } from '../work.ts'
import { Ended } from './ended.ts'
import type { Progress } from './ending.ts'
import { markOf } from './environment.ts'
import type { ScriptSite } from './site.ts'

/** A replica may lag behind the delivery: how long to wait before each further fetch for the announced commit. */
const REFETCH_DELAYS_MS = [1000, 2000, 4000, 8000]

/** More force pushes than these between two runs of an instance are for polls to confirm. */
const MOST_MOVES = 500

/** A person who names a commit means it, whatever it touches. */
const BY_PEOPLE: readonly Trigger[] = ['manual', 'rollback', 'unfreeze']

export interface ChoiceParts {
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly log: Log
  readonly now: Clock
  readonly stopping: AbortSignal
  readonly onPollSoon: (instance: string) => void
}

export interface Choice {
  /** Fetches, until the announced commit is there or time is up. */
  fetch(progress: Progress, remote: Remote, site: ScriptSite): Promise<Fetched>
  /** Decides by what was fetched, and puts it down in `progress`. Throws `Ended` where nothing is to be deployed. */
  choose(progress: Progress, fetched: Fetched): Promise<Sha>
  /** Throws `Ended` where the target has `paths`, and none of them differs from what is deployed. */
  concerns(progress: Progress, commit: Sha, remote: Remote, site: ScriptSite): Promise<void>
}

/**
 * A ref that was there is gone where it is not there any more; a new one may only be late. But what has waited in a queue has
 * given the remote its time already: branches that were pushed and deleted must not hold up a lane one after the other.
 */
function isStillExpected({ target, instance }: Progress, waitedMs: number): boolean {
  const mayBeNew = target.follows.kind === 'tags' || (instance.branch !== null && instance.deployed === null)
  return mayBeNew && waitedMs < REFETCH_DELAYS_MS.reduce((sum, delayMs) => sum + delayMs, 0)
}

export function createChoice({ store, workOf, log, now, stopping, onPollSoon }: ChoiceParts): Choice {
  /** The tag that D was deployed as. */
  async function deployedTag({ deployed }: Instance): Promise<string | null> {
    return deployed === null ? null : tagOf((await store.run(deployed.run))?.ref ?? null)
  }

  async function wantedBy({ target, instance, run }: Progress): Promise<Wanted> {
    const { follows } = target
    switch (follows.kind) {
      case 'branch':
        return follows
      case 'branches':
        return { kind: 'branch', branch: instance.branch ?? '' }
      case 'tags': {
        const { patterns, order } = follows
        return { kind: 'tag', patterns, order, announced: tagOf(run.ref), deployed: await deployedTag(instance) }
      }
      case 'default': {
        const branch = instance.defaultBranch
        // A delivery was accepted for another branch than the known default: the remote may have a new one.
        const isSure = branch !== null && (run.ref === null || branchOf(run.ref) === branch)
        return isSure ? { kind: 'branch', branch } : { kind: 'default' }
      }
    }
  }

  /** Asked for only where it matters: it is the history of an instance. By place, since a recovery has a late id. */
  async function movesSince({ run, instance }: Progress, { tipToDeployed }: Fetched): Promise<readonly Move[]> {
    if (instance.deployed === null || tipToDeployed === 'ahead' || tipToDeployed === 'same') return []
    const deployedBy = await store.run(instance.deployed.run)
    if (deployedBy === null) return []
    const runs = await store.runs({ target: instance.name, state: null, limit: MOST_MOVES, before: null })
    return runs.flatMap(({ target, ref, place, before, announced: after }) => {
      const isSince = target === instance.name && ref === run.ref && place > deployedBy.place
      return isSince && before !== null && after !== null ? [{ before, after }] : []
    })
  }

  return {
    async fetch(progress, remote, site) {
      const { run, target, instance } = progress
      const wanted = await wantedBy(progress)
      const dueAt = run.notBefore ?? run.queuedAt
      for (const delayMs of [...REFETCH_DELAYS_MS, null]) {
        const fetched = await workOf(target).fetch(
          {
            remote,
            wanted,
            dueAt,
            announced: run.announced,
            deployed: instance.deployed?.commit ?? null,
            compareAnnounced: target.queue !== 'evict',
            pinnedAs: directoryName(instance.name),
            env: markOf(run.id, site.dataDirectory),
            timeoutMs: target.fetchTimeoutMs,
          },
          stopping,
        )
        const isLate = fetched.tip !== null || isStillExpected(progress, now() - dueAt)
        if (fetched.announcedInTip !== 'missing' || delayMs === null || !isLate) return fetched
        log.info('announced commit not there yet', { run: run.id, target: run.target, waitMs: delayMs })
        await wait(delayMs, undefined, { signal: stopping }).catch(() => {})
      }
      throw new Error('unreachable: the last delay is null')
    },

    async choose(progress, fetched) {
      const { run, target, instance } = progress
      const deployed = instance.deployed?.commit ?? null
      const followsTags = target.follows.kind === 'tags'
      const decision = decide({
        trigger: run.trigger,
        policy: target.queue,
        named: false,
        tags: followsTags
          ? { tip: tagOf(fetched.ref), announced: tagOf(run.ref), deployed: await deployedTag(instance) }
          : null,
        tip: fetched.tip,
        announced: run.announced,
        deployed,
        rejected: instance.rejected,
        tipToDeployed: fetched.tipToDeployed,
        announcedInTip: fetched.announcedInTip,
        announcedToDeployed: fetched.announcedToDeployed,
        // Read late: a delivery may announce what a poll had queued already.
        before: (await store.run(run.id))?.before ?? run.before,
        moves: await movesSince(progress, fetched),
        pollsAgree: run.pollsAgree,
        filesAreElsewhere: filesAreElsewhere(target, instance),
      })
      progress.branch = branchOf(fetched.ref)
      const ref = fetched.ref ?? run.ref
      if (decision.kind === 'refuse') throw new Ended('unstartable', null, decision.detail)
      if (decision.kind === 'skip') {
        progress.considered = fetched.tip
        progress.doubt = decision.doubt
        if (decision.pollSoon) onPollSoon(instance.name)
        throw new Ended('skipped', decision.reason, decision.detail)
      }
      progress.considered = decision.commit
      const { commit, reason, detail } = decision
      progress.run = { ...run, ref, commit, previous: deployed, reason, detail }
      return decision.commit
    },

    async concerns({ run, target, instance }, commit, remote, site) {
      const deployed = instance.deployed?.commit ?? null
      if (target.paths === null || deployed === null || deployed === commit || BY_PEOPLE.includes(run.trigger)) return
      // A failed script has left the tree elsewhere: what takes its commit back differs from D in nothing, and must get there.
      if (filesAreElsewhere(target, instance)) return
      const touches = await workOf(target).touches(
        {
          remote,
          from: deployed,
          to: commit,
          patterns: target.paths,
          env: markOf(run.id, site.dataDirectory),
          timeoutMs: target.fetchTimeoutMs,
        },
        stopping,
      )
      if (touches) return
      await store.decided(run.id, { ...run, detail: null })
      const detail = `nothing between the deployed ${short(deployed)} and ${short(commit)} fits paths (${target.paths.join(', ')})`
      throw new Ended('skipped', 'paths', detail)
    },
  }
}
