/**
 * A working tree at a path of somebody's own, brought to exactly one commit. Everything that is somebody's work is looked for
 * before anything is changed, and saved before anything is undone. The tree needs no mirror to live on.
 */
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, LandfallError, messageOf } from '../errors.ts'
import { isRef, type Sha } from '../model.ts'
import type { InPlace, InPlaceOrder, Remote, RestoreOrder, Work } from '../work.ts'
import { changedPaths, writeChanged } from './changed.ts'
import {
  type CheckoutParts,
  cloneConfig,
  configValue,
  makeRepository as linkRepository,
  soundsCorrupt,
} from './checkout.ts'
import { createExtras } from './extras.ts'
import { type GitSession, isShortOfResources } from './git.ts'
import { findInTheWay } from './in-the-way.ts'
import { branchRef } from './mirror-dir.ts'
import {
  assertBranchIsHere,
  assertClaim,
  assertIdle,
  type Claim,
  clearPlace,
  isBusy,
  type Place,
  placeAt,
  refusal,
  sweepLocks,
  underWay,
  writeClaim,
} from './place.ts'
import { counted, type Endangered, ofSubmodule, salvage } from './salvage.ts'
import { submoduleEdits } from './submodule-edits.ts'
import { assertOrigin, openTree, ownCommits, readStatus, type Tree, tidyTree } from './tree.ts'

type Clone = Extract<Place, { readonly kind: 'clone' }>

/** A tree whose files can now be brought to the commit without asking anybody, and what that will destroy. */
interface Prepared {
  readonly tree: Tree
  readonly endangered: Endangered
  /** As `changedPaths` has it. */
  readonly changed: Buffer
}

/** The process should run with umask 022, as for releases. */
export function createInPlace({ openGit, mirrors }: CheckoutParts): Pick<Work, 'checkOutInPlace' | 'restore'> {
  const addExtras = createExtras({ mirrors, makeRepository: linkRepository })

  return {
    async checkOutInPlace(order, signal) {
      assertBranch(order.branch)
      const place = await placeAt(order.path)
      if (place.kind === 'clone') return await move(order, place, signal)
      await make(order, place.path, signal)
      return { was: null, notes: [`made ${place.path}`] }
    },

    async restore(order) {
      assertBranch(order.branch)
      const place = await placeAt(order.path)
      if (place.kind === 'vacant' || place.claim === null) {
        throw refusal(`${order.path} is no working tree of landfall's any more`)
      }
      const tree = openTree({ openGit, order, ...place, signal: undefined })
      await assertOrigin(tree, order.remote)
      await assertIdle(place.gitDir)
      const { instance, at } = place.claim
      await changing(tree, place.claim, { instance, at, moving: order.commit }, () => bring(tree, order))
      await writeClaim(place.gitDir, { instance, at: order.commit, moving: null, atWork: false })
    },
  }

  async function move(order: InPlaceOrder, place: Clone, signal: AbortSignal | undefined): Promise<InPlace> {
    const { commit, instance } = order
    const { gitDir } = place
    const claim = { instance, at: place.claim?.at ?? null, moving: commit }
    // The lock ends with the objects: the files are then git's work in the tree alone, and other runs of the remote go on.
    const { tree, endangered, changed } = await mirrors.exclusively(order.remote, signal, async () => {
      const mirror = openMirror(order, signal)
      const prepared = await prepare(order, place, mirror, signal)
      await changing(prepared.tree, place.claim, claim, () => fetchInto(prepared.tree, order, mirror))
      return prepared
    })
    const notes = await changing(tree, place.claim, claim, async () => {
      const saved = await salvage(order, tree, endangered)
      await bring(tree, order, signal)
      if (order.clean) await tree.tell(['clean', '-f', '-d'])
      return saved
    })
    await writeChanged(order.changed, changed)
    await writeClaim(gitDir, { instance, at: commit, moving: null, atWork: false })
    await tidyTree(tree)
    const interrupted =
      place.claim?.moving && notes.length > 0
        ? ['an earlier run ended in the middle here: part of what follows may be its own']
        : []
    return { was: endangered.status.head, notes: [...interrupted, ...notes] }
  }

  /** Changes nothing. Throws `unstartable` where the tree is not landfall's to change. */
  async function prepare(
    order: InPlaceOrder,
    place: Clone,
    mirror: GitSession,
    signal: AbortSignal | undefined,
  ): Promise<Prepared> {
    const { remote, commit, previous, branch, instance, adopt, clean } = order
    const { path, gitDir, claim } = place
    const tree = openTree({ openGit, order, path, gitDir, signal })
    await assertOrigin(tree, remote)
    assertClaim(gitDir, claim, instance)
    await assertBranchIsHere(gitDir, branch)
    if (claim?.atWork) await sweepLocks(gitDir)
    else await assertIdle(gitDir)
    // One that never began to change the tree is as if it had not been.
    const isTakeover = claim === null || (claim.at === null && claim.moving === null)
    const status = await readStatus(tree, { untracked: clean && (claim?.at ?? null) === null })
    const { head } = status
    const found = await sound(remote, mirror, async () => {
      const changed = await changedPaths({ previous, commit }, remote.mirror, mirror)
      const apart = previous === head ? changed : await changedPaths({ previous: head, commit }, remote.mirror, mirror)
      const names = [...apart.toString('latin1').split('\0').slice(0, -1), ...status.unindexed]
      const inTheWay = await findInTheWay({ ...status, path, names, committed: () => filesOf(commit, remote, mirror) })
      const isOurs =
        head !== null && (head === claim?.at || head === claim?.moving) && (branch ?? status.branch) === status.branch
      return { changed, inTheWay, commits: isOurs ? [] : await unknownCommits(tree, order, claim, mirror) }
    })
    const endangered = {
      status,
      submodules: order.submodules === null || status.submodules.size === 0 ? [] : await submoduleEdits(tree),
      untracked: [...new Set([...found.inTheWay, ...status.untracked])],
      commits: found.commits,
    }
    if (isTakeover && !adopt) await assertNobodysWork(place, endangered)
    return { tree, endangered, changed: found.changed }
  }

  /** Commits of the tree that would be left behind, and that the remote never showed. */
  async function unknownCommits(
    tree: Tree,
    { branch, remote }: InPlaceOrder,
    claim: Claim | null,
    mirror: GitSession,
  ): Promise<Sha[]> {
    const known = [claim?.at, claim?.moving].filter((sha) => sha !== null && sha !== undefined)
    const own = await ownCommits(tree, branch, known)
    if (own.length === 0) return own
    // What is in the mirror came from the remote, even where the tree has not heard of it.
    const options = ['--no-walk=unsorted', '--ignore-missing']
    const listed = await mirror.run(['rev-list', ...options, ...own, '--'], { gitDir: remote.mirror })
    if (listed.code !== 0) throw mirror.failure(listed)
    const there = new Set(listed.stdout.toString().split('\n'))
    return own.filter((sha) => !there.has(sha))
  }

  /** The commit's objects, and the branch as the remote has it, so that `git status` makes sense there. */
  async function fetchInto(tree: Tree, order: InPlaceOrder, mirror: GitSession): Promise<void> {
    const { remote, commit, branch } = order
    const options = ['--no-tags', '--no-prune', '--no-recurse-submodules', '--no-write-fetch-head']
    // Version 2 serves any commit that is there, whether or not a ref names it.
    const fetch = (refs: readonly string[]) =>
      tree.run(['-c', 'protocol.version=2', 'fetch', ...options, '--', remote.mirror, commit, ...refs])
    await sound(remote, mirror, async () => {
      let fetched = await fetch(branch === null ? [] : [`+${branchRef(branch)}:refs/remotes/origin/${branch}`])
      // The branch may be gone from the remote, or a ref `a` of old stand where `a/b` should be: that hinders nobody.
      if (fetched.code !== 0 && /remote ref|refs\/remotes\//.test(fetched.stderr)) fetched = await fetch([])
      if (fetched.code !== 0) throw tree.failure(fetched)
    })
  }

  /** A new tree. Its repository has another name at first, and so a crash leaves nothing that looks like a clone. */
  async function make(order: InPlaceOrder, path: string, signal: AbortSignal | undefined): Promise<void> {
    const { remote, commit, instance } = order
    const unfinished = await clearPlace(path)
    const gitDir = join(path, '.git')
    await makeRepository(order, unfinished)
    const claim = { instance, at: null, moving: commit }
    await writeClaim(unfinished, { ...claim, atWork: false })
    await rename(unfinished, gitDir)
    const { tree, changed } = await mirrors.exclusively(remote, signal, async () => {
      const made = openTree({ openGit, order, path, gitDir, signal })
      const mirror = openMirror(order, signal)
      // Not links, as in a release: whoever changes owner or mode of a tree in place would change the mirror's.
      await changing(made, null, claim, () => fetchInto(made, order, mirror))
      return { tree: made, changed: await changedPaths(order, remote.mirror, mirror) }
    })
    await changing(tree, null, claim, () => bring(tree, order, signal))
    await writeChanged(order.changed, changed)
    await writeClaim(gitDir, { instance, at: commit, moving: null, atWork: false })
  }

  /** Brings index and files to exactly the commit. What is in the tree is saved, or nobody's. */
  async function bring(tree: Tree, order: InPlaceOrder | RestoreOrder, signal?: AbortSignal): Promise<void> {
    const { commit, branch, remote, env, timeoutMs } = order
    const head = branch === null ? ['--detach'] : ['-B', branch]
    await tree.tell(['checkout', '--force', '--no-recurse-submodules', ...head, commit, '--'])
    const session = openGit({ remote, doing: `completing ${tree.path} from`, env, timeoutMs, signal })
    await addExtras({ ...order, workTree: tree.path, gitDir: tree.gitDir, session, signal })
  }

  function openMirror(
    { remote, path, commit, env, timeoutMs }: InPlaceOrder,
    signal: AbortSignal | undefined,
  ): GitSession {
    return openGit({ remote, doing: `bringing ${path} to ${commit.slice(0, 12)} of`, env, timeoutMs, signal })
  }

  /** Takes `step`, in the mirror's lock, and once more with a new mirror where a broken one made it fail. */
  async function sound<T>(remote: Remote, mirror: GitSession, step: () => Promise<T>): Promise<T> {
    try {
      return await step()
    } catch (error) {
      if (!hasCode(error, 'git') || isBusy(error) || isShortOfResources(messageOf(error))) throw error
      if (!soundsCorrupt(error) && !(await mirrors.isBroken(remote, mirror))) throw error
    }
    await mirrors.remake(remote, mirror)
    return await step()
  }
}

/** Takes `step`, and remembers in the tree what is going on there; after an error, whether a git of ours may have died. */
async function changing<T>(
  tree: Tree,
  before: Claim | null,
  claim: Omit<Claim, 'atWork'>,
  step: () => Promise<T>,
): Promise<T> {
  await writeClaim(tree.gitDir, { ...claim, atWork: true })
  try {
    return await step()
  } catch (error) {
    // Met by another git's lock, nothing has begun.
    const moving = isBusy(error) ? (before?.moving ?? null) : claim.moving
    if (tree.endedWell) await writeClaim(tree.gitDir, { ...claim, moving, atWork: false })
    throw error
  }
}

/** Throws `unstartable` with everything that is there, for a person to decide. */
async function assertNobodysWork(
  { path, gitDir }: Clone,
  { status, untracked, submodules, commits }: Endangered,
): Promise<void> {
  const { edited, hidden } = status
  const unfinished = await underWay(gitDir)
  const found = [
    ...(edited > 0 ? [`edits of ${counted(edited, 'file')}`] : []),
    ...(hidden > 0 ? [`${counted(hidden, 'file')} that git was told not to look at`] : []),
    ...(untracked.length > 0 ? [`${counted(untracked.length, 'untracked file')} that would be lost`] : []),
    ...submodules.map(ofSubmodule),
    ...(commits.length > 0 ? [`${counted(commits.length, 'commit')} that the remote does not have`] : []),
    ...(unfinished === null ? [] : [`a ${unfinished} that was not finished`]),
  ]
  if (found.length === 0) return
  throw refusal(
    `${path} holds somebody's work: ${found.join(', ')}. Commit and push it, or move it away; or write adopt = true, and it is saved as a patch and a ref before ${path} is taken over`,
  )
}

async function filesOf(commit: Sha, remote: Remote, mirror: GitSession): Promise<Set<string>> {
  const listed = await mirror.run(['ls-tree', '-r', '-z', commit], { gitDir: remote.mirror })
  if (listed.code !== 0) throw mirror.failure(listed)
  const lines = listed.stdout.toString('latin1').split('\0')
  return new Set(lines.filter((line) => !line.startsWith('160000 ')).map((line) => line.slice(line.indexOf('\t') + 1)))
}

function assertBranch(branch: string | null): void {
  if (branch === null || isRef(`refs/heads/${branch}`)) return
  throw new LandfallError('git', `${JSON.stringify(branch)} is not a branch name that git accepts`)
}

/** What `git clone` would make, still without any object. */
async function makeRepository({ remote, commit, branch }: InPlaceOrder, repository: string): Promise<void> {
  for (const room of ['objects/pack', 'refs/heads', 'refs/tags'])
    await mkdir(join(repository, room), { recursive: true })
  const tracked =
    branch === null
      ? []
      : [`[branch ${configValue(branch)}]`, '\tremote = origin', `\tmerge = ${configValue(`refs/heads/${branch}`)}\n`]
  await writeFile(join(repository, 'config'), `${cloneConfig(remote, commit)}${tracked.join('\n')}`)
  await writeFile(join(repository, 'HEAD'), `ref: refs/heads/${branch ?? 'none'}\n`)
}
