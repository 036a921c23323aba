import type { Config, Target } from '../config/config.ts'
import { targetOfRun } from '../instances.ts'
import type { Instance, Log, Outcome } from '../model.ts'
import type { InstancePatch, Store } from '../stores/store.ts'
import type { Work } from '../work.ts'
import type { Progress } from './ending.ts'
import type { Releases } from './releases.ts'
import type { Scripts } from './scripts.ts'
import type { ScriptSite } from './site.ts'

export interface ActivationParts {
  readonly config: () => Config
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly releases: Releases
  readonly scripts: Scripts
  readonly log: Log
  readonly untilStored: <T>(use: () => Promise<T>) => Promise<T>
}

export interface Activation {
  /** Switches `current`, then activates; if the latter fails, the old release is live again. */
  perform(progress: Progress, site: ScriptSite, directory: string, outcome: Outcome): Promise<Outcome>
  /**
   * Where a stop or a crash came during `activate`, and `current` is back at what is deployed: activates that, so that no service
   * goes on with a release that is gone. Once, however it ends, for it may be the very thing that stops landfall. Never rejects.
   */
  makeGood(instance: Instance): Promise<void>
}

export function createActivation(parts: ActivationParts): Activation {
  const { config, store, workOf, releases, scripts, log, untilStored } = parts
  const underWay = new Map<string, Promise<void>>()

  const remember = (instance: string, change: InstancePatch): Promise<void> =>
    untilStored(() => store.remember(instance, change))

  async function activateDeployed(name: string): Promise<void> {
    const instance = await store.instance(name)
    if (instance === null || instance.activating === null) return
    const [run, release] = await Promise.all([store.run(instance.activating), releases.deployed(instance)])
    // No lane keeps parallel runs from each other, and a start does not wait for this: it may be at work just now.
    if (run !== null && run.finishedAt === null) return
    // Before it, so that it comes once, however it ends.
    await remember(name, { activating: null })
    const target = targetOfRun(config(), { target: name, repo: instance.repo })
    if (target === undefined || target.activate === null || run === null || release === null) return
    const fields = { run: run.id, target: name, release }
    const site = await scripts.site(target, run)
    const live = { ...run, commit: instance.deployed?.commit ?? null }
    const { end, detail } = await scripts.activate(target, live, { ...site, log: site.reportLog }, release)
    await store.unmarked(run.id)
    if (end === 'succeeded') log.info('activated again', fields)
    else log.warn('activation failed', { ...fields, detail, log: site.reportLog.file })
  }

  function begin(name: string): Promise<void> {
    const activation = activateDeployed(name)
      .catch((cause: unknown) => log.error('activation failed', { target: name, cause }))
      .finally(() => underWay.delete(name))
    underWay.set(name, activation)
    return activation
  }

  return {
    async perform(progress, site, directory, outcome) {
      const { target, run, instance } = progress
      const { current, activate } = target
      if (activate !== null) await remember(instance.name, { activating: run.id })
      const before = current === null ? null : await workOf(target).switchLink({ link: current, to: directory })
      if (activate === null) return outcome
      const activation = await scripts.activate(target, run, site, directory)
      if (activation.end === 'succeeded') return outcome
      if (current !== null) await workOf(target).switchLink({ link: current, to: before })
      log.warn('activation failed', { run: run.id, target: run.target, detail: activation.detail })
      // A stop leaves no time for the old release: the next start activates it.
      if (activation.end === 'interrupted') {
        progress.owesActivation = true
        return activation
      }
      const old = before ?? (await releases.deployed(instance))
      const live = { ...run, commit: instance.deployed?.commit ?? null }
      const again = old === null ? null : await scripts.activate(target, live, site, old)
      progress.owesActivation = again?.end === 'interrupted'
      const detail = `activate: ${activation.detail ?? activation.end}; the release before it is live again`
      return { ...activation, end: 'failed', reason: 'activate', detail }
    },

    async makeGood({ name, activating }) {
      // Whoever comes while it is under way waits for it as well.
      await (underWay.get(name) ?? (activating === null ? null : begin(name)))
    },
  }
}
