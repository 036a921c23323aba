import { setTimeout as wait } from 'node:timers/promises'
import { dropDirectory } from '../belongings.ts'
import type { Config, Target } from '../config/config.ts'
import { type DataDir, directoryName } from '../data-dir.ts'
import { short } from '../decide.ts'
import { hasCode, messageOf } from '../errors.ts'
import { createLocks } from '../git/locks.ts'
import { afterRun, hasWorked, MOST_ASKED, targetOfRun } from '../instances.ts'
import { appendToLog, sealLog } from '../launcher/log-file.ts'
import type { Clock, Instance, Log, Outcome, Phase, Release, Run, Sha } from '../model.ts'
import type { Remotes } from '../remotes.ts'
import type { Finish, FollowUp, InstancePatch, QueueChange, Store } from '../stores/store.ts'
import type { Relation, Remote, Work } from '../work.ts'
import { interruption, retryOf } from './attempts.ts'
import type { Releases } from './releases.ts'
import type { Scripts } from './scripts.ts'
import { placesOf, savedEdits, tellOfEdits } from './site.ts'

/** Where a run has come to: filled step by step, and read when it ends, however it ends. */
export interface Progress {
  run: Run
  readonly target: Target
  instance: Instance
  readonly phases: Phase[]
  directory: string | null
  /** Where it has fetched from: after a reload the configuration may say otherwise. */
  remote: Remote | null
  /** What the fetch told, where it came that far. */
  branch: string | null
  considered: Sha | null
  doubt: Sha | null
  /** Its success retires the instance. */
  retires: boolean
  /** Its `activate` may have begun, and nothing has come of it for certain: what is deployed is to be activated again. */
  owesActivation: boolean
}

export function begin(run: Run, target: Target, instance: Instance): Progress {
  const nothing = {
    directory: null,
    remote: null,
    branch: null,
    considered: null,
    doubt: null,
    retires: false,
    owesActivation: false,
  }
  return { run, target, instance, phases: [], ...nothing }
}

export interface EndingParts {
  readonly config: () => Config
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly remotes: Remotes
  readonly releases: Releases
  readonly scripts: Scripts
  readonly dataDir: DataDir
  readonly log: Log
  readonly now: Clock
  readonly stopping: AbortSignal
  readonly cutOff: AbortSignal
  readonly onQueueChange: (change: QueueChange) => void
}

/** Runs the `on_…` scripts of a run that has ended. Never rejects. */
export type Report = () => Promise<void>

export interface Ending {
  /** Writes the end of a run and all that follows from it, cleans up after it, and reports. */
  end(progress: Progress, outcome: Outcome): Promise<void>
  /** The end of a run whose processes are gone, with an earlier landfall or with its launcher. */
  interrupted(run: Run, progress: Progress | null): Promise<Report>
  /**
   * Uses the store as soon as it works: a full disk must not cost a run its end. Throws `store` where it still does not when
   * `givesUp` comes, which is the end of a drain if nothing else is said.
   */
  untilStored<T>(use: () => Promise<T>, givesUp?: AbortSignal): Promise<T>
}

/** run → report. */
export function createEnding(parts: EndingParts): Ending {
  const { config, store, workOf, remotes, releases, scripts, dataDir, log, now, stopping, cutOff } = parts
  const inTurn = createLocks()

  async function end(progress: Progress, outcome: Outcome): Promise<void> {
    const report = await settle(progress, outcome, null)
    await report()
  }

  async function settle(progress: Progress, outcome: Outcome, recovery: FollowUp | null): Promise<Report> {
    const { target, run } = progress
    if (target.queue !== 'parallel') return await settleAlone(progress, outcome, recovery)
    // No lane keeps two runs of the instance from ending at once, and each must see what the other has deployed.
    return await inTurn(run.target, undefined, () => settleAlone(progress, outcome, recovery))
  }

  async function settleAlone(progress: Progress, end: Outcome, recovery: FollowUp | null): Promise<Report> {
    const { run, target, phases } = progress
    const outcome = withItsChoice(run, end)
    const at = now()
    // What is deployed may have changed in no other way, where the lane is ours. What was seen by polls may have.
    const instance = (await untilStored(() => store.instance(run.target))) ?? progress.instance
    // What a reload has taken out of the file ends with the run that it met.
    const isGone = targetOfRun(config(), run) === undefined
    const followUp = isGone ? null : (recovery ?? retryOf(target, run, outcome, at, Math.random()))
    const sealed = sealedBy(progress, outcome)
    const forgotten = await untilStored(() => forgottenBy(progress, outcome, instance, sealed))
    const isRetired = progress.retires && outcome.end === 'succeeded'
    const isOvertaken = outcome.end === 'succeeded' && (await overtaken(progress, instance))
    const isPassed = await passed(progress, instance)
    const earlier = { target: run.target, state: null, limit: MOST_ASKED, before: run.id }
    const isFirst = outcome.reason === 'ref-gone' && !hasWorked(await untilStored(() => store.runs(earlier)))
    const goesOn = followUp !== null
    const changed = afterRun({ instance, run, outcome, considered: progress.considered, at, goesOn, isFirst })
    const finish: Finish = {
      outcome,
      phases,
      at,
      instance: {
        ...changed,
        ...observed(progress),
        ...(isOvertaken ? { deployed: instance.deployed, deployedBefore: instance.deployedBefore } : {}),
        ...(isOvertaken || isPassed ? { considered: instance.considered } : {}),
        ...(isPassed && instance.state !== 'new' ? { state: instance.state } : {}),
        ...(isRetired ? { retiredAt: at } : {}),
        ...(instance.activating === run.id && !progress.owesActivation ? { activating: null } : {}),
      },
      sealed,
      forgotten: forgotten.map((release) => release.run),
      followUp,
    }
    if (outcome.end !== 'succeeded') await noteInLog(run.id, outcome)
    const tidy = () => (isRetired ? clearAway(progress, forgotten) : cleanUp(progress, instance, sealed, forgotten))
    // Who sees that a run has failed finds nothing left of its checkout. But what is sealed goes only when something else is,
    // and a stop may be cut short: a run without an end would be run again.
    const tidyFirst = sealed === null && !isRetired && !stopping.aborted
    if (tidyFirst) await tidy()
    const change = await untilStored(() => store.finished(run.id, finish))
    parts.onQueueChange(change)
    logEnd(progress, outcome, change)
    if (!tidyFirst) await tidy()
    if (target.checkout !== 'none' && run.commit !== null) await pin(progress, outcome, instance)
    return () => report(progress, outcome, instance, change)
  }

  async function forgottenBy(
    { target, retires }: Progress,
    outcome: Outcome,
    instance: Instance,
    sealed: Release | null,
  ) {
    if (retires && outcome.end === 'succeeded') return await store.releases(instance.name)
    return sealed === null ? [] : await releases.outdated(target, instance, sealed)
  }

  /** Whether another run, beside this one, has deployed what contains this one's commit: `deployed` moves only forward. */
  async function overtaken(progress: Progress, { deployed }: Instance): Promise<boolean> {
    const { run, target } = progress
    if (target.queue !== 'parallel' || run.commit === null || deployed === null) return false
    if (deployed.commit === run.previous || deployed.commit === run.commit) return false
    if (target.checkout === 'none') return deployed.run > run.id
    return (await relationTo(deployed.commit, run.commit, progress)) !== 'ahead'
  }

  /** Whether another run, beside this one, has come to an end with a newer commit: its word about the instance stands. */
  async function passed(progress: Progress, { considered, deployed }: Instance): Promise<boolean> {
    const { run, target, instance: before } = progress
    if (target.queue !== 'parallel') return false
    if (target.checkout === 'none') return deployed !== null && deployed.run > run.id
    const commit = run.commit ?? run.announced
    if (commit === null || considered === null) return false
    if (considered === before.considered || considered === commit) return false
    return (await relationTo(considered, commit, progress)) === 'behind'
  }

  /** Without the mirror nothing is known, and nothing moves. */
  async function relationTo(base: Sha, commit: Sha, { run, target, remote }: Progress): Promise<Relation> {
    const order = { remote: remote ?? remotes.of(target, run.repo), commit, base, timeoutMs: target.fetchTimeoutMs }
    return await workOf(target)
      .relation(order)
      .catch(() => 'unknown' as const)
  }

  /** What cannot be cleaned up now is swept by the next start, and nobody goes without an end or a report for it. */
  async function cleanUp(
    { run, target, directory }: Progress,
    instance: Instance,
    sealed: Release | null,
    forgotten: readonly Release[],
  ): Promise<void> {
    try {
      if (sealed !== null) await releases.settle(target, sealed, forgotten)
      else if (directory !== null) await releases.abandon(target, instance, directory)
    } catch (cause) {
      log.error('not cleaned up', { run: run.id, target: run.target, cause })
    }
  }

  /** All that a retired instance had on disk, save its working tree in place, which may hold a person's work. */
  async function clearAway({ run, target }: Progress, forgotten: readonly Release[]): Promise<void> {
    try {
      await releases.retire(target, run.target, forgotten)
      const data = dataDir.room('data', directoryName(run.target))
      await workOf(target).remove([data])
      if (target.account !== null) await dropDirectory(data)
      if (target.checkout === 'none') return
      const remote = remotes.of(target, run.repo)
      await workOf(target).pin({ remote, pinnedAs: directoryName(run.target), pins: {} })
    } catch (cause) {
      log.error('not cleaned up', { run: run.id, target: run.target, cause })
    }
  }

  function observed({ branch, target, doubt, run, instance }: Progress): InstancePatch {
    const polled = run.trigger === 'poll' || run.trigger === 'once' ? run.queuedAt : null
    const since = instance.doubt?.tip === doubt ? (instance.doubt?.since ?? polled) : polled
    return {
      ...(target.follows.kind === 'default' && branch !== null ? { defaultBranch: branch } : {}),
      ...(doubt === null ? {} : { doubt: { tip: doubt, since } }),
    }
  }

  function sealedBy({ target, run, directory }: Progress, outcome: Outcome): Release | null {
    if (outcome.end !== 'succeeded' || target.checkout !== 'release') return null
    if (directory === null || run.commit === null) return null
    return { instance: run.target, commit: run.commit, run: run.id, directory }
  }

  async function pin(
    { target, run, remote: fetchedFrom }: Progress,
    outcome: Outcome,
    before: Instance,
  ): Promise<void> {
    const deployed = outcome.end === 'succeeded' ? run.commit : before.deployed?.commit
    const previous = outcome.end === 'succeeded' ? before.deployed?.commit : before.deployedBefore
    const remote = fetchedFrom ?? remotes.of(target, run.repo)
    const pins = { ...(deployed ? { deployed } : {}), ...(previous ? { previous } : {}) }
    try {
      await workOf(target).pin({ remote, pinnedAs: directoryName(run.target), pins })
      await workOf(target).tidy(remote, stopping)
    } catch (cause) {
      if (hasCode(cause, 'aborted')) return // a stop need not wait for packing
      // The next fetch of this mirror meets the same fault, and mends it.
      log.warn('mirror not tidied', { run: run.id, target: run.target, cause: messageOf(cause) })
    }
  }

  /** The log of a run tells its end even where no script has written a line. */
  async function noteInLog(run: number, { end, reason, detail }: Outcome): Promise<void> {
    const why = [reason, detail].filter((part) => part !== null).join(': ')
    const file = dataDir.room('runs', String(run), 'log')
    await appendToLog(file, `[landfall: ${end}${why === '' ? '' : `: ${why}`}]\n`).catch(() => {})
  }

  async function report(progress: Progress, outcome: Outcome, before: Instance, change: QueueChange): Promise<void> {
    if (cutOff.aborted) return
    const { target, run } = progress
    const failed = ['failed', 'timed-out', 'unstartable', 'fetch-failed', 'interrupted'].includes(outcome.end)
    const last = change.queued.length === 0
    const names: (string | null)[] = []
    // A deletion that went well is told by its own script.
    if (outcome.end === 'succeeded' && !progress.retires) {
      names.push(target.onSuccess, before.state === 'broken' ? target.onRecovery : null)
    } else if (failed && last) names.push(target.onFailure)
    for (const name of names) {
      if (name === null) continue
      await scripts
        .report(target, run, outcome, progress.directory, name)
        .catch((cause: unknown) => log.error('report failed', { run: run.id, target: run.target, script: name, cause }))
    }
  }

  function logEnd({ run, phases }: Progress, outcome: Outcome, change: QueueChange): void {
    const followUp = change.queued[0]
    const fields = {
      run: run.id,
      delivery: run.delivery,
      target: run.target,
      end: outcome.end,
      reason: outcome.reason,
      detail: outcome.detail,
      commit: run.commit === null ? null : short(run.commit),
      ms: Object.fromEntries(phases.map(({ name, ms }) => [name, ms])),
      ...(followUp === undefined ? {} : { followUp: followUp.id, followUpTrigger: followUp.trigger }),
    }
    if (outcome.end === 'succeeded' || outcome.end === 'skipped') log.info('finished', fields)
    else log.warn('finished', fields)
  }

  async function untilStored<T>(use: () => Promise<T>, givesUp = cutOff): Promise<T> {
    for (let delayMs = 1000; ; delayMs = Math.min(30_000, delayMs * 2)) {
      try {
        return await use()
      } catch (cause) {
        if (!hasCode(cause, 'store') || givesUp.aborted) throw cause
        log.error('store failed', { cause: cause.message, againInMs: delayMs })
        await wait(delayMs, undefined, { signal: givesUp }).catch(() => {})
      }
    }
  }

  async function seal(run: Run, target: Target | undefined): Promise<void> {
    const { log: place } = placesOf(dataDir, target?.account ?? null, run.id)
    if (target !== undefined) await workOf(target).sealLog({ ...place, maxBytes: target.maxLogBytes })
    // Nobody knows whose it is: what lies beside it is landfall's own, for so is the directory.
    else await sealLog({ ...place, maxBytes: Number.MAX_SAFE_INTEGER })
  }

  async function interrupted(run: Run, progress: Progress | null): Promise<Report> {
    const instance = await store.instance(run.target)
    const target = progress?.target ?? targetOfRun(config(), run)
    const { outcome: bare, followUp } = interruption(target, run)
    const saved = await savedEdits(dataDir, run.id)
    const outcome = saved.length === 0 ? bare : { ...bare, detail: `${bare.detail}; ${tellOfEdits(saved)}` }
    await seal(run, target).catch((cause: unknown) => log.error('log not sealed', { run: run.id, cause }))
    if (instance !== null && target !== undefined) {
      // Releases that nobody sealed are swept at the start; this is the one other place where a run works.
      const directory = target.checkout === 'none' ? placesOf(dataDir, target.account, run.id).work : null
      const left = progress ?? { ...begin(run, target, instance), considered: run.commit, directory }
      return settle({ ...left, owesActivation: true }, outcome, followUp)
    }
    await untilStored(() => store.finished(run.id, { ...nothingElse, outcome, at: now() }))
    return async () => {}
  }

  return { end, interrupted, untilStored }
}

/** Whatever the end, it tells of another commit than the announced one. */
function withItsChoice({ reason, detail }: Run, outcome: Outcome): Outcome {
  const details = [detail, outcome.detail].filter((part) => part !== null)
  return { ...outcome, reason: outcome.reason ?? reason, detail: details.length === 0 ? null : details.join('; ') }
}

export const nothingElse = { phases: [], instance: {}, sealed: null, forgotten: [], followUp: null }
