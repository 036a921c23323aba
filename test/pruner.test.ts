import assert from 'node:assert/strict'
import { existsSync, mkdirSync } from 'node:fs'
import { test } from 'node:test'
import { ownDataDir } from '../src/data-dir.ts'
import { createPruner } from '../src/pruner.ts'
import { openSqlite } from '../src/stores/sqlite.ts'
import { keptLog } from './support/log.ts'
import { aConfig, commit } from './support/nouns.ts'
import { finish, queued } from './support/stores.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

const workOf = () => assert.fail('there is nothing of another account')

test('the files of runs that are kept no longer go at the start, and those of the others stay', async (t) => {
  const dataDir = await ownDataDir(temporaryDirectory(t))
  const store = await openSqlite({ dataDir: dataDir.path, keepDeliveriesMs: 1000 })
  t.after(async () => {
    await store.close()
    dataDir.release()
  })
  for (const n of [1, 2, 3]) {
    await queued(store, { announced: commit(n) })
    if (n < 3) await store.finished(n, finish('failed'))
    mkdirSync(dataDir.room('runs', String(n)))
  }
  mkdirSync(dataDir.room('runs', '99')) // the store has forgotten it, and then the machine died
  const { log, entries } = keptLog()
  const pruner = createPruner({
    config: () => aConfig({ keepRuns: 1 }),
    store,
    workOf,
    dataDir,
    log,
    now: () => 5_000_000,
  })
  pruner.start()
  await until('the pruning', () => entries.some(({ event }) => event === 'pruned'))
  await pruner.stop()
  assert.deepEqual(
    [1, 2, 3, 99].map((run) => existsSync(dataDir.room('runs', String(run)))),
    [false, false, true, false],
  )
})

test('a store that cannot be pruned is logged and ends nothing', async (t) => {
  const dataDir = await ownDataDir(temporaryDirectory(t))
  t.after(() => dataDir.release())
  const store = await openSqlite({ dataDir: dataDir.path, keepDeliveriesMs: 1000 })
  await store.close()
  const { log, entries } = keptLog()
  const pruner = createPruner({ config: () => aConfig(), store, workOf, dataDir, log, now: () => 1 })
  pruner.start()
  await pruner.stop()
  assert.deepEqual(
    entries.map(({ event }) => event),
    ['prune failed'],
  )
})
