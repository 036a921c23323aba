import { userInfo } from 'node:os'
import type { Config, Hook, Target } from '../config/config.ts'
import { findConfig } from '../config/find.ts'
import { readConfig } from '../config/read.ts'
import { matchesRepository } from '../globs.ts'
import { findByConvention, findNamed } from '../runs/scripts-dir.ts'
import { warningsOfPlaces } from './check-places.ts'
import { rightsOf, warningsAboutUsers, warningsOfUser } from './check-users.ts'
import { addressOf, followedBy, openScreen, type Screen, setting } from './print.ts'

export interface CheckOptions {
  readonly configFlag: string | undefined
}

/** Says what the configuration amounts to, and what about it deserves a second look. Every mistake in it is an error. */
export async function check({ configFlag }: CheckOptions): Promise<number> {
  const screen = openScreen()
  const warnings: string[] = []
  const file = await findConfig({ flag: configFlag, passedOver: (why) => warnings.push(why) })
  const config = await readConfig({ file, secrets: 'resolve' })
  printServer(screen, file, config)
  for (const hook of config.hooks) printHook(screen, hook, config)
  for (const target of config.targets) {
    const script = await scriptOf(target, config)
    printTarget(screen, target, script.text, await rightsOf(target))
    const ofUser = await warningsOfUser(target, config, script.file)
    const ofPlaces = await warningsOfPlaces(target)
    warnings.push(
      ...[...script.warnings, ...warningsOf(target), ...ofUser, ...ofPlaces].map(
        (warning) => `${target.name}: ${warning}`,
      ),
    )
  }
  warnings.push(...warningsAbout(config), ...(await warningsAboutUsers(config)))
  screen.line()
  for (const warning of warnings) screen.line(`${screen.paint('yellow', 'warning:')} ${warning}`)
  const count = warnings.length === 1 ? '1 warning' : `${warnings.length} warnings`
  screen.line(warnings.length === 0 ? 'All is well. Start it with: landfall serve' : `No mistakes, ${count}.`)
  return 0
}

type Fact = readonly [name: string, value: string]

function print(screen: Screen, heading: string, facts: readonly Fact[]): void {
  screen.line(screen.paint('bold', heading))
  for (const [name, value] of facts) screen.line(`  ${screen.paint('dim', name.padEnd(11))} ${value}`)
}

function printServer(screen: Screen, file: string, { dataDir, scriptsDir, server }: Config): void {
  print(screen, file, [
    ['data_dir', dataDir],
    ['scripts', scriptsDir],
    ['listen', `${addressOf(server.listen)} (hooks, /healthz)`],
    [
      'socket',
      `${dataDir}/landfall.sock (mode 0${server.socketMode.toString(8)}${server.socketGroup === null ? '' : `, group ${server.socketGroup}`})`,
    ],
  ])
}

function printHook(screen: Screen, hook: Hook, { server, targets }: Config): void {
  const { name, forge, secrets, clone, sshKey, forgeToken } = hook
  const named = [...new Set(targets.filter((target) => target.hook === name).map(({ repo }) => repo))]
  const with_ = [...(sshKey === null ? [] : ['an ssh key']), ...(forgeToken === null ? [] : ['a token'])]
  print(screen, `\nhook ${name}`, [
    ['forge', forge],
    ['receives', `POST /hooks/${name}`],
    ...(server.publicUrl === null ? [] : ([['publicly', `${server.publicUrl}/hooks/${name}`]] as const)),
    ['secrets', secrets.length === 1 ? '1' : `${secrets.length}, any of which may have signed`],
    ['repos', hook.repos === null ? `${named.join(', ') || 'none'} (of its targets)` : hook.repos.join(', ')],
    ['clones', `${clone}${with_.length === 0 ? '' : ` with ${with_.join(' and ')}`}`],
  ])
}

function printTarget(screen: Screen, target: Target, script: string, rights: string): void {
  const { name, repo, hook, url, current, queue, lane, pollMs, timeoutMs } = target
  const laneText = queue === 'parallel' ? 'no lane' : `lane ${lane ?? `${hook ?? 'poll'}/${repo}`}`
  print(screen, `\ntarget ${name}`, [
    ['repo', `${repo}, ${followedBy(target)}`],
    ['announced', hook === null ? 'by nobody: found by polling alone' : `by hook ${hook}`],
    ...(url === null ? [] : ([['from', url]] as const)),
    ['runs', `${script}, at most ${setting(timeoutMs)}`],
    ...(target.paths === null ? [] : ([['if', `one of these changed: ${target.paths.join(', ')}`]] as const)),
    ['in', placeOf(target)],
    ...(current === null ? [] : ([['current', current]] as const)),
    ...afterwardsOf(target),
    ['queue', `${queue}, ${laneText}`],
    ['user', rights],
    ['poll', pollMs === null ? 'off' : `every ${setting(pollMs)}`],
  ])
}

/** What else happens, and when. */
function afterwardsOf({ activate, retries, onFailure, onSuccess, onRecovery, onDelete, env }: Target): readonly Fact[] {
  const activation = activate && ('argv' in activate ? activate.argv.join(' ') : activate.script)
  const facts: readonly (readonly [string, string | null])[] = [
    ['activate', activation],
    ['retries', retries === 0 ? null : String(retries)],
    ['on_failure', onFailure],
    ['on_success', onSuccess],
    ['on_recovery', onRecovery],
    ['on_delete', onDelete],
    ['env', Object.keys(env).join(', ') || null],
  ]
  return facts.flatMap(([name, value]) => (value === null ? [] : [[name, value] as const]))
}

function placeOf({ checkout, path, submodules, lfs, clean, adopt, restoreOnFailure }: Target): string {
  const extras = [
    ...(submodules === null ? [] : ['submodules']),
    ...(lfs ? ['LFS'] : []),
    ...Object.entries({ clean, adopt, restore_on_failure: restoreOnFailure }).flatMap(([key, is]) => (is ? [key] : [])),
  ]
  const place = { none: 'an empty directory (no checkout)', release: 'a fresh release', inplace: `${path}, in place` }[
    checkout
  ]
  return extras.length === 0 ? place : `${place}, with ${extras.join(', ')}`
}

interface Script {
  readonly text: string
  /** Where it is a file of the scripts directory. */
  readonly file: string | null
  readonly warnings: readonly string[]
}

/** Which script a push would run, as far as that is known before one came. */
async function scriptOf(
  { run, script, hook, repo, repoIsGlob, activate, account, ...target }: Target,
  config: Config,
): Promise<Script> {
  const also = account === null ? {} : { alsoUid: account.uid }
  const where = { scriptsDir: config.scriptsDir, uid: userInfo().uid, ...also }
  const file = null
  const warnings: string[] = []
  const named = [
    activate !== null && 'script' in activate ? activate.script : null,
    target.onFailure,
    target.onSuccess,
    target.onRecovery,
    target.onDelete,
  ]
  for (const name of named) {
    const found = name === null ? null : await findNamed(where, name)
    if (found !== null && found.kind !== 'found') warnings.push(found.detail)
  }
  if (run !== null) return { text: `${run.join(' ')} (of the repository itself)`, file, warnings }
  if (script === null && repoIsGlob) return { text: 'what is found for each repository', file, warnings }
  const found =
    script === null ? await findByConvention(where, { hook, repo, event: 'push' }) : await findNamed(where, script)
  if (found.kind === 'found')
    return { text: `${found.file}${script === null ? ' (by convention)' : ''}`, file: found.file, warnings }
  return {
    text: found.kind === 'none' ? 'nothing: no script was found' : `${script ?? 'a script'}, which cannot be started`,
    file,
    warnings: [found.detail, ...warnings],
  }
}

function warningsOf({
  user,
  run,
  checkout,
  pollMs,
  hook,
  account,
  clean,
  adopt,
  path,
  ...target
}: Target): readonly string[] {
  const warnings: string[] = []
  if (user === 'root') warnings.push('user = "root": everything of it runs with all rights on this machine')
  if (run !== null) {
    warnings.push(
      `run: the script comes from the repository and has ${account === null ? "landfall's own rights" : `the rights of ${user}`}: who can push there can do here what ${user} can`,
    )
  }
  if (checkout === 'none') {
    warnings.push(
      'checkout = "none": ref and commit are what the payload says; git is not asked whether they exist, and an old delivery can run again',
    )
  }
  if (adopt) warnings.push(`adopt = true: what is in ${path} is taken over whatever it is; remove the line once it was`)
  if (clean)
    warnings.push(`clean = true: files in ${path} that the repository does not have are removed, save ignored ones`)
  if (target.onDelete !== null && target.follows.kind !== 'branches')
    warnings.push('on_delete: runs for a target that follows several branches only, each of which can be deleted')
  if (pollMs === null && hook === null) warnings.push('poll = "off" and no hook: only landfall once moves it')
  return warnings
}

function warningsAbout({ hooks, targets, server }: Config): readonly string[] {
  const warnings: string[] = []
  if (hooks.length === 0) warnings.push('there is no hook: pushes are found by polling alone')
  else if (server.publicUrl === null)
    warnings.push('[server] public_url is not set: nobody can be told which URL to enter at the forge')
  for (const { name } of hooks) {
    if (!targets.some(({ hook }) => hook === name))
      warnings.push(`hook ${name}: no target names it, so its deliveries move nothing`)
  }
  for (const { name, hook, repo, repoIsGlob, aliases } of targets) {
    const allowed = hooks.find((one) => one.name === hook)?.repos ?? null
    // Which repositories two patterns have in common is known when there is one.
    if (allowed === null || repoIsGlob) continue
    if ([repo, ...aliases].some((one) => allowed.some((pattern) => matchesRepository(pattern, one)))) continue
    const ends = 'so every delivery about it is ignored: repository-not-allowed'
    warnings.push(
      `${name}: hook ${hook} may not speak for ${repo}, ${ends}; add it to its repos (${allowed.join(', ')})`,
    )
  }
  return warnings
}
