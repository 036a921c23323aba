/** One bare mirror a remote: fetch, list refs, say how commits lie to each other, pin what is still needed. */
import { join, resolve } from 'node:path'
import { hasCode, LandfallError, messageOf } from '../errors.ts'
import { isRef, type Log, parseSha, type Sha } from '../model.ts'
import type { Fetched, FetchOrder, ListRefsOrder, Relation, Remote, RemoteRefs, Work } from '../work.ts'
import { type GitSession, isShortOfResources, type OpenGit, redact } from './git.ts'
import { createLocks } from './locks.ts'
import {
  addPins,
  branchRef,
  countObjects,
  dropPins,
  formatOf,
  knownBranches,
  makeMirror,
  mirrorFormat,
  readPins,
  readRef,
  removeRef,
  sweepMirror,
} from './mirror-dir.ts'

/** Above either, `tidy` packs: a checkout links every pack and loose object, at 10 to 20 µs each. */
const MAX_LOOSE = 20
const MAX_PACKS = 8
const TIDY_MS = 10 * 60_000
const PIN_MS = 60_000

const BROKEN_PACK = 'has a broken pack'

export interface Mirrors
  extends Pick<Work, 'listRefs' | 'fetch' | 'chooseTag' | 'relation' | 'touches' | 'pin' | 'tidy'> {
  /** Runs `use` while nobody else uses the mirror. What a dead git left there is cleared away before. */
  exclusively<T>(remote: Remote, signal: AbortSignal | undefined, use: () => Promise<T>): Promise<T>
  /** True where the mirror's history has holes, after a failure that does not explain itself. */
  isBroken(remote: Remote, session: GitSession): Promise<boolean>
  /** Clones the mirror anew, with all the branches that it had and the remote still has. Pins are lost. */
  remake(remote: Remote, session: GitSession): Promise<void>
}

export interface MirrorParts {
  readonly openGit: OpenGit
  readonly log: Pick<Log, 'warn'>
}

export function createMirrors({ openGit, log }: MirrorParts): Mirrors {
  const locked = createLocks()
  /** Mirrors that no dead git of an earlier process, or of a killed command, can have left locks in. */
  const swept = new Set<string>()

  async function exclusively<T>(remote: Remote, signal: AbortSignal | undefined, use: () => Promise<T>): Promise<T> {
    const mirror = resolve(remote.mirror)
    return await locked(mirror, signal, async () => {
      if (!swept.has(mirror)) await sweepMirror(mirror)
      swept.add(mirror)
      try {
        return await use()
      } catch (error) {
        swept.delete(mirror) // it may have been killed in the middle
        throw error
      }
    })
  }

  async function remake(remote: Remote, session: GitSession): Promise<void> {
    log.warn('mirror-remade', { mirror: remote.mirror, url: redact(remote.url) })
    const refs = await askRemote({ remote, branches: await knownBranches(remote.mirror), tags: false }, session)
    const [sample] = refs.head ? [refs.head.tip] : Object.values(refs.branches)
    if (sample === undefined) throw new LandfallError('git', `${redact(remote.url)} has no commits to clone`)
    await makeMirror(remote.mirror, formatOf(sample))
    const branches = Object.keys(refs.branches)
    await fetchBranches(remote, branches.length === 0 && refs.head ? [refs.head.branch] : branches, session)
  }

  return {
    exclusively,
    isBroken,
    remake,

    async listRefs({ remote, branches, tags, timeoutMs }, signal) {
      const session = openGit({ remote, doing: 'asking', env: {}, timeoutMs, signal })
      return await askRemote({ remote, branches, tags }, session)
    },

    async chooseTag() {
      throw new LandfallError('git', 'tags are not followed yet')
    },

    async relation({ remote, commit, base, timeoutMs }, signal) {
      const session = openGit({ remote, doing: 'comparing commits of', env: {}, timeoutMs, signal })
      return await relationOf(commit, base, remote.mirror, session)
    },

    async touches() {
      throw new LandfallError('git', 'paths are not compared yet')
    },

    async fetch(order, signal) {
      const { remote, wanted, env, timeoutMs } = order
      if (wanted.kind === 'branch') headOf(wanted.branch)
      return await exclusively(remote, signal, async () => {
        const session = openGit({ remote, doing: 'fetching', env, timeoutMs, signal })
        try {
          return await fetchAndCompare(order, session)
        } catch (error) {
          if (!hasCode(error, 'git') || isShortOfResources(messageOf(error))) throw error
          if (!isBeyondRepair(error) && !(await isBroken(remote, session))) throw error
        }
        await remake(remote, session)
        return await fetchAndCompare(order, session)
      })
    },

    async pin({ remote, pinnedAs, pins }) {
      await exclusively(remote, undefined, async () => {
        const { mirror } = remote
        if ((await mirrorFormat(mirror)) === null) return // a new one begins without pins
        // What is pinned is there; only a commit that is not must be looked for.
        const pinned = new Set((await readPins(mirror, pinnedAs)).values())
        const unsure = Object.values(pins).filter((sha) => !pinned.has(sha))
        const session = openGit({ remote, doing: 'pinning', env: {}, timeoutMs: PIN_MS, signal: undefined })
        const there = unsure.length > 0 ? await presentOf(unsure, mirror, session) : new Set<string>()
        const wanted = new Map(Object.entries(pins).filter(([, sha]) => pinned.has(sha) || there.has(sha)))
        await addPins(mirror, pinnedAs, wanted) // before the old ones go: nothing is ever without a pin
        await dropPins(mirror, pinnedAs, new Set(wanted.keys()))
      })
    },

    async tidy(remote, signal) {
      await exclusively(remote, signal, async () => {
        const { packs, loose } = await countObjects(remote.mirror)
        if (packs <= MAX_PACKS && loose <= MAX_LOOSE) return
        if ((await mirrorFormat(remote.mirror)) === null) return
        const session = openGit({ remote, doing: 'packing', env: {}, timeoutMs: TIDY_MS, signal })
        // Rolls loose objects and small packs into one, reachable or not: no object is ever dropped.
        const repacked = await session.run(['-c', 'repack.writeBitmaps=false', 'repack', '--geometric=2', '-d', '-n'], {
          gitDir: remote.mirror,
        })
        if (repacked.code !== 0) throw session.failure(repacked)
      })
    },
  }
}

// --- Fetching -------------------------------------------------------------------------------------------------------

async function fetchAndCompare(order: FetchOrder, session: GitSession): Promise<Fetched> {
  const { remote, announced, deployed, pinnedAs } = order
  const { ref, tip } = await fetchTip(order, session)
  if (tip === null) {
    const unknown = { tipToDeployed: 'unknown', announcedInTip: 'missing', announcedToDeployed: 'unknown' } as const
    return { ref, tip, ...unknown, commands: session.commands }
  }
  const { mirror } = remote
  const [tipToDeployed, announcedInTip] = await Promise.all([
    relationOf(tip, deployed, mirror, session),
    isInTip(announced, tip, mirror, session),
  ])
  const announcedToDeployed = await announcedRelation(order, tip, tipToDeployed, announcedInTip, session)
  // A commit beside the tip's history is not pinned: without a ref until now, its own history may have holes.
  const found = announced && announcedInTip === 'yes' ? [['announced', announced] as const] : []
  await addPins(mirror, pinnedAs, new Map([['tip', tip], ...found]))
  return { ref, tip, tipToDeployed, announcedInTip, announcedToDeployed, commands: session.commands }
}

/** Brings the branch (null: the default one) into the mirror, which it makes where there is no sound one. */
async function fetchTip(
  { remote, wanted }: FetchOrder,
  session: GitSession,
): Promise<{ readonly ref: string | null; readonly tip: Sha | null }> {
  const format = await mirrorFormat(remote.mirror)
  const named = wanted.kind === 'branch' ? wanted.branch : null
  if (named !== null && format !== null) {
    return { ref: headOf(named), tip: await fetchBranches(remote, [named], session) }
  }
  const refs = await askRemote({ remote, branches: named === null ? [] : [named], tags: false }, session)
  const branch = named ?? refs.head?.branch ?? null
  const seen = named === null ? refs.head?.tip : refs.branches[named]
  const ref = branch === null ? null : headOf(branch)
  if (branch === null || seen === undefined) return { ref, tip: null }
  if (format === null) await makeMirror(remote.mirror, formatOf(seen))
  return { ref, tip: await fetchBranches(remote, [branch], session) }
}

/** Fetches `branches`, all of which the remote should have. Resolves to the first one's tip, null where one is gone. */
async function fetchBranches(remote: Remote, branches: readonly string[], session: GitSession): Promise<Sha | null> {
  const refspecs = branches.map((branch) => `+${headOf(branch)}:${branchRef(branch)}`)
  const options = ['--no-tags', '--no-recurse-submodules', '--no-write-fetch-head']
  const fetched = await session.run(['fetch', ...options, '--', remote.url, ...refspecs], { gitDir: remote.mirror })
  const [first] = branches
  if (fetched.code !== 0 && /couldn't find remote ref/.test(fetched.stderr)) {
    if (first !== undefined) await removeRef(remote.mirror, branchRef(first))
    return null
  }
  if (fetched.code !== 0) throw session.failure(fetched)
  // Git gets around a pack it cannot read by fetching everything again, but every release would inherit that pack.
  if (fetched.stderr.includes(`packfile ${join(remote.mirror, 'objects')}`)) {
    throw new LandfallError('git', `the mirror ${remote.mirror} ${BROKEN_PACK}`)
  }
  const tip = first === undefined ? null : await readRef(remote.mirror, branchRef(first))
  if (first !== undefined && tip === null) throw new LandfallError('git', `the mirror ${remote.mirror} lost ${first}`)
  return tip
}

async function askRemote(
  { remote, branches, tags }: Pick<ListRefsOrder, 'remote' | 'branches' | 'tags'>,
  session: GitSession,
): Promise<RemoteRefs> {
  const heads = branches === 'all' ? ['refs/heads/*'] : branches.map(headOf)
  const patterns = ['HEAD', ...heads, ...(tags ? ['refs/tags/*'] : [])]
  // Outside of any repository, so that a broken mirror does not matter and no repository's configuration applies.
  const listed = await session.run(['ls-remote', '--symref', '--', remote.url, ...patterns], { gitDir: null })
  if (listed.code !== 0) throw session.failure(listed)
  const lines = listed.stdout.toString().split('\n')
  const found = new Map(lines.map((line) => line.split('\t')).map(([value = '', name = '']) => [name, value]))
  const symref = lines.map((line) => /^ref: refs\/heads\/(.+)\tHEAD$/.exec(line)?.[1]).find(Boolean)
  const tip = parseSha(found.get('HEAD'))
  const below = (prefix: string) =>
    [...found].flatMap(([name, value]) => {
      const sha = parseSha(value)
      return sha !== null && name.startsWith(prefix) && isRef(name.replace(/\^\{\}$/, ''))
        ? [[name.slice(prefix.length), sha] as const]
        : []
    })
  const tagged = new Map(below('refs/tags/'))
  return {
    head: symref && tip && isRef(`refs/heads/${symref}`) ? { branch: symref, tip } : null,
    branches: Object.fromEntries(below('refs/heads/')),
    tags: Object.fromEntries(
      [...tagged].flatMap(([tag, object]) =>
        tag.endsWith('^{}') ? [] : [[tag, { object, commit: tagged.get(`${tag}^{}`) ?? object }] as const],
      ),
    ),
  }
}

/** The full ref name. Throws for what is no branch name, or would be read as an option or a pattern. */
function headOf(branch: string): string {
  const ref = `refs/heads/${branch}`
  if (!isRef(ref)) throw new LandfallError('git', `"${redact(branch)}" is not a branch name that git accepts`)
  return ref
}

// --- How commits lie to each other ----------------------------------------------------------------------------------

/** `commit` seen from `base`. One command, none where they are equal. */
async function relationOf(commit: Sha, base: Sha | null, mirror: string, session: GitSession): Promise<Relation> {
  if (base === null) return 'unknown'
  if (commit === base) return 'same'
  const counted = await session.run(['rev-list', '--left-right', '--count', `${base}...${commit}`, '--'], {
    gitDir: mirror,
  })
  if (counted.code !== 0 && /symmetric difference|bad (?:object|revision)/.test(counted.stderr)) return 'unknown'
  const [, behind, ahead] = /^(\d+)\t(\d+)\n$/.exec(counted.stdout.toString()) ?? []
  if (counted.code !== 0 || behind === undefined) throw session.failure(counted)
  if (behind === '0') return 'ahead'
  return ahead === '0' ? 'behind' : 'diverged'
}

async function isInTip(
  commit: Sha | null,
  tip: Sha,
  mirror: string,
  session: GitSession,
): Promise<Fetched['announcedInTip']> {
  if (commit === null) return 'no'
  if (commit === tip) return 'yes'
  // Not --is-ancestor: its exit code says less, for this one also tells a commit that is missing from one that is beside.
  const base = await session.run(['merge-base', tip, commit], { gitDir: mirror })
  if (base.code === 0) return base.stdout.toString().trim() === commit ? 'yes' : 'no'
  if (base.code === 1 && base.stderr === '') return 'no' // no common history
  if (/Not a valid|bad object/.test(base.stderr)) return 'missing'
  throw session.failure(base)
}

async function announcedRelation(
  { announced, deployed, compareAnnounced, remote }: FetchOrder,
  tip: Sha,
  tipToDeployed: Relation,
  inTip: Fetched['announcedInTip'],
  session: GitSession,
): Promise<Relation> {
  if (!compareAnnounced || announced === null || deployed === null || inTip === 'missing') return 'unknown'
  if (announced === tip) return tipToDeployed
  return await relationOf(announced, deployed, remote.mirror, session)
}

async function presentOf(commits: readonly Sha[], mirror: string, session: GitSession): Promise<Set<string>> {
  const options = ['--no-walk=unsorted', '--ignore-missing']
  const listed = await session.run(['rev-list', ...options, ...commits, '--'], { gitDir: mirror })
  if (listed.code !== 0) throw session.failure(listed)
  return new Set(listed.stdout.toString().split('\n'))
}

// --- Corruption -----------------------------------------------------------------------------------------------------

async function isBroken(remote: Remote, session: GitSession): Promise<boolean> {
  if ((await mirrorFormat(remote.mirror)) === null) return true
  const options = ['--connectivity-only', '--no-dangling', '--no-progress']
  return (await session.run(['fsck', ...options], { gitDir: remote.mirror })).code !== 0
}

/** What needs no further look: the remote was made anew with other object ids, or `BROKEN_PACK`. */
function isBeyondRepair(error: LandfallError): boolean {
  return /mismatched algorithms/.test(error.message) || error.message.endsWith(BROKEN_PACK)
}
