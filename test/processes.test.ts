import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { endLeftovers, groupMembers, startTimeOf } from '../src/processes.ts'
import type { ProcessMark } from '../src/work.ts'
import { keptLog } from './support/log.ts'
import { lives, pidIn, shellScript, textOf } from './support/scripts.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

const PATH = process.env['PATH'] ?? ''
let lastRun = process.pid * 1000
/** The tests of other files, and other landfalls, have processes of their own: no run id is used twice. */
const newRun = (): number => ++lastRun

/** Starts a shell as the leader of a group of its own, ended after the test. Resolves once it has written its pid to `ready`. */
async function group(t: TestContext, directory: string, env: Record<string, string>, ...lines: string[]) {
  const file = shellScript(directory, 'leader', ...lines)
  const child = spawn(file, { cwd: directory, env: { PATH, ...env }, detached: true, stdio: 'ignore' })
  const exited = once(child, 'exit')
  const { pid } = child
  assert.ok(pid !== undefined)
  t.after(() => {
    for (const member of groupMembers(pid)) process.kill(member.pid, 'SIGKILL')
  })
  const mark: ProcessMark = { pid, startTime: startTimeOf(pid) ?? 0 }
  await pidIn(join(directory, 'ready'))
  return { mark, exited }
}

function end(dataDir: string, runs: number[], marks: ProcessMark[] = []): Promise<number> {
  return endLeftovers({ marks, runs: new Set(runs), dataDir, log: keptLog().log })
}

/** A leader that is ready once it has a child. */
const WAITING = ['sleep 600 & echo $! > sleeper', 'echo $$ > ready', 'wait']

/** A process that has only been forked is another copy of its parent, and in the middle of an exec it shows no environment. */
async function asleep(directory: string, name = 'sleeper'): Promise<number> {
  const pid = await pidIn(join(directory, name))
  await until('a sleep', () => textOf(`/proc/${pid}/cmdline`) === 'sleep\x00600\x00')
  return pid
}

test('the start time tells a process from every other, and no process has none', () => {
  const startTime = startTimeOf(process.pid)
  assert.ok(startTime !== null && startTime > 0)
  assert.notEqual(startTimeOf(1), null)
  assert.equal(startTimeOf(2 ** 30), null)
})

test('a recorded group whose leader is the recorded one is ended with all its members', async (t) => {
  const directory = temporaryDirectory(t)
  const { mark } = await group(t, directory, {}, 'env -i sleep 600 &', 'echo $! > child', ...WAITING)
  const [child] = [await asleep(directory, 'child'), await asleep(directory)]
  assert.equal(await end(directory, [], [mark]), 3)
  assert.deepEqual([lives(mark.pid), lives(child)], [false, false])
})

test('a process whose id was recycled is not ended', async (t) => {
  const directory = temporaryDirectory(t)
  const { mark } = await group(t, directory, {}, ...WAITING)
  assert.equal(await end(directory, [newRun()], [{ ...mark, startTime: mark.startTime - 1 }]), 0)
  assert.equal(lives(mark.pid), true)
})

test('of a group whose leader is gone all are ended if one carries the run, even a member with an empty environment', async (t) => {
  const directory = temporaryDirectory(t)
  const run = newRun()
  const lines = ['sleep 600 & echo $! > sleeper', 'env -i sleep 600 &', 'echo $! > child', 'echo $$ > ready']
  const { mark, exited } = await group(t, directory, { LANDFALL_RUN: `${run}` }, ...lines)
  await exited
  for (const name of ['sleeper', 'child']) await asleep(directory, name)
  assert.equal(groupMembers(mark.pid).length, 2)
  assert.equal(await end(directory, [run], [mark]), 2)
  assert.equal(groupMembers(mark.pid).length, 0)
})

test('a group whose leader is gone and whose members carry nothing of ours is not ended: its id may be recycled', async (t) => {
  const directory = temporaryDirectory(t)
  const { mark, exited } = await group(t, directory, {}, 'sleep 600 &', 'echo $$ > ready')
  await exited
  assert.equal(await end(directory, [newRun()], [mark]), 0)
  assert.equal(groupMembers(mark.pid).length, 1)
})

test('a process that left its group is found by its environment', async (t) => {
  const directory = temporaryDirectory(t)
  const run = newRun()
  const env = { LANDFALL_RUN: `${run}`, LANDFALL_DATA: join(directory, 'data', 'site') }
  const { exited } = await group(t, directory, env, 'setsid sleep 600 &', 'echo $! > child', 'echo $$ > ready')
  const child = await asleep(directory, 'child')
  t.after(() => lives(child) && process.kill(child, 'SIGKILL'))
  await exited
  assert.equal(await end(directory, [newRun()]), 0)
  assert.equal(lives(child), true)
  assert.equal(await end(directory, [run]), 1)
  assert.equal(lives(child), false)
})

test('a process of the same run id, but of another data directory, is not ended', async (t) => {
  const directory = temporaryDirectory(t)
  const run = newRun()
  const env = { LANDFALL_RUN: `${run}`, LANDFALL_DATA: join(directory, 'other', 'site') }
  const { mark } = await group(t, directory, env, ...WAITING)
  await asleep(directory)
  assert.equal(await end(join(directory, 'oth'), [run]), 0)
  assert.equal(await end(join(directory, 'other', 'site', 'deeper'), [run]), 0)
  assert.equal(lives(mark.pid), true)
  assert.equal(await end(join(directory, 'other'), [run]), 2)
})

test('a data directory is the same by whichever symlink it is named', async (t) => {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'real', 'site'), { recursive: true })
  symlinkSync('real', join(directory, 'link'))
  const run = newRun()
  const env = { LANDFALL_RUN: `${run}`, LANDFALL_DATA: join(directory, 'real', 'site') }
  const { mark } = await group(t, directory, env, ...WAITING)
  await asleep(directory)
  assert.equal(await end(join(directory, 'link'), [run]), 2)
  assert.equal(lives(mark.pid), false)
})

test('one that forks all the time is ended too', async (t) => {
  const directory = temporaryDirectory(t)
  const run = newRun()
  const env = { LANDFALL_RUN: `${run}` }
  const lines = [
    'setsid sleep 600 & echo $! > sleeper',
    'echo $$ > ready',
    'while :; do setsid sleep 600 & sleep 0.01; done',
  ]
  const { mark } = await group(t, directory, env, ...lines)
  await asleep(directory)
  assert.ok((await end(directory, [run], [mark])) >= 2)
  assert.equal(await end(directory, [run], [mark]), 0)
})

test('one that starts another program all the time, and shows nothing while it does, is ended too', async (t) => {
  const directory = temporaryDirectory(t)
  const lines = ['[ -e ready ] || echo $$ > ready', 'exec ./leader']
  for (let n = 0; n < 40; n += 1) {
    const run = newRun()
    const { mark } = await group(t, directory, { LANDFALL_RUN: `${run}` }, ...lines)
    assert.equal(await end(directory, [run]), 1, `time ${n}`)
    assert.equal(lives(mark.pid), false)
    rmSync(join(directory, 'ready'))
  }
})

test('a landfall that a script started ends neither itself nor what it was started by', async (t) => {
  const directory = temporaryDirectory(t)
  const run = newRun()
  const program = `
    import { endLeftovers } from ${JSON.stringify(new URL('../src/processes.ts', import.meta.url).href)}
    const log = { debug() {}, info() {}, warn() {}, error() {} }
    const dataDir = ${JSON.stringify(directory)}
    console.log(await endLeftovers({ marks: [], runs: new Set([${run}]), dataDir, log }))`
  const file = shellScript(
    directory,
    'script',
    'sleep 600 &',
    'while [ "$(tr "\\0" " " < /proc/$!/cmdline)" != "sleep 600 " ]; do :; done',
    '"$NODE" --input-type=module -e "$PROGRAM"',
    'echo still here',
  )
  const env = { PATH, NODE: process.execPath, PROGRAM: program, LANDFALL_RUN: `${run}` }
  const child = spawn(file, { env, detached: true, stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  assert.deepEqual(await once(child, 'close'), [0, null])
  assert.equal(said, '1\nstill here\n')
})
