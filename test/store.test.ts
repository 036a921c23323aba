import type { TestContext } from 'node:test'
import { openSqlite } from '../src/stores/sqlite.ts'
import { judgeStore } from './support/store-suite.ts'
import { KEEP_MS } from './support/stores.ts'
import { temporaryDirectory } from './support/temporary.ts'

const directories = new WeakMap<TestContext, string>()

judgeStore('SQLite', async (t) => {
  const dataDir = directories.get(t) ?? temporaryDirectory(t)
  directories.set(t, dataDir)
  const store = await openSqlite({ dataDir, keepDeliveriesMs: KEEP_MS })
  t.after(() => store.close())
  return store
})
