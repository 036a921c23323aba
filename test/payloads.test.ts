import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openSqlite } from '../src/stores/sqlite.ts'
import type { Store } from '../src/stores/store.ts'
import { aPush } from './support/nouns.ts'
import { finish, KEEP_MS, routed } from './support/stores.ts'
import { temporaryDirectory } from './support/temporary.ts'

/** Compresses to more than what fits a row. */
const BIG = randomBytes(100_000).toString('hex')

async function open(t: TestContext, dataDir: string): Promise<Store> {
  const store = await openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS })
  t.after(() => store.close())
  return store
}

test('a big payload is a file of its own, which goes with its delivery', async (t) => {
  const dataDir = temporaryDirectory(t)
  const store = await open(t, dataDir)
  const files = () => readdirSync(join(dataDir, 'payloads'))
  await store.record(aPush({ body: 'small' }), routed({}))
  assert.deepEqual(files(), [])
  const { receipt } = await store.record(aPush({ body: 'big', text: BIG }), routed({}))
  assert.equal(files().length, 1)
  assert.equal(statSync(join(dataDir, 'payloads', files()[0] ?? '')).mode & 0o777, 0o600)
  assert.equal(await store.payload(receipt.delivery), BIG)
  await store.finished(1, finish('succeeded'))
  const limits = { keepDeliveriesMs: 500, keepPayloadsMs: 100, keepRuns: 100 }
  await store.prune(limits, aPush().receivedAt + 101)
  assert.deepEqual(files(), [])
  assert.equal(await store.payload(receipt.delivery), null)
})

test('a big payload that is not kept leaves no file: not of a duplicate, not of a write that failed', async (t) => {
  const dataDir = temporaryDirectory(t)
  const store = await open(t, dataDir)
  const files = () => readdirSync(join(dataDir, 'payloads')).length
  await store.record(aPush({ text: BIG }), routed({}))
  const again = await store.record(aPush({ text: BIG }), routed({}))
  assert.deepEqual([again.receipt.verdict, files()], ['duplicate', 1])
  await store.close()
  await assert.rejects(store.record(aPush({ body: 'late', text: BIG }), routed({})), { code: 'store' })
  assert.equal(files(), 1)
})

test('a payload file that no delivery knows is removed at the start, and a known one is kept', async (t) => {
  const dataDir = temporaryDirectory(t)
  const first = await open(t, dataDir)
  await first.record(aPush({ text: BIG }), routed({}))
  await first.close()
  const orphan = join(dataDir, 'payloads', 'orphan')
  writeFileSync(orphan, 'left by a crash')
  const store = await open(t, dataDir)
  assert.equal(existsSync(orphan), false)
  assert.equal(await store.payload(1), BIG)
})

test('a payload whose file is gone is `store`', async (t) => {
  const dataDir = temporaryDirectory(t)
  const store = await open(t, dataDir)
  await store.record(aPush({ text: BIG }), routed({}))
  rmSync(join(dataDir, 'payloads'), { recursive: true })
  await assert.rejects(store.payload(1), { code: 'store' })
})
