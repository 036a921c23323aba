/** What `landfall once --url` has instead of a file. */
import { createHash } from 'node:crypto'
import { LandfallError } from '../errors.ts'
import { isRepository } from '../model.ts'
import { type Account, ownAccount } from './accounts.ts'
import type { Config } from './config.ts'
import { createProblems, type Path, parseDocument } from './document.ts'
import { quoted } from './grammar.ts'
import { assemble } from './read.ts'
import { landfallToml } from './schema.ts'

export interface OnceConfigOptions {
  /** A relative path is relative to the working directory. */
  readonly url: string
  /** Null follows the remote's default branch. */
  readonly branch: string | null
  /** Of the command; null is the default of a target. */
  readonly timeoutMs: number | null
  readonly dataDir: string
  /** The command, from the checkout. */
  readonly argv: readonly string[]
  readonly user?: Account
}

/**
 * All defaults, and one target that only polls and runs `argv` in a release. Its name is made of URL and branch, so that
 * what was deployed from another one in the same data_dir is not mistaken for its own. Throws `usage`.
 */
export async function onceConfig(options: OnceConfigOptions): Promise<Config> {
  const { url, branch, timeoutMs, dataDir, argv, user: account = ownAccount() } = options
  const digest = createHash('sha256')
    .update(JSON.stringify([url, branch]))
    .digest('hex')
  const target = {
    repo: repositoryOf(url),
    url,
    run: argv,
    ...(branch === null ? {} : { branches: branch }),
    ...(timeoutMs === null ? {} : { timeout: `${timeoutMs}ms` }),
  }
  const parsed = landfallToml.safeParse({ data_dir: dataDir, target: { [`once-${digest.slice(0, 12)}`]: target } })
  if (!parsed.success) {
    const mistakes = parsed.error.issues.map(({ path, message }) => `${saidAs(path)}: ${message}`)
    throw new LandfallError('usage', mistakes.join('\n'))
  }
  const problems = createProblems('--url', parseDocument('', '--url'))
  const checked = {
    settings: parsed.data,
    isGiven: () => false,
    isFaulty: () => false,
    writtenAt: (path: Path) => path,
  }
  const parts = { file: null, base: process.cwd(), hookNames: [], runsAs: null, readSecret: null }
  const config = await assemble({ ...parts, checked, problems, account })
  problems.throwIfAny()
  if (config.targets.some(({ follows }) => follows.kind === 'branches'))
    throw new LandfallError('usage', `--branch: ${quoted(branch ?? '')} is a pattern of branches: name one`)
  return config
}

/** A setting as the command line calls it. */
function saidAs(path: readonly PropertyKey[]): string {
  const options: Readonly<Record<string, string>> = { url: '--url', branches: '--branch', timeout: '--timeout' }
  return options[String(path[2])] ?? (path[0] === 'data_dir' ? '--data-dir' : 'the command after --')
}

/** `owner/name` from the last two parts of a URL or path, with what a repository's name cannot have made into dashes. */
export function repositoryOf(url: string): string {
  const parts = url
    .replace(/^[A-Za-z][A-Za-z0-9+.-]*:\/\//, '')
    .split(/[/:\\]+/)
    .map((part) =>
      part
        .replace(/(?:\.git)+$/i, '')
        .replace(/[^A-Za-z0-9._-]+/g, '-')
        .replace(/^[-.]+/, ''),
    )
    .filter((part) => part !== '')
    .slice(-2)
  const named = parts.length === 1 ? `local/${parts[0]}` : parts.join('/')
  return isRepository(named) ? named : 'local/repository'
}
