import { constants } from 'node:fs'
import { access, lstat, realpath, stat } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { unsafe } from '../config/ownership.ts'
import { messageOf, systemCode } from '../errors.ts'

export type Found =
  | { readonly kind: 'found'; readonly file: string }
  /** Nothing to run; `detail` says where it was looked for. */
  | { readonly kind: 'none'; readonly detail: string }
  | { readonly kind: 'unstartable'; readonly detail: string }

export interface Sought {
  readonly scriptsDir: string
  /** Of landfall. */
  readonly uid: number
  /** Of the target's `user`, whose a script may be too. */
  readonly alsoUid?: number
}

/** The first regular executable file that the conventions name for a repository. */
export async function findByConvention(
  where: Sought,
  { hook, repo, event }: { readonly hook: string | null; readonly repo: string; readonly event: string },
): Promise<Found> {
  const name = repo.toLowerCase()
  const owner = dirname(name)
  const suffix = event === 'push' ? '' : `.on-${event}`
  const places = [...(hook === null ? [] : [`${hook}/${name}`]), name, `${owner}/_default`, '_default']
  const passedOver: string[] = []
  for (const place of places) {
    const file = join(where.scriptsDir, `${place}${suffix}`)
    const kind = await kindOf(file)
    if (kind === 'executable') return trusted(where, file)
    if (kind === 'not executable') passedOver.push(`${file} is not executable (chmod +x)`)
  }
  const looked = `looked for ${places.map((place) => `${place}${suffix}`).join(', ')} in ${where.scriptsDir}`
  return { kind: 'none', detail: [`no script for ${repo}: ${looked}`, ...passedOver].join('; ') }
}

/** A script that the configuration names. */
export async function findNamed(where: Sought, name: string): Promise<Found> {
  const file = join(where.scriptsDir, name)
  switch (await kindOf(file)) {
    case 'executable':
      return trusted(where, file)
    case 'not executable':
      return { kind: 'unstartable', detail: `${file} is not executable; mend it with: chmod +x ${file}` }
    case 'missing':
      return { kind: 'unstartable', detail: `${file} does not exist, or is no regular file` }
  }
}

/** Whoever can write the file, or put another in its place, runs programs as the target's user. */
async function trusted({ scriptsDir, ...trustees }: Sought, file: string): Promise<Found> {
  try {
    const [root, real] = await Promise.all([realpath(scriptsDir), realpath(file)])
    if (relative(root, real).startsWith(`..${sep}`) || relative(root, real) === '..') {
      return { kind: 'unstartable', detail: `${file} is a link out of ${scriptsDir}; copy the script instead` }
    }
    // Of a link inside too: who can write the link's directory can put another file in its place.
    for (const path of new Set([...pathsBetween(root, real), ...pathsBetween(scriptsDir, file)])) {
      const reason = await unsafe(path, trustees)
      if (reason !== null) return { kind: 'unstartable', detail: reason }
    }
    return { kind: 'found', file }
  } catch (cause) {
    return { kind: 'unstartable', detail: `${file} cannot be looked at: ${messageOf(cause)}` }
  }
}

/** The file and its directories up to and with `root`. */
function pathsBetween(root: string, file: string): readonly string[] {
  const paths = [file]
  for (let path = file; path !== root && path !== dirname(path); ) {
    path = dirname(path)
    paths.push(path)
  }
  return paths
}

async function kindOf(file: string): Promise<'executable' | 'not executable' | 'missing'> {
  try {
    if (!(await stat(file)).isFile()) return 'missing'
    await access(file, constants.X_OK)
    return 'executable'
  } catch (cause) {
    if (systemCode(cause) === 'EACCES' && (await isThere(file))) return 'not executable'
    return 'missing'
  }
}

async function isThere(file: string): Promise<boolean> {
  return lstat(file).then(
    () => true,
    () => false,
  )
}
