/** `{branch}` in what a target says, filled in. */
import { createHash } from 'node:crypto'
import type { Follows, Target } from './config.ts'
import { isGlob } from './grammar.ts'

export function atBranch(target: Target, branch: string): Target {
  const fill = (text: string): string => text.replaceAll('{branch}', () => branch)
  return {
    ...target,
    current: target.current && placeAt(target.current, branch),
    path: target.path && placeAt(target.path, branch),
    lane: target.lane && fill(target.lane),
    env: Object.fromEntries(
      // A secret is what it is, and masked as such.
      Object.entries(target.env).map(([name, value]) => [name, target.masked.includes(value) ? value : fill(value)]),
    ),
  }
}

/** Where the file says outright that a link or tree is, and for which branch; of what a pattern may bring it says nothing. */
export function placesSaid(
  written: string,
  follows: Follows,
): readonly { readonly place: string; readonly branch: string | null }[] {
  if (!written.includes('{branch}')) return [{ place: written, branch: null }]
  const branches = follows.kind === 'branch' ? [follows.branch] : follows.kind === 'branches' ? follows.patterns : []
  return branches.filter((branch) => !isGlob(branch)).map((branch) => ({ place: placeAt(written, branch), branch }))
}

function placeAt(place: string, branch: string): string {
  return place.replaceAll('{branch}', () => pathName(branch))
}

/**
 * A branch as one component of a path: itself where it can be one, else its letters and digits with a digest behind `--`, which
 * no name that stays itself has. So `feature/x` and `feature-x` never meet.
 */
export function pathName(branch: string): string {
  if (branch.length <= 100 && /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/.test(branch)) return branch
  const readable = branch
    .replace(/[^A-Za-z0-9]+/g, '-')
    .replace(/^-/, '')
    .slice(0, 60)
    .replace(/-$/, '')
  return `${readable || 'x'}--${createHash('sha256').update(branch).digest('hex').slice(0, 12)}`
}
