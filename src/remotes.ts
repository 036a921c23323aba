import { createHash } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { accountRoom, makePassage, strangerOnWay, writeFor } from './belongings.ts'
import type { LoginAccount } from './config/accounts.ts'
import type { Config, Hook, Target } from './config/config.ts'
import { type DataDir, directoryName } from './data-dir.ts'
import { LandfallError, messageOf } from './errors.ts'
import { FORGE } from './forges/index.ts'
import type { Remote } from './work.ts'

export interface Remotes {
  /** Where a target's repository is fetched from, and with what. */
  of(target: Target, repo: string): Remote
}

/**
 * Lays the keys and tokens that came as values into files of `data_dir/keys`, for ssh and git to read; for the account of a
 * target that is not our own, copies of all of them into files of that account. Throws `start`.
 */
export async function openRemotes({ config, dataDir }: { config: Config; dataDir: DataDir }): Promise<Remotes> {
  const hooks = new Map<string, HookAccess>()
  for (const { name, account } of usersOf(config)) {
    const hook = config.hooks.find((one) => one.name === name)
    if (hook !== undefined) hooks.set(accessKey(name, account), await layKeys(hook, account, dataDir))
  }
  const laid = [...hooks.values()].flatMap(({ sshKeyFile, credentialsFile }) => [sshKeyFile, credentialsFile])
  await clearKeys(dataDir, new Set(laid))

  return {
    of(target, repo) {
      const { hook, account } = target
      const access = hook === null ? undefined : hooks.get(accessKey(hook, account))
      const url = cloneUrl(target, access?.hook, repo)
      const sameHost = access?.host !== undefined && access.host === httpsHost(url)
      const name = mirrorName(url, target.user)
      return {
        url,
        mirror: account === null ? dataDir.room('mirrors', name) : accountRoom(dataDir, account, 'mirrors', name),
        sshKeyFile: access?.sshKeyFile ?? null,
        knownHostsFile: access?.hook.knownHosts ?? null,
        // The forge's token goes to the forge's own host, whatever `url` a target names.
        credentialsFile: sameHost ? (access?.credentialsFile ?? null) : null,
      }
    },
  }
}

interface HookAccess {
  readonly hook: Hook
  readonly host: string | undefined
  readonly sshKeyFile: string | null
  readonly credentialsFile: string | null
}

/** Every hook for landfall itself, and for each other account that has a target of it. */
function usersOf({ hooks, targets }: Config): { readonly name: string; readonly account: LoginAccount | null }[] {
  const ours = hooks.map(({ name }) => ({ name, account: null }))
  const theirs = targets.flatMap(({ hook, account }) =>
    hook === null || account === null ? [] : [{ name: hook, account }],
  )
  return [...ours, ...theirs]
}

function accessKey(hook: string, account: LoginAccount | null): string {
  return `${hook} ${account?.name ?? ''}`
}

async function layKeys(hook: Hook, account: LoginAccount | null, dataDir: DataDir): Promise<HookAccess> {
  const host = httpsHost(hook.clone)
  const lay = async (ending: string, text: string): Promise<string> => {
    const name = `${directoryName(hook.name)}.${ending}`
    const file = account === null ? dataDir.room('keys', name) : accountRoom(dataDir, account, 'keys', name)
    if (account !== null) {
      for (const passage of [dirname(dirname(file)), dirname(file)]) await makePassage(passage)
    }
    await writeFor(account, file, text)
    return file
  }
  let sshKeyFile: string | null = null
  if (hook.sshKey !== null && 'file' in hook.sshKey) {
    const { file } = hook.sshKey
    sshKeyFile = account === null ? file : await lay('ssh', await readOwn(file, hook))
  } else if (hook.sshKey !== null) sshKeyFile = await lay('ssh', `${hook.sshKey.text.trimEnd()}\n`)
  let credentialsFile: string | null = null
  if (hook.forgeToken !== null && host !== undefined) {
    const user = FORGE[hook.forge].tokenUser
    credentialsFile = await lay('credentials', `https://${user}:${encodeURIComponent(hook.forgeToken)}@${host}\n`)
  }
  return { hook, host, sshKeyFile, credentialsFile }
}

/** Whoever has no target of a hook any more keeps no key of it. */
async function clearKeys(dataDir: DataDir, laid: ReadonlySet<string | null>): Promise<void> {
  const accounts = dataDir.room('accounts')
  for (const account of await namesIn(accounts)) {
    const keys = join(accounts, account, 'keys')
    for (const file of (await namesIn(keys)).map((name) => join(keys, name))) {
      if (!laid.has(file)) await rm(file, { force: true })
    }
  }
}

async function namesIn(directory: string): Promise<readonly string[]> {
  return await readdir(directory).catch(() => [])
}

/** What we, as root, copy for an account must be what the configuration means, and no file that somebody put in its place. */
async function readOwn(file: string, hook: Hook): Promise<string> {
  try {
    const stranger = await strangerOnWay(file)
    if (stranger === null) return await readFile(file, 'utf8')
    const why = `${stranger} is not root's alone, so others could have any file of root's handed out`
    throw new LandfallError('start', `ssh_key of the hook ${hook.name}: ${why}; keep the key in a directory of root's`)
  } catch (cause) {
    if (cause instanceof LandfallError) throw cause
    throw new LandfallError('start', `ssh_key of the hook ${hook.name} cannot be read: ${messageOf(cause)}`, { cause })
  }
}

function cloneUrl(target: Target, hook: Hook | undefined, repo: string): string {
  if (target.url !== null) return target.url
  return (hook?.clone ?? '').replaceAll('{repo}', repo)
}

/** Host and port of an HTTPS URL; undefined for anything else. */
function httpsHost(url: string): string | undefined {
  if (!url.startsWith('https://')) return undefined
  return URL.parse(url.replaceAll('{repo}', 'owner/name'))?.host
}

/** Readable, and different for each (remote, user). */
function mirrorName(url: string, user: string): string {
  const readable = url
    .replace(/^[a-z+]+:\/\//i, '')
    .replace(/[^A-Za-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
    .slice(-50)
    .toLowerCase()
  return `${readable || 'x'}--${createHash('sha256').update(`${user}\n${url}`).digest('hex').slice(0, 32)}.git`
}
