/** One bare mirror a remote: fetch, list refs, pin what is still needed, make anew what is broken. */
import { resolve } from 'node:path'
import { hasCode, LandfallError, messageOf } from '../errors.ts'
import type { Log, Sha } from '../model.ts'
import type { Fetched, FetchOrder, Remote, Work } from '../work.ts'
import { type GitSession, isShortOfResources, type OpenGit, redact } from './git.ts'
import { createLocks } from './locks.ts'
import {
  addPins,
  branchRef,
  countObjects,
  dropPins,
  formatOf,
  knownBranches,
  knownTags,
  makeMirror,
  mirrorFormat,
  readPins,
  readRef,
  removeRef,
  sweepMirror,
  tagRef,
} from './mirror-dir.ts'
import { createRecent } from './recent.ts'
import { announcedRelation, commitsAmong, isInTip, relationOf, touchesAny } from './relations.ts'
import { askRemote, BROKEN_PACK, fetchRefs, headOf } from './remote.ts'
import { createTags } from './tags.ts'

/** Above either, `tidy` packs: a checkout links every pack and loose object, at 10 to 20 µs each. */
const MAX_LOOSE = 20
const MAX_PACKS = 8
const TIDY_MS = 10 * 60_000
const PIN_MS = 60_000

export interface Mirrors
  extends Pick<Work, 'listRefs' | 'fetch' | 'chooseTag' | 'relation' | 'touches' | 'pin' | 'tidy'> {
  /** Runs `use` while nobody else uses the mirror. What a dead git left there is cleared away before. */
  exclusively<T>(remote: Remote, signal: AbortSignal | undefined, use: () => Promise<T>): Promise<T>
  /** True where the mirror's history has holes, after a failure that does not explain itself. */
  isBroken(remote: Remote, session: GitSession): Promise<boolean>
  /** Clones the mirror anew, with all the branches and tags that it had and the remote still has. Pins are lost. */
  remake(remote: Remote, session: GitSession): Promise<void>
}

export interface MirrorParts {
  readonly openGit: OpenGit
  readonly log: Pick<Log, 'warn'>
}

export function createMirrors({ openGit, log }: MirrorParts): Mirrors {
  const locked = createLocks()
  const tags = createTags()
  /** By the ref that was followed: `HEAD` is the default branch. */
  const recent = createRecent<Branch>()
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

  /** Does `task`, if need be a second time with a mirror that was made anew. */
  async function repairing<T>(remote: Remote, session: GitSession, task: () => Promise<T>): Promise<T> {
    try {
      return await task()
    } catch (error) {
      if (!hasCode(error, 'git') || isShortOfResources(messageOf(error))) throw error
      if (!isBeyondRepair(error) && !(await isBroken(remote, session))) throw error
    }
    await remake(remote, session)
    return await task()
  }

  async function remake(remote: Remote, session: GitSession): Promise<void> {
    const { mirror } = remote
    log.warn('mirror-remade', { mirror, url: redact(remote.url) })
    const [branches, tagNames] = await Promise.all([knownBranches(mirror), knownTags(mirror)])
    const listed = await askRemote({ remote, branches, tags: tagNames.length > 0 }, session)
    const tagged = [...listed.tags.values()].map(({ object }) => object)
    const sample = [listed.head?.tip, ...listed.branches.values(), ...tagged].find((sha) => sha !== undefined)
    if (sample === undefined) throw new LandfallError('git', `${redact(remote.url)} has no commits to clone`)
    await makeMirror(mirror, formatOf(sample))
    recent.forget(mirror)
    const known = [
      ...[...listed.branches.keys()].map((branch) => ({ from: headOf(branch), to: branchRef(branch) })),
      ...tagNames.filter((tag) => listed.tags.has(tag)).map((tag) => ({ from: `refs/tags/${tag}`, to: tagRef(tag) })),
    ]
    const head = listed.head ? [{ from: headOf(listed.head.branch), to: branchRef(listed.head.branch) }] : []
    await fetchRefs(remote, known.length > 0 ? known : head, session)
  }

  /** What another order has just found is taken for the answer, unless it lacks what this one is about. */
  async function followBranch(order: FetchOrder, named: string | null, session: GitSession): Promise<Fetched> {
    const { remote, dueAt } = order
    const ref = named === null ? 'HEAD' : headOf(named)
    const shared = recent.recall(remote.mirror, ref, dueAt)
    if (shared !== undefined && (await mirrorFormat(remote.mirror)) !== null) {
      const fetched = await compare(order, shared, session)
      if (fetched.announcedInTip !== 'missing') return fetched
    }
    const beganAt = Date.now()
    const found = await fetchBranch(remote, named, session)
    recent.remember(remote.mirror, ref, beganAt, found)
    return await compare(order, found, session)
  }

  return {
    exclusively,
    isBroken,
    remake,

    async listRefs({ remote, branches, tags: withTags, timeoutMs }, signal) {
      const session = openGit({ remote, doing: 'asking', env: {}, timeoutMs, signal })
      const listed = await askRemote({ remote, branches, tags: withTags }, session)
      return {
        head: listed.head,
        branches: Object.fromEntries(listed.branches),
        tags: Object.fromEntries(listed.tags),
      }
    },

    async chooseTag({ remote, patterns, order, timeoutMs }, signal) {
      const open = (doing: string) => openGit({ remote, doing, env: {}, timeoutMs, signal })
      return await tags.chooseTag(remote, { patterns, order }, open('asking'), (task) =>
        exclusively(remote, signal, async () => {
          const session = open('fetching tags of')
          return await repairing(remote, session, () => task(session))
        }),
      )
    },

    async relation({ remote, commit, base, timeoutMs }, signal) {
      const session = openGit({ remote, doing: 'comparing commits of', env: {}, timeoutMs, signal })
      return await relationOf(commit, base, remote.mirror, session)
    },

    async touches(order, signal) {
      const { remote, env, timeoutMs } = order
      return await exclusively(remote, signal, async () => {
        if ((await mirrorFormat(remote.mirror)) === null) return true
        return await touchesAny(order, openGit({ remote, doing: 'comparing commits of', env, timeoutMs, signal }))
      })
    },

    async fetch(order, signal) {
      const { remote, wanted, env, timeoutMs } = order
      if (wanted.kind === 'branch') headOf(wanted.branch)
      return await exclusively(remote, signal, async () => {
        const session = openGit({ remote, doing: 'fetching', env, timeoutMs, signal })
        return await repairing(remote, session, () =>
          wanted.kind === 'tag'
            ? tags.follow(order, wanted, session)
            : followBranch(order, wanted.kind === 'branch' ? wanted.branch : null, session),
        )
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
        const there = unsure.length > 0 ? await commitsAmong(unsure, mirror, session) : new Set<string>()
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

// --- Branches -------------------------------------------------------------------------------------------------------

interface Branch {
  /** Full name; null where the remote has no default branch. */
  readonly ref: string | null
  readonly tip: Sha | null
}

async function compare(order: FetchOrder, { ref, tip }: Branch, session: GitSession): Promise<Fetched> {
  const { remote, announced, deployed, pinnedAs } = order
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
async function fetchBranch(remote: Remote, named: string | null, session: GitSession): Promise<Branch> {
  const format = await mirrorFormat(remote.mirror)
  if (named !== null && format !== null) {
    return { ref: headOf(named), tip: await fetchTip(remote, named, session) }
  }
  const listed = await askRemote({ remote, branches: named === null ? [] : [named], tags: false }, session)
  const branch = named ?? listed.head?.branch ?? null
  const seen = named === null ? listed.head?.tip : listed.branches.get(named)
  const ref = branch === null ? null : headOf(branch)
  if (branch === null || seen === undefined) return { ref, tip: null }
  if (format === null) await makeMirror(remote.mirror, formatOf(seen))
  return { ref, tip: await fetchTip(remote, branch, session) }
}

/** Null where the branch is gone. */
async function fetchTip(remote: Remote, branch: string, session: GitSession): Promise<Sha | null> {
  const to = branchRef(branch)
  if (!(await fetchRefs(remote, [{ from: headOf(branch), to }], session))) {
    await removeRef(remote.mirror, to)
    return null
  }
  const tip = await readRef(remote.mirror, to)
  if (tip === null) throw new LandfallError('git', `the mirror ${remote.mirror} lost ${branch}`)
  return tip
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
