/** What belongs to a work tree beyond the commit's own files: submodules, and the files that LFS keeps. */
import { createHash } from 'node:crypto'
import { copyFile, lstat, mkdir, readdir, readFile, rename, rm, rmdir, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import { hasCode, LandfallError, messageOf, systemCode } from '../errors.ts'
import type { Sha } from '../model.ts'
import type { Extras, Remote } from '../work.ts'
import { type GitSession, isShortOfResources } from './git.ts'
import { pullLfs } from './lfs.ts'
import type { Mirrors } from './mirror.ts'
import { addPins, formatOf, makeMirror, mirrorFormat, readPins } from './mirror-dir.ts'
import { findSubmodules, isSafePath, type Submodule } from './submodules.ts'

/** Submodules of submodules of …; and all of them together. A commit of a few kilobytes can name any number. */
const MAX_DEPTH = 5
const MAX_SUBMODULES = 100
/** In a repository of ours, the paths of the submodules that we have filled in, as JSON. */
const RECORD = 'landfall-submodules'
/** Where a submodule's repository is made before it becomes its `.git`. */
const UNFINISHED = '.git.landfall-new'
const PINNED_AS = 'submodule'
/** The object that every repository has. */
const EMPTY_TREE = {
  sha1: '4b825dc642cb6eb9a060e54bf8d69288fbee4904',
  sha256: '6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321',
} as const

/** Makes a repository at a directory that is not there, with the objects of the remote's mirror. Wants the mirror's lock. */
export type MakeRepository = (
  order: { readonly remote: Remote; readonly commit: Sha; readonly repository: string },
  session: GitSession,
) => Promise<void>

export interface ExtrasParts {
  readonly mirrors: Pick<Mirrors, 'exclusively'>
  readonly makeRepository: MakeRepository
}

export interface ExtrasOrder extends Extras {
  /** Nobody else uses the tree, and its files are at `commit`. */
  readonly workTree: string
  readonly gitDir: string
  readonly commit: Sha
  readonly remote: Remote
  readonly session: GitSession
  readonly signal: AbortSignal | undefined
}

/**
 * Afterwards every submodule is at the commit that the tree names, or an empty directory where submodules are not wanted, and
 * LFS files are there where they are. Submodules that an earlier call filled in, and this commit does not have, are gone save
 * their untracked files. Throws `unstartable` for a submodule that may not be had, before anything of its level is fetched.
 */
export type AddExtras = (order: ExtrasOrder) => Promise<void>

interface Tree {
  readonly workTree: string
  readonly gitDir: string
  readonly commit: Sha
  readonly remote: Remote
}

export function createExtras({ mirrors, makeRepository }: ExtrasParts): AddExtras {
  return async function addExtras({ submodules, lfs, session, signal, ...top }) {
    let count = 0
    await complete(top, 0)

    async function complete(tree: Tree, depth: number): Promise<void> {
      const { commit, gitDir, workTree, remote } = tree
      const wanted =
        submodules === null
          ? []
          : await findSubmodules({ session, gitDir, commit, url: remote.url, hosts: submodules.hosts })
      count += wanted.length
      assertBounded(wanted, depth, count)
      await retire(tree, new Set(wanted.map(({ path }) => path)), session)
      if (lfs) await pullLfs({ session, remote, gitDir, workTree })
      await writeRecord(gitDir, wanted)
      for (const submodule of wanted) {
        const inner = await treeOf(submodule, tree, top.remote)
        try {
          await place(inner)
          await complete(inner, depth + 1)
        } catch (error) {
          if (error instanceof LandfallError) throw at(submodule, error)
          throw error
        }
      }
    }

    /** Brings the submodule's own tree to its commit. A mirror that turns out to be damaged is made anew, once. */
    async function place(tree: Tree): Promise<void> {
      if ((await headOf(tree.gitDir)) !== tree.commit) await renew(tree, false)
      try {
        await reset(tree, session)
      } catch (error) {
        if (!hasCode(error, 'git') || isShortOfResources(messageOf(error))) throw error
        await renew(tree, true)
        await reset(tree, session)
      }
    }

    /** A repository made anew rather than one that is fetched into, so that it is never half of anything. */
    async function renew({ remote, commit, gitDir }: Tree, anew: boolean): Promise<void> {
      const unfinished = join(dirname(gitDir), UNFINISHED)
      const index = await indexOf(gitDir, top.gitDir)
      await rm(unfinished, { recursive: true, force: true })
      await mirrors.exclusively(remote, signal, async () => {
        if (anew || (await mirrorFormat(remote.mirror)) !== formatOf(commit)) {
          await makeMirror(remote.mirror, formatOf(commit))
        }
        await fetchCommit(remote, commit, session)
        await makeRepository({ remote, commit, repository: unfinished }, session)
      })
      // With what was tracked until now, git knows which files have gone.
      if (index !== null && !anew) await copyIndex(index, join(unfinished, 'index')).catch(ignoreMissing)
      await rm(gitDir, { recursive: true, force: true })
      await rename(unfinished, gitDir)
    }
  }
}

function assertBounded(wanted: readonly Submodule[], depth: number, count: number): void {
  const [first] = wanted
  if (first === undefined || (depth < MAX_DEPTH && count <= MAX_SUBMODULES)) return
  const limit = depth < MAX_DEPTH ? `more than ${MAX_SUBMODULES} submodules` : `submodules nested ${depth + 1} deep`
  const what = `${limit}, which is not fetched (the limits are ${MAX_SUBMODULES} in all and a depth of ${MAX_DEPTH})`
  throw new LandfallError('unstartable', `at the submodule ${JSON.stringify(first.path)} the repository has ${what}`)
}

function at({ path, url }: Submodule, error: LandfallError): LandfallError {
  return new LandfallError(error.code, `the submodule ${JSON.stringify(path)} (${url}): ${error.message}`, {
    cause: error,
  })
}

// --- The place of a submodule ---------------------------------------------------------------------------------------

/** Throws `unstartable` where anything but directories is on the way, or files that are in no repository are in the place. */
async function treeOf(submodule: Submodule, { workTree }: Tree, top: Remote): Promise<Tree> {
  const { path, url, commit } = submodule
  const directory = await directoryAt(workTree, path)
  if (directory === null) throw inTheWay(join(workTree, path), 'there is no directory')
  const names = await readdir(directory)
  if (names.length > 0 && !names.includes('.git') && !names.includes(UNFINISHED)) {
    throw inTheWay(directory, 'it holds files of no repository')
  }
  // Of its own for each repository that has it: what one may read, another one may not.
  const name = createHash('sha256').update(url).digest('hex').slice(0, 32)
  const remote = { ...top, url, mirror: join(`${top.mirror}.submodules`, `${name}.git`) }
  return { workTree: directory, gitDir: join(directory, '.git'), commit, remote }
}

function inTheWay(directory: string, why: string): LandfallError {
  return new LandfallError(
    'unstartable',
    `${directory} is the place of a submodule, but ${why}. Move away what is there`,
  )
}

/** Without following symlinks, which another commit may have left. Makes what is missing; null where it cannot be. */
async function directoryAt(workTree: string, path: string): Promise<string | null> {
  let directory = workTree
  for (const part of path.split('/')) {
    directory = join(directory, part)
    await mkdir(directory, { mode: 0o755 }).catch(ignoreExisting)
    if (!(await lstat(directory)).isDirectory()) return null
  }
  return directory
}

/** The commit of a repository that `renew` made; null for any other, and where there is none. */
async function headOf(gitDir: string): Promise<string | null> {
  if (!(await isDirectory(gitDir))) return null
  return (await readFile(join(gitDir, 'HEAD'), 'latin1').catch(ignoreMissing))?.trimEnd() ?? null
}

/** Of a submodule that git itself has cloned, the repository lies below `.git/modules`; it stays there, and is not used. */
async function indexOf(gitDir: string, topGitDir: string): Promise<string | null> {
  if (await isDirectory(gitDir)) return join(gitDir, 'index')
  const text = await readFile(gitDir, 'utf8').catch(ignoreMissing)
  const named = /^gitdir: (.+)$/m.exec(text ?? '')?.[1]
  if (named === undefined) return null
  const directory = resolve(dirname(gitDir), named)
  return directory.startsWith(join(topGitDir, 'modules') + sep) ? join(directory, 'index') : null
}

/** With its time: of a file that was written in the same second, git looks at the content. */
async function copyIndex(from: string, to: string): Promise<void> {
  const { atime, mtime } = await stat(from)
  await copyFile(from, to)
  await utimes(to, atime, mtime)
}

async function reset({ gitDir, workTree }: Tree, session: GitSession): Promise<void> {
  const done = await session.run(['reset', '--hard'], { gitDir, workTree })
  if (done.code !== 0) throw session.failure(done)
}

/** Into the mirror: the commit alone where the server gives it, else everything that its refs name. */
async function fetchCommit({ url, mirror }: Remote, commit: Sha, session: GitSession): Promise<void> {
  if ((await readPins(mirror, PINNED_AS)).has(commit)) return
  const fetch = ['fetch', '--no-tags', '--no-recurse-submodules', '--no-write-fetch-head']
  const at = { gitDir: mirror }
  const fetched = await session.run([...fetch, '--', url, `+${commit}:refs/landfall/fetched/${commit}`], at)
  if (fetched.code !== 0) {
    if (!/not our ref|unadvertised object|find remote ref|no such ref/i.test(fetched.stderr))
      throw session.failure(fetched)
    const refspecs = ['heads', 'tags'].map((room) => `+refs/${room}/*:refs/landfall/${room}/*`)
    const all = await session.run([...fetch, '--prune', '--', url, ...refspecs], at)
    if (all.code !== 0) throw session.failure(all)
    const present = await session.run(['cat-file', '-t', commit], at)
    if (present.code !== 0) throw new LandfallError('remote', `it has no commit ${commit}. Has that been pushed there?`)
  }
  await addPins(mirror, PINNED_AS, new Map([[commit, commit]]))
}

// --- What is there no more ------------------------------------------------------------------------------------------

/** Takes away the tracked files of submodules that are recorded and not in `kept`, then lets the tree be itself again. */
async function retire(tree: Tree, kept: ReadonlySet<string>, session: GitSession): Promise<void> {
  const gone = (await readRecord(tree.gitDir)).filter((path) => !kept.has(path))
  for (const path of gone) {
    const workTree = await existing(tree.workTree, path)
    if (workTree === null) continue
    const inner = { ...tree, workTree, gitDir: join(workTree, '.git') }
    if ((await headOf(inner.gitDir)) === null) continue
    await retire(inner, new Set(), session)
    const empty = EMPTY_TREE[formatOf(tree.commit)]
    const emptied = await session.run(['read-tree', '--reset', '-u', empty], inner)
    if (emptied.code !== 0) throw session.failure(emptied)
    await rm(inner.gitDir, { recursive: true, force: true })
    await rmdir(workTree).catch(ignoreFull)
  }
  // The commit may have files of its own where the submodule was, or the submodule again, as an empty directory.
  if (gone.length > 0) await reset(tree, session)
}

async function existing(workTree: string, path: string): Promise<string | null> {
  let directory = workTree
  for (const part of path.split('/')) {
    directory = join(directory, part)
    if (!(await isDirectory(directory))) return null
  }
  return directory
}

/** A script may have written there too: what is no record of ours is none. */
async function readRecord(gitDir: string): Promise<string[]> {
  const text = await readFile(join(gitDir, RECORD), 'utf8').catch(ignoreMissing)
  try {
    const paths: unknown = JSON.parse(text ?? '[]')
    return Array.isArray(paths) ? paths.filter((path) => typeof path === 'string' && isSafePath(path)) : []
  } catch {
    return []
  }
}

/** Before they are filled in: a crash leaves no submodule that nobody knows of. */
async function writeRecord(gitDir: string, submodules: readonly Submodule[]): Promise<void> {
  const file = join(gitDir, RECORD)
  if (submodules.length === 0) return await rm(file, { force: true })
  await writeFile(`${file}.new`, JSON.stringify(submodules.map(({ path }) => path)))
  await rename(`${file}.new`, file)
}

async function isDirectory(path: string): Promise<boolean> {
  return (await lstat(path).catch(ignoreMissing))?.isDirectory() ?? false
}

function ignoreMissing(error: unknown): null {
  if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return null
  throw error
}

function ignoreExisting(error: unknown): void {
  if (systemCode(error) !== 'EEXIST') throw error
}

function ignoreFull(error: unknown): void {
  if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(systemCode(error) ?? '')) throw error
}
