import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { hasCode } from '../src/errors.ts'
import { createGroupWrite } from '../src/stores/group.ts'
import { migrate, SCHEMA_VERSION } from '../src/stores/schema.ts'
import { openSqlite } from '../src/stores/sqlite.ts'
import type { Store } from '../src/stores/store.ts'
import { aPush, commit } from './support/nouns.ts'
import { finish, KEEP_MS, outcome, queued, routed } from './support/stores.ts'
import { temporaryDirectory } from './support/temporary.ts'

const WRITER = fileURLToPath(new URL('support/store-writer.ts', import.meta.url))
/** Compresses to more than what fits a row. */
const BIG = randomBytes(100_000).toString('hex')

async function open(t: TestContext, dataDir: string): Promise<Store> {
  const store = await openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS })
  t.after(() => store.close())
  return store
}

/** A second connection, which sees what is committed and nothing else. */
function spy(t: TestContext, dataDir: string): (sql: string) => unknown {
  const db = new DatabaseSync(join(dataDir, 'landfall.db'))
  t.after(() => db.close())
  return (sql) => Object.values(db.prepare(sql).get() ?? {})[0]
}

/** Transactions in the write-ahead log: a frame that ends one holds the size of the database after it. */
function commitsIn(dataDir: string): number {
  const wal = readFileSync(join(dataDir, 'landfall.db-wal'))
  const frameBytes = 24 + wal.readUInt32BE(8)
  let commits = 0
  for (let at = 32; at + frameBytes <= wal.length; at += frameBytes) {
    const isOfThisLog = wal.compare(wal, 16, 24, at + 8, at + 16) === 0
    if (isOfThisLog && wal.readUInt32BE(at + 4) !== 0) commits += 1
  }
  return commits
}

const pushes = (n: number) => Array.from({ length: n }, (_, index) => aPush({ body: `body ${index}` }))
const push = (store: Store, n: number) => store.record(aPush({ body: `${n}` }), routed({ announced: commit(n) }))

test('deliveries of one turn share one transaction, and each is told only after it', async (t) => {
  const dataDir = temporaryDirectory(t)
  const store = await open(t, dataDir)
  const seen = spy(t, dataDir)
  const before = commitsIn(dataDir)
  let told = 0
  const records = pushes(50).map(async (one, n) => {
    const { receipt } = await store.record(one, routed({ announced: commit(n) }))
    assert.equal(seen(`select count(*) from deliveries where id = ${receipt.delivery}`), 1)
    assert.equal(seen(`select count(*) from runs where delivery = ${receipt.delivery}`), 1)
    told += 1
  })
  assert.equal(seen('select count(*) from deliveries'), 0)
  await Promise.resolve()
  assert.equal(told, 0, 'nothing is told before the commit')
  await Promise.all(records)
  assert.equal(commitsIn(dataDir) - before, 1)
})

test('every commit is synced: the database says synchronous = full and is a write-ahead log', async (t) => {
  const dataDir = temporaryDirectory(t)
  const source = readFileSync(fileURLToPath(new URL('../src/stores/sqlite.ts', import.meta.url)), 'utf8')
  assert.match(source, /pragma synchronous = full/i)
  await open(t, dataDir)
  assert.equal(spy(t, dataDir)('pragma journal_mode'), 'wal')
})

test('a write that fails is undone alone and does not spoil its neighbours', async (t) => {
  const dataDir = temporaryDirectory(t)
  const store = await open(t, dataDir)
  await queued(store)
  const sealed = { instance: 'site', commit: commit(1), run: 999, directory: '/r' }
  const [first, wrong, last] = await Promise.allSettled([
    push(store, 2),
    store.finished(1, finish('succeeded', { sealed, instance: { state: 'broken' } })),
    push(store, 3),
  ])
  assert.deepEqual([first.status, wrong.status, last.status], ['fulfilled', 'rejected', 'fulfilled'])
  for (const one of [first, last]) {
    assert.ok(one.status === 'fulfilled')
    const { receipt, queued: made } = one.value
    assert.deepEqual((await store.delivery(receipt.delivery))?.targets, receipt.targets, 'what is told is what is kept')
    assert.equal((await store.run(made[0]?.id ?? -1))?.delivery, receipt.delivery)
  }
  assert.match(String(wrong.status === 'rejected' && wrong.reason), /FOREIGN KEY/)
  assert.ok(!hasCode(wrong.status === 'rejected' && wrong.reason, 'store'), 'a bug is no trouble with the disk')
  const seen = spy(t, dataDir)
  assert.equal(seen('select state from runs where id = 1'), 'queued', 'nothing of the failed end is kept')
  assert.equal(seen("select state from instances where name = 'site'"), 'new')
  assert.equal(seen('select count(*) from deliveries'), 2)
})

test('a first write that fails leaves the group to those after it', async (t) => {
  const store = await open(t, temporaryDirectory(t))
  await queued(store)
  const sealed = { instance: 'site', commit: commit(1), run: 999, directory: '/r' }
  const wrong = store.finished(1, finish('succeeded', { sealed }))
  const right = push(store, 2)
  await assert.rejects(wrong)
  assert.equal((await right).receipt.delivery, 1)
  assert.ok(await store.delivery(1))
})

test('where SQLite has ended the whole transaction, what was in it is told so and what comes next is kept', async (t) => {
  const file = join(temporaryDirectory(t), 'a.db')
  const db = new DatabaseSync(file)
  t.after(() => db.close())
  db.exec('create table words (word text) strict')
  const write = createGroupWrite(db, () => {})
  const say = (word: string) => write(() => db.prepare('insert into words values (?)').run(word))
  const settled = await Promise.allSettled([
    say('lost'),
    write(() => {
      db.exec('rollback') // as a full disk may do
      throw Object.assign(new Error('disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: 13 })
    }),
    say('kept'),
  ])
  assert.deepEqual(
    settled.map(({ status }) => status),
    ['rejected', 'rejected', 'fulfilled'],
  )
  await say('later')
  assert.deepEqual(
    db
      .prepare('select word from words')
      .all()
      .map(({ word }) => word),
    ['kept', 'later'],
  )
})

test('where a group cannot be done again without the write that failed, all of it is told so and nothing is kept', async (t) => {
  const db = new DatabaseSync(join(temporaryDirectory(t), 'a.db'))
  t.after(() => db.close())
  db.exec('create table words (word text) strict')
  let undone = 0
  const write = createGroupWrite(db, () => {
    undone += 1
  })
  const say = (word: string) => void db.prepare('insert into words values (?)').run(word)
  let isFull = false
  const settled = await Promise.allSettled([
    write(() => say('early')),
    write(() => {
      if (isFull) throw Object.assign(new Error('disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: 13 })
      say('lost')
    }),
    write(() => {
      isFull = true
      throw new Error('a bug')
    }),
  ])
  const reasons = settled.map((one) => (one.status === 'rejected' ? String(one.reason) : 'kept'))
  assert.match(reasons[0] ?? '', /disk is full/)
  assert.match(reasons[1] ?? '', /disk is full/)
  assert.match(reasons[2] ?? '', /a bug/)
  assert.ok(undone > 0)
  await write(() => say('later'))
  assert.deepEqual(
    db
      .prepare('select word from words')
      .all()
      .map(({ word }) => word),
    ['later'],
  )
})

// --- Trouble with the disk -------------------------------------------------------------------------------------------

/** A file system of its own of `size`; null, with the test skipped, where that is not permitted. */
function smallDisk(t: TestContext, size: string): string | null {
  const path = join(temporaryDirectory(t), 'disk')
  mkdirSync(path)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'landfall-test', path], { stdio: 'pipe' })
  } catch {
    t.skip('mounting a small file system is not permitted here')
    return null
  }
  return path
}

/** After the store of the test is closed. Lazily, so that what is still open cannot keep the mount. */
function unmount(path: string): void {
  execFileSync('umount', ['--lazy', path], { stdio: 'pipe' })
}

test('a full disk is `store` and nothing of it is kept; what was told is there, and all works again with space', async (t) => {
  const dataDir = smallDisk(t, '3m')
  if (dataDir === null) return
  const store = await openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS })
  try {
    await push(store, 0)
    const ballast = join(dataDir, 'ballast')
    fill(ballast)
    await assert.rejects(store.record(aPush({ body: 'big', text: BIG }), routed({})), { code: 'store' })
    assert.deepEqual(readdirSync(join(dataDir, 'payloads')), [], 'half a payload was left')
    const told: number[] = []
    let refused = 0
    for (let n = 1; refused < 5 && n < 2000; n += 1) {
      const text = randomBytes(2000).toString('hex')
      const record = store.record(aPush({ body: `${n}`, text }), routed({ announced: commit(n) }))
      const big = n % 10 === 0 ? store.record(aPush({ body: `big ${n}`, text: BIG }), routed({})) : null
      for (const one of [record, big]) {
        const [result] = await Promise.allSettled([one])
        if (result.status === 'fulfilled') told.push(result.value?.receipt.delivery ?? 1)
        else {
          assert.ok(hasCode(result.reason, 'store'), String(result.reason))
          refused += 1
        }
      }
    }
    assert.ok(refused >= 5, 'the disk never was full')
    await assert.rejects(store.probe(1), { code: 'store' })
    rmSync(ballast)
    await store.probe(2)
    const after = await push(store, 5000)
    const kept = await store.deliveries({ hook: null, repo: null, verdict: null, limit: 9999, before: null })
    assert.deepEqual(new Set(kept.map(({ id }) => id)), new Set([1, after.receipt.delivery, ...told]))
    const seen = spy(t, dataDir)
    assert.equal(seen('pragma integrity_check'), 'ok')
    const files = Number(seen('select count(*) from payloads where file is not null'))
    assert.equal(readdirSync(join(dataDir, 'payloads')).length, files, 'a file was left of a payload that was not kept')
  } finally {
    await store.close()
    unmount(dataDir)
  }
})

function fill(file: string): void {
  for (let bytes = 1 << 20; bytes >= 4096; bytes /= 2) {
    try {
      for (;;) writeFileSync(file, Buffer.alloc(bytes), { flag: 'a' })
    } catch {
      // Full for this size.
    }
  }
}

test('a store on a read-only disk is a clear error at the start', async (t) => {
  const dataDir = smallDisk(t, '3m')
  if (dataDir === null) return
  try {
    await (await openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS })).close()
    execFileSync('mount', ['-o', 'remount,ro', dataDir], { stdio: 'pipe' })
    await assert.rejects(
      openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS }),
      (error) => hasCode(error, 'start') && error.message.includes('landfall.db'),
    )
  } finally {
    unmount(dataDir)
  }
})

test('kill -9 in the middle loses nothing that was told', async (t) => {
  const dataDir = temporaryDirectory(t)
  const told: (readonly [number, number])[] = []
  for (const round of [1, 2, 3]) {
    const child = spawn(process.execPath, [WRITER, dataDir], { stdio: ['ignore', 'pipe', 'inherit'] })
    t.after(() => child.kill('SIGKILL'))
    child.stdout.setEncoding('utf8')
    let said = ''
    child.stdout.on('data', (text: string) => {
      said += text
      if (said.split('\n').length > 40 * round) child.kill('SIGKILL')
    })
    await once(child, 'close')
    const lines = said.split('\n').slice(0, -1)
    assert.ok(lines.length >= 40 * round, `only ${lines.length} were told`)
    for (const line of lines) {
      const [delivery = '', run = ''] = line.split(' ')
      told.push([Number(delivery), Number(run)])
    }
  }
  const store = await open(t, dataDir)
  for (const [delivery, run] of told) {
    const kept = await store.delivery(delivery)
    assert.deepEqual(kept?.targets, [{ target: 'site', run }])
    assert.ok(await store.run(run))
    assert.notEqual(await store.payload(delivery), null)
  }
  assert.equal(spy(t, dataDir)('pragma integrity_check'), 'ok')
  assert.equal(spy(t, dataDir)('pragma foreign_key_check'), undefined)
})

// --- Schema ----------------------------------------------------------------------------------------------------------

test('a newer schema is refused with what to do, and left as it is', async (t) => {
  const dataDir = temporaryDirectory(t)
  const db = new DatabaseSync(join(dataDir, 'landfall.db'))
  db.exec(`pragma user_version = ${SCHEMA_VERSION + 1}`)
  db.close()
  await assert.rejects(
    openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS }),
    (error) => hasCode(error, 'start') && /written by a newer version; install that version/.test(error.message),
  )
  assert.equal(spy(t, dataDir)('pragma user_version'), SCHEMA_VERSION + 1)
  assert.equal(spy(t, dataDir)('select count(*) from sqlite_master'), 0)
})

test('a migration that fails leaves nothing behind', (t) => {
  const db = new DatabaseSync(':memory:')
  t.after(() => db.close())
  db.exec('create table speakers (a text)') // in the way of the first migration's later half
  assert.throws(() => migrate(db, 'x.db'), { code: 'start' })
  assert.deepEqual(
    db
      .prepare('select name from sqlite_master')
      .all()
      .map(({ name }) => name),
    ['speakers'],
  )
  assert.deepEqual({ ...db.prepare('pragma user_version').get() }, { user_version: 0 })
  db.exec('drop table speakers')
  migrate(db, 'x.db')
  migrate(db, 'x.db') // nothing more to do
  assert.deepEqual({ ...db.prepare('pragma user_version').get() }, { user_version: SCHEMA_VERSION })
})

test('a file that is no database is a clear error', async (t) => {
  const dataDir = temporaryDirectory(t)
  writeFileSync(join(dataDir, 'landfall.db'), 'not a database, but long enough to be looked at '.repeat(50))
  await assert.rejects(openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS }), { code: 'start' })
})

test('the database and its log are readable by their owner alone', async (t) => {
  const dataDir = temporaryDirectory(t)
  const umask = process.umask(0)
  t.after(() => process.umask(umask))
  const store = await open(t, dataDir)
  await push(store, 1)
  for (const name of ['landfall.db', 'landfall.db-wal', 'landfall.db-shm']) {
    assert.equal(statSync(join(dataDir, name)).mode & 0o777, 0o600, name)
  }
})

test('a close commits what was written in its turn', async (t) => {
  const dataDir = temporaryDirectory(t)
  const store = await open(t, dataDir)
  const record = push(store, 1)
  await store.close()
  await record
  await turn()
  assert.equal(spy(t, dataDir)('select count(*) from deliveries'), 1)
})

test('an end that names no run of the store is nobody’s', async (t) => {
  const store = await open(t, temporaryDirectory(t))
  const change = await store.finished(4711, finish('failed', { outcome: outcome('failed') }))
  assert.deepEqual(change, { queued: [], superseded: [] })
})
