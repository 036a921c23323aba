/** How commits of a mirror lie to each other, and what differs between them. */
import { matchesAny } from '../globs.ts'
import type { Sha } from '../model.ts'
import type { Fetched, FetchOrder, Relation, TouchesOrder } from '../work.ts'
import type { GitSession } from './git.ts'

/** `commit` seen from `base`. One command, none where they are equal. */
export async function relationOf(
  commit: Sha,
  base: Sha | null,
  mirror: string,
  session: GitSession,
): Promise<Relation> {
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

export async function isInTip(
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

export async function announcedRelation(
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

/** Those of `objects` that are commits of the mirror. */
export async function commitsAmong(objects: readonly Sha[], mirror: string, session: GitSession): Promise<Set<string>> {
  const options = ['--no-walk=unsorted', '--ignore-missing']
  const listed = await session.run(['rev-list', ...options, ...objects, '--'], { gitDir: mirror })
  if (listed.code !== 0) throw session.failure(listed)
  return new Set(listed.stdout.toString().split('\n'))
}

/** `Work.touches`, in a mirror that is there. */
export async function touchesAny({ remote, from, to, patterns }: TouchesOrder, session: GitSession): Promise<boolean> {
  if (from === to) return false
  // Without renames git says both names of a moved file, and a copy is a new one.
  const options = ['-r', '-z', '--name-only', '--no-renames']
  const listed = await session.run(['diff-tree', ...options, from, to, '--'], { gitDir: remote.mirror })
  if (listed.code !== 0 && /bad (?:object|revision)|unable to read/.test(listed.stderr)) return true
  if (listed.code !== 0) throw session.failure(listed)
  const paths = listed.stdout.toString().split('\0').slice(0, -1)
  return paths.some((path) => matchesAny(patterns, path))
}
