/** Real repositories with a history, quickly. The developer's own git configuration does not apply. */
import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { parseSha, type Sha } from '../../src/model.ts'

const execute = promisify(execFile)

export const GIT_ENV = {
  PATH: process.env['PATH'] ?? '/usr/bin:/bin',
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'Ada',
  GIT_AUTHOR_EMAIL: 'ada@example.com',
  GIT_COMMITTER_NAME: 'Ada',
  GIT_COMMITTER_EMAIL: 'ada@example.com',
  // Newer gits go on in the background after a push, in a directory that the test is about to remove.
  GIT_CONFIG_COUNT: '1',
  GIT_CONFIG_KEY_0: 'maintenance.auto',
  GIT_CONFIG_VALUE_0: 'false',
}

/** What git printed, trimmed. Rejects with git's words where it fails. */
export async function git(cwd: string, ...args: string[]): Promise<string> {
  const { stdout } = await execute('git', args, { cwd, env: GIT_ENV, maxBuffer: 64 * 1024 * 1024 })
  return stdout.trim()
}

export interface Origin {
  /** The bare repository: absolute path, which is also a URL that git takes. */
  readonly path: string
  /** A clone to commit in. */
  readonly work: string
  /** Commits `files` (null deletes) on the branch that is checked out, and pushes it. */
  commit(files: Readonly<Record<string, string | null>>, message?: string): Promise<Sha>
  /** Switches the clone to `branch`, made from `from` where it is given. */
  branch(branch: string, from?: string): Promise<void>
  /** Moves the branch that is checked out to `commit` and forces the remote's after it. */
  forceTo(commit: string): Promise<void>
  deleteBranch(branch: string): Promise<void>
}

export interface OriginOptions {
  readonly format?: 'sha1' | 'sha256'
  /** Commits to begin with, over `files` files; by default one commit of one file. */
  readonly commits?: number
  readonly files?: number
}

/** A bare repository with branch `main`, and a clone of it, in `directory`. */
export async function createOrigin(directory: string, options: OriginOptions = {}): Promise<Origin> {
  const { format = 'sha1', commits = 1, files = 1 } = options
  const path = join(directory, 'origin.git')
  const work = join(directory, 'work')
  await mkdir(directory, { recursive: true })
  await git(directory, 'init', '--quiet', '--bare', '-b', 'main', `--object-format=${format}`, path)
  await importHistory(path, commits, files)
  await git(directory, 'clone', '--quiet', path, work)

  return {
    path,
    work,
    async commit(changes, message = 'a change') {
      for (const [name, text] of Object.entries(changes)) {
        if (text === null) await git(work, 'rm', '--quiet', '--', name)
        else await put(join(work, name), text)
      }
      await git(work, 'add', '--all')
      await git(work, 'commit', '--quiet', '--allow-empty', '-m', message)
      await git(work, 'push', '--quiet', 'origin', 'HEAD')
      return sha(await git(work, 'rev-parse', 'HEAD'))
    },
    async branch(branch, from) {
      await git(work, 'checkout', '--quiet', ...(from === undefined ? [branch] : ['-B', branch, from]))
    },
    async forceTo(commit) {
      await git(work, 'reset', '--quiet', '--hard', commit)
      await git(work, 'push', '--quiet', '--force', 'origin', 'HEAD')
    },
    async deleteBranch(branch) {
      await git(path, 'update-ref', '-d', `refs/heads/${branch}`)
    },
  }
}

async function put(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, text)
}

/** `commits` commits on main in one process: the first writes all files, each later one changes one. */
async function importHistory(path: string, commits: number, files: number): Promise<void> {
  const lines: string[] = []
  for (let n = 0; n < commits; n += 1) {
    lines.push('commit refs/heads/main', `committer Ada <ada@example.com> ${1_700_000_000 + n} +0000`, data(`c${n}`))
    const touched = n === 0 ? Array.from({ length: files }, (_, index) => index) : [n % files]
    for (const file of touched) {
      const name = files === 1 ? 'file.txt' : `dir${file % 10}/file${file}.txt`
      lines.push(`M 100644 inline ${name}`, data(`${file} at ${n}\n`.repeat(20)))
    }
  }
  const importing = execute('git', ['fast-import', '--quiet'], { cwd: path, env: GIT_ENV })
  importing.child.stdin?.end(`${lines.join('\n')}\n`)
  await importing
}

function data(text: string): string {
  return `data ${Buffer.byteLength(text)}\n${text}`
}

export function sha(text: string): Sha {
  const parsed = parseSha(text)
  if (parsed === null) throw new Error(`"${text}" is no commit id`)
  return parsed
}
