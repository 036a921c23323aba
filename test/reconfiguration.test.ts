/** What another file means for what is known and queued: a decision without a daemon. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { Config, Target } from '../src/config/config.ts'
import { targetOf, targetOfRun } from '../src/instances.ts'
import type { Instance } from '../src/model.ts'
import { changesOfTargets, merged, reconfigurationFor } from '../src/reload.ts'
import { aConfig, aHook, aRun, aTarget } from './support/nouns.ts'

const single = (change: Partial<Target> = {}) =>
  aTarget({ aliases: [], path: null, follows: { kind: 'branch', branch: 'main' }, ...change })
const glob = (repo: string, change: Partial<Target> = {}) => single({ repo, repoIsGlob: true, ...change })
const branches = (...patterns: string[]) => single({ follows: { kind: 'branches', patterns } })
const tags = single({ follows: { kind: 'tags', patterns: ['v*'], order: 'version' } })
const withTargets = (...targets: Target[]): Config => aConfig({ targets })
const anInstance = (name: string, repo: string) => ({ name, target: 'site', repo }) as Instance

test('an instance has a target as long as name, repository and branch fit the file', () => {
  const has = (target: Target, instance: string) => targetOf(withTargets(target), instance) !== undefined
  assert.deepEqual(
    [has(single(), 'site'), has(single(), 'docs'), has(single(), 'site@main'), has(single(), 'site:acme/site')],
    [true, false, false, false],
  )
  assert.deepEqual(
    [has(glob('acme/*'), 'site:acme/blog'), has(glob('other/*'), 'site:acme/blog'), has(glob('acme/*'), 'site')],
    [true, false, false],
  )
  assert.equal(has(glob('acme/*', { aliases: ['Old/blog'] }), 'site:old/blog'), true)
  assert.deepEqual(
    [has(branches('feature/*'), 'site@feature/x'), has(branches('main'), 'site@feature/x'), has(branches('*'), 'site')],
    [true, false, false],
  )
  assert.deepEqual([has(tags, 'site'), has(tags, 'site@main')], [true, false])
})

test('a run has a target as long as the file means its repository too, by whatever name', () => {
  const has = (target: Target, repo: string) => targetOfRun(withTargets(target), { target: 'site', repo }) !== undefined
  assert.deepEqual(
    [has(single(), 'acme/site'), has(single(), 'Acme/Site'), has(single(), 'acme/other')],
    [true, true, false],
  )
  assert.equal(has(single({ repo: 'acme/new', aliases: ['acme/site'] }), 'acme/site'), true)
})

test('queued runs without a target go, and running ones stay', () => {
  const runs = [
    aRun({ id: 1, target: 'gone', repo: 'acme/gone', state: 'running' }),
    aRun({ id: 2, target: 'gone', repo: 'acme/gone' }),
    aRun({ id: 3 }),
    aRun({ id: 4, repo: 'acme/other' }),
    aRun({ id: 5, target: 'site@dev' }),
  ]
  const { gone } = reconfigurationFor(withTargets(single()), [], runs)
  assert.deepEqual(gone, [
    { run: 2, detail: 'the target gone is not in the configuration any more' },
    { run: 4, detail: 'the target site follows acme/site now, not acme/other' },
    { run: 5, detail: 'site@dev is not what the target site follows any more' },
  ])
})

test('an instance moves with the name that the file has for its repository, and begins anew where that is no alias', () => {
  const movedIn = (target: Target, instance: Instance) =>
    reconfigurationFor(withTargets(target), [instance], []).moved.map(({ repo, isSame }) => [repo, isSame])
  const site = anInstance('site', 'acme/site')
  assert.deepEqual(movedIn(single(), site), [])
  assert.deepEqual(movedIn(single({ repo: 'ACME/site' }), site), [], 'another case is no other name')
  assert.deepEqual(movedIn(single({ repo: 'acme/new' }), site), [['acme/new', false]])
  assert.deepEqual(movedIn(single({ repo: 'acme/new', aliases: ['Acme/site'] }), site), [['acme/new', true]])
  assert.deepEqual(movedIn(glob('acme/*'), anInstance('site:acme/blog', 'acme/blog')), [])
  assert.deepEqual(movedIn(tags, site), [], 'what it follows is no matter of its repository')
})

test('changes are named by target, also where only the hook has changed', () => {
  const before = withTargets(single(), single({ name: 'docs' }), single({ name: 'old' }))
  const after = withTargets(single(), single({ name: 'docs', timeoutMs: 1 }), single({ name: 'new' }))
  assert.deepEqual(changesOfTargets(before, after), { added: ['new'], removed: ['old'], changed: ['docs'] })
  const rotated = { ...before, hooks: [aHook({ secrets: ['another'] })] }
  assert.deepEqual(changesOfTargets(before, rotated).changed, ['site', 'docs', 'old'])
})

test('what only a start can change is named and left', () => {
  const running = withTargets(single())
  const read = { ...running, dataDir: '/other', maxJobs: 9, server: { ...running.server, socketMode: 0o660 } }
  const { config, needRestart } = merged(running, read)
  assert.deepEqual(needRestart, ['data_dir', 'server.socket_mode'])
  assert.deepEqual(config, { ...running, maxJobs: 9 })
  const current = `${running.dataDir}/live`
  assert.throws(() => merged(running, { ...read, targets: [single({ current })] }), { code: 'config' })
  assert.doesNotThrow(() => merged(running, { ...running, targets: [single({ current: '/srv/site' })] }))
})
