/** What a reload means for polls: whose timers go on, whose do not, and what a poll under way still does. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Config, Target } from '../src/config/config.ts'
import { ownDataDir } from '../src/data-dir.ts'
import { LandfallError } from '../src/errors.ts'
import { createPoller } from '../src/polling/poller.ts'
import { createSilences } from '../src/polling/silences.ts'
import { openRemotes } from '../src/remotes.ts'
import { openSqlite } from '../src/stores/sqlite.ts'
import type { RemoteRefs, Work } from '../src/work.ts'
import { keptLog } from './support/log.ts'
import { aConfig, aTarget, commit } from './support/nouns.ts'
import { temporaryDirectory } from './support/temporary.ts'

const target = (name: string, change: Partial<Target> = {}) =>
  aTarget({
    name,
    repo: `acme/${name}`,
    aliases: [],
    follows: { kind: 'branch', branch: 'main' },
    pollMs: 60_000,
    ...change,
  })

/** A poller over remotes that answer when they are told to, with timers that the test moves. */
async function scene(t: TestContext, ...targets: Target[]) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 })
  let config: Config = aConfig({ targets })
  const dataDir = await ownDataDir(join(temporaryDirectory(t), 'data'))
  const store = await openSqlite({ dataDir: dataDir.path, keepDeliveriesMs: 1000 })
  const { log } = keptLog()
  const remotes = await openRemotes({ config, dataDir })
  /** Repositories, in the order in which they were asked. */
  const asked: string[] = []
  /** Instances for which a poll wanted a run. */
  const found: string[] = []
  const state = { isDown: false, answers: Promise.resolve() }
  const listRefs: Work['listRefs'] = async ({ remote }): Promise<RemoteRefs> => {
    asked.push(/acme\/(\w+)/.exec(remote.url)?.[1] ?? '')
    await state.answers
    if (state.isDown) throw new LandfallError('remote', 'the remote is down')
    return { head: null, branches: { main: commit(1) }, tags: {} }
  }
  const work = { listRefs } as Work
  const current = () => config
  const silences = createSilences({ config: current, store, log, now: Date.now, onSilent: () => {} })
  const poller = createPoller({
    config: current,
    store,
    workOf: () => work,
    remotes,
    silences,
    log,
    now: Date.now,
    queue(orders) {
      found.push(...orders.map(({ instance }) => instance.name))
      return store.queue(orders, Date.now())
    },
  })
  t.after(async () => {
    await poller.stop()
    silences.stop()
    await store.close()
    dataDir.release()
  })
  return {
    asked,
    found,
    state,
    start: () => poller.start(),
    async reload(...next: Target[]) {
      const read = aConfig({ targets: next })
      const takeOver = await poller.prepare(read)
      config = read
      takeOver()
    },
    /** Lets time pass in steps of a second, each with turns enough for a poll to go through the store. */
    async pass(ms: number) {
      for (let passed = 0; passed <= ms; passed += 1000) {
        t.mock.timers.tick(passed === 0 ? 0 : 1000)
        for (let n = 0; n < 12; n += 1) await turn()
      }
    },
  }
}

test('a reload polls what is new or changed at once, and leaves the timers of the others alone', async (t) => {
  const { asked, start, reload, pass } = await scene(t, target('site'), target('docs'), target('gone'))
  await start()
  await pass(0)
  assert.deepEqual(asked.splice(0).toSorted(), ['docs', 'gone', 'site'])
  await pass(30_000)
  await reload(target('site'), target('docs', { pollMs: 10_000 }), target('fresh'))
  await pass(0)
  assert.deepEqual(asked.splice(0).toSorted(), ['docs', 'fresh'])
  await pass(20_000)
  assert.deepEqual(new Set(asked.splice(0)), new Set(['docs']), 'by its new interval')
  await pass(20_000)
  assert.ok(asked.includes('site'), 'by its old timer')
  assert.ok(!asked.includes('gone'))
})

test('a remote that is down keeps its back-off, and a target that is mended is polled once more at once', async (t) => {
  const { asked, state, start, reload, pass } = await scene(t, target('site', { pollMs: 10_000 }))
  state.isDown = true
  await start()
  await pass(100_000)
  const failures = asked.splice(0).length
  assert.ok(failures >= 3 && failures <= 5, String(failures))
  await reload(target('site', { pollMs: 10_000 }))
  await pass(5000)
  assert.deepEqual(asked, [], 'nothing about it has changed')
  await reload(target('site', { pollMs: 10_000, fetchTimeoutMs: 1 }))
  await pass(0)
  assert.deepEqual(asked.splice(0), ['site'])
  await pass(70_000)
  assert.deepEqual(asked, [], 'it failed again, and the back-off goes on where it was')
})

test('a poll that a reload overtakes looks at nothing any more, and is not the last of a target that stays', async (t) => {
  const { asked, found, state, start, reload, pass } = await scene(t, target('site'), target('docs'))
  const { promise, resolve } = Promise.withResolvers<void>()
  state.answers = promise
  await start()
  await pass(0)
  assert.equal(asked.splice(0).length, 2)
  await reload(target('docs', { pollMs: 600_000 }))
  resolve()
  await pass(0)
  assert.deepEqual(found, ['docs'])
  assert.deepEqual(asked.splice(0), ['docs'])
  await pass(70_000)
  assert.deepEqual(asked, [], 'the overtaken polls have set no timer')
})
