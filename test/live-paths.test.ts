import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Target } from '../src/config/config.ts'
import { targetOf } from '../src/instances.ts'
import { createLivePaths } from '../src/runs/live-paths.ts'
import { openSqlite } from '../src/stores/sqlite.ts'
import { aConfig, aTarget } from './support/nouns.ts'
import { temporaryDirectory } from './support/temporary.ts'

const several = (name: string, current: string): Target =>
  aTarget({ name, current, follows: { kind: 'branches', patterns: ['*'] } })
/** Of `main` and of `x`, `one` and `other` come to one place. */
const ONE = several('one', '/srv/{branch}-x')
const OTHER = several('other', '/srv/main-{branch}')

test('of instances that take one place at the same time one has it, and goes on having it', async (t) => {
  const path = temporaryDirectory(t)
  const store = await openSqlite({ dataDir: path, keepDeliveriesMs: 1_000 })
  t.after(() => store.close())
  let config = aConfig({ targets: [ONE, OTHER] })
  const livePaths = createLivePaths({ config: () => config, store, dataDir: { path } })
  const names = ['one@main', 'other@x']
  for (const name of names) {
    const [target = '', branch = ''] = name.split('@')
    await store.seen({ name, target, repo: 'acme/site', branch }, 0)
  }
  const take = async (name: string): Promise<string | null> => {
    const [target, instance] = [targetOf(config, name), await store.instance(name)]
    if (target === undefined || instance === null) throw new Error(`no ${name}`)
    return await livePaths.take(target, instance).then(
      () => null,
      (error: Error) => error.message,
    )
  }
  const told = await Promise.all(names.map(take))
  const winner = names[told.indexOf(null)] ?? assert.fail('nobody has it')
  const loser = names.find((name) => name !== winner) ?? ''
  for (const _ of [1, 2]) {
    assert.match((await take(loser)) ?? '', new RegExp(`/srv/main-x: ${loser} and ${winner} both`))
    assert.equal(await take(winner), null)
  }

  config = aConfig({
    targets:
      winner === 'one@main' ? [several('one', '/srv/{branch}'), OTHER] : [ONE, several('other', '/srv/{branch}')],
  })
  assert.equal(await take(loser), null, 'whom another configuration leads elsewhere has it no more')
  config = aConfig({ targets: [ONE, OTHER] })
  assert.match((await take(winner)) ?? '', new RegExp(`${loser} was first`))
})
