/** Fifty pushes at once to one repository: what runs, what overlaps, what fails, and what is deployed in the end. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { startDaemon } from './daemon.ts'
import { end, execute, until } from './processes.ts'
import { GIT_ENV, makeRemote, type Remote } from './repositories.ts'
import { post } from './requests.ts'
import type { Bench, Line, Result, Row } from './table.ts'
import { NO_WEBHOOK, startWebhook, WEBHOOK } from './webhook.ts'

const PUSHES = 50

async function measure(bench: Bench): Promise<Result> {
  const ours = await landfallBurst(bench)
  const theirs = WEBHOOK === null ? null : await webhookBurst(bench)
  const line = (what: string, field: 'runs' | 'overlaps' | 'failures', toReach: string, ok: boolean): Line => ({
    what: `50 pushes at once: ${what}`,
    ours: String(ours[field]),
    beside: theirs === null ? '' : String(theirs[field]),
    ratio: null,
    toReach,
    ok,
  })
  return {
    lines: [
      line('runs', 'runs', '2–3', ours.runs >= 2 && ours.runs <= 3),
      line('overlaps', 'overlaps', '0', ours.overlaps === 0),
      line('failures', 'failures', '0', ours.failures === 0),
      {
        what: '50 pushes at once: the last commit is deployed',
        ours: ours.last ? 'yes' : 'no',
        beside: theirs === null ? '' : theirs.last ? 'yes' : 'no',
        ratio: null,
        toReach: 'yes',
        ok: ours.last,
      },
    ],
    notes:
      theirs === null
        ? [NO_WEBHOOK]
        : [`ends of our runs that were not superseded: ${ours.ends}; scripts that left a trace: ${ours.scripts}`],
  }
}

interface Burst {
  readonly runs: number
  readonly overlaps: number
  readonly failures: number
  readonly last: boolean
}

/** Each push moves `main` on by one commit and is announced; nobody waits for an answer. */
async function pushAll(url: string, remote: Remote): Promise<void> {
  const answers: Promise<{ readonly status: number }>[] = []
  for (let push = 1; push <= PUSHES; push += 1) {
    await remote.moveTo(push)
    answers.push(
      post(url, { repo: 'acme/site', after: remote.commits[push] ?? '', before: remote.commits[push - 1] ?? '' }),
    )
  }
  for (const { status } of await Promise.all(answers)) {
    if (status >= 300) throw new Error(`a push was answered with ${status}`)
  }
}

/** A script writes `+` when it begins, `-` when it ends, and `!` where git failed. */
function readTrace(trace: string): { readonly runs: number; readonly overlaps: number; readonly failures: number } {
  let running = 0
  let overlaps = 0
  for (const mark of trace) {
    if (mark === '+' && running > 0) overlaps += 1
    if (mark === '+') running += 1
    if (mark === '-') running -= 1
  }
  return { runs: trace.split('+').length - 1, overlaps, failures: trace.split('!').length - 1 }
}

async function landfallBurst({ directory, program }: Bench): Promise<Burst & { ends: string; scripts: number }> {
  const home = join(directory, 'landfall')
  const current = join(home, 'current')
  const trace = join(home, 'trace')
  await mkdir(join(home, 'scripts'), { recursive: true })
  const remote = await makeRemote(join(directory, 'ours.git'), { commits: PUSHES + 1, files: 20 })
  const script = `#!/bin/sh\nprintf + >> ${trace}\nsleep 0.3\nprintf - >> ${trace}\n`
  await writeFile(join(home, 'scripts', 'deploy'), script, { mode: 0o755 })
  const target = `[target.site]\nrepo = "acme/site"\nurl = "${remote.path}"\nbranches = "main"\nscript = "deploy"\ncurrent = "${current}"\nqueue = "evict"\npoll = "off"\nuser = "root"\n`
  const daemon = await startDaemon({ program, directory: home, targets: target })
  try {
    await pushAll(daemon.url, remote)
    const runs = await until(
      'the end of all runs',
      async () => {
        const items = (await daemon.get('runs?limit=200'))['items'] as { state: string }[]
        return items.every(({ state }) => state !== 'queued' && state !== 'running') ? items : null
      },
      50,
    )
    const states = runs.map(({ state }) => state).filter((state) => state !== 'superseded')
    const head = await execute('git', ['rev-parse', 'HEAD'], { cwd: current, env: GIT_ENV })
    const { runs: scripts, overlaps } = readTrace(await readFile(trace, 'utf8'))
    return {
      runs: states.length,
      overlaps,
      failures: states.filter((state) => state !== 'succeeded' && state !== 'skipped').length,
      last: head.stdout.trim() === remote.commits[PUSHES],
      ends: states.join(', '),
      scripts,
    }
  } finally {
    await daemon.stop()
  }
}

/** The script that most people write: fetch and reset, in the tree that is served. */
async function webhookBurst({ directory }: Bench): Promise<Burst> {
  const home = join(directory, 'webhook')
  const tree = join(home, 'tree')
  const trace = join(home, 'trace')
  await mkdir(home)
  const remote = await makeRemote(join(directory, 'theirs.git'), { commits: PUSHES + 1, files: 20 })
  await execute('git', ['clone', '--quiet', remote.path, tree], { env: GIT_ENV })
  const script = `#!/bin/sh\nprintf + >> ${trace}\ncd ${tree}\ngit fetch -q && git reset -q --hard origin/main || printf '!' >> ${trace}\nprintf - >> ${trace}\n`
  await writeFile(join(home, 'deploy'), script, { mode: 0o755 })
  const { url, child } = await startWebhook(home, join(home, 'deploy'))
  try {
    await pushAll(url, remote)
    const text = await until(
      'the end of all scripts',
      async () => {
        const written = await readFile(trace, 'utf8').catch(() => '')
        return written.split('-').length - 1 === PUSHES ? written : null
      },
      50,
    )
    const head = await execute('git', ['rev-parse', 'HEAD'], { cwd: tree, env: GIT_ENV })
    return { ...readTrace(text), last: head.stdout.trim() === remote.commits[PUSHES] }
  } finally {
    await end(child, 'SIGKILL')
  }
}

export const burst: Row = { name: 'burst', about: 'fifty pushes at once to one repository', measure }
