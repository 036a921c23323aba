import { readdir, readlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { dropDirectory, giveDirectory } from '../belongings.ts'
import type { Target } from '../config/config.ts'
import { type DataDir, directoryName, exists } from '../data-dir.ts'
import { messageOf, systemCode } from '../errors.ts'
import type { Instance, Release, Run, Sha } from '../model.ts'
import type { Store } from '../stores/store.ts'
import type { Work } from '../work.ts'

/**
 * Releases on disk: `data_dir/releases/<instance>/<commit>`. A script may write its directory's path into what it builds,
 * so a directory never moves while it is of use. A second run at a commit therefore works in `<commit>.<run>`, and once
 * that is sealed, `<commit>` becomes a link to it.
 */
export interface Releases {
  /**
   * Where a run at this commit works; nothing is there yet. Throws `unstartable` where the instance's releases are another
   * account's.
   */
  directoryFor(target: Target, run: Run, commit: Sha): Promise<string>
  /** The directory of what is deployed; null where there is none. */
  deployed(instance: Instance): Promise<string | null>
  /** Why `current` cannot be switched, as a sentence; null where it can, or there is none. */
  wrongLink(target: Target): Promise<string | null>
  /** Removes the directory of a run that was not sealed; should `current` point to it, what is deployed goes live again. */
  abandon(target: Target, instance: Instance, directory: string): Promise<void>
  /** After the store has sealed it: makes `<commit>` name the new directory, and removes what was forgotten with it. */
  settle(target: Target, sealed: Release, forgotten: readonly Release[]): Promise<void>
  /** Removes what the instance has on disk, and `current` if it points there. */
  retire(target: Target, instance: string, forgotten: readonly Release[]): Promise<void>
  /** Sealed releases that are not kept any longer once `sealed` is the live one. */
  outdated(target: Target, instance: Instance, sealed: Release): Promise<readonly Release[]>
  /** Removes what no sealed release owns: what was left of runs that ended otherwise, or with a crash. */
  sweep(targets: (instance: Instance) => Target | undefined): Promise<void>
}

export function createReleases({
  dataDir,
  store,
  workOf,
}: {
  readonly dataDir: DataDir
  readonly store: Store
  readonly workOf: (target: Target) => Work
}): Releases {
  const folderOf = (instance: string): string => dataDir.room('releases', directoryName(instance))

  return {
    async directoryFor({ queue, account }, run, commit) {
      await giveDirectory(account, folderOf(run.target), 0o755)
      const plain = join(folderOf(run.target), commit)
      // Another run may be about to make it, where no lane keeps it from that.
      return queue === 'parallel' || (await exists(plain)) ? `${plain}.${run.id}` : plain
    },

    deployed,

    async wrongLink(target) {
      return target.current === null ? null : await workOf(target).wrongLink(target.current)
    },

    async abandon(target, instance, directory) {
      await leave([directory], instance, target)
      await workOf(target).remove([directory])
    },

    async retire(target, instance, forgotten) {
      const work = workOf(target)
      const folder = folderOf(instance)
      const live = target.current && (await linkTarget(target.current))
      if (target.current && live && dirname(live) === folder) await work.switchLink({ link: target.current, to: null })
      // Runs at the same time may still be at work in theirs.
      const strays = target.queue === 'parallel' ? [] : (await namesIn(folder)).map((name) => join(folder, name))
      const links = await Promise.all(forgotten.map(linkOf))
      const directories = forgotten.map(({ directory }) => directory)
      await work.remove([...directories, ...links.filter((link) => link !== null), ...strays])
      await dropDirectory(folder)
    },

    async settle(target, sealed, forgotten) {
      const work = workOf(target)
      const { current } = target
      const plain = plainOf(sealed)
      const doomed = forgotten.map((release) => release.directory).filter((directory) => directory !== plain)
      if (plain !== sealed.directory) {
        if (await isDirectory(plain)) {
          await work.rename({ from: plain, to: `${plain}.before-${sealed.run}` })
          doomed.push(`${plain}.before-${sealed.run}`)
        }
        await work.switchLink({ link: plain, to: sealed.directory })
        // For those who read where `current` points to: the commit's own name says more than a run's number.
        if (current !== null) await work.switchLink({ link: current, to: plain })
      }
      for (const release of forgotten) {
        const link = await linkOf(release)
        if (link !== null && link !== plain) doomed.push(link)
      }
      if (doomed.length > 0) await work.remove(doomed)
    },

    async outdated(target, instance, sealed) {
      const others = (await store.releases(instance.name)).filter((release) => release.run !== sealed.run)
      const sameCommit = others.filter((release) => release.commit === sealed.commit)
      const before = instance.deployed?.commit === sealed.commit ? instance.deployedBefore : instance.deployed?.commit
      const rest = others.filter((release) => release.commit !== sealed.commit && release.commit !== before)
      const room = Math.max(0, target.keepReleases - 1 - (before === undefined || before === null ? 0 : 1))
      return [...sameCommit, ...rest.slice(room)]
    },

    async sweep(targetOf) {
      const kept = await store.allReleases()
      const directories = new Set(kept.map((release) => release.directory))
      const links = new Map(kept.map((release) => [plainOf(release), release.directory]))
      const failures: unknown[] = []
      // Whose files these are, only the configuration can tell.
      const known = (await store.instances()).flatMap((instance) => {
        const target = targetOf(instance)
        return target === undefined ? [] : [{ instance, target }]
      })
      // One account's launcher may take its time: nobody else's releases wait for it.
      const byAccount = Map.groupBy(known, ({ target }) => target.account?.name)
      await Promise.all([...byAccount.values()].map(sweepAll))
      if (failures.length > 0) throw new AggregateError(failures, failures.map(messageOf).join('; '))

      async function sweepAll(ofAccount: typeof known): Promise<void> {
        for (const one of ofAccount) await noting(failures, () => sweepOne(one))
      }

      async function sweepOne({ instance, target }: (typeof known)[number]): Promise<void> {
        const folder = folderOf(instance.name)
        const strays: string[] = []
        for (const path of (await namesIn(folder)).map((name) => join(folder, name))) {
          const to = await linkTarget(path)
          if (to === null ? !directories.has(path) : links.get(path) !== to) strays.push(path)
        }
        if (strays.length > 0) {
          await leave(strays, instance, target)
          await workOf(target).remove(strays)
        }
        for (const release of kept.filter((one) => one.instance === instance.name)) {
          const { directory } = release
          const plain = plainOf(release)
          if ((await exists(plain)) || !(await exists(directory))) continue
          await workOf(target).switchLink({ link: plain, to: directory })
        }
      }
    },
  }

  /** One account's trouble must not keep the others' releases from being put in order. */
  async function noting(failures: unknown[], act: () => Promise<void>): Promise<void> {
    await act().catch((cause: unknown) => failures.push(cause))
  }

  function plainOf({ instance, commit }: Release): string {
    return join(folderOf(instance), commit)
  }

  /** The link by its commit's own name that leads to the release; null where that is its directory, or another's. */
  async function linkOf(release: Release): Promise<string | null> {
    const link = plainOf(release)
    return (await linkTarget(link)) === release.directory ? link : null
  }

  async function deployed(instance: Instance): Promise<string | null> {
    const releases = await store.releases(instance.name)
    return releases.find(({ run }) => run === instance.deployed?.run)?.directory ?? null
  }

  /** We died between switching `current` and sealing: what is deployed goes live again before the stray is removed. */
  async function leave(strays: readonly string[], instance: Instance, target: Target): Promise<void> {
    const { current } = target
    if (current === null) return
    const live = await linkTarget(current)
    if (live === null || !strays.includes(live)) return
    await workOf(target).switchLink({ link: current, to: await deployed(instance) })
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return (await exists(path)) && (await linkTarget(path)) === null
}

/** What a symlink says; null for anything else. */
async function linkTarget(path: string): Promise<string | null> {
  return readlink(path).catch(() => null)
}

async function namesIn(folder: string): Promise<readonly string[]> {
  return readdir(folder).catch((cause: unknown) => {
    if (systemCode(cause) === 'ENOENT') return []
    throw cause
  })
}
