/** What `check` says about the accounts that targets run as: what they can reach that they should not, and the other way. */
import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { groupsOf, type LoginAccount } from '../config/accounts.ts'
import type { Config, Target } from '../config/config.ts'

const READ = 4
export const WRITE = 2
export const PASS = 1

/** With which rights a target runs. */
export async function rightsOf({ user, account }: Target): Promise<string> {
  if (account === null) return `${user}, with landfall's own rights`
  const groups = (await groupsOf(account)).map(({ name }) => name)
  return `${user} (uid ${account.uid}, groups ${groups.join(' ')}), at home in ${account.home}`
}

/** Why the account of a target cannot do its work, as far as file modes tell. `script` is the file that it would execute. */
export async function warningsOfUser(
  { user, account }: Target,
  { dataDir }: Config,
  script: string | null,
): Promise<readonly string[]> {
  if (account === null) return []
  const warnings: string[] = []
  for (const path of [dataDir, ...(script === null ? [] : [script])]) {
    const closed = await closedTo(account, path, PASS)
    if (closed !== null)
      warnings.push(`${path} is not in reach of ${user}, for ${closed} is closed to it: its runs would end unstartable`)
  }
  return warnings
}

/** What the scripts of other accounts than landfall's own could get at. */
export async function warningsAboutUsers(config: Config): Promise<readonly string[]> {
  const { server, targets } = config
  const warnings: string[] = []
  const secretFiles = await filesWithSecrets(config)
  const accounts = new Map(targets.flatMap(({ account }) => (account === null ? [] : [[account.name, account]])))
  for (const account of accounts.values()) {
    const { name } = account
    const isOperator = (await groupsOf(account)).some((group) => group.name === server.socketGroup)
    const socketBits = isOperator ? server.socketMode >> 3 : server.socketMode
    if ((socketBits & WRITE) !== 0) {
      const why = isOperator
        ? `is in socket_group (${server.socketGroup})`
        : 'is let in by socket_mode, as everybody is'
      warnings.push(`user ${name} ${why}: its scripts can do what landfall's operators can, and read every log`)
    }
    for (const path of secretFiles) {
      if ((await closedTo(account, path, READ)) === null)
        warnings.push(`${path} can be read by the user ${name}, with the secrets in it: chmod 600 ${path}`)
    }
  }
  return warnings
}

/** `.env`, and the configuration where a secret is written out in it instead of being named. */
async function filesWithSecrets({ file, hooks, targets }: Config): Promise<readonly string[]> {
  if (file === null) return []
  const text = await readFile(file, 'utf8').catch(() => '')
  const ofHooks = hooks.flatMap(({ secrets, forgeToken }) => [...secrets, ...(forgeToken === null ? [] : [forgeToken])])
  const isWrittenOut = [...ofHooks, ...targets.flatMap(({ masked }) => masked)].some((secret) => text.includes(secret))
  return [...(isWrittenOut ? [file] : []), join(dirname(file), '.env')]
}

/**
 * The first part of the way to `path` whose mode keeps the account out, the file itself by `need`; null where none does.
 * What is not there is closed as well, save at the end of a way that is only to be passed.
 */
export async function closedTo(account: LoginAccount, path: string, need: number): Promise<string | null> {
  const gids = (await groupsOf(account)).map(({ gid }) => gid)
  const names = path.split('/').filter((name) => name !== '')
  let way = '/'
  for (const [index, name] of names.entries()) {
    way = join(way, name)
    const status = await stat(way).catch(() => null)
    if (status === null) return need === PASS ? null : way
    const { mode, uid, gid } = status
    const bits = uid === account.uid ? mode >> 6 : gids.includes(gid) ? mode >> 3 : mode
    const isLast = index === names.length - 1
    const needed = isLast ? need : PASS
    if ((bits & needed) !== needed) return way
  }
  return null
}
