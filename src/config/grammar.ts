/** The little languages inside the configuration's strings. Each reader gives null, or says what is wrong, and never throws. */
import { isIP, isIPv6 } from 'node:net'
import { isRepository } from '../model.ts'
import type { Listen } from './config.ts'

const UNITS_MS = [86_400_000, 3_600_000, 60_000, 1000, 1] as const
/** Fits the empty text too, which is no duration. */
export const DURATION = /^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?$/

/** `90s`, `5m`, `1h30m`, `7d`, `250ms`, in milliseconds; units from large to small, each at most once. Null for anything else. */
export function parseDuration(text: string): number | null {
  const parts = text === '' ? null : DURATION.exec(text)
  if (parts === null) return null
  const ms = UNITS_MS.reduce((sum, unit, index) => sum + unit * Number(parts[index + 1] ?? 0), 0)
  return Number.isSafeInteger(ms) ? ms : null
}

const UNITS_BYTES: Readonly<Record<string, number>> = { B: 1, KB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 }

export const SIZE = /^(\d+)(B|KB|MB|GB)$/

/** `25MB`, `512KB`, `1GB`, `100B`, in bytes; MB is 2^20. Null for anything else. */
export function parseSize(text: string): number | null {
  const parts = SIZE.exec(text)
  const bytes = Number(parts?.[1]) * (UNITS_BYTES[parts?.[2] ?? ''] ?? Number.NaN)
  return Number.isSafeInteger(bytes) ? bytes : null
}

/** The kernel keeps a socket's path in 108 bytes, the last of them NUL: unix(7). */
const MAX_SOCKET_PATH_BYTES = 107

const UNIX = /^unix:([\s\S]+)$/
const DESCRIPTOR = /^systemd:([A-Za-z0-9_.-]+)$/
const HOST_PORT = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)):(\d{1,5})$/
export const LISTEN = [HOST_PORT, UNIX, DESCRIPTOR] as const

/** `host:port`, `[::]:port`, `unix:/path`, `systemd:<fd name>`. A unix path stays as written. Null for anything else. */
export function parseListen(text: string): Listen | null {
  const path = UNIX.exec(text)?.[1]
  if (path !== undefined) {
    const fits = !path.includes('\0') && Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES
    return fits ? { kind: 'unix', path } : null
  }
  const descriptor = DESCRIPTOR.exec(text)?.[1]
  if (descriptor !== undefined) return { kind: 'systemd', name: descriptor }
  const parts = HOST_PORT.exec(text)
  const host = parts?.[1] ?? parts?.[2]
  const port = Number(parts?.[3])
  if (host === undefined || !(port <= 65_535)) return null
  if (parts?.[1] !== undefined && !isIPv6(host)) return null
  return { kind: 'tcp', host, port }
}

/** What every network looks like; not all that looks like it is one. */
export const NETWORK = /^[0-9A-Fa-f:.]+(?:%[^/]+)?(?:\/\d{1,3})?$/

/** A network as `address/bits`; a bare address is the network of itself. Null for anything else. */
export function parseCidr(text: string): string | null {
  const [address = '', bits, ...rest] = text.split('/')
  const width = { 0: 0, 4: 32, 6: 128 }[isIP(address)] ?? 0
  if (width === 0 || rest.length > 0) return null
  if (bits === undefined) return `${address}/${width}`
  return /^\d{1,3}$/.test(bits) && Number(bits) <= width ? text : null
}

/** Any of these makes a pattern of a name; the contract's list. */
const GLOB = /[*?[\]{}!]/

export function isGlob(text: string): boolean {
  return GLOB.test(text)
}

/**
 * What is wrong with the brackets and braces of a pattern, or null. One that nothing closes stands for itself, and the whole
 * then for a name that nobody has meant; who does mean the character can say so.
 */
export function wrongPattern(pattern: string): string | null {
  const open = openIn(pattern)
  if (open === null) return null
  return `${quoted(pattern)} has a "${open}" that nothing closes; for the character itself write "[${open}]"`
}

/** A class such as `[a-z]` with its end: what follows `[`, `[^` or `[!` belongs to it whatever it is. */
const CLASS = /^\[[!^]?[\s\S][^\]]*\]/

function openIn(pattern: string): '{' | '[' | null {
  let braces = 0
  for (let rest = pattern; rest !== ''; ) {
    const whole = CLASS.exec(rest)?.[0] ?? (rest.startsWith('\\') ? rest.slice(0, 2) : rest.slice(0, 1))
    if (whole === '[') return '['
    if (whole === '{') braces += 1
    if (whole === '}') braces = Math.max(0, braces - 1)
    rest = rest.slice(whole.length)
  }
  return braces === 0 ? null : '{'
}

/** What every repository's name and pattern looks like; not all that looks like it is one. */
export const REPOSITORY_OR_PATTERN = /^[\w.\-\/*?\[\]\{\}!,^]*(?:\/|\*\*)[\w.\-\/*?\[\]\{\}!,^]*$/v

/** What is wrong with a repository's name or pattern, or null. */
export function wrongRepository(text: string): string | null {
  if (!isGlob(text)) return isRepository(text) ? null : `${quoted(text)} is not a repository's full name (owner/name)`
  if (!/^[A-Za-z0-9_.\-/*?[\]{}!,^]{1,400}$/.test(text)) return `${quoted(text)} has a character that no repository has`
  if (!text.includes('/') && !text.includes('**'))
    return `${quoted(text)} fits no repository, because * stops at "/"; write "owner/*" or "**"`
  return wrongPattern(text)
}

/** What every remote looks like, and what none does; the rest is for `wrongRemote`. */
export const REMOTE = /^[^-\s]\S*$/
export const WITH_CREDENTIALS = /^https?:\/\/[^/\\@:]+(?::[^/\\@]*)?@/

const SCHEMES = new Set(['https:', 'http:', 'ssh:', 'file:'])
/** `git@host:path`, as scp writes it; `ext::` and other helpers have a second colon there. */
const SCP_LIKE = /^(?:[A-Za-z0-9_][\w.-]*@)?(?:[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:]+\]):[^:-]/

/**
 * What is wrong with the place of a remote repository, or null: https, http, ssh, file, scp-like, or a path. The sentence
 * never repeats the text, which may hold a password.
 */
export function wrongRemote(text: string): string | null {
  if (text === '') return 'is empty'
  if (text.startsWith('-')) return 'begins with "-", which git would read as an option'
  if (/[\p{Cc}\s]/u.test(text)) return 'has a space or a control character'
  if (/^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(text)) return wrongUrl(text)
  const colon = text.indexOf(':')
  const isPath = colon === -1 || text.slice(0, colon).includes('/')
  if (isPath || SCP_LIKE.test(text)) return null
  return 'is none of https://…, ssh://…, git@host:path, file:///… or a path'
}

function wrongUrl(text: string): string | null {
  const url = URL.parse(text)
  if (url === null) return 'is not a URL'
  if (!SCHEMES.has(url.protocol)) return `has the scheme ${url.protocol}//; use https, ssh, http or file`
  if (url.password !== '' || (url.username !== '' && url.protocol !== 'ssh:'))
    return 'has credentials in it; give the hook a forge_token or an ssh_key instead'
  if (url.search !== '' || url.hash !== '') return 'has a query or a fragment, which no clone URL needs'
  if (url.protocol !== 'file:' && url.hostname === '') return 'names no host'
  if (url.hostname.startsWith('-') || url.username.startsWith('-')) return 'has a host or user that begins with "-"'
  return null
}

/** What every `clone` looks like. */
export const CLONE = /^[^{}\s]*(?:\{repo\}[^{}\s]*)+$/

/** What is wrong with a hook's `clone`, or null. A repository's name must not decide which host is asked. */
export function wrongClone(text: string): string | null {
  if (!text.includes('{repo}')) return 'must contain {repo}, where the repository\'s "owner/name" belongs'
  if (/[{}]/.test(text.replaceAll('{repo}', ''))) return 'has another placeholder than {repo}'
  const wrong = wrongRemote(text.replaceAll('{repo}', 'owner/name'))
  if (wrong !== null) return wrong
  const before = text.slice(0, text.indexOf('{repo}'))
  const hostComesFirst = text.includes('://')
    ? /:\/\/[^/]*\//.test(before)
    : !text.includes(':') || before.includes(':') || before.includes('/')
  return hostComesFirst ? null : 'has {repo} in the place of the host'
}

/** True where a remote is a path that is relative to the configuration file. */
export function isRelativePath(remote: string): boolean {
  const colon = remote.indexOf(':')
  return !remote.startsWith('/') && (colon === -1 || remote.slice(0, colon).includes('/'))
}

/** The signing secret of Standard Webhooks: `whsec_` and the base64 of 24 to 64 bytes (spec/standard-webhooks.md). */
export function wrongSigningSecret(secret: string): string | null {
  if (!secret.startsWith('whsec_')) return null
  const encoded = secret.slice('whsec_'.length)
  const bytes = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(encoded)
    ? Buffer.from(encoded, 'base64').length
    : 0
  return bytes >= 24 && bytes <= 64 ? null : 'begins with whsec_, but what follows is not the base64 of 24 to 64 bytes'
}

/** Text from outside as it may stand in a message: in quotes, control characters escaped. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 79)}…` : text)
}
