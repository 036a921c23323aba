/**
 * What is at the path of a working tree, told without starting git; and `.git/landfall`, the file by which landfall knows a
 * tree that it has taken over. Git is pointed at a repository here, and then checks no ownership: that is done here too.
 */
import { lstat, mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { strangerOnWay } from '../belongings.ts'
import { nameOfUser, ownAccount } from '../config/accounts.ts'
import { hasCode, LandfallError, messageOf, systemCode } from '../errors.ts'
import { parseSha, type Sha } from '../model.ts'
import { shellQuote } from './git.ts'

/** What landfall last did with a tree. */
export interface Claim {
  readonly instance: string
  /** Where landfall left the tree; null before it did so for the first time. */
  readonly at: Sha | null
  /** Where landfall is taking it, or could not take it. */
  readonly moving: Sha | null
  /** A git of ours is at work there; where none lives, one died, and locks that lie there are its. */
  readonly atWork: boolean
}

export type Place =
  /** Nothing is there, or an empty directory. `path` is real as far as it exists. */
  | { readonly kind: 'vacant'; readonly path: string }
  | { readonly kind: 'clone'; readonly path: string; readonly gitDir: string; readonly claim: Claim | null }

/** Where a repository is made before it becomes `.git`. */
const UNFINISHED = '.git.landfall-new'
const CLAIM = 'landfall'

/** Follows `path` where it is a symlink. Throws `unstartable` where there is something else than a clone of this account's. */
export async function placeAt(path: string): Promise<Place> {
  const real = await realOf(path)
  await assertNobodysWay(real ?? path)
  if (real === null) return { kind: 'vacant', path }
  const { names, uid } = await look(real)
  const isVacant = names.every((name) => name === UNFINISHED)
  if (!isVacant && !names.includes('.git')) {
    const isBare = ['HEAD', 'objects', 'refs'].every((name) => names.includes(name))
    const what = isBare ? 'is a bare repository, which has no files' : 'holds files and is no clone'
    throw refusal(`${real} ${what}. Name another path, or move that away`)
  }
  await assertOwn(real, uid)
  if (isVacant) return { kind: 'vacant', path: real }
  const gitDir = join(real, '.git')
  const repository = await lstat(gitDir)
  if (!repository.isDirectory()) {
    const what = repository.isFile() ? 'a work tree or submodule of another repository' : 'no repository of its own'
    throw refusal(`${real} is ${what}: its .git is not a directory. Name the path of a plain clone`)
  }
  await assertOwn(gitDir, repository.uid)
  return { kind: 'clone', path: real, gitDir, claim: await readClaim(gitDir) }
}

/** Makes the directory for a new tree, and in it one for its repository, which it resolves to; what a crash left of one goes. */
export async function clearPlace(path: string): Promise<string> {
  const unfinished = join(path, UNFINISHED)
  try {
    await mkdir(path, { mode: 0o755 }).catch((error: unknown) => {
      if (systemCode(error) !== 'EEXIST') throw error
    })
    await rm(unfinished, { recursive: true, force: true })
    await mkdir(unfinished, { mode: 0o700 }) // lest a web server serves the history
  } catch (error) {
    if (!isDenied(error)) throw refusal(`${path} cannot be made: ${messageOf(error)}`, error)
    const { name } = ownAccount()
    throw refusal(`${name} may not make ${path}; run: install -d -o ${shellQuote(name)} ${shellQuote(path)}`, error)
  }
  return unfinished
}

async function realOf(path: string): Promise<string | null> {
  try {
    return await realpath(path)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw refusal(`${path} cannot be looked at: ${messageOf(error)}`, error)
  }
  if (await exists(path)) throw refusal(`${path} is a symlink that points to nothing. Make what it points to`)
  const parent = dirname(path)
  if (!(await exists(parent))) throw refusal(`${parent} is not there; run: mkdir -p ${shellQuote(parent)}`)
  return null
}

async function look(path: string): Promise<{ readonly names: readonly string[]; readonly uid: number }> {
  try {
    return { names: await readdir(path), uid: (await stat(path)).uid }
  } catch (error) {
    const why = systemCode(error) === 'ENOTDIR' ? 'it is no directory' : messageOf(error)
    throw refusal(`${path} cannot be a working tree: ${why}`, error)
  }
}

/** git's own rule. Whoever owns a repository decides by its configuration which programs git starts. */
async function assertOwn(path: string, uid: number): Promise<void> {
  const own = ownAccount()
  if (uid === own.uid) return
  const owner = await nameOfUser(uid)
  throw refusal(
    `${path} belongs to ${owner}, and the target runs as ${own.name}. Either write user = "${owner}", or run: ${chownLine(path)}`,
  )
}

/** Whoever owns a directory on root's way can put a repository of their own there once `assertOwn` has looked. */
async function assertNobodysWay(path: string): Promise<void> {
  if (ownAccount().uid !== 0) return
  const stranger = await strangerOnWay(dirname(path))
  if (stranger === null) return
  const because = `${stranger} is not root's alone, and whoever can write there could have any program run as root`
  throw refusal(
    `${path} cannot be a working tree of root's: ${because}. Write user = "…", or name a path of root's own`,
  )
}

export function chownLine(path: string): string {
  return `chown -R ${shellQuote(ownAccount().name)} ${shellQuote(path)}`
}

export function refusal(message: string, cause?: unknown): LandfallError {
  return new LandfallError('unstartable', message, { cause })
}

function isDenied(error: unknown): boolean {
  return ['EACCES', 'EPERM', 'EROFS'].includes(systemCode(error) ?? '')
}

async function exists(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    (error: unknown) => {
      if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return false
      throw refusal(`${path} cannot be looked at: ${messageOf(error)}`, error)
    },
  )
}

// --- The claim ------------------------------------------------------------------------------------------------------

/** Null where there is none, or none that can be read: then the tree is taken for somebody's. */
async function readClaim(gitDir: string): Promise<Claim | null> {
  try {
    const { instance, at, moving, atWork } = JSON.parse(await readFile(join(gitDir, CLAIM), 'utf8'))
    if (typeof instance !== 'string') return null
    return { instance, at: parseSha(at), moving: parseSha(moving), atWork: atWork === true }
  } catch {
    return null
  }
}

export async function writeClaim(gitDir: string, claim: Claim): Promise<void> {
  const file = join(gitDir, CLAIM)
  const fresh = `${file}.new`
  try {
    await writeFile(fresh, `${JSON.stringify(claim)}\n`, { mode: 0o644, flush: true })
    await rename(fresh, file)
  } catch (error) {
    if (!isDenied(error)) throw error
    throw refusal(`${file} cannot be written; run: ${chownLine(dirname(gitDir))}`, error)
  }
}

/** Throws `unstartable` where another instance has the tree. */
export function assertClaim(gitDir: string, claim: Claim | null, instance: string): void {
  if (claim === null || claim.instance === instance) return
  const file = join(gitDir, CLAIM)
  throw refusal(
    `${dirname(gitDir)} is the working tree of the target ${JSON.stringify(claim.instance)}. Give each target its own path, or remove ${shellQuote(file)} to hand this one over`,
  )
}

// --- Others at work -------------------------------------------------------------------------------------------------

const UNDER_WAY: Readonly<Record<string, string>> = {
  MERGE_HEAD: 'merge',
  CHERRY_PICK_HEAD: 'cherry-pick',
  REVERT_HEAD: 'revert',
  'rebase-merge': 'rebase',
  'rebase-apply': 'rebase',
  BISECT_LOG: 'bisect',
}

/** What somebody began in the tree and has not finished, in a word; null where there is nothing. */
export async function underWay(gitDir: string): Promise<string | null> {
  for (const [name, what] of Object.entries(UNDER_WAY)) if (await exists(join(gitDir, name))) return what
  return null
}

/** Throws `unstartable` where the branch is checked out elsewhere: to move it would pull it from under somebody's feet. */
export async function assertBranchIsHere(gitDir: string, branch: string | null): Promise<void> {
  const linked = await readdir(join(gitDir, 'worktrees')).catch(() => [])
  for (const name of branch === null ? [] : linked) {
    const head = await readFile(join(gitDir, 'worktrees', name, 'HEAD'), 'utf8').catch(() => '')
    if (head.trimEnd() !== `ref: refs/heads/${branch}`) continue
    throw refusal(
      `${branch} is checked out in a linked work tree of ${dirname(gitDir)} too; see: git -C ${shellQuote(dirname(gitDir))} worktree list`,
    )
  }
}

/** Throws `git`, for trying again may help, where another git is changing the tree. */
export async function assertIdle(gitDir: string): Promise<void> {
  for (const name of ['index.lock', 'HEAD.lock']) {
    const lock = join(gitDir, name)
    if (await exists(lock)) throw busy(lock)
  }
}

const BUSY = 'another git is at work there: '

export function busy(lock: string): LandfallError {
  return new LandfallError('git', `${BUSY}${lock} exists. If none is, one has died: remove that file`)
}

export function isBusy(error: unknown): boolean {
  return hasCode(error, 'git') && error.message.startsWith(BUSY)
}

/** Removes the locks of a git of ours that died in the tree; nobody else's were there when it began. */
export async function sweepLocks(gitDir: string): Promise<void> {
  const inTop = (await readdir(gitDir)).filter((name) => name !== 'objects')
  const below = await Promise.all(
    ['refs', 'modules'].map(async (room) => {
      const names = await readdir(join(gitDir, room), { recursive: true }).catch(() => [])
      return names.map((name) => join(room, name))
    }),
  )
  const locks = [...inTop, ...below.flat()].filter((name) => name.endsWith('.lock'))
  for (const lock of locks) await rm(join(gitDir, lock), { force: true })
}
