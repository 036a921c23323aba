/** One link, or one working tree, is one instance's: `{branch}` may lead two to the same, and whoever may push names branches. */
import { placesSaid } from '../config/at-branch.ts'
import type { Config, Target } from '../config/config.ts'
import { createLocks } from '../git/locks.ts'
import { livePathOf, targetOfRun } from '../instances.ts'
import type { Instance } from '../model.ts'
import type { Store } from '../stores/store.ts'
import { Ended } from './ended.ts'

export interface LivePaths {
  /** Why the link or tree of an instance, whose target this is, is another's, as a sentence; null where it is not. */
  whyTaken(target: Target, instance: string): Promise<string | null>
  /** Makes it the instance's own, before anything there is changed. Throws `Ended`, `unstartable`, where another has it. */
  take(target: Target, instance: Instance): Promise<void>
}

export function createLivePaths({
  config,
  store,
}: {
  readonly config: () => Config
  readonly store: Store
}): LivePaths {
  const inTurn = createLocks()

  async function whyTaken(target: Target, instance: string): Promise<string | null> {
    const path = livePathOf(target)
    if (path === null || target.follows.kind !== 'branches') return null
    const word = target.current === null ? 'path' : 'current'
    const { targets } = config()
    const saysSo = (one: Target) => placesSaid(livePathOf(one) ?? '', one.follows).some((said) => said.place === path)
    const outright = targets.find((one) => one.name !== target.name && saysSo(one))
    if (outright !== undefined)
      return `${word} would be ${path}, which is the target ${outright.name}'s: its branch is named like it`
    const own = targets.find(({ name }) => name === target.name)
    if (own !== undefined && saysSo(own)) return null
    // Who has it is whoever came first; where another configuration has led that one elsewhere, nobody.
    const others = (await store.livingAt(path)).filter(({ name }) => name !== instance)
    const holder = others.find(({ name, repo }) => {
      const theirs = targetOfRun(config(), { target: name, repo })
      return theirs !== undefined && livePathOf(theirs) === path
    })
    if (holder === undefined) return null
    const both = `${instance} and ${holder.name} both come to it by the names of their branches, and ${holder.name} was first`
    return `${word} would be ${path}: ${both}; give one of the two targets another place for its {branch}`
  }

  return {
    whyTaken,

    async take(target, instance) {
      const path = livePathOf(target)
      if (path === null) return
      // In turn, so that of two runs in two lanes one is first.
      await inTurn(path, undefined, async () => {
        const why = await whyTaken(target, instance.name)
        if (why !== null) throw new Ended('unstartable', null, why)
        if (instance.livesAt !== path) await store.movedTo(instance.name, path)
      })
    },
  }
}
