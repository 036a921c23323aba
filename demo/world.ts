/** The demo's own little world: a remote with a history, a configuration, and the real daemon. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { parseSha, type Sha } from '../src/model.ts'

export const REPO = 'acme/harbour'
export const SECRET = 'the demo has no secrets'

const run = promisify(execFile)
const AUTHOR = {
  GIT_AUTHOR_NAME: 'Ada',
  GIT_AUTHOR_EMAIL: 'ada@example.com',
  GIT_COMMITTER_NAME: 'Ada',
  GIT_COMMITTER_EMAIL: 'ada@example.com',
}

export interface Repository {
  readonly path: string
  /** Commits a new text of the site's page, and pushes it. */
  push(text: string): Promise<Sha>
}

/** A bare repository with a dozen commits, and a clone of it to push from. */
export async function makeRepository(root: string): Promise<Repository> {
  const path = join(root, 'forge', `${REPO}.git`)
  const clone = join(root, 'laptop')
  const git = async (cwd: string, ...args: string[]): Promise<string> => {
    const env = { PATH: process.env['PATH'], HOME: root, ...AUTHOR }
    const { stdout } = await run('git', args, { cwd, env })
    return stdout.trim()
  }
  const commit = async (text: string): Promise<void> => {
    await writeFile(join(clone, 'public', 'index.html'), `<h1>${text}</h1>\n`)
    await git(clone, 'commit', '--quiet', '--all', '--message', text)
  }

  await mkdir(path, { recursive: true })
  await git(path, 'init', '--quiet', '--bare', '--initial-branch', 'main')
  await git(root, 'clone', '--quiet', path, clone)
  await git(clone, 'checkout', '--quiet', '-B', 'main')
  await mkdir(join(clone, 'public'))
  await writeFile(join(clone, 'public', 'index.html'), '')
  await git(clone, 'add', '--all')
  for (let day = 1; day <= 12; day += 1) await commit(`Day ${day}`)
  await git(clone, 'push', '--quiet', 'origin', 'main')

  return {
    path,
    async push(text) {
      await commit(text)
      await git(clone, 'push', '--quiet', 'origin', 'main')
      const sha = parseSha(await git(clone, 'rev-parse', 'HEAD'))
      if (sha === null) throw new Error('git told no commit id')
      return sha
    },
  }
}

export interface Site {
  readonly url: string
  readonly dataDir: string
  readonly configFile: string
  readonly current: string
  readonly logFile: string
}

/** Writes what a user would write: a configuration and one script. */
export async function writeSite(root: string, repository: Repository): Promise<Site> {
  const port = await freePort()
  const site = {
    url: `http://127.0.0.1:${port}`,
    dataDir: join(root, 'data'),
    configFile: join(root, 'landfall.toml'),
    current: join(root, 'www'),
    logFile: join(root, 'landfall.log'),
  }
  await writeFile(
    site.configFile,
    `data_dir = "data"

[server]
listen = "127.0.0.1:${port}"

[hook.github]
secrets = ["${SECRET}"]
missed_after = "2s"          # default "60s"

[target.harbour]
repo     = "${REPO}"
url      = "${repository.path}"
branches = "main"
current  = "www"
queue    = "evict"
poll     = "1s"              # default "5m"
user     = "${userInfo().username}"
`,
    { mode: 0o644 },
  )
  const script = join(root, 'per-repo-scripts', REPO)
  await mkdir(join(script, '..'), { recursive: true, mode: 0o755 })
  await writeFile(
    script,
    `#!/bin/sh
set -eu
echo "deploying $LANDFALL_REPO at $LANDFALL_COMMIT, because of a $LANDFALL_TRIGGER"
echo "changed: $(tr '\\n' ' ' <"$LANDFALL_CHANGED")"
cat public/index.html
sleep 0.3 # a build would take longer
`,
  )
  await chmod(script, 0o755)
  return site
}

/** The real daemon, as `landfall serve` runs it; its log goes to a file. */
export async function startDaemon({ configFile, logFile, url }: Site): Promise<ChildProcess> {
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url))
  const daemon = spawn(process.execPath, [main, 'serve', '-c', configFile], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Ctrl-C on the terminal is meant for the demo, which then stops the daemon in order.
    detached: true,
  })
  const log = createWriteStream(logFile)
  daemon.stdout.pipe(log)
  daemon.stderr.pipe(log)
  const until = performance.now() + 20_000
  while (!(await isHealthy(url))) {
    if (daemon.exitCode !== null || performance.now() > until)
      throw new Error(`the daemon did not start; see ${logFile}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return daemon
}

async function isHealthy(url: string): Promise<boolean> {
  return fetch(`${url}/healthz`).then(
    (answer) => answer.ok,
    () => false,
  )
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port to listen on')
  return address.port
}
