import { setTimeout as wait } from 'node:timers/promises'
import type { Config, Target } from '../config/config.ts'
import { type DataDir, directoryName, exists } from '../data-dir.ts'
import { decide } from '../decide.ts'
import { hasCode, messageOf, systemCode } from '../errors.ts'
import type { Clock, Instance, Log, Outcome, PhaseName, Run, RunEnd, RunReason, Sha } from '../model.ts'
import type { Remotes } from '../remotes.ts'
import type { QueueChange, Store } from '../stores/store.ts'
import type { Fetched, Remote, Work } from '../work.ts'
import { begin, createEnding, endedBy, nothingElse, type Progress, type Report } from './ending.ts'
import { markOf } from './environment.ts'
import type { Releases } from './releases.ts'
import { createScripts, type ScriptSite } from './scripts.ts'

/** A replica may lag behind the delivery: how long to wait before each further fetch for the announced commit. */
const REFETCH_DELAYS_MS = [1000, 2000, 4000, 8000]

export interface RunnerParts {
  readonly config: () => Config
  readonly store: Store
  readonly work: Work
  readonly remotes: Remotes
  readonly releases: Releases
  readonly dataDir: DataDir
  readonly log: Log
  readonly now: Clock
  /** Aborted by a stop: what has not started its script goes back to the queue. */
  readonly stopping: AbortSignal
  /** Aborted when the drain is over: scripts are ended. */
  readonly cutOff: AbortSignal
  readonly onQueueChange: (change: QueueChange) => void
  readonly onPollSoon: (instance: string) => void
  /** Ends what is left of processes that nobody watches any more. */
  readonly endLeftovers: (runs: readonly number[]) => Promise<void>
}

/** An end that is no surprise, thrown from any depth of a run. */
class Ended extends Error {
  readonly outcome: Outcome
  constructor(end: RunEnd, reason: RunReason | null, detail: string | null) {
    super(detail ?? end)
    this.outcome = endedBy(end, reason, detail)
  }
}

export interface Runner {
  /** Performs one run to its end. The end and all that follows from it is one transaction. */
  perform(run: Run): Promise<void>
  /**
   * Ends a run that an earlier landfall did not live to end; a recovery takes its place. Resolves to what is left to do: its
   * `on_…` scripts, for which a start does not wait.
   */
  interrupted(run: Run): Promise<Report>
}

/** fetch → run → report. */
export function createRunner(parts: RunnerParts): Runner {
  const { config, store, work, remotes, releases, log, now, stopping } = parts
  const scripts = createScripts(parts)
  const { end, interrupted, untilStored } = createEnding({ ...parts, scripts })

  async function perform(run: Run): Promise<void> {
    try {
      await performToItsEnd(run)
    } catch (cause) {
      if (!hasCode(cause, 'store')) throw cause
      const hint = 'the next start takes it up as the store has it'
      log.error('end not recorded', { run: run.id, target: run.target, cause: cause.message, hint })
    }
  }

  async function performToItsEnd(run: Run): Promise<void> {
    if (stopping.aborted || !(await untilStored(() => store.started(run.id, now()), stopping))) return
    const fields = { run: run.id, delivery: run.delivery, target: run.target }
    const instance = await untilStored(() => store.instance(run.target))
    const target = config().targets.find(({ name }) => name === instance?.target)
    if (instance === null || target === undefined) {
      const outcome = endedBy('cancelled', 'target-removed', 'its target is not in the configuration any more')
      await untilStored(() => store.finished(run.id, { ...nothingElse, outcome, at: now() }))
      log.warn('finished', { ...fields, end: outcome.end, reason: outcome.reason })
      return
    }
    log.info('started', { ...fields, trigger: run.trigger, attempt: run.attempt })
    const progress = begin(run, target, instance)
    const outcome = await attempt(progress)
    if (outcome === 'returned') {
      await store.returned(run.id)
      log.info('returned to the queue', fields)
    } else if (outcome === 'lost') {
      await parts.endLeftovers([run.id])
      await (await interrupted(progress.run, progress))()
    } else {
      await end(progress, outcome)
    }
  }

  /** `returned`: a stop came before the script had started. `lost`: the process that did the work is gone. */
  async function attempt(progress: Progress): Promise<Outcome | 'returned' | 'lost'> {
    try {
      return progress.target.checkout === 'none' ? await runOnly(progress) : await deploy(progress)
    } catch (cause) {
      if (cause instanceof Ended) return cause.outcome
      if (hasCode(cause, 'aborted') && stopping.aborted) return 'returned'
      if (hasCode(cause, 'lost')) return 'lost'
      if (hasCode(cause, 'unstartable')) return endedBy('unstartable', null, cause.message)
      if (hasCode(cause, 'remote') || hasCode(cause, 'git')) return endedBy('fetch-failed', null, cause.message)
      if (hasCode(cause, 'store')) return endedBy('fetch-failed', null, cause.message)
      if (['ENOSPC', 'EDQUOT', 'EROFS'].includes(systemCode(cause) ?? '')) {
        return endedBy('fetch-failed', null, `data_dir takes no more files: ${messageOf(cause)}`)
      }
      log.error('bug', { run: progress.run.id, target: progress.run.target, cause })
      return endedBy('failed', null, `landfall itself failed: ${messageOf(cause)}; its log has the details`)
    }
  }

  /** `checkout = "none"`: git is not touched, ref and commit are the payload's. */
  async function runOnly(progress: Progress): Promise<Outcome> {
    const site = await scripts.site(progress.run)
    const script = await scripts.find(progress.target, progress.run)
    if (script.kind === 'none') throw new Ended('skipped', 'no-script', script.detail)
    progress.run = {
      ...progress.run,
      commit: progress.run.announced,
      previous: progress.instance.deployed?.commit ?? null,
    }
    await untilStored(() => store.decided(progress.run.id, { ...progress.run, detail: null }))
    progress.directory = await site.emptyDirectory()
    return timed(progress, 'script', () =>
      scripts.run(progress.target, progress.run, site, progress.directory ?? '', script),
    )
  }

  async function deploy(progress: Progress): Promise<Outcome> {
    const { target, run } = progress
    const remote = remotes.of(target, run.repo)
    const wrongLink = target.current === null ? null : await releases.wrongLink(target.current)
    if (wrongLink !== null) throw new Ended('unstartable', null, wrongLink)
    const [site, script] = await Promise.all([scripts.site(run), scripts.find(target, run)])
    const fetched = await timed(progress, 'fetch', () => fetchAnnounced(progress, remote, site))
    const commit = choose(progress, fetched, (await store.run(run.id))?.before ?? run.before)
    if (script.kind === 'none') {
      await untilStored(() => store.decided(run.id, { ...progress.run, detail: null }))
      throw new Ended('skipped', 'no-script', script.detail)
    }
    // A script that cannot start needs no checkout.
    if (script.kind === 'unstartable') throw new Ended('unstartable', null, script.detail)
    const [directory] = await Promise.all([
      releases.directoryFor(run, commit),
      untilStored(() => store.decided(run.id, progress.run)),
    ])
    progress.directory = directory
    await timed(progress, 'checkout', () =>
      work.checkOut(
        {
          remote,
          commit,
          previous: progress.run.previous,
          directory,
          changed: site.changed,
          env: markOf(run.id, site.dataDirectory),
          timeoutMs: target.fetchTimeoutMs,
        },
        stopping,
      ),
    )
    const outcome = await timed(progress, 'script', () => scripts.run(target, progress.run, site, directory, script))
    if (outcome.end !== 'succeeded') return outcome
    if (!(await exists(directory))) return { ...outcome, end: 'failed', detail: 'the script removed its own checkout' }
    return activate(progress, site, directory, outcome)
  }

  async function fetchAnnounced(progress: Progress, remote: Remote, site: ScriptSite): Promise<Fetched> {
    const { run, target, instance } = progress
    for (const delayMs of [...REFETCH_DELAYS_MS, null]) {
      const fetched = await work.fetch(
        {
          remote,
          branch: branchToFetch(target, instance, run),
          announced: run.announced,
          deployed: instance.deployed?.commit ?? null,
          compareAnnounced: target.queue === 'sequential',
          pinnedAs: directoryName(instance.name),
          env: markOf(run.id, site.dataDirectory),
          timeoutMs: target.fetchTimeoutMs,
        },
        stopping,
      )
      if (fetched.tip === null || fetched.announcedInTip !== 'missing' || delayMs === null) return fetched
      log.info('announced commit not there yet', { run: run.id, target: run.target, waitMs: delayMs })
      await wait(delayMs, undefined, { signal: stopping }).catch(() => {})
    }
    throw new Error('unreachable: the last delay is null')
  }

  /** `before` is read late: a delivery may announce what a poll had queued already. */
  function choose(progress: Progress, fetched: Fetched, before: Sha | null): Sha {
    const { run, target, instance } = progress
    const deployed = instance.deployed?.commit ?? null
    const decision = decide({
      trigger: run.trigger,
      policy: target.queue,
      named: false,
      tip: fetched.tip,
      announced: run.announced,
      deployed,
      rejected: instance.rejected,
      tipToDeployed: fetched.tipToDeployed,
      announcedInTip: fetched.announcedInTip,
      announcedToDeployed: fetched.announcedToDeployed,
      before,
      pollsAgree: run.pollsAgree,
    })
    progress.branch = fetched.branch
    const ref = fetched.branch === null ? run.ref : `refs/heads/${fetched.branch}`
    if (decision.kind === 'refuse') throw new Ended('unstartable', null, decision.detail)
    if (decision.kind === 'skip') {
      progress.considered = fetched.tip
      progress.doubt = decision.doubt
      if (decision.pollSoon) parts.onPollSoon(instance.name)
      throw new Ended('skipped', decision.reason, decision.detail)
    }
    progress.considered = decision.commit
    progress.run = { ...run, ref, commit: decision.commit, previous: deployed, detail: decision.detail }
    return decision.commit
  }

  /** Switches `current`, then activates; if the latter fails, the old release is live again. */
  async function activate(progress: Progress, site: ScriptSite, directory: string, outcome: Outcome): Promise<Outcome> {
    const { target, run } = progress
    if (target.current === null && target.activate === null) return outcome
    const before = target.current === null ? null : await work.switchLink({ link: target.current, to: directory })
    if (target.activate === null) return outcome
    const activation = await timed(progress, 'activate', () => scripts.activate(target, progress.run, site, directory))
    if (activation.end === 'succeeded') return outcome
    if (target.current !== null) await work.switchLink({ link: target.current, to: before })
    log.warn('activation failed', { run: run.id, target: run.target, detail: activation.detail })
    const old = before ?? (await releases.deployed(progress.instance))
    if (old !== null && !parts.cutOff.aborted) {
      const live = { ...progress.run, commit: progress.instance.deployed?.commit ?? null }
      await scripts.activate(target, live, site, old)
    }
    if (activation.end === 'interrupted') return activation
    const detail = `activate: ${activation.detail ?? activation.end}; the release before it is live again`
    return { ...activation, end: 'failed', reason: 'activate', detail }
  }

  async function timed<T>({ phases }: Progress, name: PhaseName, step: () => Promise<T>): Promise<T> {
    const startedAt = now()
    const start = performance.now()
    try {
      return await step()
    } finally {
      phases.push({ name, startedAt, ms: Math.round(performance.now() - start) })
    }
  }

  return { perform, interrupted: (run) => interrupted(run, null) }
}

/** The branch as far as it is known; null lets the fetch ask the remote which one is its default. */
function branchToFetch(target: Target, instance: Instance, run: Run): string | null {
  if (target.branch !== null) return target.branch
  if (instance.defaultBranch === null) return null
  // A delivery was accepted for another branch than the known default: the remote may have a new one.
  if (run.ref !== null && run.ref !== `refs/heads/${instance.defaultBranch}`) return null
  return instance.defaultBranch
}
