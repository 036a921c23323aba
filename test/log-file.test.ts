import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openLog, sealLog } from '../src/launcher/log-file.ts'
import { textOf } from './support/scripts.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

function logFile(t: TestContext): string {
  return join(temporaryDirectory(t), 'log')
}

async function writeLog(file: string, maxBytes: number, ...chunks: string[]): Promise<void> {
  const log = await openLog({ file, maxBytes, masked: [] })
  for (const chunk of chunks) await log.write(Buffer.from(chunk))
  assert.deepEqual(await log.end(), { lostBytes: 0, cause: null })
}

/** `count` lines of ten bytes, numbered from `first`. */
function lines(count: number, first = 0): string {
  return Array.from({ length: count }, (_, index) => `${String(first + index).padStart(9, '0')}\n`).join('')
}

test('a short log is exactly what was written, and only its owner may read it', async (t) => {
  const file = logFile(t)
  await writeLog(file, 1000, 'hello ', 'world\n')
  assert.equal(textOf(file), 'hello world\n')
  assert.equal(statSync(file).mode & 0o777, 0o600)
})

test('a log of exactly the limit is not cut', async (t) => {
  const file = logFile(t)
  await writeLog(file, 1000, lines(100))
  assert.equal(textOf(file), lines(100))
})

test('one byte more than the limit costs one byte, and is said', async (t) => {
  const file = logFile(t)
  await writeLog(file, 1000, `${lines(100)}!`)
  const whole = `${lines(100)}!`
  assert.equal(textOf(file), `${whole.slice(0, 500)}\n[landfall: 1 bytes left out]\n${whole.slice(501)}`)
})

test('of much output head and tail stay, on disk never much more than the limit, and nothing else is left', async (t) => {
  const file = logFile(t)
  const maxBytes = 400_000
  const log = await openLog({ file, maxBytes, masked: [] })
  let most = 0
  for (let first = 0; first < 300_000; first += 3000) {
    await log.write(Buffer.from(lines(3000, first)))
    most = Math.max(most, bytesIn(dirname(file)))
  }
  await log.end()
  assert.ok(most <= maxBytes + 2 * 65536, `${most} bytes on disk`)
  assert.equal(textOf(file), `${lines(20_000)}\n[landfall: 2600000 bytes left out]\n${lines(20_000, 280_000)}`)
  assert.deepEqual(readdirSync(dirname(file)), ['log'])
})

test('a reader who follows the log only ever sees it grow', async (t) => {
  const file = logFile(t)
  const log = await openLog({ file, maxBytes: 200_000, masked: [] })
  let seen = ''
  for (let first = 0; first < 50_000; first += 1000) {
    await log.write(Buffer.from(lines(1000, first)))
    assert.ok(textOf(file).startsWith(seen))
    seen = textOf(file)
  }
  await log.end()
  assert.equal(seen, lines(10_000))
  assert.ok(textOf(file).startsWith(seen))
})

test('a second writer goes on where the first one stopped', async (t) => {
  const file = logFile(t)
  await writeLog(file, 1000, 'script\n')
  await writeLog(file, 1000, 'activate\n')
  assert.equal(textOf(file), 'script\nactivate\n')
})

test('several writers share one limit, and the count of what is missing goes on', async (t) => {
  const [file, other] = [logFile(t), logFile(t)]
  await writeLog(file, 300_000, lines(20_000))
  await writeLog(file, 300_000, lines(20_000, 20_000))
  await writeLog(file, 300_000, lines(50_000, 40_000))
  await writeLog(file, 300_000)
  await writeLog(other, 300_000, lines(90_000))
  assert.equal(textOf(file), textOf(other))
})

test('a log whose writer died is sealed later, once or twice, with nothing lost', async (t) => {
  const [file, other] = [logFile(t), logFile(t)]
  await crashAfter(file, 300_000, lines(90_000))
  assert.equal(textOf(file), lines(15_000))
  await sealLog({ file, maxBytes: 300_000 })
  await sealLog({ file, maxBytes: 300_000 })
  await writeLog(other, 300_000, lines(90_000))
  assert.equal(textOf(file), textOf(other))
  assert.deepEqual(readdirSync(dirname(file)), ['log'])
})

test('sealing that was cut short is done again from the start', async (t) => {
  const [file, other] = [logFile(t), logFile(t)]
  await crashAfter(file, 300_000, lines(90_000))
  writeFileSync(file, '\n[landfall: 6000', { flag: 'a' })
  await sealLog({ file, maxBytes: 300_000 })
  await writeLog(other, 300_000, lines(90_000))
  assert.equal(textOf(file), textOf(other))
})

test('a crash between the last step of sealing and the clearing away changes nothing', async (t) => {
  const file = logFile(t)
  await crashAfter(file, 300_000, lines(90_000))
  cpSync(`${file}.tail`, `${file}.copy`, { recursive: true })
  await sealLog({ file, maxBytes: 300_000 })
  const sealed = textOf(file)
  renameSync(`${file}.copy`, `${file}.tail-sealed`)
  mkdirSync(`${file}.tail-half`)
  await sealLog({ file, maxBytes: 300_000 })
  assert.equal(textOf(file), sealed)
  assert.deepEqual(readdirSync(dirname(file)), ['log'])
})

test('sealing a log that needs none, or that is not there, does nothing', async (t) => {
  const file = logFile(t)
  await sealLog({ file, maxBytes: 1000 })
  assert.equal(existsSync(file), false)
  await writeLog(file, 1000, 'short\n')
  await sealLog({ file, maxBytes: 1000 })
  assert.equal(textOf(file), 'short\n')
})

test('what a full disk does not take is counted, and reported once', async () => {
  const log = await openLog({ file: '/dev/full', maxBytes: 1000, masked: [] })
  await log.write(Buffer.from('0123456789'))
  await log.write(Buffer.from('01234'))
  const { lostBytes, cause } = await log.end()
  assert.equal(lostBytes, 15)
  assert.match(String(cause), /ENOSPC/)
})

test('head and tail of a loud script are exact, though most of it never reached the disk', async (t) => {
  const file = logFile(t)
  const log = await openLog({ file, maxBytes: 200_000, masked: [] })
  for (let n = 0; n < 400; n += 1) await log.write(Buffer.from(String(n % 10).repeat(50_000)))
  // The tail's half of the limit, and a segment at either end of it.
  assert.ok(!existsSync(`${file}.tail`) || bytesIn(`${file}.tail`) <= 100_000 + 2 * 65_536)
  await log.end()
  const text = textOf(file)
  assert.match(text, /^0{50000}1{50000}\n\[landfall: 19800000 bytes left out\]\n8{50000}9{50000}$/)
})

test('a log that lost something says so once there is room again', async (t) => {
  const file = logFile(t)
  writeFileSync(`${file}.tail`, 'in the way of the directory')
  const log = await openLog({ file, maxBytes: 100, masked: [] })
  await log.write(Buffer.from(lines(100)))
  const { lostBytes } = await log.end()
  assert.ok(lostBytes > 0)
  assert.match(textOf(file), new RegExp(`\\[landfall: ${lostBytes} bytes lost: ENOTDIR\\]\n$`))
})

test('a masked value that lies across the cut between head and tail is not in the log', async (t) => {
  const file = logFile(t)
  const log = await openLog({ file, maxBytes: 100, masked: ['correct horse'] })
  await log.write(Buffer.from(`${'x'.repeat(45)}correct `))
  await log.write(Buffer.from(`horse${'y'.repeat(45)}`))
  await log.end()
  assert.equal(textOf(file), `${'x'.repeat(45)}***${'y'.repeat(45)}`)
})

/** What is on disk when a process dies that has written `text` and did not come to `end`. */
async function crashAfter(file: string, maxBytes: number, text: string): Promise<void> {
  const living = `${file}-living`
  const log = await openLog({ file: living, maxBytes, masked: [] })
  for (let at = 0; at < text.length; at += 50_000) await log.write(Buffer.from(text.slice(at, at + 50_000)))
  // The size alone would not tell: of a tail that is written meanwhile, older parts are there before its end is.
  await until('the tail on disk', () => tailIn(`${living}.tail`).endsWith(text.slice(-40)))
  cpSync(living, file)
  cpSync(`${living}.tail`, `${file}.tail`, { recursive: true })
  await log.end()
  rmSync(living)
}

/** What the segments hold that are there, one after the other. */
function tailIn(directory: string): string {
  const startOf = (name: string) => Number(name.split('-')[1])
  const names = existsSync(directory) ? readdirSync(directory) : []
  const inOrder = names.toSorted((one, other) => startOf(one) - startOf(other))
  return inOrder.map((name) => textOf(join(directory, name))).join('')
}

/** Where files may go while they are looked at: the tail is written beside the test whenever its time has come. */
function bytesIn(directory: string): number {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce(
      (sum, entry) => sum + (statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0),
      0,
    )
}
