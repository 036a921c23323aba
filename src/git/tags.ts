/** Tags: which one a target wants, what it names, and how it lies to the one that is deployed. */
import { LandfallError } from '../errors.ts'
import { matchesRefName } from '../globs.ts'
import { parseSha, type Sha } from '../model.ts'
import { compareDates, compareVersions } from '../tag-order.ts'
import type { ChosenTag, Fetched, FetchOrder, Relation, Remote, RemoteTag, TagChoice, Wanted } from '../work.ts'
import { type GitSession, redact } from './git.ts'
import { addPins, formatOf, makeMirror, mirrorFormat, pruneTags, readRef, tagRef } from './mirror-dir.ts'
import { createRecent } from './recent.ts'
import { commitsAmong, relationOf } from './relations.ts'
import { askRemote, fetchRefs } from './remote.ts'

/** How often the remote is asked again because its tags changed while they were fetched. */
const TRIES = 3
/** Objects of one git command, whose arguments together may have 2 MB. */
const OBJECTS_AT_ONCE = 1000

type TagWanted = Extract<Wanted, { kind: 'tag' }>
type TagsOfRemote = ReadonlyMap<string, RemoteTag>
interface Candidate extends RemoteTag {
  readonly tag: string
}
/** What an object is that a tag names. It never changes, so git is asked once. */
interface Fact {
  /** Null where it is, or says in the end, a tree or a blob. */
  readonly commit: Sha | null
  /** Seconds since the epoch: of a tag object the tagger's date, else the committer's. */
  readonly madeAt: number
}
/** The remote is no more what it said it was. */
type Changed = 'changed'

export interface Tags {
  /**
   * `Work.fetch` of a tag, with the mirror's lock held. Tags follow each other in their own order, whatever the history says:
   * a release of an old line is `behind` a newer one. D's own commit is `same` by any name. With `newest`, a D whose tag is
   * not there any more as it was has no date to go by: then the history decides.
   */
  follow(order: FetchOrder, wanted: TagWanted, session: GitSession): Promise<Fetched>
  /**
   * `Work.chooseTag`. Asks for the mirror (`locked`) only where something must be fetched first. By version a tag that no
   * run has fetched is believed to be of a commit.
   */
  chooseTag(
    remote: Remote,
    choice: TagChoice,
    session: GitSession,
    locked: <T>(task: (session: GitSession) => Promise<T>) => Promise<T>,
  ): Promise<ChosenTag | null>
}

export function createTags(): Tags {
  /** By mirror, of objects that its remote has. */
  const known = new Map<string, Map<Sha, Fact>>()
  const recent = createRecent<TagsOfRemote>()

  return {
    async follow(order, wanted, session) {
      const { remote, dueAt } = order
      const shared = recent.recall(remote.mirror, 'refs/tags/*', dueAt)
      if (shared !== undefined) {
        const fetched = await fetchAndCompare(order, wanted, shared, session)
        if (fetched !== 'changed' && fetched.announcedInTip !== 'missing') return fetched
      }
      return await untilUnchanged(remote, async () => {
        const beganAt = Date.now()
        const listed = await ask(remote, session)
        const fetched = await fetchAndCompare(order, wanted, listed, session)
        if (fetched !== 'changed') recent.remember(remote.mirror, 'refs/tags/*', beganAt, listed)
        return fetched
      })
    },

    async chooseTag(remote, choice, session, locked) {
      const facts = factsOf(remote)
      const chosen = await untilUnchanged(remote, async () => {
        const candidates = fitting(await ask(remote, session), choice)
        if (choice.order === 'newest' && candidates.some(({ object }) => !facts.has(object))) {
          if (!(await locked((fetching) => learn(remote, candidates, fetching)))) return 'changed'
        }
        return best(candidates, choice, facts)
      })
      return chosen && { tag: chosen.tag, commit: facts.get(chosen.object)?.commit ?? chosen.commit }
    },
  }

  async function fetchAndCompare(
    order: FetchOrder,
    wanted: TagWanted,
    listed: TagsOfRemote,
    session: GitSession,
  ): Promise<Fetched | Changed> {
    const { remote, pinnedAs } = order
    await prune(remote, listed)
    const candidates = fitting(listed, wanted)
    const chosen = await choose(remote, candidates, wanted, session)
    if (chosen === 'changed') return chosen
    const announcedInTip = announcedAmong(order, wanted, listed, chosen)
    if (chosen === null) {
      const unknown = { tipToDeployed: 'unknown', announcedInTip, announcedToDeployed: 'unknown' } as const
      return { ref: null, tip: null, ...unknown, commands: session.commands }
    }
    const tipToDeployed = await relationToDeployed(chosen, order, wanted, candidates, session)
    await addPins(remote.mirror, pinnedAs, new Map([['tip', chosen.commit]]))
    const announcedToDeployed = announcedInTip === 'yes' ? tipToDeployed : 'unknown'
    const found = { ref: `refs/tags/${chosen.tag}`, tip: chosen.commit }
    return { ...found, tipToDeployed, announcedInTip, announcedToDeployed, commands: session.commands }
  }

  /** The best of the candidates that are commits. It is in the mirror then. */
  async function choose(
    remote: Remote,
    candidates: readonly Candidate[],
    choice: TagChoice,
    session: GitSession,
  ): Promise<Candidate | null | Changed> {
    const facts = factsOf(remote)
    if (choice.order === 'newest' && !(await learn(remote, candidates, session))) return 'changed'
    for (;;) {
      const chosen = best(candidates, choice, facts)
      if (chosen === null) return null
      if (!(await bring(remote, [chosen], session)) || !(await learn(remote, [chosen], session))) return 'changed'
      const commit = facts.get(chosen.object)?.commit
      if (commit) return { ...chosen, commit }
      // A tag of a tree or a blob is rare. Of all of them there may be many, so that they are not tried one by one.
      if (!(await learn(remote, candidates, session))) return 'changed'
    }
  }

  /** Afterwards there is a fact of every candidate. */
  async function learn(remote: Remote, candidates: readonly Candidate[], session: GitSession): Promise<boolean> {
    const facts = factsOf(remote)
    const unknown = candidates.filter(({ object }) => !facts.has(object))
    if (!(await bring(remote, unknown, session))) return false
    for (let first = 0; first < unknown.length; first += OBJECTS_AT_ONCE) {
      const some = unknown.slice(first, first + OBJECTS_AT_ONCE)
      for (const [object, fact] of await readFacts(some, remote.mirror, session)) facts.set(object, fact)
    }
    const lost = unknown.find(({ object }) => !facts.has(object))
    if (lost) throw new LandfallError('git', `the mirror ${remote.mirror} lost the tag ${lost.tag}`)
    return true
  }

  function factsOf({ mirror }: Remote): Map<Sha, Fact> {
    const facts = known.get(mirror) ?? new Map<Sha, Fact>()
    known.set(mirror, facts)
    return facts
  }

  /** What the remote has no more leaves the mirror's refs and our memory. */
  async function prune(remote: Remote, listed: TagsOfRemote): Promise<void> {
    await pruneTags(remote.mirror, listed.keys())
    const objects = new Set([...listed.values()].map(({ object }) => object))
    const facts = factsOf(remote)
    for (const object of facts.keys()) if (!objects.has(object)) facts.delete(object)
  }
}

/** By `newest` every candidate has its fact. */
function best(candidates: readonly Candidate[], { order }: TagChoice, facts: ReadonlyMap<Sha, Fact>): Candidate | null {
  const dated = candidates.flatMap((candidate) => {
    const fact = facts.get(candidate.object)
    return fact?.commit === null ? [] : [{ ...candidate, madeAt: fact?.madeAt ?? 0 }]
  })
  return dated.reduce<(typeof dated)[number] | null>((highest, candidate) => {
    if (highest === null) return candidate
    const difference =
      order === 'newest' ? compareDates(candidate, highest) : compareVersions(candidate.tag, highest.tag)
    return difference > 0 ? candidate : highest
  }, null)
}

/** Retries `look` while it says that the remote is changing. */
async function untilUnchanged<T>(remote: Remote, look: () => Promise<T | Changed>): Promise<T> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const seen = await look()
    if (seen !== 'changed') return seen
  }
  throw new LandfallError('remote', `the tags of ${redact(remote.url)} changed again and again while they were fetched`)
}

async function ask(remote: Remote, session: GitSession): Promise<TagsOfRemote> {
  return (await askRemote({ remote, branches: [], tags: true }, session)).tags
}

function fitting(listed: TagsOfRemote, { patterns }: TagChoice): Candidate[] {
  return [...listed].flatMap(([tag, named]) => (matchesRefName(patterns, tag) ? [{ tag, ...named }] : []))
}

/** Fetches what the mirror has not. False where the remote has something else by one of the names by now. */
async function bring(remote: Remote, tags: readonly Candidate[], session: GitSession): Promise<boolean> {
  const [first] = tags
  if (first === undefined) return true
  if ((await mirrorFormat(remote.mirror)) === null) await makeMirror(remote.mirror, formatOf(first.object))
  const lacking: Candidate[] = []
  for (const tag of tags) if (!(await isThere(tag))) lacking.push(tag)
  const refs = lacking.map(({ tag }) => ({ from: `refs/tags/${tag}`, to: tagRef(tag) }))
  if (!(await fetchRefs(remote, refs, session))) return false
  for (const tag of lacking) if (!(await isThere(tag))) return false
  return true

  async function isThere({ tag, object }: Candidate): Promise<boolean> {
    return (await readRef(remote.mirror, tagRef(tag))) === object
  }
}

const FACT = '%(objectname) %(objecttype) %(*objectname) %(*objecttype) %(creatordate:unix)'

/** What the objects of `tags` are, all of which are in the mirror. */
async function readFacts(tags: readonly Candidate[], mirror: string, session: GitSession): Promise<Map<Sha, Fact>> {
  const refs = tags.map(({ tag }) => tagRef(tag))
  const told = await session.run(['for-each-ref', `--format=${FACT}`, ...refs], { gitDir: mirror })
  if (told.code !== 0) throw session.failure(told)
  const facts = new Map<Sha, Fact>()
  const nested = new Set<Sha>()
  for (const line of told.stdout.toString().split('\n')) {
    const [name, type, peeledName, peeledType, date] = line.split(' ')
    const object = parseSha(name)
    if (object === null) continue
    const commit = type === 'commit' ? object : peeledType === 'commit' ? parseSha(peeledName) : null
    facts.set(object, { commit, madeAt: Number(date) || 0 })
    if (peeledType === 'tag') nested.add(object)
  }
  // Before 2.45 git takes off one layer only. Of a tag of a tag the remote has said where it ends, but not what that is.
  const ends = tags.filter(({ object }) => nested.has(object))
  if (ends.length > 0) {
    const objects = ends.map(({ commit }) => commit)
    const commits = await commitsAmong(objects, mirror, session)
    for (const { object, commit } of ends) {
      if (commits.has(commit)) facts.set(object, { commit, madeAt: facts.get(object)?.madeAt ?? 0 })
    }
  }
  return facts
}

/** A forge announces an annotated tag by its object or by its commit. What the remote has otherwise is not there yet. */
function announcedAmong(
  { announced }: FetchOrder,
  wanted: TagWanted,
  listed: TagsOfRemote,
  chosen: Candidate | null,
): Fetched['announcedInTip'] {
  if (wanted.announced === null && announced === null) return 'no'
  const meant = [...listed].filter(
    ([tag, { object, commit }]) =>
      (wanted.announced === null || tag === wanted.announced) &&
      (announced === null || announced === object || announced === commit),
  )
  if (meant.length === 0) return 'missing'
  return meant.some(([tag]) => tag === chosen?.tag) ? 'yes' : 'no'
}

async function relationToDeployed(
  chosen: Candidate,
  { remote, deployed }: FetchOrder,
  wanted: TagWanted,
  candidates: readonly Candidate[],
  session: GitSession,
): Promise<Relation> {
  if (deployed === null) return 'unknown'
  if (chosen.commit === deployed) return 'same'
  if (wanted.deployed === null) return 'unknown'
  if (wanted.deployed === chosen.tag) return 'diverged'
  if (wanted.order === 'version') return compareVersions(chosen.tag, wanted.deployed) > 0 ? 'ahead' : 'behind'
  // The chosen one is the newest of all candidates.
  if (candidates.some(({ tag, commit }) => tag === wanted.deployed && commit === deployed)) return 'ahead'
  return await relationOf(chosen.commit, deployed, remote.mirror, session)
}
