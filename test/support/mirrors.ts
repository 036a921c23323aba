/** The git parts as the launcher joins them, on a fresh directory, with a `git` on the PATH that counts. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { createCheckouts } from '../../src/git/checkout.ts'
import { createGit } from '../../src/git/git.ts'
import { createInPlace } from '../../src/git/in-place.ts'
import { createMirrors } from '../../src/git/mirror.ts'
import { places } from '../../src/git/places.ts'
import type { Sha } from '../../src/model.ts'
import type { CheckOutOrder, Fetched, FetchOrder, Remote, Wanted, Work } from '../../src/work.ts'
import { createOrigin, type Origin, type OriginOptions } from './git.ts'
import { temporaryDirectory } from './temporary.ts'

/** All that the launcher does, save scripts. */
type GitWork = Omit<Work, 'runScript' | 'sealLog'>

export interface Bench {
  readonly directory: string
  /** HOME of every git command. */
  readonly home: string
  /** First on the PATH: a file here stands in for a program. */
  readonly bin: string
  readonly work: GitWork
  /** Events that were logged. */
  readonly logged: string[]
  remote(url: string, change?: Partial<Remote>): Remote
  /** A fetch of `remote`'s main that is due now, with nothing else asked. */
  fetch(remote: Remote, change?: Partial<FetchOrder>, signal?: AbortSignal): Promise<Fetched>
  /** Checks out into `releases/<commit>`. Resolves to the directory. */
  checkOut(remote: Remote, commit: Sha, change?: Partial<CheckOutOrder>, signal?: AbortSignal): Promise<string>
  /** The git commands that were started since the last call, each as its arguments. */
  started(): string[]
  /** The same parts as a new process would have them. */
  restart(): GitWork
}

export function createBench(t: TestContext, environment: Record<string, string> = {}): Bench {
  const directory = temporaryDirectory(t)
  const [home, bin, log] = [join(directory, 'home'), join(directory, 'bin'), join(directory, 'git.log')]
  for (const path of [home, bin]) mkdirSync(path)
  const path = process.env['PATH'] ?? '/usr/bin:/bin'
  const realGit = execFileSync('sh', ['-c', 'command -v git'], { encoding: 'utf8' }).trim()
  program(bin, 'git', `echo "$@" >> '${log}'\nexec '${realGit}' "$@"`)
  const logged: string[] = []
  const parts = { PATH: `${bin}:${path}`, HOME: home, ...environment }

  function restart(): GitWork {
    const openGit = createGit({ environment: parts })
    const mirrors = createMirrors({ openGit, log: { warn: (event) => logged.push(event) } })
    const both = { openGit, mirrors }
    return { ...mirrors, ...createCheckouts(both), ...createInPlace(both), ...places }
  }

  const work = restart()
  const common = { env: {}, timeoutMs: 120_000, submodules: null, lfs: false }
  const plain = {
    wanted: onBranch('main'),
    announced: null,
    deployed: null,
    compareAnnounced: false,
    pinnedAs: 'site',
  }
  return {
    directory,
    home,
    bin,
    work,
    logged,
    restart,
    remote: (url, change) => ({
      url,
      mirror: join(directory, 'mirrors', 'one'),
      sshKeyFile: null,
      knownHostsFile: null,
      credentialsFile: null,
      ...change,
    }),
    fetch: (remote, change, signal) =>
      work.fetch({ ...common, ...plain, dueAt: Date.now(), remote, ...change }, signal),
    async checkOut(remote, commit, change, signal) {
      const release = join(directory, 'releases', commit)
      const changed = { lines: join(directory, 'changed'), nul: join(directory, 'changed.z') }
      const order = {
        ...common,
        remote,
        commit,
        previous: null,
        directory: release,
        changed,
        ...change,
      }
      await work.checkOut(order, signal)
      return order.directory
    },
    started() {
      if (!existsSync(log)) return []
      const lines = readFileSync(log, 'utf8').split('\n').slice(0, -1)
      rmSync(log)
      return lines.map((line) => line.replace(/^(?:-c (?:credential\.helper=.*fi; \}; f|\S+) )*/, ''))
    },
  }
}

export function onBranch(branch: string): Wanted {
  return { kind: 'branch', branch }
}

/** An executable shell script. */
export function program(bin: string, name: string, script: string): void {
  writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
}

export async function originIn(bench: Bench, options?: OriginOptions): Promise<Origin> {
  return await createOrigin(join(bench.directory, 'forge'), options)
}
