import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createIntake } from '../src/intake.ts'
import { openSqlite } from '../src/stores/sqlite.ts'
import { aConfig, aHook, aPush, aTarget } from './support/nouns.ts'
import { KEEP_MS } from './support/stores.ts'
import { temporaryDirectory } from './support/temporary.ts'

test('a delivery asks the store for the instances of its own repository, however many targets there are', async (t) => {
  const store = await openSqlite({ dataDir: temporaryDirectory(t), keepDeliveriesMs: KEEP_MS })
  t.after(() => store.close())
  const asked: string[] = []
  const intake = createIntake({
    store: {
      ...store,
      instance(name) {
        asked.push(name)
        return store.instance(name)
      },
    },
    onQueueChange() {},
    silences: { heard() {}, found() {}, isWatched: () => false, stop() {} },
    onInstance() {},
    recording: Promise.resolve(),
    stopping: new AbortController().signal,
    now: Date.now,
  })
  const target = (name: string) => aTarget({ name, repo: `acme/${name}`, follows: { kind: 'default' } })
  const renamed = aTarget({ name: 'old', repo: 'acme/old', aliases: ['Acme/Web'], follows: { kind: 'default' } })
  const config = aConfig({ hooks: [aHook()], targets: [target('site'), target('web'), renamed, target('blog')] })
  const receipt = await intake.take(aPush({ repo: 'acme/web' }), config)
  assert.deepEqual(
    receipt.targets.map((effect) => effect.target),
    ['web', 'old'],
  )
  assert.deepEqual(asked, ['web', 'old'])
})
