/** A remote, its mirror, and a path for a working tree, with the parts that bring one to the other. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { hasCode } from '../../src/errors.ts'
import { createGit } from '../../src/git/git.ts'
import { createInPlace } from '../../src/git/in-place.ts'
import { createMirrors } from '../../src/git/mirror.ts'
import type { Sha } from '../../src/model.ts'
import type { InPlace, InPlaceOrder, Remote, Work } from '../../src/work.ts'
import { git, type Origin, type OriginOptions, sha } from './git.ts'
import { createBench, originIn } from './mirrors.ts'

export interface InPlaceBench {
  readonly directory: string
  /** HOME of every git command. */
  readonly home: string
  /** First on their PATH: a file here stands in for a program. */
  readonly bin: string
  readonly origin: Origin
  readonly remote: Remote
  /** The path of the tree; nothing is there yet, its parent is. */
  readonly path: string
  readonly patch: string
  readonly work: Pick<Work, 'restore'>
  /** Fetches main into the mirror. Resolves to its tip. */
  fetch(branch?: string): Promise<Sha>
  order(commit: Sha, change?: Partial<InPlaceOrder>): InPlaceOrder
  /** Brings the tree to `commit`, with a fresh patch file. */
  bring(commit: Sha, change?: Partial<InPlaceOrder>, signal?: AbortSignal): Promise<InPlace>
  /** A clone of the remote at `path`, as a person makes it. */
  clone(...options: string[]): Promise<void>
  /** What `git` prints in the tree. */
  git(...args: string[]): Promise<string>
  /** `git status`, with everything untracked and ignored. */
  status(): Promise<string>
  read(name: string): string
  write(files: Readonly<Record<string, string>>): void
  changed(): string[]
  /** The git commands since the last call. */
  started(): string[]
  readonly logged: readonly string[]
}

export async function createInPlaceBench(t: TestContext, options?: OriginOptions): Promise<InPlaceBench> {
  const bench = createBench(t)
  const origin = await originIn(bench, options)
  const { directory, home, bin, logged } = bench
  const remote = bench.remote(origin.path)
  const openGit = createGit({ environment: { PATH: `${bin}:${process.env['PATH']}`, HOME: home } })
  const mirrors = createMirrors({ openGit, log: { warn: (event) => logged.push(event) } })
  const work = createInPlace({ openGit, mirrors })
  const path = join(directory, 'srv', 'site')
  const patch = join(directory, 'run', 'edits.patch')
  const changed = { lines: join(directory, 'run', 'changed'), nul: join(directory, 'run', 'changed.z') }
  mkdirSync(join(directory, 'srv'))
  mkdirSync(join(directory, 'run'))

  const order: InPlaceBench['order'] = (commit, change) => ({
    remote,
    commit,
    previous: null,
    path,
    branch: 'main',
    instance: 'site',
    run: 7,
    adopt: false,
    clean: false,
    patch,
    changed,
    env: {},
    timeoutMs: 120_000,
    submodules: null,
    lfs: false,
    ...change,
  })
  return {
    directory,
    home,
    bin,
    origin,
    remote,
    path,
    patch,
    work,
    order,
    async fetch(branch = 'main') {
      const none = { announced: null, deployed: null, compareAnnounced: false, env: {} }
      const wanted = { kind: 'branch', branch } as const
      const { tip } = await mirrors.fetch({
        remote,
        wanted,
        ...none,
        dueAt: Date.now(),
        pinnedAs: 'site',
        timeoutMs: 120_000,
      })
      return sha(String(tip))
    },
    async bring(commit, change, signal) {
      writeFileSync(patch, '')
      return await work.checkOutInPlace(order(commit, change), signal)
    },
    clone: async (...more) => void (await git(directory, 'clone', '--quiet', ...more, origin.path, path)),
    git: (...args) => git(path, ...args),
    status: () => git(path, 'status', '--porcelain', '--ignored', '--untracked-files=all'),
    read: (name) => readFileSync(join(path, name), 'utf8'),
    write(files) {
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(join(path, name, '..'), { recursive: true })
        writeFileSync(join(path, name), text)
      }
    },
    changed: () => readFileSync(changed.nul, 'utf8').split('\0').slice(0, -1),
    started: bench.started,
    logged,
  }
}

/** What a patch makes of `commit`: its files in a fresh clone of the tree, for comparison. Rejects where it does not apply. */
export async function applied(bench: InPlaceBench, commit: string): Promise<string> {
  const fresh = join(bench.directory, 'applied')
  if (existsSync(fresh)) rmSync(fresh, { recursive: true })
  await git(bench.directory, 'clone', '--quiet', '--no-checkout', bench.path, fresh)
  await git(fresh, 'checkout', '--quiet', '--detach', commit)
  await git(fresh, 'apply', '--check', bench.patch)
  await git(fresh, 'apply', bench.patch)
  return fresh
}

/** Name, type, mode, owner, size, time and content of everything below, as one text. */
function everything(path: string): string {
  const script = 'find . -printf "%P %y %m %U %s %T@ %l\\n" | sort; find . -type f -exec sha256sum {} + | sort'
  return execFileSync('sh', ['-c', script], { cwd: path, encoding: 'utf8' })
}

/** The tree refuses the commit with these words, and is untouched byte for byte. */
export async function assertRefused(
  bench: InPlaceBench,
  commit: Sha,
  words: RegExp,
  change?: Partial<InPlaceOrder>,
): Promise<void> {
  const before = everything(bench.path)
  await assert.rejects(bench.bring(commit, change), (error: Error) => {
    assert.ok(hasCode(error, 'unstartable'), String(error))
    assert.match(error.message, words)
    return true
  })
  assert.equal(everything(bench.path), before)
}

/** A person's clone of `old`, which the remote has left behind. */
export async function cloned(t: TestContext): Promise<{ bench: InPlaceBench; old: Sha; tip: Sha }> {
  const bench = await createInPlaceBench(t, { commits: 3, files: 4 })
  const old = await bench.fetch()
  await bench.clone()
  const tip = await bench.origin.commit({ 'new.txt': 'new', 'dir1/file1.txt': 'changed' })
  await bench.fetch()
  return { bench, old, tip }
}
