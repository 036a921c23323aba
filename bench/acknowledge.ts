/** Deliveries acknowledged a second, and how long the slowest wait, beside adnanh/webhook and beside node alone. */
import type { ChildProcess } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answers, type Daemon, query, startDaemon } from './daemon.ts'
import { type Load, load, NO_WRK, WRK } from './load.ts'
import { end, execute, freePort, start, until } from './processes.ts'
import { makeRemote, type Remote } from './repositories.ts'
import { type Push, type RequestFile, writeRequests } from './requests.ts'
import {
  atLeast,
  atMost,
  type Bench,
  type Line,
  median,
  medianRatio,
  milliseconds,
  perSecond,
  type Result,
  type Row,
} from './table.ts'
import { NO_WEBHOOK, startWebhook, WEBHOOK } from './webhook.ts'

/** Further commits that `main` moves to while deliveries come, so that runs find something to deploy. */
const MOVES = 1000
const MOVE_EVERY_MS = 50
const WARM_UP_SECONDS = 2

export interface Fleet {
  readonly remotes: readonly Remote[]
  readonly targets: string
  /** Commits of each that deliveries may announce: they are on `main` from the beginning. */
  readonly announced: number
}

/** Four repositories, each with a target that deploys its newest commit: `evict`, `release`, `/bin/true`. */
export async function makeFleet(directory: string, announced: number): Promise<Fleet> {
  const names = [1, 2, 3, 4].map((number) => `acme/site${number}`)
  const remotes: Remote[] = []
  for (const name of names) {
    const remote = await makeRemote(join(directory, 'remotes', `${name}.git`), { commits: announced + MOVES, files: 5 })
    await remote.moveTo(announced - 1)
    remotes.push(remote)
  }
  const target = (name: string, index: number) =>
    `[target.site${index + 1}]\nrepo = "${name}"\nurl = "${remotes[index]?.path}"\nbranches = "main"\nrun = ["/bin/true"]\nqueue = "evict"\npoll = "off"\nuser = "root"\n`
  return { remotes, targets: names.map(target).join(''), announced }
}

/** Pushes to the four in turn, each of another commit as long as there are some. */
export function* pushesTo({ remotes, announced }: Fleet, count: number, first = 0): Generator<Push> {
  for (let n = first; n < first + count; n += 1) {
    const index = n % remotes.length
    const commit = Math.floor(n / remotes.length) % announced
    yield { repo: `acme/site${index + 1}`, after: remotes[index]?.commits[commit] ?? '' }
  }
}

/** Moves `main` on in all repositories until it is told to stop. */
export function keepMoving({ remotes, announced }: Fleet): () => void {
  let moved = 0
  const timer = setInterval(() => {
    moved += 1
    for (const remote of remotes) remote.moveTo(announced - 1 + (moved % MOVES)).catch(() => {})
  }, MOVE_EVERY_MS)
  return () => clearInterval(timer)
}

interface Subject {
  readonly name: 'ours' | 'webhook' | 'bare' | 'hmac'
  /** Measures once, from a fresh start. */
  readonly round: () => Promise<Load>
}

async function measure(bench: Bench): Promise<Result> {
  if (WRK === null) return { lines: [], notes: [NO_WRK] }
  const { directory, quick } = bench
  const seconds = quick ? 3 : 6
  const rounds = quick ? 1 : 3
  const count = quick ? 24_000 : 40_000
  const fleet = await makeFleet(directory, count / 4)
  const requests = await writeRequests(join(directory, 'requests'), pushesTo(fleet, count))
  const executed: Executed[] = []
  const subjects = subjectsOf({ bench, fleet, requests, seconds, executed })
  const loads = new Map<Subject['name'], Load[]>(subjects.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round += 1) {
    for (const { name, round: once } of subjects) {
      await execute('sync') // what the one before has left for the disk to write is not the next one's
      loads.get(name)?.push(await once())
    }
  }
  return report(loads, executed, requests)
}

interface Setting {
  readonly bench: Bench
  readonly fleet: Fleet
  readonly requests: RequestFile
  readonly seconds: number
  readonly executed: Executed[]
}

function subjectsOf(setting: Setting): readonly Subject[] {
  const { bench, requests, seconds } = setting
  const bare = fileURLToPath(new URL('./bare-server.ts', import.meta.url))
  let made = 0
  const fresh = async (): Promise<string> => {
    made += 1
    const directory = join(bench.directory, `round-${made}`)
    await mkdir(directory)
    return directory
  }
  const underLoad: UnderLoad = async (url, server) => {
    const { requests: sent } = await load({ url, requests, seconds: WARM_UP_SECONDS })
    return load({ url, requests, first: sent + 100, seconds, server })
  }
  const bareRound = async (directory: string | null): Promise<Load> => {
    const port = await freePort()
    const child = start(process.execPath, [bare, String(port), ...(directory === null ? [] : [directory])])
    return finishing(child, `http://127.0.0.1:${port}`, underLoad)
  }
  const webhook: Subject = {
    name: 'webhook',
    async round() {
      const { url, child } = await startWebhook(await fresh(), '/bin/true')
      return finishing(child, url, underLoad)
    },
  }
  return [
    ...(WEBHOOK === null ? [] : [webhook]),
    { name: 'ours', round: async () => ourRound(setting, await fresh(), underLoad) },
    { name: 'bare', round: async () => bareRound(await fresh()) },
    { name: 'hmac', round: async () => bareRound(null) },
  ]
}

type UnderLoad = (url: string, server: number | undefined) => Promise<Load>

async function finishing(child: ChildProcess, url: string, underLoad: UnderLoad): Promise<Load> {
  try {
    await until(`an answer of ${url}`, () => listens(url))
    return await underLoad(url, child.pid)
  } finally {
    await end(child, 'SIGKILL')
  }
}

/** The bare server answers everything that is not signed with 401. */
async function listens(url: string): Promise<boolean> {
  if (await answers(url)) return true
  return fetch(url).then(
    () => true,
    () => false,
  )
}

/** How many runs of ours had begun, and ended well, within warm-up and measurement. */
interface Executed {
  readonly begun: number
  readonly succeeded: number
  readonly duplicates: number
}

async function ourRound({ bench, fleet, executed }: Setting, directory: string, underLoad: UnderLoad): Promise<Load> {
  const stopMoving = keepMoving(fleet)
  let daemon: Daemon | null = null
  try {
    daemon = await startDaemon({ program: bench.program, directory, targets: fleet.targets, keys: 'drain = "2s"\n' })
    return await underLoad(daemon.url, daemon.pid)
  } finally {
    stopMoving()
    await daemon?.stop()
    if (daemon !== null) executed.push(executedIn(daemon.dataDir))
  }
}

function executedIn(dataDir: string): Executed {
  const count = (sql: string) => Number(query(dataDir, sql)[0]?.['n'])
  return {
    begun: count('select count(*) as n from runs where started_at is not null'),
    succeeded: count("select count(*) as n from runs where state = 'succeeded'"),
    duplicates: count("select count(*) as n from deliveries where verdict <> 'accepted' or repeats is not null"),
  }
}

function report(loads: Map<Subject['name'], Load[]>, executed: readonly Executed[], requests: RequestFile): Result {
  const of = (name: Subject['name'], field: keyof Load) => (loads.get(name) ?? []).map((round) => round[field])
  const ours = perSecond(median(of('ours', 'perSecond')))
  const rate = (what: string, name: Subject['name']): Omit<Line, 'ratio' | 'toReach' | 'ok'> => ({
    what,
    ours,
    beside: perSecond(median(of(name, 'perSecond'))),
  })
  const ratio = (name: Subject['name'], field: keyof Load) => medianRatio(of('ours', field), of(name, field))
  const lines: Line[] = [
    {
      ...rate('acknowledged durably, beside a bare node:http server with the same rows', 'bare'),
      ...atLeast(0.7, ratio('bare', 'perSecond')),
    },
    {
      ...rate('the same, beside one that checks the HMAC only', 'hmac'),
      ratio: ratio('hmac', 'perSecond'),
      toReach: '',
      ok: null,
    },
  ]
  if (WEBHOOK !== null) {
    lines.unshift(
      {
        ...rate('acknowledged durably while runs execute, beside adnanh/webhook', 'webhook'),
        ...atLeast(2, ratio('webhook', 'perSecond')),
      },
      {
        what: 'p99 of the acknowledgement, beside adnanh/webhook',
        ours: milliseconds(median(of('ours', 'p99'))),
        beside: milliseconds(median(of('webhook', 'p99'))),
        ...atMost(0.5, ratio('webhook', 'p99')),
      },
    )
  }
  const sum = (field: keyof Executed) => executed.reduce((total, round) => total + round[field], 0)
  const cpu = [...loads].map(([name, rounds]) => `${name} ${median(rounds.map((round) => round.cpu)).toFixed(2)}`)
  const cost = [...loads].map(
    ([name, rounds]) => `${name} ${median(rounds.map((round) => round.serverMs)).toFixed(2)} ms`,
  )
  const p99 = [...loads].map(([name, rounds]) => `${name} ${milliseconds(median(rounds.map((round) => round.p99)))}`)
  const errors = [...loads].flatMap(([name, rounds]) =>
    rounds.some((round) => round.errors > 0)
      ? [`${name} refused ${rounds.map((round) => round.errors).join(', ')}`]
      : [],
  )
  return {
    lines,
    notes: [
      `bodies of ${requests.bodyBytes} bytes, 32 connections; our runs meanwhile: ${sum('begun')} begun, ${sum('succeeded')} succeeded, in ${executed.length} rounds; repeated or unaccepted deliveries: ${sum('duplicates')}`,
      `processors that the load tool kept busy: ${cpu.join(', ')}; p99: ${p99.join(', ')}`,
      `processor time of the server's own process for each delivery: ${cost.join(', ')}`,
      ...errors,
      ...(WEBHOOK === null ? [NO_WEBHOOK] : []),
    ],
  }
}

export const acknowledge: Row = {
  name: 'acknowledge',
  about: 'deliveries acknowledged a second, and their p99',
  measure,
}
