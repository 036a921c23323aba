/**
 * From where a submodule may be fetched. The repository chooses its URL, so one is only taken where every program that reads
 * it, ssh and curl too, finds the same host in it: nothing that needs decoding or guessing.
 */
import { dirname } from 'node:path'

type Where =
  | { readonly scheme: 'https' | 'http' | 'ssh' | 'git'; readonly host: string; readonly port: number }
  | { readonly scheme: 'file'; readonly path: string }

export type Verdict =
  | { readonly kind: 'allowed'; readonly url: string }
  /** `host` is what the setting would have to name; null where no setting allows it. */
  | { readonly kind: 'refused'; readonly why: string; readonly host: string | null }

const HOST = String.raw`[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]`
const USER = '(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?'
/** No blank, control character or backslash, nor an encoded one of the latter two. */
const PATH = String.raw`(?!.*%(?:[01][0-9A-Fa-f]|5[Cc]|7[Ff]))[^\s\\?#\p{Cc}]*`
const HTTP_URL = new RegExp(String.raw`^(https?|git)://(${HOST})(?::(\d{1,5}))?/${PATH}$`, 'u')
const SSH_URL = new RegExp(String.raw`^ssh://${USER}(${HOST})(?::(\d{1,5}))?/(?!-)${PATH}$`, 'u')
const SCP_LIKE = new RegExp(`^${USER}(${HOST}):(?![-:])(?!//)${PATH}$`, 'u')
const PORTS = { https: 443, http: 80, ssh: 22, git: 9418 } as const

/**
 * `base` is the URL of the repository that has the submodule, without credentials. Allowed are https and ssh on the same
 * host, and on `hosts` (`*.example.com`: every name below it); the transport of `base` itself on its own host and port; and
 * where `base` is a directory, repositories beside it that are named by a relative URL.
 */
export function judgeSubmodule(url: string, base: string, hosts: readonly string[]): Verdict {
  const relative = /^\.\.?\//.test(url)
  const resolved = relative ? resolveRelative(url, base) : url
  const [to, from] = [whereIs(resolved), whereIs(base)]
  if (to === null) return refused(flaw(url))
  if (to.scheme === 'file') {
    if (from?.scheme !== 'file' || !isBeside(to.path, from.path))
      return refused('is a directory of this machine that does not lie beside the repository')
    return relative
      ? allowed(resolved)
      : refused('is a path of this machine: write it as a relative URL in .gitmodules')
  }
  if (from !== null && from.scheme !== 'file' && from.host === to.host) {
    if (to.scheme === from.scheme && to.port === from.port) return allowed(resolved)
    if (isSecure(to) && to.port === PORTS[to.scheme]) return allowed(resolved)
  }
  if (!isSecure(to)) return refused('is reached by neither https nor ssh')
  return hosts.some((host) => fits(to.host, host))
    ? allowed(resolved)
    : { kind: 'refused', why: `is on ${to.host}, from where nothing may be fetched`, host: to.host }
}

function allowed(url: string): Verdict {
  return { kind: 'allowed', url }
}

function refused(why: string): Verdict {
  return { kind: 'refused', why, host: null }
}

function flaw(url: string): string {
  if (/^\w+:\/\/[^/]*@/.test(url)) return 'has a user or a password in its URL'
  return 'has no URL of the form https://host/path, ssh://user@host/path or user@host:path'
}

function isSecure(where: Where): boolean {
  return where.scheme === 'https' || where.scheme === 'ssh'
}

function fits(host: string, pattern: string): boolean {
  const wanted = pattern.toLowerCase()
  return wanted.startsWith('*.') ? host.endsWith(wanted.slice(1)) && host.length >= wanted.length : host === wanted
}

function whereIs(url: string): Where | null {
  if (url.startsWith('/')) return { scheme: 'file', path: url }
  if (url.startsWith('file:///')) return { scheme: 'file', path: url.slice('file://'.length) }
  const [, scheme, host, port] = HTTP_URL.exec(url) ?? []
  if (scheme === 'https' || scheme === 'http' || scheme === 'git') return at(scheme, host, port)
  const [, sshHost, sshPort] = SSH_URL.exec(url) ?? SCP_LIKE.exec(url) ?? []
  return at('ssh', sshHost, sshPort)
}

function at(
  scheme: 'https' | 'http' | 'ssh' | 'git',
  host: string | undefined,
  port: string | undefined,
): Where | null {
  if (host === undefined) return null
  return { scheme, host: host.toLowerCase(), port: port === undefined ? PORTS[scheme] : Number(port) }
}

/** Not above the directory that the repository itself lies in, nor anywhere where that is the root. git decodes `%2e`. */
function isBeside(path: string, repository: string): boolean {
  const parent = dirname(repository.replace(/\/+$/, ''))
  return parent !== '/' && path.startsWith(`${parent}/`) && !/%|(?:^|\/)\.\.(?:\/|$)/.test(path)
}

/** As git does it: each `../` takes one component off, of `host:path` the last one without its colon. */
function resolveRelative(url: string, base: string): string {
  let [rest, from, separator] = [url, base.replace(/\/+$/, ''), '/']
  for (;;) {
    if (rest.startsWith('./')) rest = rest.slice(2)
    else if (rest.startsWith('../')) {
      rest = rest.slice(3)
      const cut = Math.max(from.lastIndexOf('/'), from.includes('/') ? -1 : from.lastIndexOf(':'))
      separator = from[cut] ?? '/'
      from = from.slice(0, Math.max(cut, 0))
    } else break
  }
  return `${from}${separator}${rest}`.replace(/\/+$/, '')
}
