/** landfall itself, compiled and started as the package ships it. */
import { once } from 'node:events'
import { closeSync, existsSync, openSync } from 'node:fs'
import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { end, execute, freePort, start, until } from './processes.ts'
import { SECRET } from './requests.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Compiles into `directory`, beside the packages that it imports. Resolves to the program. */
export async function build(directory: string): Promise<string> {
  await mkdir(directory, { recursive: true })
  await copyFile(join(ROOT, 'package.json'), join(directory, 'package.json'))
  await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
  const tsc = join(ROOT, 'node_modules/.bin/tsc')
  const args = ['-p', join(ROOT, 'tsconfig.build.json'), '--outDir', join(directory, 'dist')]
  await execute(tsc, args).catch((error: { stdout?: string }) => console.error(error.stdout))
  const program = join(directory, 'dist/main.js')
  if (!existsSync(program)) throw new Error('tsc made no program')
  return program
}

export interface DaemonParts {
  readonly program: string
  readonly directory: string
  /** Keys of the top level. */
  readonly keys?: string
  /** `[target.…]` */
  readonly targets: string
  /** For node, before the program. */
  readonly flags?: readonly string[]
  /** Beside our own environment. */
  readonly env?: Readonly<Record<string, string>>
}

export interface Daemon {
  readonly url: string
  readonly pid: number
  readonly dataDir: string
  /** From its start to its first answer to /healthz. */
  readonly startMs: number
  /** GET of the API on the socket. */
  get(path: string): Promise<Record<string, unknown>>
  /** One poll of every target; resolves to what that made of each. */
  once(): Promise<readonly Record<string, unknown>[]>
  stop(): Promise<void>
}

/** Resolves when it answers. A second start in the same directory finds what the first one left. */
export async function startDaemon({
  program,
  directory,
  keys = '',
  targets,
  flags = [],
  env = {},
}: DaemonParts): Promise<Daemon> {
  const port = await freePort()
  const dataDir = join(directory, 'data')
  const file = join(directory, 'landfall.toml')
  await mkdir(join(directory, 'scripts'), { recursive: true })
  const server = `[server]\nlisten = "127.0.0.1:${port}"\nadmin = "off"\n[hook.github]\nsecrets = ["${SECRET}"]\n`
  const top = `data_dir = "${dataDir}"\nscripts_dir = "${join(directory, 'scripts')}"\n`
  await writeFile(file, `${top}${keys}\n${server}${targets}`, { mode: 0o600 })
  // A file, as the journal would be: what logging costs is part of what is measured.
  const out = openSync(join(directory, 'daemon.log'), 'a')
  const startedAt = performance.now()
  const child = start(process.execPath, [...flags, program, 'serve', '-c', file], {
    stdio: ['ignore', out, out],
    env: { ...process.env, ...env },
  })
  closeSync(out)
  const url = `http://127.0.0.1:${port}`
  await until(`an answer of the daemon; see ${directory}/daemon.log`, () => {
    if (child.exitCode !== null) throw new Error(`the daemon ended; see ${directory}/daemon.log`)
    return answers(`${url}/healthz`)
  })
  const startMs = performance.now() - startedAt
  return {
    url,
    pid: child.pid ?? 0,
    dataDir,
    startMs,
    get: (path) => askApi(dataDir, 'GET', path),
    once: async () => (await askApi(dataDir, 'POST', 'once'))['items'] as Record<string, unknown>[],
    stop: () => end(child),
  }
}

/** node:http: its failure costs a tenth of what a failure of fetch does. */
export function answers(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const asking = request(url, { agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    asking.on('error', () => resolve(false))
    asking.end()
  })
}

async function askApi(dataDir: string, method: string, path: string): Promise<Record<string, unknown>> {
  const asking = request({ socketPath: join(dataDir, 'landfall.sock'), method, path: `/api/v1/${path}`, agent: false })
  asking.end()
  const [response] = (await once(asking, 'response')) as [AsyncIterable<Buffer>]
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  return JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>
}

/** Waits until no run is queued or running. */
export async function untilIdle(daemon: Daemon, patienceMs: number): Promise<void> {
  const left = async (state: string) => (await daemon.get(`runs?state=${state}&limit=1`))['items'] as readonly unknown[]
  const isIdle = async () => (await left('queued')).length === 0 && (await left('running')).length === 0
  await until('the end of all runs', isIdle, 100, patienceMs)
}

/** What the database of a daemon says, once that has stopped. */
export function query(dataDir: string, sql: string): readonly Record<string, unknown>[] {
  const db = new DatabaseSync(join(dataDir, 'landfall.db'), { readOnly: true })
  try {
    return db.prepare(sql).all()
  } finally {
    db.close()
  }
}
