/** What a checkout in place would destroy is put away before: edits as a patch, commits under a ref. */
import { createReadStream, createWriteStream } from 'node:fs'
import { open, rm, writeFile } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import type { Sha } from '../model.ts'
import type { InPlaceOrder } from '../work.ts'
import type { SubmoduleEdits } from './submodule-edits.ts'
import { readStatus, type Tree, type TreeStatus } from './tree.ts'

export interface Endangered {
  readonly status: TreeStatus
  /** Untracked files that will be overwritten or removed. */
  readonly untracked: readonly string[]
  readonly submodules: readonly SubmoduleEdits[]
  /** Commits that no branch of the remote has. */
  readonly commits: readonly Sha[]
}

/** When this resolves, everything is on disk that the tree's next checkout destroys. Resolves to sentences that say where. */
export async function salvage(
  order: Pick<InPlaceOrder, 'patch' | 'patchAside' | 'run' | 'branch'>,
  tree: Tree,
  { status, untracked, submodules, commits }: Endangered,
): Promise<string[]> {
  const { patch, run, branch } = order
  const aside = order.patchAside ?? patch
  const notes: string[] = []
  const seen = status.hidden > 0 ? await unhide(tree) : status
  if (untracked.length > 0) await stage(tree, untracked, `${aside}.names`)
  const toSave = { ...seen, isStaged: seen.isStaged || untracked.length > 0 }
  const into = { patch, step: `${aside}.step` }
  let size = await writePatch(tree, into, toSave, status.hidden > 0)
  for (const inner of submodules) size = await writePatch(inner.tree, into, inner.status, false, inner.prefix)
  if (size > 0) {
    const what = [
      ...(seen.edited > 0 ? [`the edits of ${counted(seen.edited, 'file')}`] : []),
      ...(untracked.length > 0 ? [counted(untracked.length, 'untracked file')] : []),
      ...submodules.map(ofSubmodule),
    ]
    const was = status.head === null ? '' : `, which applies to ${status.head}`
    notes.push(`saved as a patch before they were undone: ${what.join(' and ')}, in ${patch}${was}`)
  }
  if (commits.length > 0) {
    const refs = await keepCommits(tree, run, status, branch)
    notes.push(`kept ${counted(commits.length, 'commit')} that the remote does not have as ${refs.join(' and ')}`)
  }
  return notes
}

/** `edits of 2 files in the submodule lib`. */
export function ofSubmodule({ prefix, status }: SubmoduleEdits): string {
  return `edits of ${counted(status.edited, 'file')} in the submodule ${prefix.slice(0, -1)}`
}

/** `1 file`, `2 files`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

// --- Edits ----------------------------------------------------------------------------------------------------------

/** Builds the index anew with the same content: its marks, by which files are not looked at, are gone then. */
async function unhide(tree: Tree): Promise<TreeStatus> {
  const written = await tree.run(['write-tree'])
  // It cannot be written in the middle of a conflict, where what is on disk is all there is.
  await tree.tell(['read-tree', written.code === 0 ? written.stdout.toString().trim() : 'HEAD'])
  return await readStatus(tree, { untracked: false })
}

async function stage(tree: Tree, paths: readonly string[], list: string): Promise<void> {
  await writeFile(list, Buffer.from(paths.map((path) => `${path}\0`).join(''), 'latin1'), { mode: 0o600 })
  await tree.tell(['add', '--force', `--pathspec-from-file=${list}`, '--pathspec-file-nul'])
  await rm(list)
}

/** Whatever the user's configuration says, what comes out is a patch that `git apply` takes. */
const AS_PATCH = [
  '--patch',
  '--binary',
  '--full-index',
  '--no-color',
  '--no-ext-diff',
  '--no-textconv',
  '--no-renames',
  '--no-relative',
  '--unified=3',
  '--inter-hunk-context=0',
  '--ignore-submodules=all',
]

/**
 * HEAD to index, then index to disk: applied one after the other as `git apply` does, they lead to what is on disk, and what
 * is only staged is not lost. In a conflict the index has no one state. Resolves to the size of the patch.
 */
async function writePatch(
  tree: Tree,
  { patch, step }: { readonly patch: string; readonly step: string },
  { isStaged, isUnstaged, isUnmerged }: TreeStatus,
  wereHidden: boolean,
  prefix = '',
): Promise<number> {
  const steps = isUnmerged ? [['HEAD']] : [...(isStaged ? [['--cached']] : []), ...(isUnstaged ? [[]] : [])]
  if (steps.length === 0) return 0
  await writeFile(step, '', { mode: 0o600 })
  for (const between of steps) {
    // What a sparse checkout left out is not there, and nobody deleted it.
    const filter = wereHidden && !between.includes('--cached') ? ['--diff-filter=d'] : []
    // Not through our memory: an edited file may be very large.
    const sides = [`--src-prefix=a/${prefix}`, `--dst-prefix=b/${prefix}`]
    await tree.tell(['diff', ...AS_PATCH, ...sides, ...filter, `--output=${step}`, ...between, '--'])
    await pipeline(createReadStream(step), createWriteStream(patch, { flags: 'a' }))
  }
  await rm(step)
  await using file = await open(patch, 'r+')
  await file.sync()
  return (await file.stat()).size
}

// --- Commits --------------------------------------------------------------------------------------------------------

async function keepCommits(
  tree: Tree,
  run: number,
  { head, branch: on }: TreeStatus,
  branch: string | null,
): Promise<string[]> {
  const ref = `refs/landfall/before-run-${run}`
  const kept: [ref: string, commit: string][] = head === null ? [] : [[ref, head]]
  if (branch !== null && branch !== on) {
    const tip = await tree.run(['rev-parse', '--verify', `refs/heads/${branch}`])
    if (tip.code === 0) kept.push([`${ref}-branch`, tip.stdout.toString().trim()])
  }
  for (const [name, commit] of kept) await tree.tell(['update-ref', name, commit])
  return kept.map(([name]) => name)
}
