import { createHash } from 'node:crypto'
import { chmod, lstat, mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { LandfallError, messageOf, systemCode } from './errors.ts'

/** The rooms of `data_dir`. Only what others must reach can be entered by them: releases, by a web server. */
const ROOMS = {
  releases: 0o711,
  mirrors: 0o700,
  runs: 0o711,
  payloads: 0o700,
  data: 0o711,
  keys: 0o700,
} as const
/** And where landfall is root: what belongs to the accounts of targets. */
const ROOMS_OF_ROOT = { ...ROOMS, accounts: 0o711 } as const

export interface DataDir {
  readonly path: string
  readonly socket: string
  /** `data_dir/<room>/…` */
  room(name: keyof typeof ROOMS_OF_ROOT, ...below: readonly string[]): string
  /** Gives the directory to the next owner. */
  release(): void
}

/**
 * Makes the directory where it is missing and takes it for this process alone: a second landfall is refused at once, and
 * `kill -9` frees it. Throws `start`.
 */
export async function ownDataDir(path: string): Promise<DataDir> {
  try {
    await mkdir(path, { recursive: true, mode: 0o711 })
    await openForTraversal(path)
    await mustBeOurs(path, path)
    const rooms = process.geteuid?.() === 0 ? ROOMS_OF_ROOT : ROOMS
    for (const [room, mode] of Object.entries(rooms)) {
      await mkdir(join(path, room), { recursive: true, mode })
      await mustBeOurs(join(path, room), path)
      await chmod(join(path, room), mode)
    }
  } catch (cause) {
    if (cause instanceof LandfallError) throw cause
    throw new LandfallError('start', `data_dir ${path} cannot be used: ${explain(cause)}`, { cause })
  }
  const lock = takeLock(path)
  return {
    path,
    socket: join(path, 'landfall.sock'),
    room: (name, ...below) => join(path, name, ...below),
    release() {
      if (lock.isOpen) lock.close()
    },
  }
}

/** Others may pass through to the releases. A directory that holds other things is somebody's, perhaps `/tmp` by mistake. */
async function openForTraversal(path: string): Promise<void> {
  const names = await readdir(path)
  if (names.length === 0 || names.includes('lock.db')) await chmod(path, 0o711)
}

/** Whoever owns a directory can put anything in the place of what root opens in it. */
async function mustBeOurs(directory: string, dataDir: string): Promise<void> {
  if (process.geteuid?.() !== 0) return
  const { uid } = await stat(directory)
  if (uid === 0) return
  const because = `${directory} belongs to the account ${uid}, which could then make landfall do anything as root`
  throw new LandfallError('start', `data_dir: ${because}; mend it with: chown -R root: ${dataDir}`)
}

/**
 * An exclusive transaction on a database of its own. The lock goes silently if this handle is collected or if anything in
 * the process opens and closes the file, so: nobody else names it, and `release` above keeps the handle referenced.
 */
function takeLock(path: string): DatabaseSync {
  const file = join(path, 'lock.db')
  let db: DatabaseSync | null = null
  // Nobody else may open it: even a reader's lock would keep us from starting.
  const umask = process.umask(0o077)
  try {
    db = new DatabaseSync(file)
    db.exec('pragma busy_timeout = 0; pragma locking_mode = exclusive; begin exclusive')
    return db
  } catch (cause) {
    db?.close()
    if (messageOf(cause).includes('locked')) {
      throw new LandfallError(
        'start',
        `another landfall is at work in ${path}, serve or once: wait for its end or stop it, or give this one a data_dir of its own`,
      )
    }
    throw new LandfallError('start', `${file} cannot be locked: ${messageOf(cause)}`, { cause })
  } finally {
    process.umask(umask)
  }
}

function explain(cause: unknown): string {
  switch (systemCode(cause) ?? '') {
    case 'EACCES':
    case 'EPERM':
      return 'permission denied; make it, or give it to the account landfall runs as'
    case 'ENOTDIR':
    case 'EEXIST':
      return 'a part of the path is a file'
    case 'EROFS':
      return 'the file system is read-only'
    default:
      return messageOf(cause)
  }
}

/**
 * A directory name for anything that has a name of its own: readable, at most 80 characters, and different for different
 * names, also on file systems that ignore case (`a/b` and `a_b`, `Site` and `site`). It is a part of a git ref as well,
 * which may not hold `..` nor end in `.lock`.
 */
export function directoryName(name: string): string {
  if (name.length <= 80 && /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/.test(name) && !name.endsWith('.lock')) return name
  const readable = name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-/, '')
    .slice(0, 46)
    .replace(/-$/, '')
  // 128 bits: who may name repositories can search for names that collide in fewer.
  return `${readable || 'x'}--${createHash('sha256').update(name).digest('hex').slice(0, 32)}`
}

/** True where something is there, whatever it is. */
export async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  )
}
