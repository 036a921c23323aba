/** Untracked files that stand where a commit has files: a checkout would overwrite them. Paths are bytes, kept as latin1 text. */
import type { Dirent, Stats } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { systemCode } from '../errors.ts'
import { refusal } from './place.ts'

export interface Standing {
  /** The working tree. */
  readonly path: string
  /** Where the commit may have files that the index has not; names that it has not are fine. */
  readonly names: Iterable<string>
  readonly tracked: ReadonlySet<string>
  readonly submodules: ReadonlySet<string>
  /** The commit's files without its submodules; asked for only where a directory stands at one of `names`. */
  readonly committed: () => Promise<ReadonlySet<string>>
}

/** Throws `unstartable` where a repository of its own stands in the way: it cannot be saved in a patch. */
export async function findInTheWay({ path, names, tracked, submodules, committed }: Standing): Promise<string[]> {
  const found = new Set<string>()
  /** Whether a path of the tree is a directory on disk, with nothing else on the way there. */
  const passable = new Map<string, boolean>()

  for (const name of names) {
    if (tracked.has(name) && !submodules.has(name)) continue
    if (!(await isPassable(parentOf(name)))) continue
    const stats = await statsOf(name)
    if (stats?.isDirectory()) {
      if ((await committed()).has(name)) await collect(name)
    } else if (stats !== null) add(name, stats)
  }
  return [...found]

  async function isPassable(directory: string): Promise<boolean> {
    if (directory === '') return true
    const known = passable.get(directory)
    if (known !== undefined) return known
    const stats = (await isPassable(parentOf(directory))) ? await statsOf(directory) : null
    if (stats?.isDirectory()) await assertNoRepository(directory)
    else if (stats !== null) add(directory, stats)
    passable.set(directory, stats?.isDirectory() === true)
    return stats?.isDirectory() === true
  }

  async function collect(directory: string): Promise<void> {
    await assertNoRepository(directory)
    for (const entry of await readdir(onDisk(directory), { withFileTypes: true, encoding: 'buffer' })) {
      const name = `${directory}/${entry.name.toString('latin1')}`
      if (entry.isDirectory()) await collect(name)
      else add(name, entry)
    }
  }

  /** Sockets and pipes hold nothing. */
  function add(name: string, kind: Pick<Stats | Dirent, 'isFile' | 'isSymbolicLink'>): void {
    if (!tracked.has(name) && (kind.isFile() || kind.isSymbolicLink())) found.add(name)
  }

  async function assertNoRepository(directory: string): Promise<void> {
    if ((await statsOf(`${directory}/.git`)) === null) return
    const shown = Buffer.from(directory, 'latin1').toString()
    throw refusal(
      `${path}/${shown} is a repository of its own, and the commit has files in its place. Move it away, or remove it`,
    )
  }

  async function statsOf(name: string): Promise<Stats | null> {
    try {
      return await lstat(onDisk(name))
    } catch (error) {
      if (['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'].includes(systemCode(error) ?? '')) return null
      throw error
    }
  }

  function onDisk(name: string): Buffer {
    return Buffer.concat([Buffer.from(`${path}/`), Buffer.from(name, 'latin1')])
  }
}

function parentOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf('/')))
}
