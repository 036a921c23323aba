/** A real daemon in a directory of its own: its configuration, scripts and remotes, deliveries to it, and what it tells. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { DeliveryView, RunView, TargetView } from '../../src/admin/views.ts'
import { FORGE } from '../../src/forges/index.ts'
import type { ForgeName, Sha } from '../../src/model.ts'
import { createOrigin, type Origin, type OriginOptions } from './git.ts'
import { lives, textOf } from './scripts.ts'
import { until } from './until.ts'

const PROGRAM = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
export const SECRET = 'a secret for tests'
/** Generous, for a loaded machine: reached only where something is broken. */
const PATIENCE_MS = 180_000

export interface Push {
  readonly repo?: string
  readonly branch?: string
  /** In full, instead of a branch. */
  readonly ref?: string
  /** The forge's number for the repository. */
  readonly repoId?: number
  readonly before?: Sha | null
  readonly after: Sha | null
  readonly guid?: string
  readonly hook?: string
  readonly forge?: ForgeName
  readonly secret?: string
}
export interface Answer {
  readonly status: number
  readonly retryAfter: string | undefined
  readonly body: {
    readonly delivery?: number
    readonly verdict?: string
    readonly error?: string
    readonly targets?: readonly { readonly target: string; readonly run?: number; readonly reason?: string }[]
  }
}

export interface Site {
  readonly directory: string
  readonly dataDir: string
  /** For what scripts write. */
  readonly out: string
  /** A file below `out`, as text; empty where there is none. */
  read(name: string): string
  /** The lines of a file below `out`. */
  lines(name: string): string[]
  /** A shell script in the scripts directory. `$OUT` is `out`. */
  script(name: string, ...lines: string[]): string
  /** A remote that the hook's `clone` leads to. */
  origin(repo: string, options?: OriginOptions): Promise<Origin>
  /** Writes `landfall.toml`: a GitHub hook with all defaults for tests, then `text`. */
  configure(text: string, top?: string): void
  start(): Promise<Daemon>
  /** Starts a daemon and kills it so soon that it may not serve yet. */
  startAndKill(afterMs: number): Promise<void>
  /** Starts a daemon that is expected to give up. */
  refused(): Promise<{ readonly code: number | null; readonly output: string }>
}

export interface Daemon {
  readonly pid: number
  readonly url: string
  /** Resolves to the exit code, or null where a signal ended it. */
  readonly exited: Promise<number | null>
  output(): string
  /** The log's entries of one event. */
  logged(event: string): readonly Record<string, unknown>[]
  post(push: Push): Promise<Answer>
  /** Posts, asserts 202, and resolves to the first run. */
  accepted(push: Push): Promise<number>
  api<T>(path: string, method?: string): Promise<T>
  run(id: number): Promise<RunView>
  runs(query?: string): Promise<readonly RunView[]>
  target(name: string): Promise<TargetView>
  delivery(id: number): Promise<DeliveryView>
  log(run: number): Promise<string>
  /** Resolves once the run has ended. */
  ended(run: number, withinMs?: number): Promise<RunView>
  /** Resolves once none of the newest 500 runs is queued or running. */
  quiet(withinMs?: number): Promise<void>
  signal(signal: NodeJS.Signals): void
  /** SIGTERM; resolves to the exit code. */
  stop(): Promise<number | null>
  /** SIGKILL; resolves once it is gone. */
  kill(): Promise<void>
}

export interface SiteOptions {
  readonly dataDir?: string
  /** A program with its arguments that becomes the daemon: `setpriv`, say. */
  readonly under?: readonly string[]
}

export function createSite(t: Pick<TestContext, 'after'>, options: SiteOptions = {}): Site {
  const directory = mkdtempSync(join(tmpdir(), 'landfall-site-'))
  const dataDir = options.dataDir ?? join(directory, 'data')
  const [scripts, out] = [join(directory, 'scripts'), join(directory, 'out')]
  for (const path of [scripts, out]) mkdirSync(path)
  const started: ChildProcess[] = []
  const outputs: (() => string)[] = []
  t.after(async () => {
    for (const child of started) await end(child)
    await endAll(dataDir)
    rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    // Whatever a test looked at: landfall calls a bug what it did not expect of itself.
    const bugs = outputs.flatMap((output) =>
      output()
        .split('\n')
        .filter((line) => line.includes('"msg":"bug"')),
    )
    assert.deepEqual(bugs, [])
  })

  function launch(): Launched {
    const env = { PATH: process.env['PATH'], HOME: directory, LANG: 'C.UTF-8', LANDFALL_LOG_LEVEL: 'debug' }
    const serve = [process.execPath, PROGRAM, 'serve', '-c', join(directory, 'landfall.toml')]
    const [program = '', ...args] = [...(options.under ?? []), ...serve]
    const child = spawn(program, args, { cwd: directory, env, stdio: ['ignore', 'pipe', 'pipe'] })
    started.push(child)
    const output = collect(child)
    outputs.push(output)
    return { child, output }
  }

  return {
    directory,
    dataDir,
    out,
    read: (name) => textOf(join(out, name)),
    lines: (name) => textOf(join(out, name)).split('\n').slice(0, -1),
    script(name, ...lines) {
      const file = join(scripts, name)
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, `#!/bin/sh\nOUT='${out}'\n${lines.join('\n')}\n`, { mode: 0o755 })
      return file
    },
    origin: (repo, options) => createOrigin(join(directory, 'forge', repo), options),
    configure(text, top = '') {
      const own = [
        `data_dir = "${dataDir}"\nscripts_dir = "${scripts}"\n${top}`,
        '[server]\nlisten = "127.0.0.1:0"\nadmin = "off"',
        `[hook.github]\nsecrets = ["${SECRET}"]\nclone = "${directory}/forge/{repo}/origin.git"`,
        `[defaults]\nuser = "${userInfo().username}"\npoll = "off"`,
      ]
      writeFileSync(join(directory, 'landfall.toml'), `${own.join('\n')}\n${text}\n`, { mode: 0o600 })
    },
    start: () => ready(launch(), dataDir),
    async startAndKill(afterMs) {
      const { child } = launch()
      await sleep(afterMs)
      await end(child)
    },
    async refused() {
      const { child, output } = launch()
      const [code] = await once(child, 'close')
      return { code: typeof code === 'number' ? code : null, output: output() }
    },
  }
}

interface Launched {
  readonly child: ChildProcess
  /** All that it has written so far. */
  readonly output: () => string
}

async function ready({ child, output }: Launched, dataDir: string): Promise<Daemon> {
  const exited = once(child, 'exit').then(([code]) => (typeof code === 'number' ? code : null))
  const entries = () => output().split('\n').flatMap(parsed)
  const logged = (event: string) => entries().filter((entry) => entry['msg'] === event)
  const listening = await until(
    'a daemon that listens',
    () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`it ended:\n${output()}`)
      return logged('listening')[0]
    },
    PATIENCE_MS,
  )
  const url = String(listening['url'])
  const api = <T>(path: string, method = 'GET') => ask<T>(join(dataDir, 'landfall.sock'), `/api/v1/${path}`, method)
  const run = (id: number) => api<RunView>(`runs/${id}`)
  const runs = async (query = '') =>
    (await api<{ readonly items: readonly RunView[] }>(`runs?limit=500${query}`)).items.toReversed()

  async function post(push: Push): Promise<Answer> {
    const { hook = 'github', forge = 'github', secret = SECRET } = push
    const { headers, body } = FORGE[forge].compose(
      {
        event: 'push',
        repo: push.repo ?? 'acme/site',
        ref: push.ref ?? `refs/heads/${push.branch ?? 'main'}`,
        ...(push.repoId === undefined ? {} : { repoId: push.repoId }),
        before: push.before ?? null,
        after: push.after,
        guid: push.guid ?? randomUUID(),
      },
      secret,
      Date.now(),
    )
    const answer = await fetch(`${url}/hooks/${hook}`, { method: 'POST', headers, body })
    const retryAfter = answer.headers.get('retry-after') ?? undefined
    return { status: answer.status, retryAfter, body: (await answer.json()) as Answer['body'] }
  }

  return {
    pid: child.pid ?? 0,
    url,
    exited,
    output,
    logged,
    post,
    async accepted(push) {
      const { status, body } = await post(push)
      assert.equal(status, 202, JSON.stringify(body))
      const first = body.targets?.[0]?.run
      assert.ok(first !== undefined, `no run in ${JSON.stringify(body)}`)
      return first
    },
    api,
    run,
    runs,
    target: (name) => api(`targets/${encodeURIComponent(name)}`),
    delivery: (id) => api(`deliveries/${id}`),
    log: (id) => api(`runs/${id}/log`),
    ended: (id, withinMs = PATIENCE_MS) =>
      until(
        `the end of run ${id}`,
        async () => {
          const now = await run(id)
          return now.finishedAt === null ? null : now
        },
        withinMs,
      ),
    async quiet(withinMs = PATIENCE_MS) {
      // One look: between two, a run could end and another take its place.
      const isQuiet = async () => (await runs()).every(({ finishedAt }) => finishedAt !== null)
      await until('no unfinished run', isQuiet, withinMs)
    },
    signal: (signal) => void child.kill(signal),
    async stop() {
      child.kill('SIGTERM')
      return await exited
    },
    kill: () => end(child),
  }
}

function collect(child: ChildProcess): () => string {
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
  }
  return () => text
}

function parsed(line: string): Record<string, unknown>[] {
  try {
    return line.startsWith('{') ? [JSON.parse(line) as Record<string, unknown>] : []
  } catch {
    return [] // the last line, half of it
  }
}

async function ask<T>(socketPath: string, path: string, method: string): Promise<T> {
  // A connection of its own: one that was kept is closed after 5 s, and a test that stalls for so long would not see it.
  const asked = request({ socketPath, path, method, agent: false }).end()
  const [answer] = (await once(asked, 'response')) as [import('node:http').IncomingMessage]
  const text = (await answer.setEncoding('utf8').toArray()).join('')
  const isJson = (answer.headers['content-type'] ?? '').includes('json')
  if ((answer.statusCode ?? 500) >= 400) throw new Error(`${method} ${path}: ${answer.statusCode} ${text}`)
  return (isJson ? JSON.parse(text) : text) as T
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

/** Kills what runs of this data_dir have left, and waits until its launchers are gone too. */
async function endAll(dataDir: string): Promise<void> {
  await until('the end of all processes of the test', () => {
    const left = processesOf(dataDir)
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended by itself meanwhile.
      }
    }
    return left.length === 0
  })
}

/** Living processes whose environment says that they belong to a run of this data_dir. */
export function processesOf(dataDir: string): readonly number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => environmentOf(pid).includes(`LANDFALL_DATA=${dataDir}/`) && lives(pid))
}

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8')
  } catch {
    return ''
  }
}
