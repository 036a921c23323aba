/** Which submodules a commit has, and from where: read from the commit itself and judged before anything is fetched. */
import { LandfallError } from '../errors.ts'
import { parseSha, type Sha } from '../model.ts'
import { type GitSession, redact, withoutCredentials } from './git.ts'
import { judgeSubmodule } from './submodule-url.ts'

export interface Submodule {
  readonly name: string
  /** Relative to the work tree; checked, but what is on the disk there is not. */
  readonly path: string
  readonly url: string
  readonly commit: Sha
}

export interface SubmoduleSearch {
  readonly session: GitSession
  readonly gitDir: string
  readonly commit: Sha
  /** Of the repository that has the submodules. */
  readonly url: string
  /** From where they may come, beside that repository's own host. */
  readonly hosts: readonly string[]
}

/** Throws `unstartable` for one that may not be had, naming the setting that would allow it. */
export async function findSubmodules(search: SubmoduleSearch): Promise<Submodule[]> {
  const declared = await readGitmodules(search)
  if (declared.length === 0) return []
  const recorded = await recordedCommits(search, declared)
  return declared.flatMap(({ name, path, url }) => {
    const commit = recorded.get(path)
    // Declared, and not in this commit: git passes over it too.
    return commit === undefined ? [] : [{ name, path, url: permitted(name, url, search), commit }]
  })
}

interface Declared {
  readonly name: string
  readonly path: string
  readonly url: string | undefined
}

/** Of the commit and not of the work tree, where filters may have made something else of it. */
async function readGitmodules({ session, gitDir, commit }: SubmoduleSearch): Promise<Declared[]> {
  const read = await session.run(['config', '--blob', `${commit}:.gitmodules`, '--list', '-z'], { gitDir })
  if (read.code !== 0 && /unable to resolve config blob/.test(read.stderr)) return []
  if (read.code !== 0) throw new LandfallError('unstartable', `${session.failure(read).message} (.gitmodules)`)
  const values = new Map<string, Map<string, string>>()
  for (const entry of read.stdout.toString().split('\0')) {
    const [, name, key, value] = /^submodule\.([^\n]+)\.(path|url|update)\n(.*)$/s.exec(entry) ?? []
    if (name === undefined || key === undefined || value === undefined) continue
    values.set(name, (values.get(name) ?? new Map<string, string>()).set(key, value))
  }
  return [...values].flatMap(([name, found]) => {
    const path = found.get('path')?.replace(/\/+$/, '')
    if (path === undefined || found.get('update') === 'none') return []
    if (!isSafePath(path) || !isSafePath(name))
      throw refusal(name, `has a name or path that is not safe: ${shown(path)}`)
    return [{ name, path, url: found.get('url') }]
  })
}

/** The contract that git has with itself, so that no path ever leaves the work tree or reaches a repository's inside. */
export function isSafePath(path: string): boolean {
  const isUnsafe = (part: string) => ['', '.', '..'].includes(part) || /^(?:\.git|git~\d+)[. ]*$/i.test(part)
  return !/[\p{Cc}\\]/u.test(path) && !path.startsWith('-') && !path.split('/').some(isUnsafe)
}

async function recordedCommits(
  { session, gitDir, commit }: SubmoduleSearch,
  declared: readonly Declared[],
): Promise<Map<string, Sha>> {
  const paths = declared.map(({ path }) => path)
  const options = ['--literal-pathspecs', 'ls-tree', '-z', '--full-tree']
  const listed = await session.run([...options, commit, '--', ...paths], { gitDir })
  if (listed.code !== 0) throw session.failure(listed)
  const entries = listed.stdout.toString().split('\0')
  return new Map(
    entries.flatMap((entry) => {
      const [, id, path] = /^160000 commit ([0-9a-f]+)\t(.+)$/s.exec(entry) ?? []
      const recorded = parseSha(id)
      return recorded === null || path === undefined ? [] : [[path, recorded] as const]
    }),
  )
}

function permitted(name: string, url: string | undefined, { url: base, hosts }: SubmoduleSearch): string {
  if (url === undefined) throw refusal(name, 'has no URL in .gitmodules')
  const verdict = judgeSubmodule(url, withoutCredentials(base), hosts)
  if (verdict.kind === 'allowed') return verdict.url
  const allowing = [...hosts, verdict.host].map((host) => JSON.stringify(host)).join(', ')
  const advice = verdict.host === null ? '' : `. If you trust that host, write submodules = [${allowing}]`
  throw refusal(name, `(${shown(redact(url))}) ${verdict.why}${advice}`)
}

function refusal(name: string, why: string): LandfallError {
  return new LandfallError('unstartable', `the submodule ${shown(name)} ${why}`)
}

function shown(text: string): string {
  return JSON.stringify(text.replace(/\p{Cc}/gu, ' ').slice(0, 200))
}
