/** Real accounts of this machine, made for a test and removed after it. */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { LoginAccount } from '../../src/config/accounts.ts'
import { lives, textOf } from './scripts.ts'
import { until } from './until.ts'

/** What `test` takes as `skip`. */
export const WITHOUT_ROOT = process.geteuid?.() === 0 ? false : 'only root can make accounts, and become them'

export interface User extends LoginAccount {
  /** A group that it is in beside its own. */
  readonly group: { readonly name: string; readonly gid: number }
  /** What a shell prints, run as the user with all its groups; its exit code is not judged. */
  run(command: string): string
}

/** Accounts with a home and a supplementary group each. */
export function createUsers(t: Pick<TestContext, 'after'>, count: number): readonly User[] {
  const homes = mkdtempSync(join(tmpdir(), 'landfall-homes-'))
  execFileSync('chmod', ['755', homes])
  const names: string[] = []
  t.after(async () => {
    for (const name of names) await removeUser(name)
    rmSync(homes, { recursive: true, force: true })
  })
  return Array.from({ length: count }, () => {
    const name = `lf-${randomBytes(4).toString('hex')}`
    const group = `${name}-more`
    names.push(name)
    const [home, shell] = [join(homes, name), '/bin/sh']
    system('groupadd', group)
    system('useradd', '--create-home', '--home-dir', home, '--shell', shell, '--user-group', '--groups', group, name)
    const id = (...of: string[]) => Number(execFileSync('id', [...of, name], { encoding: 'utf8' }))
    const gid = Number(execFileSync('getent', ['group', group], { encoding: 'utf8' }).split(':')[2])
    return {
      name,
      uid: id('-u'),
      gid: id('-g'),
      home,
      shell,
      group: { name: group, gid },
      run: (command) => runAs(name, command),
    }
  })
}

function runAs(name: string, command: string): string {
  const become = ['--reuid', name, '--regid', name, '--init-groups', '--reset-env']
  const line = ['setpriv', ...become, 'sh', '-c', 'cd /; sh -c "$0" 2>&1 || true', command]
  return execFileSync('env', line, { encoding: 'utf8' })
}

async function removeUser(name: string): Promise<void> {
  const uid = Number(execFileSync('id', ['-u', name], { encoding: 'utf8' }))
  await until(`the end of ${name}'s processes`, () => {
    const pids = processesOf(uid)
    for (const pid of pids) kill(pid)
    return pids.length === 0
  })
  system('userdel', '--remove', name)
  system('groupdel', `${name}-more`)
}

/** Living processes of the account: by what they are, for a launcher's files in /proc are root's. */
export function processesOf(uid: number): readonly number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  const isTheirs = (pid: string) => textOf(`/proc/${pid}/status`).includes(`\nUid:\t${uid}\t`)
  return pids.filter(isTheirs).map(Number).filter(lives)
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself meanwhile.
  }
}

/** These programs lock the files of accounts, and give up when another test has the lock for long. */
function system(program: string, ...args: string[]): void {
  for (let left = 20; ; left -= 1) {
    try {
      execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
      return
    } catch (error) {
      const isLocked = error instanceof Error && /lock/.test(error.message)
      if (!isLocked || left === 0) throw error
    }
  }
}
