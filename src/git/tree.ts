/** Somebody's working tree, as git tells of it. Paths are bytes, kept as latin1 text. */
import { readdir, realpath } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { LandfallError } from '../errors.ts'
import { parseSha, type Sha } from '../model.ts'
import type { InPlaceOrder, Remote } from '../work.ts'
import { type GitResult, type OpenGit, shellQuote, withoutCredentials } from './git.ts'
import { busy, chownLine, refusal } from './place.ts'
import { compareRemotes } from './same-remote.ts'

/** Above it, packs are rolled into one: each run brings one, and nobody else may ever collect here. */
const MAX_PACKS = 30

export interface Tree {
  /** Real. */
  readonly path: string
  readonly gitDir: string
  /** Runs git in the tree whatever its exit code. Throws as a session does. */
  run(args: readonly string[]): Promise<GitResult>
  /** What git printed. Throws `failure` where it fails. */
  tell(args: readonly string[]): Promise<Buffer>
  /** `unstartable` where a person must act, `git` where trying again may help. */
  failure(result: GitResult): LandfallError
  /** The tree of the submodule at `name`, with the repository that it has itself. */
  within(name: string): Tree
  /** Whether every git that was started here ended by itself, and so has left no lock. */
  readonly endedWell: boolean
}

interface TreeParts {
  readonly openGit: OpenGit
  readonly order: Pick<InPlaceOrder, 'remote' | 'commit' | 'env' | 'timeoutMs'>
  readonly path: string
  readonly gitDir: string
  readonly signal: AbortSignal | undefined
}

const CONFIG = [
  // The whole commit is wanted.
  'core.sparseCheckout=false',
  // What a person has in there outlives a power cut.
  'core.fsync=committed,reference',
  // What is saved is saved as it is, line ends and all; and a file that is not there is no reason to stop.
  'core.safecrlf=false',
  'diff.orderFile=/dev/null',
].flatMap((setting) => ['-c', setting])

export function openTree({ openGit, order, path, gitDir, signal }: TreeParts): Tree {
  const { remote, commit, env, timeoutMs } = order
  const session = openGit({
    remote: { ...remote, sshKeyFile: null, credentialsFile: null },
    doing: `bringing ${path} to ${commit.slice(0, 12)} of`,
    env: {
      ...env,
      GIT_WORK_TREE: path,
      // Everything comes from the mirror; no URL in the tree's configuration is ever asked.
      GIT_ALLOW_PROTOCOL: 'file',
      GIT_LITERAL_PATHSPECS: '1',
      // A look leaves no trace, and refs/replace never stands in for the commit.
      GIT_OPTIONAL_LOCKS: '0',
      GIT_NO_REPLACE_OBJECTS: '1',
      // For the reflog.
      GIT_COMMITTER_NAME: 'landfall',
      GIT_COMMITTER_EMAIL: 'landfall@localhost',
    },
    timeoutMs,
    signal,
  })
  let unended = 0
  const tree: Tree = {
    path,
    gitDir,
    get endedWell() {
      return unended === 0
    },
    async run(args) {
      unended += 1
      const result = await session.run([...CONFIG, ...args], { gitDir, workTree: path })
      if (result.code !== null) unended -= 1
      return result
    },
    async tell(args) {
      const result = await tree.run(args)
      if (result.code !== 0) throw tree.failure(result)
      return result.stdout
    },
    within(name) {
      const inner = join(path, name)
      return openTree({ openGit, order, path: inner, gitDir: join(inner, '.git'), signal })
    },
    failure(result) {
      const lock = /Unable to create '(.+\.lock)': File exists/.exec(result.stderr)?.[1]
      if (lock !== undefined) return busy(lock)
      const { message } = session.failure(result)
      if (/Permission denied|insufficient permission|Operation not permitted/.test(result.stderr)) {
        const mend = `${chownLine(path)} && chmod -R u+rwX ${shellQuote(path)}`
        return refusal(`${message}. Something in it belongs to another account, or is read-only; run: ${mend}`)
      }
      if (/'refs\/heads\/[^']*' exists; cannot create/.test(result.stderr)) {
        return refusal(`${message}. Rename or delete that branch`)
      }
      return new LandfallError('git', message)
    },
  }
  return tree
}

/** Rolls packs into one where they have become many. Drops no object, and a failure only costs the next run the same. */
export async function tidyTree({ gitDir, run }: Tree): Promise<void> {
  const packs = (await readdir(join(gitDir, 'objects', 'pack')).catch(() => [])).filter((name) =>
    name.endsWith('.pack'),
  )
  if (packs.length <= MAX_PACKS) return
  await run(['-c', 'repack.writeBitmaps=false', 'repack', '--geometric=2', '-d', '-l', '-n'])
}

// --- Whose it is ----------------------------------------------------------------------------------------------------

/** Throws `unstartable` where the tree is of another repository, or its configuration leads elsewhere. */
export async function assertOrigin(tree: Tree, remote: Remote): Promise<void> {
  const { path, gitDir } = tree
  const at = shellQuote(path)
  const listed = (await tree.tell(['config', '--null', '--list'])).toString()
  // `key\nvalue`, and a key alone for true.
  const entries = listed.split('\0').map((entry) => /^([^\n]*)\n?(.*)$/s.exec(entry) ?? [])
  const all = (wanted: string) => entries.filter(([, key]) => key === wanted).map(([, , value = '']) => value)
  const workTree = all('core.worktree').at(-1)
  if (workTree !== undefined && (await realpath(resolve(gitDir, workTree)).catch(() => null)) !== path) {
    throw refusal(
      `the configuration of ${path} puts its files elsewhere; run: git -C ${at} config --unset core.worktree`,
    )
  }
  if (['true', '', 'yes', 'on', '1'].includes(all('core.bare').at(-1)?.toLowerCase() ?? 'false')) {
    throw refusal(`${path} is configured as a bare repository; run: git -C ${at} config core.bare false`)
  }
  const expected = withoutCredentials(remote.url)
  const [origin] = all('remote.origin.url')
  if (origin === undefined) {
    throw refusal(
      `${path} is a clone of nothing that it names. If it is one of ${expected}, run: git -C ${at} remote add origin ${shellQuote(expected)}`,
    )
  }
  const { same, shown } = await compareRemotes(origin, remote.url, path)
  if (same) return
  throw refusal(
    `${path} is a clone of ${shown}, and the target deploys ${expected}; it was left alone. If both are one repository, run: git -C ${at} remote set-url origin ${shellQuote(expected)}`,
  )
}

// --- What is in it --------------------------------------------------------------------------------------------------

export interface TreeStatus {
  /** Null before the first commit. */
  readonly head: Sha | null
  /** Short; null where HEAD is detached. */
  readonly branch: string | null
  /** Everything in the index, submodules too. */
  readonly tracked: ReadonlySet<string>
  readonly submodules: ReadonlySet<string>
  /** Files that git was told not to look at: `--assume-unchanged`, `--skip-worktree`, or a sparse checkout. */
  readonly hidden: number
  /** Files that differ from HEAD, in the index or on disk. */
  readonly edited: number
  readonly isStaged: boolean
  readonly isUnstaged: boolean
  readonly isUnmerged: boolean
  /** In HEAD and not in the index. */
  readonly unindexed: readonly string[]
  /** Where it was asked for; ignored files and other repositories are not in it. */
  readonly untracked: readonly string[]
}

/** Submodules are left out of the edits: a checkout does not touch what is in them. */
export async function readStatus(tree: Tree, { untracked }: { readonly untracked: boolean }): Promise<TreeStatus> {
  const shown = untracked ? 'all' : 'no'
  const options = ['--branch', '--no-ahead-behind', '--no-renames', '--ignore-submodules=all']
  const [listed, status] = await Promise.all([
    tree.tell(['ls-files', '-v', '-s', '-z']),
    tree.tell(['status', '--porcelain=v2', '-z', ...options, `--untracked-files=${shown}`]),
  ])
  const entries = listed
    .toString('latin1')
    .split('\0')
    .flatMap((line) => {
      const [, tag, mode, name] = /^(\S) (\d+) \S+ \d\t(.*)$/s.exec(line) ?? []
      return tag && mode && name ? [{ name, isSubmodule: mode === '160000', isHidden: /[a-zS]/.test(tag) }] : []
    })
  const lines = status.toString('latin1').split('\0')
  const header = (name: string) => lines.find((line) => line.startsWith(`# ${name} `))?.slice(name.length + 3)
  const branch = header('branch.head')
  const changed = lines.flatMap((line) => {
    // What comes before the path has 8 fields, and 10 in a conflict.
    const [, kind, index, disk, name] = /^(?:(1) (.)(.) (?:\S+ ){6}|(?:u) .. (?:\S+ ){8})(.*)$/s.exec(line) ?? []
    return name === undefined ? [] : [{ name, isUnmerged: kind === undefined, index, disk }]
  })
  return {
    head: parseSha(header('branch.oid')),
    branch: branch === undefined || branch === '(detached)' ? null : Buffer.from(branch, 'latin1').toString(),
    tracked: new Set(entries.map(({ name }) => name)),
    submodules: new Set(entries.filter(({ isSubmodule }) => isSubmodule).map(({ name }) => name)),
    hidden: entries.filter(({ isHidden }) => isHidden).length,
    edited: changed.length,
    isStaged: changed.some(({ index }) => index !== undefined && index !== '.'),
    isUnstaged: changed.some(({ disk }) => disk !== undefined && disk !== '.'),
    isUnmerged: changed.some(({ isUnmerged }) => isUnmerged),
    unindexed: changed.filter(({ index }) => index === 'D').map(({ name }) => name),
    untracked: lines.filter((line) => line.startsWith('? ') && !line.endsWith('/')).map((line) => line.slice(2)),
  }
}

/** Commits of HEAD and of `branch` that no branch of the remote had when last seen, and none of `known`: newest first, 1000 at most. */
export async function ownCommits(tree: Tree, branch: string | null, known: readonly Sha[]): Promise<Sha[]> {
  const mine = ['HEAD', ...(branch === null ? [] : [`refs/heads/${branch}`])]
  const options = ['--max-count=1000', '--ignore-missing']
  const listed = await tree.tell(['rev-list', ...options, ...mine, '--not', '--remotes=origin', ...known, '--'])
  return listed
    .toString()
    .split('\n')
    .map(parseSha)
    .filter((sha) => sha !== null)
}
