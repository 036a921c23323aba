/** What somebody has edited in the submodules of a working tree: a checkout of theirs resets it. */
import { readStatus, type Tree, type TreeStatus } from './tree.ts'

export interface SubmoduleEdits {
  /** Its path from the top of the tree, with a slash behind. */
  readonly prefix: string
  readonly tree: Tree
  readonly status: TreeStatus
}

/**
 * Submodules whose tracked files differ from the commit that they are at, submodules of submodules among them. One whose
 * repository is damaged has nothing that could be told from its commit.
 */
export async function submoduleEdits(tree: Tree, above = ''): Promise<SubmoduleEdits[]> {
  const options = ['--porcelain=v2', '-z', '--no-renames', '--untracked-files=no', '--ignore-submodules=untracked']
  const { code, stdout } = await tree.run(['status', ...options])
  if (code !== 0) return []
  const found: SubmoduleEdits[] = []
  for (const line of stdout.toString().split('\0')) {
    // `M` in the submodule's own field: its tracked files have changed.
    const name = /^1 .. S.M. (?:\S+ ){5}(.*)$/s.exec(line)?.[1]
    if (name === undefined) continue
    const inner = tree.within(name)
    const status = await readStatus(inner, { untracked: false })
    const prefix = `${above}${name}/`
    if (status.edited > 0) found.push({ prefix, tree: inner, status })
    found.push(...(await submoduleEdits(inner, prefix)))
  }
  return found
}
