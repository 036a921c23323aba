/** The machine's accounts and groups, by name and by number. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { isAbsolute, relative } from 'node:path'
import { promisify } from 'node:util'

/** An account by its name and number. */
export interface Account {
  readonly uid: number
  readonly name: string
}

/** An account that processes can become. */
export interface LoginAccount extends Account {
  readonly gid: number
  readonly home: string
  readonly shell: string
}

/** The effective account. A container may run as a number that has no name: then the number is the name. */
export function ownAccount(): Account {
  const uid = process.geteuid?.() ?? -1
  try {
    return { uid, name: userInfo().username }
  } catch {
    return { uid, name: String(uid) }
  }
}

export async function accountNamed(name: string): Promise<LoginAccount | null> {
  const fields = await lookUp('passwd', name)
  if (fields === null) return null
  const [, , uid, gid, , home = '/', shell = ''] = fields
  return { name, uid: Number(uid), gid: Number(gid), home: home || '/', shell: shell || '/bin/sh' }
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * What a login would set. The PATH is ours, save for directories in our own home, which is nobody else's to run programs
 * from; temporary files go where everybody's go.
 */
export function environmentOf({ name, home, shell }: LoginAccount): Record<string, string> {
  const ours = userInfo().homedir
  const isOpen = (directory: string) =>
    isAbsolute(directory) && (ours === '/' || relative(ours, directory).startsWith('..'))
  const path = (process.env['PATH'] ?? '').split(':').filter(isOpen)
  return { PATH: path.join(':') || DEFAULT_PATH, HOME: home, USER: name, LOGNAME: name, SHELL: shell, TMPDIR: '/tmp' }
}

/** Every group that a process of the account has. */
export async function groupsOf({
  name,
  gid,
}: LoginAccount): Promise<readonly { readonly gid: number; readonly name: string }[]> {
  const gids = await promisify(execFile)('id', ['-G', '--', name], { timeout: 5000 }).then(
    ({ stdout }) => stdout.trim().split(' ').map(Number),
    () => [gid],
  )
  return await Promise.all(gids.map(async (one) => ({ gid: one, name: await nameOfGroup(one) })))
}

/** The account's name, or its number where it has none. */
export async function nameOfUser(uid: number): Promise<string> {
  return (await lookUp('passwd', uid))?.[0] ?? String(uid)
}

/** The group's name, or its number where it has none. */
export async function nameOfGroup(gid: number): Promise<string> {
  return (await lookUp('group', gid))?.[0] ?? String(gid)
}

export async function groupExists(name: string): Promise<boolean> {
  return (await gidOfGroup(name)) !== null
}

export async function gidOfGroup(name: string): Promise<number | null> {
  const fields = await lookUp('group', name)
  return fields === null ? null : Number(fields[2])
}

/** The local files first, which costs no process; then `getent`, which also knows LDAP and systemd's own accounts. */
async function lookUp(database: 'passwd' | 'group', key: string | number): Promise<readonly string[] | null> {
  const local = await readFile(`/etc/${database}`, 'utf8').catch(() => '')
  const found = local
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields.length > 2 && fields[typeof key === 'string' ? 0 : 2] === String(key))
  if (found !== undefined) return found
  try {
    const { stdout } = await promisify(execFile)('getent', [database, String(key)], { timeout: 5000 })
    return stdout.trimEnd().split(':')
  } catch {
    return null // exit 2: no such account; or a system without getent, where the files are all there is
  }
}
