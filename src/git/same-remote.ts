/** Whether two URLs name one repository, however each of them is written. */
import { realpath } from 'node:fs/promises'
import { posix, resolve } from 'node:path'
import { domainToASCII, fileURLToPath } from 'node:url'

/** What a URL names. `port` is null for the scheme's own. */
type Named =
  | {
      readonly kind: 'host'
      readonly scheme: string
      readonly host: string
      readonly port: string | null
      readonly path: string
    }
  | { readonly kind: 'directory'; readonly path: string }

export interface Comparison {
  readonly same: boolean
  /** `found` for people: without user, password, query and control characters. */
  readonly shown: string
}

/**
 * Compares the origin of the tree at `tree` with `expected`. Scheme, user, the scheme's own port, `.git`, slashes and case
 * do not matter; other ports do, between URLs of one scheme, for a forge serves https and ssh on different ones. Local
 * repositories are the same where they are the same directory. What is no plain URL is the same as nothing.
 */
export async function compareRemotes(found: string, expected: string, tree: string): Promise<Comparison> {
  const [one, other] = [await named(found, tree), await named(expected, '/')]
  return { same: one !== null && other !== null && areSame(one, other), shown: shownAs(one) }
}

function areSame(one: Named, other: Named): boolean {
  if (one.kind === 'directory' || other.kind === 'directory') return one.kind === other.kind && one.path === other.path
  if (one.host !== other.host || one.path.toLowerCase() !== other.path.toLowerCase()) return false
  return one.scheme !== other.scheme || one.port === other.port
}

function shownAs(remote: Named | null): string {
  if (remote === null) return 'something that is no plain URL'
  const { path } = remote
  const text =
    remote.kind === 'directory'
      ? path
      : `${remote.scheme}://${remote.host}${remote.port === null ? '' : `:${remote.port}`}/${path}`
  return text.replace(/\p{Cc}/gu, '?').slice(0, 300)
}

const OWN_PORTS: Readonly<Record<string, string>> = { https: '443', http: '80', ssh: '22', git: '9418' }

async function named(url: string, base: string): Promise<Named | null> {
  if (/^file:\/\//i.test(url)) return await directory(pathOf(url))
  const [, scheme, authority, rest] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)/i.exec(url) ?? []
  if (scheme !== undefined && authority !== undefined) {
    // The last @: a password may hold others.
    const [, host, port] = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(authority.slice(authority.lastIndexOf('@') + 1)) ?? []
    return host ? atHost(scheme, host, port, decoded(rest ?? '')) : null
  }
  if (url === '' || /^[^/]*::/.test(url.replace(/\[[^\]]*\]/, ''))) return null // a remote helper: ext::…
  // git's own rule for `user@host:path`: a colon before the first slash.
  const [, host, path] = /^(?:[^/]*@)?(\[[^\]]*\]|[^:/@]+):(.*)$/s.exec(url) ?? []
  if (host !== undefined && path !== undefined) return atHost('ssh', host, undefined, path)
  return await directory(resolve(base, url))
}

function atHost(writtenScheme: string, writtenHost: string, port: string | undefined, path: string): Named {
  const scheme = writtenScheme.toLowerCase().replace(/^(?:git\+ssh|ssh\+git)$/, 'ssh')
  const host = (domainToASCII(writtenHost) || writtenHost).toLowerCase().replace(/\.$/, '')
  const isOwn = !port || Number(port) === Number(OWN_PORTS[scheme])
  return { kind: 'host', scheme, host, port: isOwn ? null : String(Number(port)), path: bare(path) }
}

async function directory(path: string | null): Promise<Named | null> {
  if (path === null) return null
  const candidates = [path, `${path}.git`] // git tries both
  for (const candidate of candidates) {
    const real = await realpath(candidate).catch(() => null)
    if (real !== null) return { kind: 'directory', path: `/${bare(real)}` }
  }
  return { kind: 'directory', path: `/${bare(path)}` }
}

function pathOf(url: string): string | null {
  try {
    return fileURLToPath(url.replace(/^file:\/\/localhost\//i, 'file:///'))
  } catch {
    return null // another host, or an encoded slash
  }
}

/** Without slashes at either end, `.git`, and detours. */
function bare(path: string): string {
  const plain = posix.normalize(`/${path}`).replace(/^\/+|\/+$/g, '')
  return plain.replace(/(?:^|\/)\.git$|\.git$/i, '').replace(/\/+$/, '')
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
