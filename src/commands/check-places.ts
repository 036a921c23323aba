/** What `check` says about the places of links and trees: landfall makes them, and nothing above them. */
import { constants } from 'node:fs'
import { access, lstat, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { placesSaid } from '../config/at-branch.ts'
import type { Target } from '../config/config.ts'
import { shellQuote } from '../git/git.ts'
import { closedTo, PASS, WRITE } from './check-users.ts'

/** Why runs could not switch `current`, or make the tree at `path`, as far as that is known before there is a branch. */
export async function warningsOfPlaces(target: Target): Promise<readonly string[]> {
  const { current, path, follows } = target
  const word = current === null ? 'path' : 'current'
  const written = current ?? path
  if (written === null) return []
  const folder = dirname(written)
  const places = placesSaid(written, follows).map(({ place }) => place)
  // Of a pattern's branches what is above `{branch}` is the same for all.
  const known = folder.includes('{branch}') ? places : [...places, written]
  const found = await Promise.all(known.map((place) => whyClosed(target, place)))
  const warnings = [...new Set(found.filter((why) => why !== null))]
  if (folder.includes('{branch}') && follows.kind === 'branches')
    warnings.push(`landfall does not make ${folder}: runs of a branch that has none end unstartable`)
  return warnings.map((warning) => `${word}: ${warning}`)
}

async function whyClosed({ account, user, path }: Target, place: string): Promise<string | null> {
  const folder = dirname(place)
  const end = 'its runs would end unstartable'
  if ((await stat(folder).catch(() => null)) === null)
    return `${folder} is not there, and landfall does not make it: ${end}; run: mkdir -p ${shellQuote(folder)}`
  // In a tree that is there landfall works inside.
  if (path !== null && (await lstat(place).catch(() => null)) !== null) return null
  const isOpen =
    account === null
      ? await access(folder, constants.W_OK | constants.X_OK).then(
          () => true,
          () => false,
        )
      : (await closedTo(account, folder, WRITE | PASS)) === null
  return isOpen ? null : `${user} may not write in ${folder}: ${end}`
}
