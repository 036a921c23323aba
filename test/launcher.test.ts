import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { createLauncher } from '../src/launcher/launcher.ts'
import { endLeftovers } from '../src/processes.ts'
import type { ProcessMark, Remote, ScriptOrder } from '../src/work.ts'
import { keptLog } from './support/log.ts'
import { lives, pidIn, scriptOrder, shellScript, textOf } from './support/scripts.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

function launched(t: TestContext, env: NodeJS.ProcessEnv = process.env) {
  const directory = temporaryDirectory(t)
  const { log, entries } = keptLog()
  const launcher = createLauncher({ log, env })
  t.after(() => launcher.close())
  return { directory, log, entries, launcher, work: launcher.work }
}

const ignore = (): void => {}
/** Ignores TERM, and tells its own pid, its launcher's and its child's. */
const STUBBORN = [
  "trap '' TERM",
  'echo $PPID > launcher',
  'sleep 600 & echo $! > child',
  'echo $$ > pid',
  'wait; sleep 600',
]

async function pidsOf(directory: string) {
  const names = ['launcher', 'child', 'pid'] as const
  const [launcher, child, script] = await Promise.all(names.map((name) => pidIn(join(directory, name))))
  assert.ok(launcher !== undefined && child !== undefined && script !== undefined)
  return { launcher, child, script }
}

test('a script runs through the launcher, and its mark arrives while it runs', async (t) => {
  const { directory, work } = launched(t)
  const file = shellScript(directory, 'script', 'echo hello', 'while [ ! -e go ]; do sleep 0.05; done', 'exit 7')
  const marked = Promise.withResolvers<ProcessMark>()
  const ended = work.runScript(scriptOrder(directory, [file]), marked.resolve)
  const { pid } = await marked.promise
  assert.equal(lives(pid), true)
  writeFileSync(join(directory, 'go'), '')
  assert.deepEqual(await ended, { kind: 'exited', code: 7 })
  assert.equal(textOf(join(directory, 'log')), 'hello\n')
})

test('many calls at once each get their own answer', async (t) => {
  const { directory, work } = launched(t)
  const file = shellScript(directory, 'script', 'exit $1')
  const codes = Array.from({ length: 30 }, (_, code) => code)
  const ends = await Promise.all(
    codes.map((code) => {
      const log = { file: join(directory, `log-${code}`), maxBytes: 1000, masked: [] }
      return work.runScript(scriptOrder(directory, [file, String(code)], { log }), ignore)
    }),
  )
  assert.deepEqual(
    ends,
    codes.map((code) => ({ kind: 'exited', code })),
  )
})

test('an abort reaches the script', async (t) => {
  const { directory, work } = launched(t)
  const abort = new AbortController()
  const file = shellScript(directory, 'script', 'echo $$ > pid', 'sleep 600')
  const ended = work.runScript(scriptOrder(directory, [file]), ignore, abort.signal)
  await pidIn(join(directory, 'pid'))
  abort.abort()
  assert.deepEqual(await ended, { kind: 'aborted' })
})

test('a call that was aborted before it began starts nothing', async (t) => {
  const { directory, work } = launched(t)
  const file = shellScript(directory, 'script', 'touch ran')
  assert.deepEqual(await work.runScript(scriptOrder(directory, [file]), ignore, AbortSignal.abort()), {
    kind: 'aborted',
  })
  assert.throws(() => readFileSync(join(directory, 'ran')))
})

test('a bug in the launcher rejects the call, is logged with its stack, and ends nothing else', async (t) => {
  const { directory, work, entries } = launched(t)
  const broken = { ...scriptOrder(directory, ['/bin/true']), argv: null } as unknown as ScriptOrder
  await assert.rejects(work.runScript(broken, ignore), (error) => !hasCode(error, 'lost'))
  const bug = entries.find((entry) => entry.event === 'bug')
  assert.match(String(bug?.fields['stack']), /launcher-process|executable/)
  assert.deepEqual(await work.runScript(scriptOrder(directory, ['/bin/true']), ignore), { kind: 'exited', code: 0 })
})

function remoteAt(directory: string, url: string): Remote {
  return { url, mirror: join(directory, 'mirror'), sshKeyFile: null, knownHostsFile: null, credentialsFile: null }
}

test('what a person can mend crosses with its code and its sentence', async (t) => {
  const { directory, work, entries } = launched(t)
  const remote = remoteAt(directory, join(directory, 'no-such-repository'))
  await assert.rejects(work.listRefs({ remote, branches: [], tags: false, timeoutMs: 60_000 }), (error) => {
    return (hasCode(error, 'remote') || hasCode(error, 'git')) && error.message.includes('no-such-repository')
  })
  assert.deepEqual(entries, [])
})

test('a git that hangs is ended with its helpers when the launcher closes', async (t) => {
  const { directory, work, launcher } = launched(t)
  // Accepts connections and never answers.
  const server = createServer().listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const remote = remoteAt(directory, `https://127.0.0.1:${port}/acme/site.git`)
  const env = { LANDFALL_RUN: `${process.pid}000`, LANDFALL_DATA: directory }
  const wanted = { kind: 'branch', branch: 'main' } as const
  const facts = {
    wanted,
    dueAt: Date.now(),
    announced: null,
    deployed: null,
    compareAnnounced: false,
    pinnedAs: 'site',
  }
  const connected = once(server, 'connection')
  const lost = assert.rejects(work.fetch({ remote, ...facts, env, timeoutMs: 120_000 }), (error) =>
    hasCode(error, 'lost'),
  )
  await connected
  const pids = carriersOf(`LANDFALL_RUN=${env.LANDFALL_RUN}`)
  assert.ok(pids.length >= 2, 'git and git-remote-https')
  await launcher.close()
  await lost
  for (const pid of pids) await until(`the end of ${pid}`, () => !lives(pid))
})

/** The processes with `entry` in their environment. */
function carriersOf(entry: string): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.filter((pid) => textOf(`/proc/${pid}/environ`).split('\0').includes(entry)).map(Number)
}

test('when the launcher is killed its calls reject with lost, what it left is ended by mark, and the next call works', async (t) => {
  const { directory, work, entries, log } = launched(t)
  const marks: ProcessMark[] = []
  const order = scriptOrder(directory, [shellScript(directory, 'script', ...STUBBORN)])
  const ended = work.runScript(order, (mark) => marks.push(mark))
  const { launcher, child, script } = await pidsOf(directory)
  await until('the mark', () => marks.length > 0)
  const lost = assert.rejects(ended, (error) => hasCode(error, 'lost'))
  process.kill(launcher, 'SIGKILL')
  await lost
  assert.ok(entries.some((entry) => entry.event === 'launcher-lost'))
  assert.equal(await endLeftovers({ marks, runs: new Set(), dataDir: directory, log }), 2)
  assert.deepEqual([lives(script), lives(child)], [false, false])
  const again = scriptOrder(directory, [shellScript(directory, 'script', 'echo $PPID')])
  assert.deepEqual(await work.runScript(again, ignore), { kind: 'exited', code: 0 })
  assert.notEqual(Number(textOf(join(directory, 'log')).trim()), launcher)
})

test('when the daemon is killed with SIGKILL, the launcher ends its scripts and itself', async (t) => {
  const directory = temporaryDirectory(t)
  const order = scriptOrder(directory, [shellScript(directory, 'script', ...STUBBORN)])
  const program = `
    import { createLauncher } from ${JSON.stringify(new URL('../src/launcher/launcher.ts', import.meta.url).href)}
    const log = { debug() {}, info() {}, warn() {}, error() {} }
    await createLauncher({ log }).work.runScript(${JSON.stringify(order)}, () => {})`
  const daemon = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const pids = await pidsOf(directory)
  daemon.kill('SIGKILL')
  for (const pid of [pids.script, pids.child, pids.launcher]) await until(`the end of ${pid}`, () => !lives(pid))
})

test('the launcher leaves signals meant for everybody to the daemon', async (t) => {
  const { directory, work } = launched(t)
  const order = scriptOrder(directory, [shellScript(directory, 'script', 'echo $PPID > launcher')])
  await work.runScript(order, ignore)
  const launcher = await pidIn(join(directory, 'launcher'))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(launcher, signal)
  await work.runScript(order, ignore)
  assert.equal(await pidIn(join(directory, 'launcher')), launcher)
})

test('closing ends running scripts and the launcher: their calls reject with lost, later ones with stopping', async (t) => {
  const { directory, work, launcher, entries } = launched(t)
  const order = scriptOrder(directory, [shellScript(directory, 'script', ...STUBBORN)])
  const lost = assert.rejects(work.runScript(order, ignore), (error) => hasCode(error, 'lost'))
  const pids = await pidsOf(directory)
  await launcher.close()
  await lost
  assert.equal(lives(pids.launcher), false)
  for (const pid of [pids.script, pids.child]) await until(`the end of ${pid}`, () => !lives(pid))
  await assert.rejects(work.runScript(order, ignore), (error) => hasCode(error, 'stopping'))
  await launcher.close()
  assert.deepEqual(entries, [])
})

test('the launcher’s environment, which scripts can read, has no secret and no mark of a script that started us', async (t) => {
  const env = { ...process.env, LANDFALL_RUN: '7', LANDFALL_DATA: '/somewhere', WEBHOOK_SECRET: 'of the webhook' }
  const { directory, work } = launched(t, env)
  await work.runScript(scriptOrder(directory, [shellScript(directory, 'script', 'echo $PPID > launcher')]), ignore)
  const environment = textOf(`/proc/${await pidIn(join(directory, 'launcher'))}/environ`)
  assert.match(environment, /PATH=/)
  assert.doesNotMatch(environment, /LANDFALL_|WEBHOOK_SECRET/)
})

test('what went wrong with a log is told to the daemon', async (t) => {
  const { directory, work, entries } = launched(t)
  const log = { file: '/dev/full', maxBytes: 1000, masked: [] }
  await work.runScript(scriptOrder(directory, ['echo', 'hello'], { log }), ignore)
  await until('the warning', () => entries.some((entry) => entry.event === 'log-incomplete'))
})

test('a daemon with nothing left to do may close at once, before its launcher is up', async (t) => {
  const { launcher, entries } = launched(t)
  await launcher.close()
  assert.deepEqual(entries, [])
})
