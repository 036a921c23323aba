/** The way from root to an account, which has no way back. */
import { readdirSync, readFileSync } from 'node:fs'
import type { LoginAccount } from '../config/accounts.ts'
import { LandfallError, messageOf } from '../errors.ts'

/**
 * Afterwards every thread of this process is the account, with its supplementary groups and without a capability. Throws
 * `unstartable` otherwise, and then this process must do nothing more.
 */
export function becomeAccount(account: LoginAccount): void {
  const { name, uid, gid } = account
  try {
    // The directory that root was in may be closed to the account.
    process.chdir('/')
    // In this order: who is not root any more can change no groups. Not spawn's own `uid` and `gid`, which drop them all.
    initgroups(name, gid)
    process.setgid?.(gid)
    process.setuid?.(uid)
  } catch (cause) {
    const hint = 'landfall needs CAP_SETUID and CAP_SETGID to switch users'
    throw new LandfallError('unstartable', `${name}: the account cannot be switched to: ${messageOf(cause)}; ${hint}`, {
      cause,
    })
  }
  const wrong = remains(account)
  if (wrong !== null) throw new LandfallError('unstartable', `${name}: the account was not fully switched to: ${wrong}`)
}

/** Missing in @types/node 24: https://nodejs.org/docs/latest-v24.x/api/process.html#processinitgroupsuser-extragroup */
function initgroups(name: string, gid: number): void {
  const { initgroups: call } = process as NodeJS.Process & { readonly initgroups?: (user: string, gid: number) => void }
  if (call === undefined) throw new Error('this system knows no groups')
  call(name, gid)
}

/** What of root is left, in words; null where nothing is. */
function remains({ uid, gid }: LoginAccount): string | null {
  for (const thread of readdirSync('/proc/self/task')) {
    const status = readFileSync(`/proc/self/task/${thread}/status`, 'utf8')
    const fields = (name: string) => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status)?.[1]?.trim().split(/\s+/) ?? []
    // Real, effective, saved and for files.
    if (fields('Uid').join() !== [uid, uid, uid, uid].join()) return `a thread has the uids ${fields('Uid').join(' ')}`
    if (fields('Gid').join() !== [gid, gid, gid, gid].join()) return `a thread has the gids ${fields('Gid').join(' ')}`
    for (const set of ['CapPrm', 'CapEff', 'CapAmb']) {
      if (!/^0*$/.test(fields(set)[0] ?? '')) return `a thread has capabilities (${set} ${fields(set)[0]})`
    }
  }
  return isRootAgain() ? 'it can become root again' : null
}

function isRootAgain(): boolean {
  try {
    process.setuid?.(0)
    return true
  } catch {
    return false
  }
}
