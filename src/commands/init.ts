import { chmod, mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { ownAccount } from '../config/accounts.ts'
import { unsafe } from '../config/ownership.ts'
import { readConfig } from '../config/read.ts'
import { exists } from '../data-dir.ts'
import { LandfallError, messageOf } from '../errors.ts'
import { FORGE } from '../forges/index.ts'
import { filesOf, freshSecret, type Plan, type PlannedFile, secretName } from './init-files.ts'
import { type DeployKey, makeDeployKey } from './init-key.ts'
import { type Answers, answersGiven, askPerson, PLACEHOLDERS } from './init-questions.ts'
import { openScreen, type Screen } from './print.ts'

export interface InitOptions {
  readonly configFlag: string | undefined
  readonly forge: string | undefined
  readonly repo: string | undefined
  readonly publicUrl: string | undefined
}

/** Writes what a first `serve` needs, and says what to enter at the forge. Overwrites nothing. */
export async function init({ configFlag, ...flags }: InitOptions): Promise<number> {
  const screen = openScreen()
  const file = resolve(configFlag ?? 'landfall.toml')
  const directory = dirname(file)
  const given = answersGiven(flags)
  // Before the questions: nobody likes to answer them for nothing.
  await refuseIfThere([file, join(directory, '.env')])
  if (configFlag === undefined) await refuseIfDistrusted(directory)
  const answers = process.stdin.isTTY && screen.isTerminal ? await askPerson(given) : { ...PLACEHOLDERS, ...given }

  const plan = { ...answers, file, secret: freshSecret(), account: ownAccount() }
  const files = filesOf(plan)
  await refuseIfThere([...files.map(({ path }) => path), ...(answers.deployKey ? [join(directory, 'deploy_key')] : [])])
  const key = await writeAll(plan, files)
  const landfall = configFlag === undefined ? 'landfall' : `landfall -c ${configFlag}`
  await say(screen, plan, { files, key, landfall, given })
  return 0
}

async function refuseIfThere(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    if (!(await exists(path))) continue
    throw new LandfallError(
      'start',
      `${path} is there already, and init overwrites nothing.\nMove it away, or begin in an empty directory.`,
    )
  }
}

/** Root would not read the configuration from here later on. */
async function refuseIfDistrusted(directory: string): Promise<void> {
  const { uid } = ownAccount()
  if (uid !== 0) return
  const danger = await unsafe(directory, { uid })
  if (danger === null) return
  const mend = 'Or begin in another directory, or name a file with -c.'
  throw new LandfallError('start', `as root, landfall would not trust a configuration here:\n${danger}\n${mend}`)
}

/** Modes are set, whatever the umask: `serve` refuses files that others may write. What cannot be finished is taken back. */
async function writeAll({ file, ...plan }: Plan, files: readonly PlannedFile[]): Promise<DeployKey | null> {
  const made: string[] = []
  try {
    const key = plan.deployKey ? await makeDeployKey(dirname(file), plan.repo) : null
    if (key !== null) made.push(key.file, `${key.file}.pub`)
    for (const { path, text, mode } of files) {
      await makeDirectories(dirname(path), dirname(file))
      await writeFile(path, text, { flag: 'wx', mode: 0o600 })
      made.push(path)
      await chmod(path, mode)
    }
    return key
  } catch (cause) {
    for (const path of made) await rm(path, { force: true })
    if (cause instanceof LandfallError) throw cause
    throw new LandfallError('start', `init cannot write: ${messageOf(cause)}`, { cause })
  }
}

async function makeDirectories(directory: string, base: string): Promise<void> {
  if (await exists(directory)) return
  if (directory === base) await mkdir(dirname(directory), { recursive: true })
  else await makeDirectories(dirname(directory), base)
  await mkdir(directory)
  await chmod(directory, 0o755)
}

// --- What to do now ---------------------------------------------------------------------------------------------------

interface Written {
  readonly files: readonly PlannedFile[]
  readonly key: DeployKey | null
  /** How the program is called for this configuration. */
  readonly landfall: string
  /** What the command line said, and so is no placeholder. */
  readonly given: Partial<Answers>
}

async function say(screen: Screen, plan: Plan, { files, key, landfall, given }: Written): Promise<void> {
  const { file, forge, repo, publicUrl, secret } = plan
  const heading = (text: string) => screen.line(`\n${screen.paint('bold', text)}`)
  screen.line(screen.paint('bold', `Written, in ${dirname(file)}:`))
  const shown = files.map(({ path, about }) => [relative(dirname(file), path), about] as const)
  printPairs(screen, key === null ? shown : [...shown, ['deploy_key', 'reads the repository; stays on this machine']])

  const open = placeholdersIn(plan, given)
  if (open.length > 0) {
    heading('Placeholders: put the real ones into landfall.toml')
    for (const line of open) screen.line(`  ${line}`)
  }
  heading(`Enter at ${PLACE[forge](repo)}`)
  printPairs(
    screen,
    FORGE[forge].form(`${publicUrl}/hooks/${forge}`, secret).map(({ field, value }) => [field, value]),
  )
  if (forge === 'gitlab') {
    screen.line('  GitLab 19 and newer can sign instead: make a signing token there (whsec_…), and')
    screen.line(`  put it into .env as ${secretName(forge)}.`)
  }
  if (key !== null) sayKey(screen, plan, key, heading)

  heading('The forge must reach landfall')
  screen.line(`  Let ${publicUrl} lead to 127.0.0.1:8787: by a reverse proxy or a tunnel.`)
  heading('Now')
  printPairs(screen, [
    [`${landfall} check`, 'what the configuration amounts to'],
    [`${landfall} serve`, 'receive pushes'],
    // GitLab's test deliveries are pushes; GitHub's need no repository to be there.
    [`${landfall} send ${forge}${forge === 'github' ? ' --event ping' : ''}`, 'try it, from another terminal'],
  ])
  await warnOfEnvironment(screen, plan)
}

const PLACE = {
  github: (repo: string) => `https://github.com/${repo}/settings/hooks/new`,
  gitlab: (repo: string) => `https://gitlab.com/${repo}/-/hooks`,
} satisfies Record<Plan['forge'], (repo: string) => string>

function placeholdersIn({ repo, publicUrl }: Answers, given: Partial<Answers>): readonly string[] {
  return [
    ...(given.repo === undefined && repo === PLACEHOLDERS.repo
      ? [`repo = "${repo}"    (its script's name is the repository's)`]
      : []),
    ...(given.publicUrl === undefined && publicUrl === PLACEHOLDERS.publicUrl ? [`public_url = "${publicUrl}"`] : []),
  ]
}

/** Names in a column, each with what belongs to it; a long name has it on the next line. */
function printPairs(screen: Screen, pairs: readonly (readonly [string, string])[]): void {
  const LONG = 36
  const width = Math.max(...pairs.map(([name]) => name.length).filter((length) => length <= LONG))
  for (const [name, value] of pairs) {
    if (name.length <= LONG) screen.line(`  ${name.padEnd(width)}  ${value}`)
    else screen.line(`  ${name}\n  ${''.padEnd(width)}  ${value}`)
  }
}

function sayKey(screen: Screen, { forge, repo }: Plan, key: DeployKey, heading: (text: string) => void): void {
  const { host } = new URL(FORGE[forge].clone.replace('{repo}', ''))
  heading(`Deploy key: add it at ${KEY_PLACE[forge](repo)}`)
  screen.line(`  ${key.publicKey}`)
  screen.line('  Reading is enough: do not allow write access.')
  screen.line(`  ssh must know ${host}. If it does not yet, compare what this adds with the`)
  screen.line('  fingerprints that the forge publishes:')
  screen.line(`  ssh-keyscan -t ed25519 ${host} >> ~/.ssh/known_hosts`)
}

const KEY_PLACE = {
  github: (repo: string) => `https://github.com/${repo}/settings/keys/new`,
  gitlab: (repo: string) => `https://gitlab.com/${repo}/-/settings/repository`,
} satisfies Record<Plan['forge'], (repo: string) => string>

/** The environment wins over `.env`, so the secret above may not be the one that counts. */
async function warnOfEnvironment(screen: Screen, { file, forge, secret }: Plan): Promise<void> {
  const { hooks } = await readConfig({ file, secrets: 'resolve' })
  if (hooks[0]?.secrets[0] === secret) return
  screen.line(
    `\n${screen.paint('yellow', 'warning:')} ${secretName(forge)} is set in the environment, which wins over .env.`,
  )
}
