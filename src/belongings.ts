/**
 * What of data_dir belongs to the account of a target that is not landfall's own. Who owns a directory can put anything in
 * the place of what is in it, at any moment: so landfall, as root, opens nothing by a path through a directory of theirs, but
 * has their launcher do it, and each directory or file that is theirs lies in one that is landfall's.
 *
 * accounts/<name>/           landfall's
 *   mirrors/ work/ logs/     the account's: bare mirrors, empty directories for scripts, tails of logs that are being written
 *   keys/                    landfall's; each key in it is the account's
 * releases/<instance>/       the account's, and so is data/<instance>/
 * runs/<id>/                 landfall's; each file in it is the account's
 */
import {
  chmod,
  chown,
  lchown,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rm,
  rmdir,
  writeFile,
} from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { type LoginAccount, nameOfUser, ownAccount } from './config/accounts.ts'
import { type DataDir, directoryName } from './data-dir.ts'
import { LandfallError, messageOf, systemCode } from './errors.ts'

/** `data_dir/accounts/<name>/<room>/…` */
export function accountRoom(
  dataDir: Pick<DataDir, 'room'>,
  { name }: LoginAccount,
  room: 'mirrors' | 'work' | 'logs' | 'keys',
  ...below: readonly string[]
): string {
  return dataDir.room('accounts', directoryName(name), room, ...below)
}

/** Makes one of landfall's own directories, which others pass through to what is theirs. */
export async function makePassage(path: string): Promise<void> {
  await mkdir(path, { recursive: true })
  await chmod(path, 0o711)
}

/**
 * Makes a directory of the account's own, in one of landfall's; null is landfall itself. Throws `unstartable` where it is
 * somebody else's, because the target had another user once: nothing is changed then.
 */
export async function giveDirectory(account: LoginAccount | null, path: string, mode: number): Promise<void> {
  const { uid, name } = account ?? ownAccount()
  const isNew = (await mkdir(path, { recursive: true, mode })) !== undefined
  // Without root nobody else's directory is ours to judge: what may not be done there shows when it is tried.
  if (process.geteuid?.() !== 0) return
  if (isNew) await chmod(path, mode)
  const { uid: owner } = await lstat(path)
  if (owner === uid) return
  // Just made, now or by a landfall that died before the next line.
  const isOurs = owner === process.geteuid() && (await readdir(path)).length === 0
  if (account !== null && isOurs) return await give(() => chown(path, uid, account.gid), path, name)
  throw new LandfallError(
    'unstartable',
    `${path} belongs to ${await nameOfUser(owner)}, but the target runs as ${name}; if that is meant, mend it with: chown -R ${name}: ${path}`,
  )
}

/** Makes an empty file of the account's own, in a directory of landfall's, or gives it the one that is there. */
export async function giveFile(account: LoginAccount, file: string): Promise<void> {
  try {
    await (await open(file, 'ax', 0o600)).close()
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
  await give(() => lchown(file, account.uid, account.gid), file, account.name)
}

/** Writes a file of the account's. A new one each time: never through one that it could have put there, or holds open. */
export async function writeFor(account: LoginAccount | null, file: string, text: string): Promise<void> {
  const fresh = `${file}.new`
  await rm(fresh, { force: true })
  await writeFile(fresh, text, { mode: 0o600, flag: 'wx' })
  if (account !== null) await giveFile(account, fresh)
  // In one step: a fetch that is under way may be about to read it.
  await rename(fresh, file)
}

/** Removes a directory that the account has emptied; whatever it holds again stays where it is. */
export async function dropDirectory(path: string): Promise<void> {
  await rmdir(path).catch(() => {})
}

async function give(chowning: () => Promise<void>, path: string, name: string): Promise<void> {
  try {
    await chowning()
  } catch (cause) {
    const why = `landfall needs CAP_CHOWN, and a file system in ${dirname(path)} that knows owners`
    throw new LandfallError('unstartable', `${path} cannot be given to ${name}: ${messageOf(cause)}; ${why}`, { cause })
  }
}

/**
 * The first part of the way to a file that does not belong to root alone, links and what they lead to included; null where
 * all of it does. Somebody else could lead root to another file there.
 */
export async function strangerOnWay(file: string): Promise<string | null> {
  let names = file.split('/')
  let way = '/'
  // As many links as Linux follows.
  for (let links = 0; names.length > 0 && links <= 40; ) {
    const [name = '', ...rest] = names
    const path = join(way, name)
    const status = await lstat(path)
    const isShared = status.isDirectory() && (status.mode & 0o1002) === 0o002
    if (status.uid !== 0 || isShared) return path
    const isLink = status.isSymbolicLink()
    if (isLink) links += 1
    names = isLink ? [...resolve(way, await readlink(path)).split('/'), ...rest] : rest
    way = isLink ? '/' : path
  }
  return names.length === 0 ? null : file
}
