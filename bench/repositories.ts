/** Remotes to deploy from: bare repositories by path, with a history made in one go. */
import { cp, mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execute } from './processes.ts'

export const GIT_ENV = {
  PATH: process.env['PATH'] ?? '/usr/bin:/bin',
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
}

export interface Remote {
  readonly path: string
  /** Every commit, oldest first; they are all there, and `main` is at the one that `moveTo` said last. */
  readonly commits: readonly string[]
  /** A push, as far as a fetch can tell: `main` is at that commit now. */
  moveTo(index: number): Promise<void>
}

export interface History {
  readonly commits: number
  readonly files: number
}

/** The first commit writes all files, each later one changes one of them. `main` is at the first. */
export async function makeRemote(path: string, { commits, files }: History): Promise<Remote> {
  await mkdir(path, { recursive: true })
  await execute('git', ['init', '--quiet', '--bare', '--template=', '-b', 'main', path], { env: GIT_ENV })
  await importHistory(path, { commits, files })
  const listed = await execute('git', ['rev-list', '--reverse', 'refs/bench/all'], {
    cwd: path,
    env: GIT_ENV,
    maxBuffer: 64 * 1024 * 1024,
  })
  const remote = remoteAt(path, listed.stdout.trim().split('\n'))
  await remote.moveTo(0)
  return remote
}

function remoteAt(path: string, commits: readonly string[]): Remote {
  return {
    path,
    commits,
    async moveTo(index) {
      const file = join(path, 'refs/heads/main')
      await writeFile(`${file}.new`, `${commits[index]}\n`)
      await rename(`${file}.new`, file)
    },
  }
}

/** So many remotes in `directory`, `1.git` and on, each of its own though all with one history. */
export async function makeRemotes(directory: string, count: number, history: History): Promise<readonly Remote[]> {
  const first = await makeRemote(join(directory, '1.git'), history)
  const others = Array.from({ length: count - 1 }, (_, index) =>
    remoteAt(join(directory, `${index + 2}.git`), first.commits),
  )
  for (const { path } of others) await cp(first.path, path, { recursive: true })
  return [first, ...others]
}

async function importHistory(path: string, { commits, files }: History): Promise<void> {
  const lines: string[] = []
  for (let n = 0; n < commits; n += 1) {
    lines.push('commit refs/bench/all', `committer Ada <ada@example.com> ${1_700_000_000 + n} +0000`, data(`c${n}`))
    const touched = n === 0 ? Array.from({ length: files }, (_, index) => index) : [n % files]
    for (const file of touched) {
      lines.push(`M 100644 inline dir${file % 10}/file${file}.txt`, data(`${file} at ${n}\n`.repeat(20)))
    }
  }
  const importing = execute('git', ['fast-import', '--quiet'], { cwd: path, env: GIT_ENV })
  importing.child.stdin?.end(`${lines.join('\n')}\n`)
  await importing
}

function data(text: string): string {
  return `data ${Buffer.byteLength(text)}\n${text}`
}
