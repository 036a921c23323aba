/** Who may write a file that landfall trusts. */
import { stat } from 'node:fs/promises'
import { nameOfGroup, nameOfUser } from './accounts.ts'

export interface Trusted {
  /** The account that landfall runs as; root is always trusted. */
  readonly uid: number
  /** For scripts: the target's `user`. */
  readonly alsoUid?: number
}

/**
 * Why the file or directory must not be trusted, with the line that mends it; null where it may be: owned by root or a
 * trusted account, and written by nobody else, save a group named like the owner. `any-owner` judges the permissions
 * alone. Rejects where `path` cannot be looked at.
 */
export async function unsafe(path: string, trusted: Trusted | 'any-owner'): Promise<string | null> {
  const { mode, uid: owner, gid } = await stat(path)
  if (trusted !== 'any-owner' && ![0, trusted.uid, trusted.alsoUid].includes(owner)) {
    const [stranger, own] = [await nameOfUser(owner), await nameOfUser(trusted.uid)]
    return `${path} belongs to ${stranger}, a stranger to landfall; mend it with: chown ${own} ${shellQuoted(path)}`
  }
  const othersWrite = (mode & 0o002) !== 0
  const groupWrites = (mode & 0o020) !== 0 && (await nameOfGroup(gid)) !== (await nameOfUser(owner))
  if (!othersWrite && !groupWrites) return null
  const who = othersWrite ? 'everybody' : `the group ${await nameOfGroup(gid)}`
  const classes = `${groupWrites ? 'g' : ''}${othersWrite ? 'o' : ''}`
  return `${path} can be written by ${who}; mend it with: chmod ${classes}-w ${shellQuoted(path)}`
}

/** A word as a shell reads it back. */
function shellQuoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}
