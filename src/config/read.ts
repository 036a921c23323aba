/** File and environment in, one frozen Config out, or one error that names every mistake with its place. */
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { parse as parseDotenv } from 'dotenv'
import { LandfallError, systemCode } from '../errors.ts'
import { type Account, groupExists, ownAccount } from './accounts.ts'
import type { Config, Listen } from './config.ts'
import { createProblems, type Problems, parseDocument } from './document.ts'
import { quoted } from './grammar.ts'
import { readHooks } from './hooks.ts'
import { type Checked, checkKeys } from './keys.ts'
import { unsafe } from './ownership.ts'
import { createSecretReader, type ReadSecret, reasonOf } from './secrets.ts'
import { readTargets } from './targets.ts'

type Environment = Readonly<Record<string, string | undefined>>

export interface ReadConfigOptions {
  /** As it shall stand in messages; relative to the working directory. */
  readonly file: string
  readonly env?: Environment
  /**
   * `resolve` for a process that will be landfall, or sign for it: secrets are read, and the file must be right for the
   * account that reads it. `leave` for one that only looks at a running daemon, perhaps under another account: no secret
   * is opened, and who owns the file or runs the targets is not judged.
   */
  readonly secrets: 'resolve' | 'leave'
  /** The account that landfall runs as. */
  readonly user?: Account
}

/** Throws `config`, its message a line for each mistake: `file:line:column: key: what is wrong`. */
export async function readConfig(options: ReadConfigOptions): Promise<Config> {
  const { config, problems } = await examine(options)
  problems.throwIfAny()
  return config
}

/**
 * Where the landfall is that goes by this file, for one who only asks it: it goes on although the file has got mistakes, and
 * then is there to be asked. Throws `config` where `data_dir` itself is among them, or the file cannot be read as TOML.
 */
export async function readDataDir(file: string): Promise<{ readonly dataDir: string; readonly isFaultless: boolean }> {
  const { config, problems, checked } = await examine({ file, secrets: 'leave' })
  if (checked.isFaulty(['data_dir'])) problems.throwIfAny()
  return { dataDir: config.dataDir, isFaultless: problems.areNone() }
}

/** With any problems, of the result only what they are not about is worth something. */
async function examine({ file, env = process.env, secrets, user: account = ownAccount() }: ReadConfigOptions) {
  const runsAs = secrets === 'resolve' ? account : null
  const text = await readTrusted(file, runsAs)
  if (text === null) throw new LandfallError('config', `${file}: there is no such file; "landfall init" makes one`)
  const base = dirname(resolve(file))
  const dotenv = runsAs === null ? null : await readTrusted(join(dirname(file), '.env'), runsAs)

  const document = parseDocument(text, file)
  const problems = createProblems(file, document)
  const checked = checkKeys(document, problems)
  const environment = { ...parseDotenv(dotenv ?? ''), ...env }
  const readSecret = runsAs === null ? null : createSecretReader({ environment, base, uid: account.uid, problems })

  const hookNames = namesIn(document.value['hook'])
  if (namesIn(document.value['target']).length === 0 && !checked.isFaulty(['target']))
    problems.add(['target'], 'there is nothing to do: add a [target.<name>] with the repository to follow')
  const config = await assemble({ file, base, checked, problems, hookNames, runsAs, account, readSecret })
  return { config, problems, checked }
}

export interface AssembleParts {
  readonly file: string | null
  /** What relative paths are relative to. */
  readonly base: string
  readonly checked: Checked
  readonly problems: Problems
  /** Names of all hooks that the file has, right or wrong. */
  readonly hookNames: readonly string[]
  /** The account to judge the targets' `user` by; null where this process will run nothing itself. */
  readonly runsAs: Account | null
  readonly account: Account
  /** Null: secrets stay where they are. */
  readonly readSecret: ReadSecret | null
}

/** The settings as a Config. What they say against each other is added to `problems`; with any, the result is worth nothing. */
export async function assemble(parts: AssembleParts): Promise<Config> {
  const { file, base } = parts
  const { settings } = parts.checked
  const dataDir = resolve(base, settings.data_dir)
  return frozen({
    file: file === null ? null : resolve(file),
    dataDir,
    scriptsDir: resolve(base, settings.scripts_dir),
    maxJobs: settings.max_jobs ?? Math.max(4, availableParallelism()),
    drainMs: settings.drain,
    keepDeliveriesMs: settings.keep_deliveries,
    keepPayloadsMs: settings.keep_payloads,
    keepRuns: settings.keep_runs,
    server: await readServer({ ...parts, dataDir }),
    hooks: await readHooks(parts),
    targets: await readTargets({ ...parts, dataDir }),
  })
}

/**
 * The text of a file that nobody else may write, or null where there is none. `runsAs` null judges what others may do, but
 * not who the owner is. Throws `config` before a line of an unsafe file is believed.
 */
async function readTrusted(file: string, runsAs: Account | null): Promise<string | null> {
  try {
    const danger = await unsafe(file, runsAs === null ? 'any-owner' : { uid: runsAs.uid })
    if (danger !== null) throw new LandfallError('config', `${file}:1:1: file: ${danger}`)
    return await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof LandfallError) throw error
    if (systemCode(error) === 'ENOENT') return null
    throw new LandfallError('config', `${file}:1:1: file: cannot be read: ${reasonOf(error)}`, { cause: error })
  }
}

function namesIn(table: unknown): readonly string[] {
  return typeof table === 'object' && table !== null ? Object.keys(table) : []
}

type ServerParts = Pick<AssembleParts, 'checked' | 'problems' | 'base'> & { readonly dataDir: string }

async function readServer({ checked, problems, base, dataDir }: ServerParts): Promise<Config['server']> {
  const { server } = checked.settings
  const listen = absolute(server.listen, base)
  const admin = server.admin === 'off' ? null : absolute(server.admin, base)
  const socket: Listen = { kind: 'unix', path: join(dataDir, 'landfall.sock') }
  // Port 0 is a free port, another one each time.
  const isFixed = listen.kind !== 'tcp' || listen.port !== 0
  if (isFixed && isDeepStrictEqual(listen, admin)) {
    const key = checked.isGiven(['server', 'admin']) ? 'admin' : 'listen'
    problems.add(['server', key], 'listen and admin are the same address: give them two, or write admin = "off"')
  }
  for (const [key, address] of Object.entries({ listen, admin })) {
    if (isDeepStrictEqual(address, socket)) problems.add(['server', key], "is the place of landfall's own socket")
  }
  if (server.socket_group !== undefined && !(await groupExists(server.socket_group)))
    problems.add(['server', 'socket_group'], `there is no group ${quoted(server.socket_group)} on this machine`)
  return {
    listen,
    admin,
    socketMode: Number.parseInt(server.socket_mode, 8),
    socketGroup: server.socket_group ?? null,
    publicUrl: server.public_url?.replace(/\/+$/, '') ?? null,
    maxBodyBytes: server.max_body,
    trustedProxies: server.trusted_proxies,
  }
}

function absolute(listen: Listen, base: string): Listen {
  return listen.kind === 'unix' ? { kind: 'unix', path: resolve(base, listen.path) } : listen
}

/** Deeply frozen: nobody changes the configuration behind another's back. */
function frozen<Value>(value: Value): Value {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const inner of Object.values(value)) frozen(inner)
  return Object.freeze(value)
}
