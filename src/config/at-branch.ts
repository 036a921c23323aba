/** `{branch}` in what a target says, filled in. */
import { createHash } from 'node:crypto'
import type { Target } from './config.ts'

export function atBranch(target: Target, branch: string): Target {
  const fill = (text: string): string => text.replaceAll('{branch}', () => branch)
  const fillPath = (text: string): string => text.replaceAll('{branch}', () => pathName(branch))
  return {
    ...target,
    current: target.current && fillPath(target.current),
    path: target.path && fillPath(target.path),
    lane: target.lane && fill(target.lane),
    env: Object.fromEntries(
      // A secret is what it is, and masked as such.
      Object.entries(target.env).map(([name, value]) => [name, target.masked.includes(value) ? value : fill(value)]),
    ),
  }
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
