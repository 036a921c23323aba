/** `[target.*]`: from settings to targets, and what two keys say against each other. */
import { resolve } from 'node:path'
import { type Account, accountNamed } from './accounts.ts'
import { placesSaid } from './at-branch.ts'
import type { Follows, Target } from './config.ts'
import type { Path, Problems } from './document.ts'
import { isGlob, isRelativePath, quoted } from './grammar.ts'
import { wrongName } from './hooks.ts'
import { type Checked, wordsOfOthers } from './keys.ts'
import { isName } from './schema.ts'
import type { ReadSecret } from './secrets.ts'
import type { TargetSettings } from './target-keys.ts'
import { didYouMean } from './words.ts'

export interface TargetParts {
  readonly checked: Checked
  readonly hookNames: readonly string[]
  readonly problems: Problems
  readonly base: string
  readonly dataDir: string
  readonly runsAs: Account | null
  readonly account: Account
  readonly readSecret: ReadSecret | null
}

/** One target while it is read: its settings, and the place of each. */
interface Reading extends TargetParts {
  readonly name: string
  readonly settings: TargetSettings
  /** Where the setting is written: in the target's own table, or in `[defaults]`. */
  readonly key: (key: keyof TargetSettings) => Path
}

const DEFAULT_POLL_MS = 5 * 60_000

export async function readTargets(parts: TargetParts): Promise<readonly Target[]> {
  const targets: Target[] = []
  for (const [name, settings] of Object.entries(parts.checked.settings.target)) {
    const key = (word: string) => parts.checked.writtenAt(['target', name, word])
    targets.push(await readTarget({ ...parts, name, settings, key }))
  }
  onePlaceEach(targets, parts)
  nothingToClean(targets, parts)
  return targets
}

async function readTarget(reading: Reading): Promise<Target> {
  const { name, settings, problems, base } = reading
  if (!isName(name)) problems.add(['target', name], wrongName(name))
  const hook = hookOf(reading)
  contradictions(reading)
  const { repo = '', checkout } = settings
  return {
    name,
    repo,
    repoIsGlob: isGlob(repo),
    hook,
    url:
      settings.url !== undefined && isRelativePath(settings.url) ? resolve(base, settings.url) : (settings.url ?? null),
    aliases: settings.aliases,
    follows: followsOf(settings),
    events: settings.events,
    paths: settings.paths ?? null,
    script: settings.script ?? null,
    run: settings.run === undefined ? null : argvOf(settings.run),
    checkout,
    current: placeOf(reading, 'current'),
    activate: activateOf(settings),
    keepReleases: settings.keep_releases,
    path: placeOf(reading, 'path'),
    clean: settings.clean,
    adopt: settings.adopt,
    restoreOnFailure: settings.restore_on_failure,
    submodules: submodulesOf(settings),
    lfs: settings.lfs,
    queue: settings.queue,
    lane: settings.lane ?? null,
    ...(await userOf(reading)),
    ...(await environmentOf(reading)),
    passEnv: settings.pass_env,
    timeoutMs: settings.timeout,
    fetchTimeoutMs: settings.fetch_timeout,
    killGraceMs: settings.kill_grace,
    retries: settings.retries,
    rerunInterrupted: settings.rerun_interrupted,
    pollMs: pollOf(settings),
    onFailure: settings.on_failure ?? null,
    onSuccess: settings.on_success ?? null,
    onRecovery: settings.on_recovery ?? null,
    onDelete: settings.on_delete ?? null,
    maxLogBytes: settings.max_log,
  }
}

/** The hook that announces the target: the named one, or the only one; null for a target that only polls. */
function hookOf({ name, settings, key, hookNames, checked, problems }: Reading): string | null {
  if (settings.hook !== undefined) {
    if (hookNames.includes(settings.hook)) return settings.hook
    const hint = didYouMean(settings.hook, hookNames) || `; there is ${namesOf(hookNames)}`
    problems.add(key('hook'), `there is no hook ${quoted(settings.hook)}${hint}`)
    return null
  }
  if (hookNames.length === 1) return hookNames[0] ?? null
  const isExcused = settings.url !== undefined || checked.isFaulty(key('hook')) || checked.isFaulty(key('url'))
  if (!isExcused) {
    const choice = hookNames.length === 0 ? 'there is no hook' : `there are several hooks (${namesOf(hookNames)})`
    problems.add(
      ['target', name],
      `${choice}: say hook = "…" for the one that announces it, or give url = "…" to only poll`,
    )
  }
  return null
}

function namesOf(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.map(quoted).join(', ')
}

function contradictions(reading: Reading): void {
  const { name, settings, key, checked, problems } = reading
  if (settings.repo === undefined && !checked.isFaulty(key('repo')))
    problems.add(['target', name], 'names no repository: write repo = "owner/name"')
  if (settings.script !== undefined && settings.run !== undefined)
    problems.add(key('run'), 'says what to run, and so does script: keep one of them')
  if (settings.branches !== undefined && settings.tags !== undefined)
    problems.add(key('tags'), 'says what to follow, and so does branches: keep one of them')
  if (settings.tags === undefined && checked.isGiven(['target', name, 'tag_order']))
    problems.add(key('tag_order'), 'is for tags = "…", and the target follows a branch')
  for (const word of wordsOfOthers(settings.checkout)) {
    if (!checked.isFaulty(key('checkout')) && checked.isGiven(['target', name, word]))
      problems.add(key(word), `is for checkout = ${ownersOf(word)}, but checkout is ${quoted(settings.checkout)}`)
  }
  if (settings.checkout === 'inplace' && settings.path === undefined && !checked.isFaulty(key('path')))
    problems.add(['target', name], 'has checkout = "inplace" and no path: write path = "/where/the/working/tree/is"')
  parallelFits(reading)
  onePlaceForMany(reading)
  branchIsKnown(reading)
}

/** Runs at the same time share nothing that only one can have. */
function parallelFits({ name, settings, key, checked, problems }: Reading): void {
  if (settings.queue !== 'parallel') return
  const because = 'runs at the same time would'
  if (settings.checkout === 'inplace')
    problems.add(key('queue'), `${because} share the working tree: "parallel" is for checkout = "release" or "none"`)
  if (settings.current !== undefined)
    problems.add(key('queue'), `${because} fight over current: "parallel" is for targets without current`)
  if (checked.isGiven(['target', name, 'lane']))
    problems.add(key('lane'), 'makes runs wait for each other, and queue = "parallel" says that they do not')
}

function onePlaceForMany({ settings, key, problems }: Reading): void {
  if (settings.repo !== undefined && isGlob(settings.repo)) {
    if (settings.url !== undefined)
      problems.add(
        key('url'),
        'is one place, but repo is a pattern of many: let the hook\'s clone = "…{repo}…" say where',
      )
    for (const word of ['current', 'path'] as const) {
      if (settings[word] !== undefined)
        problems.add(key(word), `is one place, but repo is a pattern of many repositories`)
    }
  }
  if (followsOf(settings).kind !== 'branches') return
  for (const word of ['current', 'path'] as const) {
    if (settings[word] !== undefined && !settings[word].includes('{branch}'))
      problems.add(
        key(word),
        'is one place, but branches are many, each with an instance of its own: put {branch} into it',
      )
  }
}

/** `{branch}` needs a branch whose name the file tells. */
function branchIsKnown({ settings, key, problems }: Reading): void {
  const { kind } = followsOf(settings)
  if (kind === 'branch' || kind === 'branches') return
  const what = kind === 'tags' ? 'tags' : "the remote's default branch, whatever its name"
  const wrong = `has {branch} in it, but the target follows ${what}: say branches = "…"`
  for (const word of ['current', 'path', 'lane'] as const) {
    if (settings[word]?.includes('{branch}')) problems.add(key(word), wrong)
  }
  for (const [variable, value] of Object.entries(settings.env)) {
    if (typeof value === 'string' && value.includes('{branch}')) problems.add([...key('env'), variable], wrong)
  }
}

function ownersOf(word: string): string {
  const owners = (['release', 'inplace', 'none'] as const).filter(
    (checkout) => !wordsOfOthers(checkout).some((other) => other === word),
  )
  return owners.map(quoted).join(' or ')
}

function followsOf({ branches, tags, tag_order: order }: TargetSettings): Follows {
  if (tags !== undefined) return { kind: 'tags', patterns: typeof tags === 'string' ? [tags] : tags, order }
  if (branches === undefined) return { kind: 'default' }
  if (typeof branches === 'string' && !isGlob(branches)) return { kind: 'branch', branch: branches }
  return { kind: 'branches', patterns: typeof branches === 'string' ? [branches] : branches }
}

function submodulesOf({ submodules }: TargetSettings): Target['submodules'] {
  if (submodules === false) return null
  return { hosts: submodules === true ? [] : submodules }
}

/** Not inside data_dir, which is landfall's alone, nor around it: it would be switched away, or reset, with everything in it. */
function placeOf({ settings, key, base, dataDir, problems }: Reading, word: 'current' | 'path'): string | null {
  const written = settings[word]
  if (written === undefined) return null
  const place = resolve(base, written)
  const clash = clashWith(dataDir, place)
  if (clash !== null) problems.add(key(word), clash)
  return place
}

/** What is wrong with the place of a link or a tree beside this data_dir, as the sentence that follows the key; or null. */
export function clashWith(dataDir: string, place: string): string | null {
  const [ours, theirs] = [componentsOf(dataDir), componentsOf(place)]
  if (!theirs.slice(0, ours.length).every((component, index) => couldBe(component, ours[index] ?? ''))) return null
  const what =
    theirs.length < ours.length
      ? `has data_dir (${dataDir}) inside it`
      : `is inside data_dir (${dataDir}), which is landfall's alone`
  return place.includes('{branch}') ? `${what}, for a branch of that name` : what
}

function componentsOf(path: string): readonly string[] {
  return path.split('/').filter((component) => component !== '')
}

/** Whoever may push chooses the names of branches. In a path such a name is one component that begins with a letter or digit. */
function couldBe(component: string, name: string): boolean {
  if (!component.includes('{branch}')) return component === name
  const prefix = component.slice(0, component.indexOf('{branch}'))
  const suffix = component.slice(component.lastIndexOf('{branch}') + '{branch}'.length)
  const between = name.slice(prefix.length, name.length - suffix.length)
  return name === `${prefix}${between}${suffix}` && /^[A-Za-z0-9]/.test(between)
}

/** One link, or one working tree, is one target's. Where patterns of branches lead is only known when there is a branch. */
function onePlaceEach(targets: readonly Target[], { checked, problems }: TargetParts): void {
  const owners = new Map<string, string>()
  for (const target of targets) {
    for (const word of ['current', 'path'] as const) {
      const written = target[word]
      if (written === null) continue
      const places = [...placesSaid(written, target.follows), { place: written, branch: null }]
      const at = (branch: string | null) => (branch === null ? '' : ` for the branch ${quoted(branch)}`)
      const taken = places.find(({ place }) => owners.has(place))
      const owner = taken && owners.get(taken.place)
      if (owner !== undefined)
        problems.add(
          checked.writtenAt(['target', target.name, word]),
          `is${at(taken?.branch ?? null)} also the ${owner}`,
        )
      for (const { place, branch } of places)
        if (!owners.has(place)) owners.set(place, `${word} of the target ${quoted(target.name)}${at(branch)}`)
    }
  }
}

/** To a tree that is cleaned, another target's link in it is a file that the repository does not have. */
function nothingToClean(targets: readonly Target[], { checked, problems }: TargetParts): void {
  for (const { name: tree, path, clean } of targets) {
    if (path === null || !clean) continue
    for (const { name, current } of targets) {
      if (current?.startsWith(`${path}/`))
        problems.add(
          checked.writtenAt(['target', name, 'current']),
          `is inside the path of the target ${quoted(tree)}, whose clean = true would remove it`,
        )
    }
  }
}

function activateOf({ activate }: TargetSettings): Target['activate'] {
  if (activate === undefined) return null
  return typeof activate === 'string' ? { script: activate } : { argv: argvOf(activate) }
}

/** The schema has seen that there is a program. */
function argvOf([program = '', ...args]: readonly string[]): readonly [string, ...string[]] {
  return [program, ...args]
}

function pollOf({ poll, checkout }: TargetSettings): number | null {
  if (poll === 'off') return null
  return poll ?? (checkout === 'none' ? null : DEFAULT_POLL_MS)
}

async function userOf(reading: Reading): Promise<Pick<Target, 'user' | 'account'>> {
  const { name, settings, key, runsAs, account: own, checked, problems } = reading
  const { user } = settings
  if (runsAs === null) return { user: user ?? own.name, account: null }
  if (user === undefined) {
    if (runsAs.uid === 0 && !checked.isFaulty(key('user')))
      problems.add(
        ['target', name],
        'says no user: landfall was started as root, so each target must say the account it runs as; write user = "root" here or in [defaults] if root is meant',
      )
    return { user: runsAs.name, account: null }
  }
  if (user === runsAs.name) return { user, account: null }
  const account = await accountNamed(user)
  if (account === null) {
    problems.add(key('user'), `there is no account ${quoted(user)} on this machine`)
    return { user, account: null }
  }
  if (account.uid === runsAs.uid) return { user, account: null }
  if (runsAs.uid !== 0)
    problems.add(
      key('user'),
      `is another account than ${quoted(runsAs.name)}, which runs landfall: only root can switch users, so start landfall as root`,
    )
  return { user, account }
}

/** The variables, and the values among them that came from a source and must not appear in logs. */
async function environmentOf({ settings, key, readSecret }: Reading): Promise<Pick<Target, 'env' | 'masked'>> {
  const env: Record<string, string> = {}
  const masked: string[] = []
  for (const [variable, source] of Object.entries(settings.env)) {
    if (typeof source === 'string') {
      env[variable] = source
      continue
    }
    const value = readSecret === null ? null : await readSecret(source, [...key('env'), variable])
    if (value === null) continue
    env[variable] = value
    masked.push(value)
  }
  return { env, masked }
}
