/** A work tree at exactly one commit, with a repository of its own; the switch of a link to it; its removal. */
import { constants, copyFileSync, linkSync, mkdirSync, readdirSync } from 'node:fs'
import { chmod, lstat, mkdir, readdir, readlink, rename, rm, rmdir, symlink, unlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setImmediate as breathe } from 'node:timers/promises'
import { hasCode, LandfallError, messageOf, systemCode } from '../errors.ts'
import type { Sha } from '../model.ts'
import type { CheckOutOrder, Remote, Work } from '../work.ts'
import { changedPaths, writeChanged } from './changed.ts'
import { createExtras } from './extras.ts'
import { type GitSession, isShortOfResources, type OpenGit, withoutCredentials } from './git.ts'
import type { Mirrors } from './mirror.ts'
import { formatConfig, formatOf } from './mirror-dir.ts'

/** Files linked before other work gets a turn: about 5 ms. */
const LINKS_AT_ONCE = 256

export interface CheckoutParts {
  readonly openGit: OpenGit
  readonly mirrors: Mirrors
}

/** The process should run with umask 022: releases are read by web servers. */
export function createCheckouts({ openGit, mirrors }: CheckoutParts): Pick<Work, 'checkOut' | 'switchLink' | 'remove'> {
  const addExtras = createExtras({ mirrors, makeRepository })
  return {
    async checkOut(order, signal) {
      await makeDirectory(order.directory)
      try {
        const { directory: workTree } = order
        const session = await fill(order, signal)
        await addExtras({ ...order, workTree, gitDir: join(workTree, '.git'), session, signal })
      } catch (error) {
        await removeTree(order.directory).catch(() => undefined) // the first error says more than this one
        throw error
      }
    },

    switchLink: ({ link, to }) => switchLink(link, to),

    async remove(directories) {
      for (const directory of directories) await removeTree(directory)
    },
  }

  async function fill(order: CheckOutOrder, signal: AbortSignal | undefined): Promise<GitSession> {
    const { remote, env, timeoutMs, directory, commit } = order
    const open = () => openGit({ remote, doing: `checking out ${commit.slice(0, 12)} of`, env, timeoutMs, signal })
    // The lock ends with the links: git then works in the release alone, and other runs of the remote go on.
    let session = await mirrors.exclusively(remote, signal, async () => {
      const opened = open()
      await makeRepository({ remote, commit, repository: join(directory, '.git') }, opened)
      return opened
    })
    try {
      await populate(order, session)
      return session
    } catch (error) {
      if (!hasCode(error, 'git') || isShortOfResources(messageOf(error))) throw error
      session = await mirrors.exclusively(remote, signal, async () => {
        const opened = open()
        if (!soundsCorrupt(error) && !(await mirrors.isBroken(remote, opened))) throw error
        await mirrors.remake(remote, opened)
        await removeTree(directory)
        await makeDirectory(directory)
        await makeRepository({ remote, commit, repository: join(directory, '.git') }, opened)
        return opened
      })
    }
    await populate(order, session)
    return session
  }
}

/** The directory itself must be new: what is there already is another run's, and never removed. */
async function makeDirectory(directory: string): Promise<void> {
  await mkdir(dirname(directory), { recursive: true, mode: 0o755 })
  try {
    await mkdir(directory, { mode: 0o755 })
  } catch (error) {
    throw new LandfallError('git', `${directory} cannot be made: ${messageOf(error)}`, { cause: error })
  }
  await chmod(directory, 0o755)
}

// --- The repository -------------------------------------------------------------------------------------------------

/**
 * A `.git` by hand at `repository`, which is what `git clone` would make, in a tenth of its time: a detached HEAD, `origin`,
 * and the mirror's objects as hard links, so that it outlives the mirror. 0700, lest a web server serves the history.
 */
export async function makeRepository(
  { remote, commit, repository }: Pick<CheckOutOrder, 'remote' | 'commit'> & { readonly repository: string },
  session: GitSession,
): Promise<void> {
  mkdirSync(repository, { mode: 0o700 })
  mkdirSync(join(repository, 'refs', 'heads'), { recursive: true })
  mkdirSync(join(repository, 'refs', 'tags'))
  await linkObjects(join(remote.mirror, 'objects'), join(repository, 'objects'), session)
  await writeFile(join(repository, 'config'), cloneConfig(remote, commit))
  await writeFile(join(repository, 'HEAD'), `${commit}\n`)
}

/** The configuration that `git clone` would write; `commit` tells the object format. */
export function cloneConfig(remote: Remote, commit: Sha): string {
  return [
    `${formatConfig(formatOf(commit))}\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true`,
    `[remote "origin"]\n\turl = ${configValue(withoutCredentials(remote.url))}`,
    '\tfetch = +refs/heads/*:refs/remotes/origin/*\n',
  ].join('\n')
}

export function configValue(text: string): string {
  const escaped = text.replace(/["\\]/g, '\\$&').replaceAll('\n', '\\n').replaceAll('\t', '\\t')
  return `"${escaped}"`
}

/** Synchronous calls, in short turns: a link takes 10 µs, its way through the thread pool ten times that. */
async function linkObjects(from: string, to: string, session: GitSession): Promise<void> {
  let linked = 0
  mkdirSync(join(to, 'pack'), { recursive: true })
  mkdirSync(join(to, 'info'))
  for (const fan of namesIn(from).filter((name) => /^[0-9a-f]{2}$/.test(name))) {
    const objects = namesIn(join(from, fan)).filter((name) => /^(?:[0-9a-f]{38}|[0-9a-f]{62})$/.test(name))
    if (objects.length === 0) continue
    mkdirSync(join(to, fan))
    for (const name of objects) await link(`${fan}/${name}`)
  }
  // A pack is used as soon as its .idx is there, so that comes last.
  const packed = namesIn(join(from, 'pack')).filter((name) => /^pack-[0-9a-f]+\.(?:pack|idx|rev|bitmap)$/.test(name))
  const isIndex = (name: string) => name.endsWith('.idx')
  for (const name of packed.filter((file) => !isIndex(file))) await link(`pack/${name}`)
  for (const name of packed.filter(isIndex)) await link(`pack/${name}`)

  async function link(name: string): Promise<void> {
    linkOrCopy(join(from, name), join(to, name))
    linked += 1
    if (linked % LINKS_AT_ONCE !== 0) return
    await breathe()
    session.goOn()
  }
}

/** No such directory is no names: a mirror that is gone shows when git misses the commit. */
function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw error
  }
}

/** Copies where a link cannot be: another file system, one without links, or a file with too many of them. */
function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to)
  } catch (error) {
    if (!['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'ENOSYS'].includes(systemCode(error) ?? '')) throw error
    copyFileSync(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
  }
}

// --- The files ------------------------------------------------------------------------------------------------------

/** Writes the work tree, and beside that the lists of what changed: git's two longest steps, at the same time. */
async function populate(order: CheckOutOrder, session: GitSession): Promise<void> {
  const { directory, commit, changed } = order
  const at = { gitDir: join(directory, '.git'), workTree: directory }
  const [reset, paths] = await Promise.allSettled([
    session.run(['reset', '--hard', commit, '--'], at),
    changedPaths(order, at.gitDir, session),
  ])
  if (reset.status === 'rejected') throw reset.reason
  if (reset.value.code !== 0) throw session.failure(reset.value)
  if (paths.status === 'rejected') throw paths.reason
  await writeChanged(changed, paths.value)
}

/** git's words for objects that are there and cannot be read; connectivity alone would not show a damaged file. */
export function soundsCorrupt(error: LandfallError): boolean {
  return /corrupt|inflate|unable to (?:read|unpack)|too short|does not match|mismatch|is empty/.test(error.message)
}

// --- Links and removal ----------------------------------------------------------------------------------------------

async function switchLink(link: string, to: string | null): Promise<string | null> {
  const before = await linkTarget(link)
  try {
    if (to === null) {
      if (before !== null) await unlink(link)
      return before
    }
    // One fixed name: what a crash leaves here, the next switch clears away.
    const fresh = join(dirname(link), `.${basename(link)}.landfall-new`)
    await rm(fresh, { force: true })
    await symlink(to, fresh)
    await rename(fresh, link)
    return before
  } catch (error) {
    throw new LandfallError('unstartable', `${link} could not be switched: ${messageOf(error)}`, { cause: error })
  }
}

async function linkTarget(link: string): Promise<string | null> {
  try {
    return await readlink(link)
  } catch (error) {
    const code = systemCode(error)
    if (code === 'ENOENT') return null
    const why = code === 'EINVAL' ? 'it is there and is no symbolic link. Move it away first' : messageOf(error)
    throw new LandfallError('unstartable', `${link} cannot be made to point to the live release: ${why}`, {
      cause: error,
    })
  }
}

/**
 * Follows no symlink. Directories that were made read-only (as Go's module cache is) are opened up first. One that lies in a
 * directory of another account is left empty.
 */
export async function removeTree(directory: string): Promise<void> {
  const options = { recursive: true, force: true, maxRetries: 2 }
  try {
    await rm(directory, options)
  } catch (error) {
    if (!isForbidden(error) || !(await lstat(directory)).isDirectory()) throw error
    await openUp(directory)
    for (const name of await readdir(directory)) await rm(join(directory, name), options)
    await rmdir(directory).catch((cause: unknown) => {
      if (!isForbidden(cause)) throw cause
    })
  }
}

function isForbidden(error: unknown): boolean {
  return ['EACCES', 'EPERM'].includes(systemCode(error) ?? '')
}

/** The removal that was forbidden something may go on beside this, for node has begun all of it at once. */
async function openUp(directory: string): Promise<void> {
  try {
    if (!(await lstat(directory)).isDirectory()) return
    await chmod(directory, 0o700)
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) await openUp(join(directory, entry.name))
    }
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
  }
}
