/** What a remote has: asked for without any repository, and fetched into a mirror. */
import { join } from 'node:path'
import { LandfallError } from '../errors.ts'
import { isRef, parseSha, type Sha } from '../model.ts'
import type { ListRefsOrder, Remote, RemoteRefs, RemoteTag } from '../work.ts'
import { type GitSession, redact } from './git.ts'

/** How the message of a mirror ends that must be cloned anew. */
export const BROKEN_PACK = 'has a broken pack'
/** Refspecs of one command, whose arguments together may have 2 MB and which a hostile remote can make 3 kB long each. */
const REFS_AT_ONCE = 500

/** `RemoteRefs`, by names that a remote may have chosen. */
export interface Listed {
  readonly head: RemoteRefs['head']
  readonly branches: ReadonlyMap<string, Sha>
  readonly tags: ReadonlyMap<string, RemoteTag>
}

/** One command. Names that git would refuse, and such as no text can say, are left out. */
export async function askRemote(
  { remote, branches, tags }: Pick<ListRefsOrder, 'remote' | 'branches' | 'tags'>,
  session: GitSession,
): Promise<Listed> {
  const heads = branches === 'all' ? ['refs/heads/*'] : branches.map(headOf)
  const patterns = ['HEAD', ...heads, ...(tags ? ['refs/tags/*'] : [])]
  // Outside of any repository, so that a broken mirror does not matter and no repository's configuration applies.
  const listed = await session.run(['ls-remote', '--symref', '--', remote.url, ...patterns], { gitDir: null })
  if (listed.code !== 0) throw session.failure(listed)
  const lines = listed.stdout.toString().split('\n')
  const found = new Map(lines.map((line) => line.split('\t')).map(([value = '', name = '']) => [name, value]))
  const symref = lines.map((line) => /^ref: refs\/heads\/(.+)\tHEAD$/.exec(line)?.[1]).find(Boolean)
  const tip = parseSha(found.get('HEAD'))
  return {
    head: symref && tip && isRef(`refs/heads/${symref}`) ? { branch: symref, tip } : null,
    branches: new Map(below('refs/heads/')),
    tags: new Map(
      below('refs/tags/').map(([tag, object]) => {
        // What the tag object says in the end, however many others it names on the way.
        const peeled = parseSha(found.get(`refs/tags/${tag}^{}`))
        return [tag, { object, commit: peeled ?? object }]
      }),
    ),
  }

  function below(prefix: string): (readonly [string, Sha])[] {
    return [...found].flatMap(([name, value]) => {
      const sha = parseSha(value)
      const fits = sha !== null && name.startsWith(prefix) && isRef(name) && !name.includes('\uFFFD')
      return fits ? [[name.slice(prefix.length), sha] as const] : []
    })
  }
}

/**
 * Makes each `to` of the mirror what `from` is on the remote. False where the remote lacks one of them; others may have
 * been fetched by then. All are full names that `isRef` takes.
 */
export async function fetchRefs(
  remote: Remote,
  refs: readonly { readonly from: string; readonly to: string }[],
  session: GitSession,
): Promise<boolean> {
  for (let first = 0; first < refs.length; first += REFS_AT_ONCE) {
    const refspecs = refs.slice(first, first + REFS_AT_ONCE).map(({ from, to }) => `+${from}:${to}`)
    const options = ['--no-tags', '--no-recurse-submodules', '--no-write-fetch-head']
    const fetched = await session.run(['fetch', ...options, '--', remote.url, ...refspecs], { gitDir: remote.mirror })
    if (fetched.code !== 0 && /couldn't find remote ref/.test(fetched.stderr)) return false
    if (fetched.code !== 0) throw session.failure(fetched)
    // Git gets around a pack it cannot read by fetching everything again, but every release would inherit that pack.
    if (fetched.stderr.includes(`packfile ${join(remote.mirror, 'objects')}`)) {
      throw new LandfallError('git', `the mirror ${remote.mirror} ${BROKEN_PACK}`)
    }
  }
  return true
}

/** The full ref name. Throws for what is no branch name, or would be read as an option or a pattern. */
export function headOf(branch: string): string {
  const ref = `refs/heads/${branch}`
  if (!isRef(ref)) throw new LandfallError('git', `"${redact(branch)}" is not a branch name that git accepts`)
  return ref
}
