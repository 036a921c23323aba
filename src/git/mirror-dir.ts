/**
 * What a bare mirror is on disk, read and written without starting git. Everything here wants the mirror's lock. Only one
 * landfall uses a data_dir, and it keeps that lock, so a `.lock` file of git that nobody of ours holds is a dead one's.
 *
 * refs/branches/<branch>            where the remote's branch was last seen, its name made one flat component: a branch `a`
 *                                   that went leaves nothing in the way of `a/b`
 * refs/tags/<tag>                   the same of the tags that were fetched, as the objects that they name
 * refs/landfall/<instance>/<pin>    keeps a commit that landfall still needs
 */
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { LandfallError, systemCode } from '../errors.ts'
import { parseSha, type Sha } from '../model.ts'

export type ObjectFormat = 'sha1' | 'sha256'

export function formatOf(sha: Sha): ObjectFormat {
  return sha.length === 64 ? 'sha256' : 'sha1'
}

/** The lines that `[core]` begins with in a repository of this format. */
export function formatConfig(format: ObjectFormat): string {
  return format === 'sha256'
    ? '[extensions]\n\tobjectformat = sha256\n[core]\n\trepositoryformatversion = 1\n'
    : '[core]\n\trepositoryformatversion = 0\n'
}

/** A branch that is never there; fsck wants HEAD to name one under refs/heads. */
const HEAD = 'ref: refs/heads/none\n'

function mirrorConfig(format: ObjectFormat): string {
  // For whoever tidies up by hand: our pins are single files, which unlink removes.
  return `${formatConfig(format)}\tbare = true\n[gc]\n\tauto = 0\n\tpackRefs = false\n`
}

/**
 * The format of a mirror that is exactly as `makeMirror` makes it, null for anything else: missing, half made, or with a
 * HEAD or a configuration that is not ours. Git obeys a repository's configuration, so a foreign one is never used.
 */
export async function mirrorFormat(mirror: string): Promise<ObjectFormat | null> {
  const [head, config, objects, refs] = await Promise.all([
    textOf(join(mirror, 'HEAD')),
    textOf(join(mirror, 'config')),
    namesIn(join(mirror, 'objects')),
    namesIn(join(mirror, 'refs')),
  ])
  if (head !== HEAD || objects === null || refs === null) return null
  return (['sha1', 'sha256'] as const).find((format) => config === mirrorConfig(format)) ?? null
}

/** An empty mirror in the place of whatever was there. Made beside it and renamed: no half of it is ever seen. */
export async function makeMirror(mirror: string, format: ObjectFormat): Promise<void> {
  const fresh = `${mirror}.new`
  await rm(fresh, { recursive: true, force: true })
  await mkdir(dirname(mirror), { recursive: true, mode: 0o700 })
  await mkdir(fresh, { mode: 0o700 })
  await mkdir(join(fresh, 'objects', 'pack'), { recursive: true })
  await mkdir(join(fresh, 'refs'))
  await writeFile(join(fresh, 'HEAD'), HEAD)
  await writeFile(join(fresh, 'config'), mirrorConfig(format))
  await rm(mirror, { recursive: true, force: true })
  await rename(fresh, mirror)
}

// --- Refs -----------------------------------------------------------------------------------------------------------

/** Marks a name that is too long for a file; no percent-encoding looks like it. */
const LONG = '%long-'
const MAX_NAME = 200

/** Where the mirror keeps the remote's `branch`. */
export function branchRef(branch: string): string {
  return `refs/branches/${flat(branch)}`
}

/** Where it keeps the remote's `tag`. */
export function tagRef(tag: string): string {
  return `refs/tags/${flat(tag)}`
}

function flat(name: string): string {
  const encoded = encodeURIComponent(name.toWellFormed())
  const digest = () => LONG + createHash('sha256').update(name).digest('hex')
  return encoded.length > MAX_NAME ? digest() : encoded
}

/** The branches that were ever fetched into the mirror, save those with very long names. */
export async function knownBranches(mirror: string): Promise<string[]> {
  return await knownIn(join(mirror, 'refs', 'branches'))
}

/** The tags that were fetched and not pruned, save those with very long names. */
export async function knownTags(mirror: string): Promise<string[]> {
  return await knownIn(join(mirror, 'refs', 'tags'))
}

async function knownIn(directory: string): Promise<string[]> {
  const names = (await namesIn(directory)) ?? []
  return names.filter((name) => !name.startsWith(LONG) && !name.endsWith('.lock')).flatMap(decoded)
}

/** Removes the refs of all tags but `tags`. */
export async function pruneTags(mirror: string, tags: Iterable<string>): Promise<void> {
  const kept = new Set([...tags].map(tagRef))
  for (const name of (await namesIn(join(mirror, 'refs', 'tags'))) ?? []) {
    if (!kept.has(`refs/tags/${name}`)) await removeRef(mirror, `refs/tags/${name}`)
  }
}

function decoded(name: string): string[] {
  try {
    return [decodeURIComponent(name)]
  } catch {
    return []
  }
}

/** Refs are never packed in a mirror: see its configuration. */
export async function readRef(mirror: string, ref: string): Promise<Sha | null> {
  return parseSha((await textOf(join(mirror, ref)))?.trimEnd())
}

/** As git does it: `<ref>.lock`, then rename. */
async function writeRef(mirror: string, ref: string, sha: Sha): Promise<void> {
  const file = join(mirror, ref)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(`${file}.lock`, `${sha}\n`)
  await rename(`${file}.lock`, file)
}

export async function removeRef(mirror: string, ref: string): Promise<void> {
  await rm(join(mirror, ref), { force: true })
}

// --- Pins -----------------------------------------------------------------------------------------------------------

/** Where the pins of `pinnedAs` are. Throws for a name that is not one safe component of a path. */
function pinDirectory(pinnedAs: string): string {
  return `refs/landfall/${component(pinnedAs)}`
}

/** A dot may stand anywhere in our names, but not in a ref's (`..`, `.lock`, a leading one). */
function component(name: string): string {
  if (!/^[A-Za-z0-9._-]+$/.test(name)) throw new LandfallError('git', `"${name}" cannot name a pin`)
  return name.replaceAll('.', '%2E')
}

/** The pins of `pinnedAs` by name. */
export async function readPins(mirror: string, pinnedAs: string): Promise<Map<string, Sha>> {
  const directory = pinDirectory(pinnedAs)
  const pins = new Map<string, Sha>()
  for (const name of (await namesIn(join(mirror, directory))) ?? []) {
    const sha = await readRef(mirror, `${directory}/${name}`)
    if (sha !== null) pins.set(name.replaceAll('%2E', '.'), sha)
  }
  return pins
}

/** Writes the pins that are not so yet. The commits are in the mirror, with their whole history: the caller knows. */
export async function addPins(mirror: string, pinnedAs: string, pins: ReadonlyMap<string, Sha>): Promise<void> {
  const directory = pinDirectory(pinnedAs)
  for (const [name, sha] of pins) {
    const ref = `${directory}/${component(name)}`
    if ((await readRef(mirror, ref)) !== sha) await writeRef(mirror, ref, sha)
  }
}

/** Removes every pin of `pinnedAs` that `keep` does not name. */
export async function dropPins(mirror: string, pinnedAs: string, keep: ReadonlySet<string>): Promise<void> {
  const directory = pinDirectory(pinnedAs)
  const kept = new Set([...keep].map(component))
  for (const name of (await namesIn(join(mirror, directory))) ?? []) {
    if (!kept.has(name)) await removeRef(mirror, `${directory}/${name}`)
  }
  if (kept.size === 0) await rmdir(join(mirror, directory)).catch(ignoreMissing)
}

// --- Housekeeping ---------------------------------------------------------------------------------------------------

/** Removes what a git that was killed leaves behind: lock files, half-written objects and packs, quarantines. */
export async function sweepMirror(mirror: string): Promise<void> {
  const names = await readdir(mirror, { recursive: true }).catch(ignoreMissing)
  const dead = (names ?? []).filter((name) => {
    const [top = '', second = ''] = name.split('/')
    if (top !== 'objects') return name.endsWith('.lock')
    const last = name.slice(name.lastIndexOf('/') + 1)
    return /^(?:incoming-|tmp_objdir-)/.test(second) || /^\.?tmp[_-]|\.(?:lock|keep)$/.test(last)
  })
  for (const name of dead) await rm(join(mirror, name), { recursive: true, force: true })
  await rm(`${mirror}.new`, { recursive: true, force: true })
}

/** How many files a checkout would have to link. */
export async function countObjects(mirror: string): Promise<{ readonly packs: number; readonly loose: number }> {
  const objects = join(mirror, 'objects')
  const packs = ((await namesIn(join(objects, 'pack'))) ?? []).filter((name) => name.endsWith('.pack')).length
  const fans = ((await namesIn(objects)) ?? []).filter((name) => /^[0-9a-f]{2}$/.test(name))
  const counts = await Promise.all(fans.map(async (fan) => ((await namesIn(join(objects, fan))) ?? []).length))
  return { packs, loose: counts.reduce((sum, count) => sum + count, 0) }
}

/** Null where there is no such directory. */
async function namesIn(directory: string): Promise<string[] | null> {
  return await readdir(directory).catch(ignoreMissing)
}

/** Null where there is no such file. */
async function textOf(file: string): Promise<string | null> {
  return await readFile(file, 'latin1').catch(ignoreMissing)
}

function ignoreMissing(error: unknown): null {
  const code = systemCode(error) ?? ''
  if (['ENOENT', 'ENOTDIR', 'EISDIR', 'ENOTEMPTY'].includes(code)) return null
  throw error
}
