/** `[target.*]`: from settings to targets, and what two keys say against each other. */
import { relative, resolve } from 'node:path'
import { type Account, accountNamed } from './accounts.ts'
import type { Target } from './config.ts'
import type { Path, Problems } from './document.ts'
import { isGlob, isRelativePath, quoted } from './grammar.ts'
import { wrongName } from './hooks.ts'
import { type Checked, OF_RELEASES } from './keys.ts'
import { didYouMean, isName, LATER, type TargetSettings } from './schema.ts'
import type { ReadSecret } from './secrets.ts'

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
  oneCurrentEach(targets, parts)
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
    branch: settings.branches ?? null,
    events: settings.events,
    script: settings.script ?? null,
    run: settings.run === undefined ? null : argvOf(settings.run),
    checkout,
    current: currentOf(reading),
    activate: activateOf(settings),
    keepReleases: settings.keep_releases,
    queue: settings.queue,
    lane: settings.lane ?? null,
    user: await userOf(reading),
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

function contradictions({ name, settings, key, checked, problems }: Reading): void {
  if (settings.repo === undefined && !checked.isFaulty(key('repo')))
    problems.add(['target', name], 'names no repository: write repo = "owner/name"')
  if (settings.script !== undefined && settings.run !== undefined)
    problems.add(key('run'), 'says what to run, and so does script: keep one of them')
  const isGlobbed = settings.repo !== undefined && isGlob(settings.repo)
  if (isGlobbed && settings.url !== undefined)
    problems.add(
      key('url'),
      'is one place, but repo is a pattern of many: let the hook\'s clone = "…{repo}…" say where',
    )
  if (isGlobbed && settings.current !== undefined)
    problems.add(key('current'), 'is one link, but repo is a pattern of many repositories')
  for (const word of settings.checkout === 'none' ? OF_RELEASES : []) {
    if (checked.isGiven(['target', name, word]))
      problems.add(key(word), 'is for checkout = "release", but checkout is "none"')
  }
}

/** Not inside data_dir, which is landfall's alone, nor around it: the link would be switched away with everything in it. */
function currentOf({ settings, key, base, dataDir, problems }: Reading): string | null {
  if (settings.current === undefined) return null
  const current = resolve(base, settings.current)
  if (isWithin(dataDir, current))
    problems.add(key('current'), `is inside data_dir (${dataDir}), which is landfall's alone`)
  else if (isWithin(current, dataDir)) problems.add(key('current'), `would replace data_dir (${dataDir}) by a link`)
  return current
}

function isWithin(directory: string, path: string): boolean {
  const way = relative(directory, path)
  return way !== '..' && !way.startsWith('../')
}

function oneCurrentEach(targets: readonly Target[], { checked, problems }: TargetParts): void {
  const owners = new Map<string, string>()
  for (const { name, current } of targets) {
    if (current === null) continue
    const owner = owners.get(current)
    if (owner === undefined) owners.set(current, name)
    else
      problems.add(checked.writtenAt(['target', name, 'current']), `is also the current of the target ${quoted(owner)}`)
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

async function userOf({ name, settings, key, runsAs, account, checked, problems }: Reading): Promise<string> {
  const { user } = settings
  if (runsAs === null) return user ?? account.name
  if (user === undefined) {
    if (runsAs.uid === 0 && !checked.isFaulty(key('user')))
      problems.add(
        ['target', name],
        'says no user: landfall was started as root, so each target must say the account it runs as; write user = "root" here or in [defaults] if root is meant',
      )
    return runsAs.name
  }
  if (user === runsAs.name) return user
  const other = await accountNamed(user)
  if (other === null) problems.add(key('user'), `there is no account ${quoted(user)} on this machine`)
  else if (other.uid !== runsAs.uid)
    problems.add(key('user'), `another account than ${quoted(runsAs.name)}, which runs landfall, is ${LATER}`)
  return user
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
