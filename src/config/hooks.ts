/** `[hook.*]`: from settings to hooks. */
import { resolve } from 'node:path'
import { FORGE } from '../forges/index.ts'
import { FORGES, type ForgeName } from '../model.ts'
import type { Hook } from './config.ts'
import type { Path, Problems } from './document.ts'
import { isRelativePath, quoted, wrongSigningSecret } from './grammar.ts'
import type { Checked } from './keys.ts'
import { forge, type HookSettings, isName } from './schema.ts'
import type { ReadSecret } from './secrets.ts'
import { didYouMean, LATER } from './words.ts'

export interface HookParts {
  readonly checked: Checked
  readonly problems: Problems
  readonly base: string
  /** Null: secrets stay where they are. */
  readonly readSecret: ReadSecret | null
}

export async function readHooks(parts: HookParts): Promise<readonly Hook[]> {
  const hooks: Hook[] = []
  for (const [name, settings] of Object.entries(parts.checked.settings.hook)) {
    hooks.push(await readHook(name, settings, parts))
  }
  return hooks
}

async function readHook(name: string, settings: HookSettings, parts: HookParts): Promise<Hook> {
  const { base, problems } = parts
  const path: Path = ['hook', name]
  if (!isName(name)) problems.add(path, wrongName(name))
  const forgeName = forgeOf(name, settings, parts)
  const clone = settings.clone ?? FORGE[forgeName].clone
  return {
    name,
    forge: forgeName,
    secrets: await signingSecrets(name, settings, parts),
    repos: settings.repos ?? null,
    clone: isRelativePath(clone) ? resolve(base, clone) : clone,
    forgeToken: await forgeToken([...path, 'forge_token'], settings, parts),
    sshKey: await sshKey([...path, 'ssh_key'], settings, parts),
    knownHosts: settings.known_hosts === undefined ? null : resolve(base, settings.known_hosts),
    missedAfterMs: settings.missed_after,
  }
}

/** The sentence for a name of a hook or target that cannot stand in a URL and a path. */
export function wrongName(name: string): string {
  return `${quoted(name)} cannot be a name: it begins with a-z or 0-9 and goes on with those, ".", "_" or "-", at most 100`
}

/** The forge that is said, or the one that the hook's name is. Where neither is one, that is a problem and any will do. */
function forgeOf(name: string, settings: HookSettings, { checked, problems }: HookParts): ForgeName {
  if (settings.forge !== undefined) return settings.forge
  const named = forge().safeParse(name)
  if (named.success) return named.data
  const isLater = named.error.issues.some((issue) => issue.message.includes(LATER))
  if (!checked.isFaulty(['hook', name, 'forge'])) {
    const what = `the name is no forge's, so say which it is: forge = ${FORGES.map(quoted).join(' or ')}`
    problems.add(['hook', name], isLater ? `${quoted(name)} is ${LATER}` : `${what}${didYouMean(name, FORGES)}`)
  }
  return FORGES[0]
}

async function signingSecrets(
  name: string,
  settings: HookSettings,
  { checked, problems, readSecret }: HookParts,
): Promise<readonly string[]> {
  const path: Path = ['hook', name, 'secrets']
  if (settings.secrets === undefined || settings.secrets.length === 0) {
    if (!checked.isFaulty(path)) {
      const where = settings.secrets === undefined ? ['hook', name] : path
      problems.add(where, 'no secret, no start: write secrets = [{ env = "NAME" }] and put the secret into .env')
    }
    return []
  }
  const secrets: string[] = []
  for (const [index, source] of settings.secrets.entries()) {
    const isReadable = readSecret !== null && !checked.isFaulty([...path, index])
    const secret = isReadable ? await readSecret(source, [...path, index]) : null
    if (secret === null) continue
    const wrong = wrongSigningSecret(secret)
    if (wrong !== null) problems.add([...path, index], wrong)
    secrets.push(secret)
  }
  return secrets
}

async function forgeToken(path: Path, settings: HookSettings, parts: HookParts): Promise<string | null> {
  if (settings.forge_token === undefined || parts.readSecret === null) return null
  const token = await parts.readSecret(settings.forge_token, path)
  if (token === null) return null
  // It becomes part of a header and of a line of git's credential store.
  if (/[\p{Cc}\s]/u.test(token)) parts.problems.add(path, 'has a space or a line break in it, which no token has')
  return token
}

async function sshKey(path: Path, settings: HookSettings, parts: HookParts): Promise<Hook['sshKey']> {
  const source = settings.ssh_key
  if (source === undefined) return null
  const text = parts.readSecret === null ? null : await parts.readSecret(source, path)
  if (typeof source === 'string' && text !== null && !text.includes('PRIVATE KEY'))
    parts.problems.add(path, 'is not a private key; to name the file it is in, write { file = "…" }')
  if (typeof source !== 'string' && source.file !== undefined) return { file: resolve(parts.base, source.file) }
  // ssh refuses a key whose last line does not end.
  return text === null ? null : { text: `${text.replace(/\n+$/, '')}\n` }
}
