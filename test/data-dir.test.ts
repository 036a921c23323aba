import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, statSync, writeFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { directoryName, ownDataDir } from '../src/data-dir.ts'
import { hasCode } from '../src/errors.ts'
import { isRef } from '../src/model.ts'
import { temporaryDirectory } from './support/temporary.ts'

const OWNER = fileURLToPath(new URL('support/data-dir-owner.ts', import.meta.url))

/** Another process that has taken `path`, as soon as it says so. */
async function otherOwner(t: TestContext, path: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--expose-gc', OWNER, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  child.stdout.setEncoding('utf8')
  const [said] = await once(child.stdout, 'data')
  assert.equal(said, 'owned\n')
  return child
}

const isRefused = (error: unknown): boolean =>
  hasCode(error, 'start') && /another landfall is at work in/.test(error.message)

test('a data_dir is made with everything secret inside closed to others', async (t) => {
  const path = join(temporaryDirectory(t), 'a', 'b')
  const umask = process.umask(0)
  t.after(() => process.umask(umask))
  const dataDir = await ownDataDir(path)
  t.after(() => dataDir.release())
  const mode = (name: string) => statSync(join(path, name)).mode & 0o777
  assert.deepEqual(
    ['', 'releases', 'mirrors', 'runs', 'payloads', 'data', 'keys', 'lock.db'].map((name) => mode(name).toString(8)),
    ['711', '711', '700', '711', '700', '711', '700', '600'],
  )
})

test('modes that were loosened are put right at the next start', async (t) => {
  const path = temporaryDirectory(t)
  const first = await ownDataDir(path)
  first.release()
  const { chmodSync } = await import('node:fs')
  for (const name of ['', 'keys', 'mirrors']) chmodSync(join(path, name), 0o777)
  const second = await ownDataDir(path)
  t.after(() => second.release())
  assert.deepEqual(
    ['', 'keys', 'mirrors'].map((name) => statSync(join(path, name)).mode & 0o777),
    [0o711, 0o700, 0o700],
  )
})

test('a second owner in the same process is refused, and may follow the first', async (t) => {
  const path = temporaryDirectory(t)
  const first = await ownDataDir(path)
  await assert.rejects(ownDataDir(path), isRefused)
  await assert.rejects(ownDataDir(path), isRefused, 'being refused does not free the lock')
  first.release()
  first.release() // twice is fine
  const second = await ownDataDir(path)
  second.release()
})

test('another process keeps its data_dir through garbage collection, until kill -9 frees it', async (t) => {
  const path = temporaryDirectory(t)
  const child = await otherOwner(t, path)
  // Waiting for a busy lock would show as seconds each time; a machine that stands still for a moment, once or twice.
  const tookMs: number[] = []
  for (let n = 0; n < 20; n += 1) {
    const before = performance.now()
    await assert.rejects(ownDataDir(path), isRefused)
    tookMs.push(performance.now() - before)
  }
  assert.ok(Math.min(...tookMs) < 2000)
  child.kill('SIGKILL')
  await once(child, 'exit')
  const next = await ownDataDir(path)
  next.release()
})

test('a path that is no directory is a clear error', async (t) => {
  const file = join(temporaryDirectory(t), 'file')
  writeFileSync(file, '')
  for (const path of [file, join(file, 'below')]) {
    await assert.rejects(
      ownDataDir(path),
      (error) =>
        hasCode(error, 'start') && error.message.includes(path) && /a part of the path is a file/.test(error.message),
    )
  }
})

test('a lock that is no database is a clear error, and is left alone', async (t) => {
  const path = temporaryDirectory(t)
  writeFileSync(
    join(path, 'lock.db'),
    'this is somebody else’s file, and long enough to be looked at as a database '.repeat(9),
  )
  await assert.rejects(ownDataDir(path), (error) => hasCode(error, 'start') && error.message.includes('lock.db'))
  assert.ok(existsSync(join(path, 'lock.db')))
})

// --- Names ----------------------------------------------------------------------------------------------------------

const NAMES = fc.oneof(
  fc.string({ maxLength: 120 }),
  fc.string({ unit: 'grapheme', maxLength: 30 }),
  fc
    .array(fc.constantFrom('a', 'A', 'b', '/', '_', '-', '.', ':', '@', 'lock', '..', '0'), { maxLength: 12 })
    .map((parts) => parts.join('')),
)

test('names that differ have directories that differ, also where case is ignored', () => {
  fc.assert(
    fc.property(NAMES, NAMES, (one, other) => {
      fc.pre(one !== other)
      assert.notEqual(directoryName(one).toLowerCase(), directoryName(other).toLowerCase())
    }),
    { numRuns: 3000 },
  )
})

test('a directory that was made for one name is never that of another', () => {
  fc.assert(
    fc.property(NAMES, (name) => {
      const made = directoryName(name)
      assert.equal(directoryName(made) === made, made === name, 'a made name names itself only if it is its own')
    }),
  )
})

test('tricky pairs have directories of their own', () => {
  const pairs = [
    ['a/b', 'a_b'],
    ['a/b', 'a-b'],
    ['Site', 'site'],
    ['a:b', 'a/b'],
    ['a', 'a/'],
    ['x'.repeat(80), 'x'.repeat(81)],
    [`site:${'x'.repeat(90)}1`, `site:${'x'.repeat(90)}2`],
    ['é', 'e\u0301'],
  ]
  for (const [one = '', other = ''] of pairs) assert.notEqual(directoryName(one), directoryName(other))
})

test('a directory name is one part of a path, of a git ref, and at most 80 characters', () => {
  fc.assert(
    fc.property(NAMES, (name) => {
      const made = directoryName(name)
      assert.equal(normalize(join('/root', made)), `/root/${made}`)
      assert.match(made, /^[a-z0-9][a-z0-9._-]*$/)
      assert.ok(made.length <= 80)
      assert.ok(isRef(`refs/landfall/${made}/tip`), made)
    }),
    { numRuns: 3000 },
  )
})

test('a usual name is its own directory', () => {
  for (const name of ['site', 'my-site', 'site_2', 'example.com']) assert.equal(directoryName(name), name)
})

test('a directory that holds other things keeps its mode', async (t) => {
  const path = temporaryDirectory(t)
  writeFileSync(join(path, 'somebody’s'), '')
  chmodSync(path, 0o750)
  const dataDir = await ownDataDir(path)
  t.after(() => dataDir.release())
  assert.equal(statSync(path).mode & 0o777, 0o750)
})
