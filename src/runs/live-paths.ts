/** One link, or one working tree, is one instance's: `{branch}` may lead two to the same, and whoever may push names branches. */
import { realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { placesSaid } from '../config/at-branch.ts'
import type { Config, Target } from '../config/config.ts'
import { clashWith } from '../config/targets.ts'
import type { DataDir } from '../data-dir.ts'
import { createLocks } from '../git/locks.ts'
import { livePathOf, targetOfRun } from '../instances.ts'
import type { Instance } from '../model.ts'
import type { Store } from '../stores/store.ts'
import { Ended } from './ended.ts'

export interface LivePaths {
  /** Why the link or tree of an instance, whose target this is, is another's or landfall's own, as a sentence; null where it is not. */
  whyTaken(target: Target, instance: string): Promise<string | null>
  /** Makes it the instance's own, before anything there is changed. Throws `Ended`, `unstartable`, where another has it. */
  take(target: Target, instance: Instance): Promise<void>
}

export function createLivePaths({
  config,
  store,
  dataDir,
}: {
  readonly config: () => Config
  readonly store: Store
  readonly dataDir: Pick<DataDir, 'path'>
}): LivePaths {
  const inTurn = createLocks()

  async function whyTaken(target: Target, instance: string): Promise<string | null> {
    const path = livePathOf(target)
    const astray = target.path === null ? null : await whyAstray(target.path, dataDir.path)
    if (astray !== null) return astray
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

/** The file cannot show where links lead: what is a tree's `path` now may be the `current` of old, and so a sealed release. */
async function whyAstray(path: string, dataDir: string): Promise<string | null> {
  const [real, ours] = await Promise.all([realOf(path), realOf(dataDir)])
  const clash = real === path ? null : clashWith(ours, real)
  if (clash === null) return null
  return `${path} leads to ${real}, which ${clash}; remove the link, and a tree is made in its place, or name another path`
}

/** Itself where it cannot be followed: whoever works there will say why. */
async function realOf(path: string): Promise<string> {
  return await realpath(path).catch(async () => {
    const folder = await realpath(dirname(path)).catch(() => dirname(path))
    return join(folder, basename(path))
  })
}
