import type { Config, Hook, Target } from './config/config.ts'
import { LandfallError } from './errors.ts'
import { branchOf, instanceKey, isNameOf, type Knowledge, routeDelivery, sameName } from './instances.ts'
import type { Clock, Instance, Receipt, Received } from './model.ts'
import type { Silences } from './polling/silences.ts'
import type { QueueChange, Store } from './stores/store.ts'

export interface Intake {
  /** record → queue: resolves once what the receiver has verified is on disk, with the runs that it causes. */
  take(received: Received, config: Config): Promise<Receipt>
  /** Whether the store can be written; asked at most once a second. */
  healthy(): Promise<boolean>
}

export interface IntakeParts {
  readonly store: Store
  readonly onQueueChange: (change: QueueChange) => void
  readonly silences: Silences
  /** An instance of a glob was seen for the first time, perhaps. */
  readonly onInstance: (instance: Instance) => void
  /** Resolves once the store knows which targets there are. */
  readonly recording: Promise<void>
  readonly stopping: AbortSignal
  readonly now: Clock
}

/** Anybody may ask for health, and each probe is an fsync. */
const PROBE_EVERY_MS = 1000

export function createIntake(parts: IntakeParts): Intake {
  const { store, onQueueChange, silences, onInstance, recording, stopping, now } = parts
  let probed: { readonly at: number; readonly works: Promise<boolean> } | null = null

  /** Only what a route can depend on is asked for: default branches, branches that are gone, and new names. */
  async function knowledgeFor(
    targets: readonly Target[],
    hook: Hook,
    { repo, repoId, changes }: Received,
  ): Promise<Knowledge> {
    const found = new Map<string, Instance>()
    const deleted = changes.flatMap(({ ref, after }) => (after === null ? [branchOf(ref)] : []))
    for (const target of targets) {
      if (repo === null || target.hook !== hook.name || !isNameOf(target, repo)) continue
      const branches = { default: [null], branches: deleted, branch: [], tags: [] }[target.follows.kind]
      for (const branch of branches) {
        const { name } = instanceKey(target, repo, branch)
        const instance = await store.instance(name)
        if (instance !== null && instance.retiredAt === null) found.set(name, instance)
      }
    }
    const knownAs = repoId === null ? null : await store.knownAs(hook.name, repoId)
    const isNew = knownAs !== null && repo !== null && !sameName(knownAs, repo)
    const owner = isNew ? await store.numberOf(hook.name, repo) : null
    return { instance: (name) => found.get(name) ?? null, knownAs, isTaken: owner !== null && owner !== repoId }
  }

  /** Repositories and branches that a pattern allows are polled once seen. */
  async function watchNew({ queued }: QueueChange): Promise<void> {
    for (const run of queued) {
      if (!/[:@]/.test(run.target)) continue
      const instance = await store.instance(run.target)
      if (instance !== null) onInstance(instance)
    }
  }

  return {
    async take(received, config) {
      await recording
      if (stopping.aborted) throw new LandfallError('stopping', 'landfall is stopping')
      const hook = config.hooks.find(({ name }) => name === received.hook)
      if (hook === undefined) throw new LandfallError('not-found', `there is no hook ${received.hook}`)
      const routing = routeDelivery(config, hook, received, await knowledgeFor(config.targets, hook, received))
      const { receipt, ...change } = await store.record(received, routing)
      onQueueChange(change)
      if (received.kind !== 'invalid' && receipt.verdict !== 'duplicate') silences.heard(received)
      await watchNew(change)
      return receipt
    },

    healthy() {
      if (probed !== null && now() - probed.at < PROBE_EVERY_MS) return probed.works
      const works = store.probe(now()).then(
        () => true,
        () => false,
      )
      probed = { at: now(), works }
      return works
    },
  }
}
