import { createHash } from 'node:crypto'
import { rename, writeFile } from 'node:fs/promises'
import type { Config, Hook, Target } from './config/config.ts'
import { type DataDir, directoryName } from './data-dir.ts'
import { FORGE } from './forges/index.ts'
import type { Remote } from './work.ts'

export interface Remotes {
  /** Where a target's repository is fetched from, and with what. */
  of(target: Target, repo: string): Remote
}

/** Lays the keys and tokens that came as values into files of `data_dir/keys`, for ssh and git to read. */
export async function openRemotes({ config, dataDir }: { config: Config; dataDir: DataDir }): Promise<Remotes> {
  const hooks = new Map<string, HookAccess>()
  for (const hook of config.hooks) hooks.set(hook.name, await layKeys(hook, dataDir))

  return {
    of(target, repo) {
      const access = target.hook === null ? undefined : hooks.get(target.hook)
      const url = cloneUrl(target, access?.hook, repo)
      const sameHost = access?.host !== undefined && access.host === httpsHost(url)
      return {
        url,
        mirror: dataDir.room('mirrors', mirrorName(url, target.user)),
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

async function layKeys(hook: Hook, dataDir: DataDir): Promise<HookAccess> {
  const host = httpsHost(hook.clone)
  let sshKeyFile: string | null = null
  if (hook.sshKey !== null && 'file' in hook.sshKey) sshKeyFile = hook.sshKey.file
  else if (hook.sshKey !== null) {
    sshKeyFile = dataDir.room('keys', `${directoryName(hook.name)}.ssh`)
    await lay(sshKeyFile, `${hook.sshKey.text.trimEnd()}\n`)
  }
  let credentialsFile: string | null = null
  if (hook.forgeToken !== null && host !== undefined) {
    credentialsFile = dataDir.room('keys', `${directoryName(hook.name)}.credentials`)
    const user = FORGE[hook.forge].tokenUser
    await lay(credentialsFile, `https://${user}:${encodeURIComponent(hook.forgeToken)}@${host}\n`)
  }
  return { hook, host, sshKeyFile, credentialsFile }
}

/** In one step: at a reload a fetch that is under way may be about to read it. */
async function lay(file: string, text: string): Promise<void> {
  await writeFile(`${file}.new`, text, { mode: 0o600 })
  await rename(`${file}.new`, file)
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
