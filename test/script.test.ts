import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createScripts } from '../src/launcher/script.ts'
import type { ProcessMark, ScriptEnd, ScriptOrder } from '../src/work.ts'
import { lives, pidIn, scriptOrder, shellScript, textOf } from './support/scripts.ts'
import { temporaryDirectory } from './support/temporary.ts'

const warnings: string[] = []
const scripts = createScripts({ warn: (event) => warnings.push(event) })

function run(order: ScriptOrder, signal?: AbortSignal): Promise<ScriptEnd> {
  return scripts.runScript(order, () => {}, signal)
}

/** Runs a shell script of these lines and returns its end and its log. */
async function runLines(t: TestContext, lines: string[], more: Partial<ScriptOrder> = {}) {
  const directory = temporaryDirectory(t)
  const file = shellScript(directory, 'script', ...lines)
  const end = await run(scriptOrder(directory, [file], more))
  return { end, directory, log: textOf(join(directory, 'log')) }
}

test('a script ends with its exit code', async (t) => {
  assert.deepEqual((await runLines(t, ['exit 0'])).end, { kind: 'exited', code: 0 })
  assert.deepEqual((await runLines(t, ['exit 75'])).end, { kind: 'exited', code: 75 })
})

test('a script that a signal ends is told apart from one that exits', async (t) => {
  assert.deepEqual((await runLines(t, ['kill -USR1 $$'])).end, { kind: 'killed', signal: 'SIGUSR1' })
})

test('a command that a started script does not find is its failure, exit code 127', async (t) => {
  assert.deepEqual((await runLines(t, ['no-such-command-here'])).end, { kind: 'exited', code: 127 })
})

test('the mark names the process by its pid and start time', async (t) => {
  const directory = temporaryDirectory(t)
  const file = shellScript(directory, 'name with ) 1 2 3 (', `cat /proc/$$/stat > stat`)
  const marks: ProcessMark[] = []
  await scripts.runScript(scriptOrder(directory, [file]), (mark) => marks.push(mark))
  const stat = textOf(join(directory, 'stat'))
  const startTime = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  assert.deepEqual(marks, [{ pid: Number.parseInt(stat, 10), startTime }])
})

test('output of both streams is in the log in the order it was written, to the last byte before the exit', async (t) => {
  const { log } = await runLines(t, ['for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf end'])
  assert.equal(log, 'out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nend')
})

test('a script may open /dev/stderr and /dev/stdout by name', async (t) => {
  const { end, log } = await runLines(t, ['echo one > /dev/stderr', 'echo two > /dev/stdout'])
  assert.deepEqual(end, { kind: 'exited', code: 0 })
  assert.equal(log, 'one\ntwo\n')
})

test('a fast script with a pipe full of output loses none of it', async (t) => {
  const { log } = await runLines(t, ['head -c 60000 /dev/zero | tr "\\0" x; echo .'])
  assert.equal(log.length, 60002)
  assert.ok(log.endsWith('x.\n'))
})

test('standard input is empty, the environment is the given one and nothing else, the directory the given one', async (t) => {
  const directory = temporaryDirectory(t)
  const env = { PATH: process.env['PATH'] ?? '', LANDFALL_RUN: '7', GIVEN: 'a b\nc' }
  const end = await run(scriptOrder(directory, ['env', '-0'], { env }))
  assert.deepEqual(end, { kind: 'exited', code: 0 })
  const given = Object.entries(env).map(([name, value]) => `${name}=${value}\0`)
  assert.deepEqual(
    textOf(join(directory, 'log'))
      .split(/(?<=\0)/)
      .sort(),
    given.sort(),
  )
  assert.equal((await runLines(t, ['cat; echo "<$?>"'])).log, '<0>\n')
  const place = await runLines(t, ['pwd'])
  assert.equal(place.log, `${place.directory}\n`)
})

test('a relative program is taken from the working directory', async (t) => {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'bin'))
  shellScript(directory, 'bin/deploy', 'echo "$@"')
  const end = await run(scriptOrder(directory, ['./bin/deploy', '--fast', 'a b', '$HOME']))
  assert.deepEqual(end, { kind: 'exited', code: 0 })
  assert.equal(textOf(join(directory, 'log')), '--fast a b $HOME\n')
})

test('a script past its deadline is stopped together with what it started, although all of them ignore TERM', async (t) => {
  const lines = [
    "trap 'echo got TERM' TERM",
    `sh -c 'trap "" TERM; echo $$ > child; exec >&- 2>&-; sleep 600 & echo $! > grandchild; while :; do sleep 600; done' &`,
    'while :; do wait; done',
  ]
  const attempt = async () => await runLines(t, lines, { timeoutMs: 1000, killGraceMs: 300 })
  const hasWritten = ({ directory, log }: Awaited<ReturnType<typeof attempt>>) =>
    log !== '' && textOf(join(directory, 'grandchild')) !== ''
  let last = await attempt()
  // Where one of them got no processor in its time, it could do nothing: once more.
  for (let n = 0; n < 9 && !hasWritten(last); n += 1) last = await attempt()
  const { end, directory, log } = last
  assert.deepEqual(end, { kind: 'timed-out' })
  assert.match(log, /got TERM/)
  assert.equal(lives(await pidIn(join(directory, 'child'))), false)
  assert.equal(lives(await pidIn(join(directory, 'grandchild'))), false)
})

test('when a script is stopped, its child may use the grace although the script itself dies at once', async (t) => {
  const directory = temporaryDirectory(t)
  const child = `trap 'sleep 0.3; echo saved > state; exit' TERM; echo $$ > child; while :; do sleep 0.05; done`
  const abort = new AbortController()
  const file = shellScript(directory, 'script', `sh -c "${child.replaceAll('$', '\\$')}" & wait`)
  const ended = run(scriptOrder(directory, [file]), abort.signal)
  await pidIn(join(directory, 'child'))
  abort.abort()
  assert.deepEqual(await ended, { kind: 'aborted' })
  assert.equal(textOf(join(directory, 'state')), 'saved\n')
})

test('a background child that holds stdout does not block the end, and is gone afterwards', async (t) => {
  const { end, directory, log } = await runLines(t, ['sleep 600 & echo $! > child', 'echo done'])
  assert.deepEqual(end, { kind: 'exited', code: 0 })
  assert.equal(log, 'done\n')
  assert.equal(lives(await pidIn(join(directory, 'child'))), false)
})

test('a child that left the group and never stops writing does not block the end', async (t) => {
  const { end, directory } = await runLines(t, ['setsid cat /dev/zero & echo $! > child', 'sleep 0.1; exit 3'])
  const child = await pidIn(join(directory, 'child'))
  t.after(() => lives(child) && process.kill(child, 'SIGKILL'))
  assert.deepEqual(end, { kind: 'exited', code: 3 })
})

test('a script that closes its output is still waited for', async (t) => {
  const { end, directory } = await runLines(t, ['exec >&- 2>&-', 'sleep 0.3; echo yes > late'])
  assert.deepEqual(end, { kind: 'exited', code: 0 })
  assert.equal(textOf(join(directory, 'late')), 'yes\n')
})

test('an aborted script gets TERM and ends as aborted, with its last words in the log', async (t) => {
  const directory = temporaryDirectory(t)
  const lines = ["trap 'echo bye; exit 0' TERM", 'echo $$ > pid', 'while :; do sleep 0.05; done']
  const abort = new AbortController()
  const ended = run(scriptOrder(directory, [shellScript(directory, 'script', ...lines)]), abort.signal)
  const pid = await pidIn(join(directory, 'pid'))
  abort.abort()
  assert.deepEqual(await ended, { kind: 'aborted' })
  assert.match(textOf(join(directory, 'log')), /bye\n$/)
  assert.equal(lives(pid), false)
})

test('a script that was aborted before it began is never started', async (t) => {
  const directory = temporaryDirectory(t)
  const file = shellScript(directory, 'script', 'touch ran')
  assert.deepEqual(await run(scriptOrder(directory, [file]), AbortSignal.abort()), { kind: 'aborted' })
  assert.throws(() => readFileSync(join(directory, 'ran')))
})

test('of 100 MB of output the log keeps the beginning and the end, and says how much is missing', async (t) => {
  const maxBytes = 1_000_000
  const directory = temporaryDirectory(t)
  const file = shellScript(directory, 'script', 'echo first; head -c 100000000 /dev/zero | tr "\\0" x; echo; echo last')
  const log = { file: join(directory, 'log'), maxBytes, masked: [] }
  assert.deepEqual(await run(scriptOrder(directory, [file], { log })), { kind: 'exited', code: 0 })
  const text = textOf(log.file)
  const [whole, bytes] = /\n\[landfall: (\d+) bytes left out\]\n/.exec(text) ?? []
  assert.ok(text.startsWith('first\nxxx') && text.endsWith('xxx\nlast\n'))
  assert.equal(text.length - (whole?.length ?? 0), maxBytes)
  assert.equal(maxBytes + Number(bytes), 100_000_000 + 'first\n\nlast\n'.length)
})

test('a masked value is not in the log although the script writes it in pieces', async (t) => {
  const directory = temporaryDirectory(t)
  const file = shellScript(directory, 'script', 'printf "token: s3cr"; sleep 0.2; printf "et-value!"; printf " s3cr"')
  const log = { file: join(directory, 'log'), maxBytes: 1000, masked: ['s3cret-value'] }
  await run(scriptOrder(directory, [file], { log }))
  assert.equal(textOf(log.file), 'token: ***! s3cr')
})

test('a log that cannot be written does not stop the script, and is reported', async (t) => {
  const directory = temporaryDirectory(t)
  warnings.length = 0
  const file = shellScript(directory, 'script', 'head -c 300000 /dev/zero; touch ran')
  const log = { file: '/dev/full', maxBytes: 1000, masked: [] }
  assert.deepEqual(await run(scriptOrder(directory, [file], { log })), { kind: 'exited', code: 0 })
  assert.deepEqual(warnings, ['log-incomplete'])
})

test('a script that cannot be started says why, and what to do', async (t) => {
  const directory = temporaryDirectory(t)
  const path = (name: string): string => join(directory, name)
  const make = (name: string, text: string, mode = 0o755): string => {
    writeFileSync(path(name), text)
    chmodSync(path(name), mode)
    return path(name)
  }
  const cases: [name: string, argv: [string, ...string[]], expected: RegExp, more?: Partial<ScriptOrder>][] = [
    ['missing file', [path('missing')], /missing does not exist/],
    ['missing command', ['no-such-command-here'], /no-such-command-here is in no directory of PATH/],
    [
      'missing interpreter',
      [make('a', '#!/opt/no/such/python3 -u\n')],
      /a needs the interpreter \/opt\/no\/such\/python3 /,
    ],
    ['Windows line endings', [make('b', '#!/bin/sh\r\necho\r\n')], /b has Windows line endings/],
    ['not executable', [make('c', '#!/bin/sh\n', 0o644)], /c is not executable: chmod \+x .*\/c$/],
    ['no first line', [make('d', 'echo hello\n')], /d has no #! line/],
    ['an empty file', [make('e', '')], /e is empty/],
    ['a directory', [directory], /is a directory/],
    ['a file as a directory', [`${make('f', '#!/bin/sh\n')}/x`], /leads through something that is not a directory/],
    ['too long', ['/bin/true', 'x'.repeat(200_000)], /too long/],
    ['a missing working directory', ['/bin/true'], /gone, where it was to run, does not exist/, { cwd: path('gone') }],
    ['a file as working directory', ['/bin/true'], /is not a directory/, { cwd: path('f') }],
    ['NUL in a value', ['/bin/true'], /NUL byte$/, { env: { SECRET: 'hush\0hush' } }],
  ]
  for (const [name, argv, expected, more] of cases) {
    await t.test(name, async () => {
      const end = await run(scriptOrder(directory, argv, more))
      assert.equal(end.kind, 'unstartable')
      assert.match(end.kind === 'unstartable' ? end.detail : '', expected)
    })
  }
})

test('killAll ends every running script', async (t) => {
  const directory = temporaryDirectory(t)
  const file = shellScript(directory, 'script', "trap '' TERM", 'echo $$ > pid', 'while :; do sleep 600; done')
  const ended = run(scriptOrder(directory, [file]))
  await pidIn(join(directory, 'pid'))
  scripts.killAll()
  assert.deepEqual(await ended, { kind: 'killed', signal: 'SIGKILL' })
})
