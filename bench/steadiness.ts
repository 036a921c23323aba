/** The slowest acknowledgements of a quiet daemon, while a script writes much, and while big deliveries arrive. */
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Daemon, startDaemon } from './daemon.ts'
import { type Load, load, NO_WRK, WRK } from './load.ts'
import { execute, until } from './processes.ts'
import { type Push, post, type RequestFile, send, sign, writeRequests } from './requests.ts'
import { atMost, type Bench, type Line, median, medianRatio, milliseconds, type Result, type Row } from './table.ts'

/**
 * 64 senders that pause up to 256 ms after each answer: about 480 deliveries a second, a sixth of what the daemon can do, so
 * that waiting is its doing and not that of a queue which a saturating load would keep full anyway.
 */
const SENDERS = { connections: 64, maxPauseMs: 256 }
const SCRIPT_BYTES = 100 * 1024 * 1024
/** GitHub's limit, and the default of `max_body`. */
const BIG_BYTES = 25 * 1024 * 1024 - 1024

async function measure({ directory, program, quick }: Bench): Promise<Result> {
  if (WRK === null) return { lines: [], notes: [NO_WRK] }
  const seconds = quick ? 4 : 6
  const rounds = quick ? 1 : 4
  const requests = await writeRequests(join(directory, 'requests'), pushesTo('acme/site', rounds * 4 * seconds * 600))
  const home = join(directory, 'landfall')
  const daemon = await startDaemon({
    program,
    directory: home,
    targets: await makeTargets(home),
    keys: 'drain = "0s"\n',
  })
  const rig: Rig = { daemon, requests, seconds, sent: 0 }
  const quiet: Load[] = []
  const writing: Load[] = []
  const big: Load[] = []
  const told: string[] = []
  try {
    await send(daemon.url, bigDelivery()) // starts the thread that examines those
    await loadFor(rig)
    await execute('sync')
    for (let round = 0; round < rounds; round += 1) {
      quiet.push(await loadFor(rig))
      writing.push(await whileWriting(rig, told))
      big.push(await whileBig(rig, told))
    }
  } finally {
    await daemon.stop()
  }
  return {
    lines: [
      compare('p99 of the acknowledgement while a script writes 100 MB of output', writing, quiet),
      compare('p99 of the acknowledgement while a delivery of 25 MB arrives each second', big, quiet),
    ],
    notes: [
      `${Math.round(median(quiet.map((round) => round.perSecond)))} deliveries a second; medians of their p50 and slowest: quiet ${told2(quiet)}, writing ${told2(writing)}, big ${told2(big)}`,
      ...told,
      ...[...quiet, ...writing, ...big].flatMap(({ errors }) => (errors > 0 ? [`${errors} requests failed`] : [])),
    ],
  }
}

function told2(rounds: readonly Load[]): string {
  return `${milliseconds(median(rounds.map(({ p50 }) => p50)))} and ${milliseconds(median(rounds.map(({ max }) => max)))}`
}

function compare(what: string, disturbed: readonly Load[], quiet: readonly Load[]): Line {
  const p99 = (rounds: readonly Load[]) => rounds.map((round) => round.p99)
  return {
    what: `${what}, beside undisturbed`,
    ours: milliseconds(median(p99(disturbed))),
    beside: milliseconds(median(p99(quiet))),
    ...atMost(2, medianRatio(p99(disturbed), p99(quiet))),
  }
}

/**
 * The load goes to a target whose only run waits, so that each delivery makes a run that takes the waiting one's place, and no
 * fetch competes for the processors with what is compared.
 */
async function makeTargets(home: string): Promise<string> {
  await mkdir(join(home, 'scripts'), { recursive: true })
  await writeFile(join(home, 'scripts', 'wait'), '#!/bin/sh\nexec sleep 600\n', { mode: 0o755 })
  const write = `#!/bin/sh\nyes 'a line of output such as a build tool writes, sixty-four bytes' | head -c ${SCRIPT_BYTES}\n`
  await writeFile(join(home, 'scripts', 'write'), write, { mode: 0o755 })
  return [
    ['site', 'wait'],
    ['talk', 'write'],
  ]
    .map(
      ([name, script]) =>
        `[target.${name}]\nrepo = "acme/${name}"\nbranches = "main"\ncheckout = "none"\nscript = "${script}"\nqueue = "evict"\nuser = "root"\n`,
    )
    .join('')
}

const randomCommit = (): string => randomBytes(20).toString('hex')

function* pushesTo(repo: string, count: number): Generator<Push> {
  for (let n = 0; n < count; n += 1) yield { repo, after: randomCommit() }
}

interface Rig {
  readonly daemon: Daemon
  readonly requests: RequestFile
  readonly seconds: number
  sent: number
}

async function loadFor(rig: Rig): Promise<Load> {
  const { daemon, requests, seconds } = rig
  const done = await load({ url: daemon.url, requests, first: rig.sent, seconds, ...SENDERS })
  rig.sent += done.requests + SENDERS.connections
  return done
}

/** Scripts of 100 MB each, one after the other, as long as the load lasts. */
async function whileWriting(rig: Rig, told: string[]): Promise<Load> {
  let over = false
  const write = async (): Promise<number> => {
    let scripts = 0
    for (; !over; scripts += 1) await runOnce(rig.daemon, 'acme/talk')
    return scripts
  }
  const writing = write()
  const done = await loadFor(rig)
  over = true
  told.push(`${await writing} scripts wrote 100 MB each while ${rig.seconds} s were measured`)
  return done
}

async function runOnce(daemon: Daemon, repo: string): Promise<void> {
  const { text } = await post(daemon.url, { repo, after: randomCommit() })
  const { targets } = JSON.parse(text) as { targets: { run: number }[] }
  await until(
    'the end of a script',
    async () => {
      const { finishedAt, state } = (await daemon.get(`runs/${targets[0]?.run}`)) as Record<string, string | null>
      if (finishedAt !== null && state !== 'succeeded') throw new Error(`a script ended ${state}`)
      return finishedAt !== null
    },
    20,
  )
}

/** A big delivery each second, as long as the load lasts. */
async function whileBig(rig: Rig, told: string[]): Promise<Load> {
  const statuses: number[] = []
  const sending: Promise<void>[] = []
  const ready = Array.from({ length: rig.seconds }, bigDelivery)
  const sendNext = (): void => {
    const delivery = ready.pop()
    if (delivery === undefined) return
    sending.push(send(rig.daemon.url, delivery).then(({ status }) => void statuses.push(status)))
  }
  sendNext()
  const timer = setInterval(sendNext, 1000)
  const done = await loadFor(rig)
  clearInterval(timer)
  await Promise.all(sending)
  told.push(`answers to deliveries of 25 MB: ${statuses.join(', ')}`)
  return done
}

/** GitHub lists at most 2,048 commits of a push. */
const BIG_COMMITS = 2048

/** A push of many commits that touch many files: paths are what makes a real push big. */
function bigDelivery() {
  return sign({ repo: 'acme/site', after: randomCommit() }, (text) => {
    const payload = JSON.parse(text) as { commits: Record<string, unknown>[] }
    const commit = payload.commits[0] ?? {}
    const perCommit =
      (BIG_BYTES - Buffer.byteLength(text)) / BIG_COMMITS - Buffer.byteLength(JSON.stringify(commit)) - 1
    const path = (n: number) => `src/some/directory/of/a/large/project/file-${String(n).padStart(8, '0')}.ts`
    const paths = Math.floor((perCommit - 100) / (path(0).length + 3))
    payload.commits = Array.from({ length: BIG_COMMITS }, (_, index) => ({
      ...commit,
      id: randomCommit(),
      modified: Array.from({ length: paths }, (_path, n) => path(index * paths + n)),
    }))
    return JSON.stringify(payload)
  })
}

export const steadiness: Row = {
  name: 'steadiness',
  about: 'the slowest acknowledgements while scripts write much and big deliveries arrive',
  measure,
}
