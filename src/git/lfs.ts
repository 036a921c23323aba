/** The files that a repository keeps in Git LFS. */
import { pathToFileURL } from 'node:url'
import { LandfallError } from '../errors.ts'
import type { Remote } from '../work.ts'
import { type GitSession, isShortOfResources, withoutCredentials } from './git.ts'

export interface LfsOrder {
  readonly session: GitSession
  readonly remote: Remote
  readonly gitDir: string
  readonly workTree: string
}

/**
 * Writes the files in the place of their pointers, and into the repository's configuration that git-lfs looks after them. Throws
 * `unstartable` without git-lfs, `remote` where a file cannot be had.
 */
export async function pullLfs({ session, remote, ...at }: LfsOrder): Promise<void> {
  const installed = await session.run(['lfs', 'install', '--local', '--skip-repo'], at)
  if (/'lfs' is not a git command/.test(installed.stderr)) {
    const advice = 'Install the package git-lfs, or write lfs = false to leave the pointers as they are'
    throw new LandfallError('unstartable', `lfs = true needs git-lfs, which is not installed. ${advice}`)
  }
  if (installed.code !== 0) throw session.failure(installed)
  const pulled = await session.run([...settingsOf(remote), 'lfs', 'pull'], at)
  if (pulled.code === 0) return
  const { message } = session.failure(pulled)
  throw new LandfallError(isShortOfResources(pulled.stderr) ? 'git' : 'remote', `${message} (git lfs)`)
}

/** On the command line they beat what the repository's own .lfsconfig says, which may name any place. */
function settingsOf({ url, mirror }: Remote): string[] {
  const isLocal = /^(?:\/|file:\/\/)/.test(url)
  // Objects are kept beside the mirror, so that each is downloaded once. Of a directory git-lfs takes the same setting for
  // the remote's own, and finds nothing: there they are copied into each repository.
  const storage = isLocal ? [] : [`lfs.storage=${mirror}.lfs`]
  // By itself it would try for half a minute; a run is tried again as a whole.
  const settings = [`lfs.url=${lfsUrl(url)}`, 'lfs.transfer.maxretries=2', ...storage]
  return settings.flatMap((setting) => ['-c', setting])
}

/** What git-lfs derives from a clone URL. Of ssh, the server says the address when it is asked for a token. */
function lfsUrl(url: string): string {
  if (url.startsWith('/')) return pathToFileURL(url).href
  const plain = withoutCredentials(url).replace(/\/+$/, '').replace(/^git:/i, 'https:')
  if (!/^https?:\/\//i.test(plain)) return plain
  return `${plain}${plain.endsWith('.git') ? '' : '.git'}/info/lfs`
}
