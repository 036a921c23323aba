import type { Config, Target } from '../config/config.ts'
import { type DataDir, exists } from '../data-dir.ts'
import { short } from '../decide.ts'
import { hasCode, LandfallError, messageOf, systemCode } from '../errors.ts'
import { DELETE, filesOf, repositoryOf, targetOfRun, whyGone } from '../instances.ts'
import type { Clock, Instance, Log, Outcome, PhaseName, Run, Sha } from '../model.ts'
import type { Remotes } from '../remotes.ts'
import type { QueueChange, Store } from '../stores/store.ts'
import type { Remote, Work } from '../work.ts'
import { createActivation } from './activation.ts'
import { createChoice } from './choice.ts'
import { Ended, endedBy } from './ended.ts'
import { begin, createEnding, nothingElse, type Progress, type Report } from './ending.ts'
import { markOf } from './environment.ts'
import { createLivePaths } from './live-paths.ts'
import type { Releases } from './releases.ts'
import { createRetirement } from './retirement.ts'
import { createScripts, type Program } from './scripts.ts'
import { type ScriptSite, savedEdits, tellOfEdits } from './site.ts'

export interface RunnerParts {
  readonly config: () => Config
  readonly store: Store
  readonly workOf: (target: Target) => Work
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

export interface Runner {
  /** Performs one run to its end. The end and all that follows from it is one transaction. */
  perform(run: Run): Promise<void>
  /**
   * Ends a run that an earlier landfall did not live to end; a recovery takes its place. Resolves to what is left to do: its
   * `on_…` scripts, for which a start does not wait.
   */
  interrupted(run: Run): Promise<Report>
  /** `Activation`. */
  makeGood(instance: Instance): Promise<void>
}

/** What a deployment goes on with, once it has decided. */
interface Next {
  readonly remote: Remote
  readonly site: ScriptSite
  readonly script: Program
  readonly commit: Sha
}

/** fetch → run → report. */
export function createRunner(parts: RunnerParts): Runner {
  const { config, store, workOf, remotes, releases, log, now, stopping } = parts
  const livePaths = createLivePaths(parts)
  const scripts = createScripts({ ...parts, livePaths })
  const { end, interrupted, untilStored } = createEnding({ ...parts, scripts })
  const activation = createActivation({ ...parts, scripts, untilStored })
  const choice = createChoice(parts)
  const retire = createRetirement({ ...parts, scripts, livePaths })

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
    const instance = await untilStored(() => instanceOf(run))
    const target = targetOfRun(config(), run)
    if (instance === null || target === undefined) {
      const outcome = endedBy('cancelled', 'target-removed', whyGone(config(), run))
      await untilStored(() => store.finished(run.id, { ...nothingElse, outcome, at: now() }))
      log.warn('finished', { ...fields, end: outcome.end, reason: outcome.reason })
      return
    }
    await activation.makeGood(instance)
    log.info('started', { ...fields, trigger: run.trigger, attempt: run.attempt })
    // What was decided before it was returned to the queue is decided anew.
    const anew = { ...run, repo: repositoryOf(target, run.repo), reason: null, detail: null }
    const progress = begin(anew, target, instance)
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

  /** A run that was queued while its instance was being retired brings it back, without anything that it had. */
  async function instanceOf({ target, event }: Run): Promise<Instance | null> {
    const instance = await store.instance(target)
    return instance === null || instance.retiredAt === null || event === DELETE
      ? instance
      : await store.seen(instance, now())
  }

  /** `returned`: a stop came before the script had started. `lost`: the process that did the work is gone. */
  async function attempt(progress: Progress): Promise<Outcome | 'returned' | 'lost'> {
    try {
      if (progress.run.event === DELETE) return await retire(progress)
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
    const site = await scripts.site(progress.target, progress.run)
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
    progress.remote = remote
    const wrongLink = await releases.wrongLink(target)
    if (wrongLink !== null) throw new Ended('unstartable', null, wrongLink)
    const [site, script] = await Promise.all([scripts.site(target, run), scripts.find(target, run)])
    const commit = await timed(progress, 'fetch', async () => {
      const chosen = await choice.choose(progress, await choice.fetch(progress, remote, site))
      await choice.concerns(progress, chosen, remote, site)
      return chosen
    })
    if (script.kind === 'none') {
      await untilStored(() => store.decided(run.id, { ...progress.run, detail: null }))
      throw new Ended('skipped', 'no-script', script.detail)
    }
    // A script that cannot start needs no checkout.
    if (script.kind === 'unstartable') throw new Ended('unstartable', null, script.detail)
    await untilStored(() => livePaths.take(target, progress.instance))
    const next: Next = { remote, site, script, commit }
    return target.checkout === 'inplace' ? await inPlace(progress, next) : await release(progress, next)
  }

  async function release(progress: Progress, { remote, site, script, commit }: Next): Promise<Outcome> {
    const { target, run } = progress
    const [directory] = await Promise.all([
      releases.directoryFor(target, run, commit),
      untilStored(() => store.decided(run.id, progress.run)),
    ])
    progress.directory = directory
    await timed(progress, 'checkout', () =>
      workOf(target).checkOut(
        {
          remote,
          commit,
          previous: progress.run.previous,
          directory,
          changed: site.changed,
          env: markOf(run.id, site.dataDirectory),
          timeoutMs: target.fetchTimeoutMs,
          submodules: target.submodules,
          lfs: target.lfs,
        },
        stopping,
      ),
    )
    const outcome = await timed(progress, 'script', () => scripts.run(target, progress.run, site, directory, script))
    if (outcome.end !== 'succeeded') return outcome
    if (!(await exists(directory))) return { ...outcome, end: 'failed', detail: 'the script removed its own checkout' }
    const goLive = () => activation.perform(progress, site, directory, outcome)
    return target.activate === null ? await goLive() : await timed(progress, 'activate', goLive)
  }

  /** The files are at the new commit from here on, whatever the script makes of it, unless they are to be restored. */
  async function inPlace(progress: Progress, { remote, site, script, commit }: Next): Promise<Outcome> {
    const { target, run, instance } = progress
    const path = target.path ?? ''
    const tree = {
      remote,
      path,
      branch: progress.branch,
      submodules: target.submodules,
      lfs: target.lfs,
      env: markOf(run.id, site.dataDirectory),
      timeoutMs: target.fetchTimeoutMs,
    }
    // Until the checkout has ended nobody knows what the files are at.
    const unknown = untilStored(() => store.remember(instance.name, { filesAt: null }))
    await Promise.all([unknown, untilStored(() => store.decided(run.id, progress.run))])
    const edits = await site.patchFile()
    const checkedOut = timed(progress, 'checkout', () =>
      workOf(target).checkOutInPlace(
        {
          ...tree,
          commit,
          previous: progress.run.previous,
          instance: instance.name,
          run: run.id,
          adopt: target.adopt,
          clean: target.clean,
          ...edits,
          changed: site.changed,
        },
        stopping,
      ),
    )
    const { was, notes } = await checkedOut.catch(async (cause: unknown) => {
      // Refused: the tree is as it was.
      const filesAt = filesOf(target, instance)
      if (hasCode(cause, 'unstartable')) await untilStored(() => store.remember(instance.name, { filesAt }))
      throw await tellingOfEdits(progress, site, edits.patch, cause)
    })
    await site.note(notes)
    // Of a tree that was there. It may be somebody's work that was saved: who looks at the run should not have to read its log.
    const saved = was === null || notes.length === 0 ? null : notes.join('; ')
    if (saved !== null) log.warn('work saved', { run: run.id, target: run.target, detail: saved })
    await untilStored(() => store.remember(instance.name, { filesAt: commit }))
    const outcome = await timed(progress, 'script', () => scripts.run(target, progress.run, site, path, script))
    const before = instance.deployed?.commit ?? was
    if (outcome.end === 'succeeded') return { ...outcome, detail: saved }
    if (!target.restoreOnFailure || before === null || before === commit) return outcome
    await untilStored(() => store.remember(instance.name, { filesAt: null }))
    const why = outcome.detail ?? outcome.end
    try {
      await workOf(target).restore({ ...tree, commit: before })
    } catch (cause) {
      // The script has failed, whatever comes of its files: any other end might have it run again.
      if (!(cause instanceof LandfallError)) throw cause
      return { ...outcome, detail: `${why}; the files could not be put back to ${short(before)}: ${cause.message}` }
    }
    await untilStored(() => store.remember(instance.name, { filesAt: before }))
    return { ...outcome, detail: `${why}; the files are back at ${short(before)}` }
  }

  /** Edits may be saved, and undone, before what follows fails or is called off: where they are, nobody else would say. */
  async function tellingOfEdits({ run }: Progress, site: ScriptSite, patch: string, cause: unknown): Promise<unknown> {
    // The end of a run whose launcher is gone tells it.
    if (!(cause instanceof LandfallError) || cause.code === 'lost') return cause
    if (!(await savedEdits(parts.dataDir, run.id)).includes(patch)) return cause
    const detail = tellOfEdits([patch])
    await site.note([detail])
    log.warn('work saved', { run: run.id, target: run.target, detail })
    return new LandfallError(cause.code, `${cause.message}; ${detail}`, { cause })
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

  return { perform, interrupted: (run) => interrupted(run, null), makeGood: activation.makeGood }
}
