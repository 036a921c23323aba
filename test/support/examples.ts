/** One of the scripts that we hand to people, tried as they would use it: a daemon, a remote, real pushes. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chmodSync, copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { RunView } from '../../src/admin/views.ts'
import type { Sha } from '../../src/model.ts'
import { createSite, type Daemon, type Site } from './daemon.ts'
import type { Origin } from './git.ts'

export const EXAMPLES = fileURLToPath(new URL('../../per-repo-scripts/examples', import.meta.url))

/** Debian's own directories come first: a version manager's python is not the one whose package is named in a skip. */
const DEBIAN_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
export const SYSTEM_PATH = `${DEBIAN_PATH}:${process.env['PATH'] ?? ''}`

/** Generous: alone, a virtual environment takes five seconds to build; on a loaded machine, thirty. */
const PATIENCE_MS = 180_000

/** How a shell finds out whether a package of Debian is there. */
const PROBES = {
  composer: 'command -v composer',
  nginx: 'command -v nginx',
  'openssh-server': 'command -v sshd',
  'php-cli': 'command -v php',
  'python3-venv': 'python3 -c "import ensurepip"',
  rsync: 'command -v rsync',
  sqlite3: 'command -v sqlite3',
} as const

/**
 * For a test's `skip`: what is missing, or false. With `LANDFALL_TEST_SKIPS=forbidden` in the environment, which is how CI
 * runs, it throws instead.
 */
export function without(...packages: (keyof typeof PROBES)[]): string | false {
  const missing = packages.filter((name) => {
    const probe = spawnSync('sh', ['-c', PROBES[name]], { env: { PATH: SYSTEM_PATH }, stdio: 'ignore' })
    return probe.status !== 0
  })
  if (missing.length === 0) return false
  const message = `needs Debian's ${missing.join(' and ')}: apt-get install ${missing.join(' ')}`
  if (process.env['LANDFALL_TEST_SKIPS'] === 'forbidden') throw new Error(message)
  return message
}

export interface Trial {
  readonly site: Site
  readonly origin: Origin
  readonly daemon: Daemon
  /** Where the target's `current` is, or would be. */
  readonly current: string
  /** Commits, delivers, and resolves once the run has ended. A null text deletes the file. */
  push(files: Readonly<Record<string, string | null>>, message?: string): Promise<RunView>
  /** The forge's Redeliver button for the newest push: the script runs again at the same commit. */
  again(): Promise<RunView>
  log(run: RunView): Promise<string>
}

export interface TrialOptions {
  /** The example, by its file name. */
  readonly script: string
  /** Lines of the target beside `repo`, `script` and `env`; `$CURRENT` stands for the path of `current`. */
  readonly settings?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Programs that come first on the PATH of the scripts: name and shell lines, in which `$OUT` is the site's `out`. */
  readonly programs?: Readonly<Record<string, readonly string[]>>
}

export async function tryExample(t: Pick<TestContext, 'after'>, options: TrialOptions): Promise<Trial> {
  const { script, settings = [], env = {}, programs = {} } = options
  const site = createSite(t)
  // Other accounts, such as a web server's, must get through to the releases.
  chmodSync(site.directory, 0o711)
  const scripts = join(site.directory, 'scripts/examples')
  mkdirSync(scripts)
  for (const name of [script, 'nginx-reload.sh']) copyFileSync(join(EXAMPLES, name), join(scripts, name))
  for (const [name, lines] of Object.entries(programs)) site.script(`bin/${name}`, ...lines)
  const origin = await site.origin('acme/site')
  const current = join(site.directory, 'current')
  const variables = Object.entries({ PATH: `${site.directory}/scripts/bin:${SYSTEM_PATH}`, ...env })
  const target = [
    '[target.site]',
    'repo = "acme/site"',
    `script = "examples/${script}"`,
    `env = { ${variables.map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join(', ')} }`,
    ...settings,
  ]
  site.configure(target.join('\n').replaceAll('$CURRENT', current))
  const daemon = await site.start()
  let newest: { readonly before: Sha | null; readonly after: Sha; readonly guid: string } | null = null

  async function deliver(): Promise<RunView> {
    assert.ok(newest !== null, 'nothing was pushed yet')
    return daemon.ended(await daemon.accepted({ repo: 'acme/site', ...newest }), PATIENCE_MS)
  }

  return {
    site,
    origin,
    daemon,
    current,
    async push(files, message) {
      const after = await origin.commit(files, message)
      newest = { before: newest?.after ?? null, after, guid: randomUUID() }
      return deliver()
    },
    async again() {
      const run = await deliver()
      assert.equal(run.trigger, 'redelivery')
      return run
    },
    log: (run) => daemon.log(run.id),
  }
}

/** Asserts the end of a run, with its log where it is another one. */
export async function assertEnd(
  trial: Trial,
  run: RunView,
  state: string,
  reason: string | null = null,
): Promise<void> {
  assert.deepEqual([run.state, run.reason], [state, reason], await trial.log(run))
}
