import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Target } from '../src/config/config.ts'
import type { Run } from '../src/model.ts'
import { scriptEnvironment, synthesisedPayload } from '../src/runs/environment.ts'
import { aRun, aTarget, commit } from './support/nouns.ts'

const RESERVED = [
  'RUN TARGET TRIGGER EVENT FORGE_EVENT HOOK DELIVERY REPO OWNER NAME REF BRANCH TAG COMMIT PREVIOUS CHANGED CHANGED_Z',
  'PAYLOAD CHECKOUT ATTEMPT DATA',
]
  .join(' ')
  .split(' ')
  .map((name) => `LANDFALL_${name}`)
const OF_THE_ACCOUNT = ['PATH', 'HOME', 'USER', 'LOGNAME', 'SHELL', 'LANG', 'TZ', 'TMPDIR']

function environment(run: Partial<Run> = {}, target: Partial<Target> = {}): Record<string, string> {
  return scriptEnvironment({
    target: aTarget(target),
    run: aRun(run),
    forgeEvent: null,
    payloadFile: '/payload',
    changedFile: '/changed',
    changedNulFile: '/changed.z',
    checkout: '/checkout',
    dataDirectory: '/data',
  })
}

test('a script gets the account’s variables, CI, and every reserved one, and nothing else of landfall’s own', (t) => {
  process.env['LANDFALL_TEST_SECRET'] = 'a secret'
  t.after(() => delete process.env['LANDFALL_TEST_SECRET'])
  const names = Object.keys(environment())
  assert.deepEqual(new Set(names), new Set([...OF_THE_ACCOUNT, 'CI', ...RESERVED]))
})

test('what does not apply is set and empty', () => {
  const given = environment({ ref: null, delivery: null }, { hook: null })
  const empty = RESERVED.filter((name) => given[name] === '')
  assert.deepEqual(
    empty,
    ['FORGE_EVENT', 'HOOK', 'DELIVERY', 'REF', 'BRANCH', 'TAG', 'COMMIT', 'PREVIOUS'].map((name) => `LANDFALL_${name}`),
  )
})

test('a script is told what it runs for', () => {
  const run = { id: 7, repo: 'group/sub/name', delivery: 17, commit: commit(2), previous: commit(1), attempt: 3 }
  const given = environment({ ...run, trigger: 'retry', ref: 'refs/heads/feature/x' })
  const told = Object.fromEntries(RESERVED.map((name) => [name.slice('LANDFALL_'.length), given[name]]))
  assert.deepEqual(told, {
    RUN: '7',
    TARGET: 'site',
    TRIGGER: 'retry',
    EVENT: 'push',
    FORGE_EVENT: '',
    HOOK: 'github',
    DELIVERY: '17',
    REPO: 'group/sub/name',
    OWNER: 'group/sub',
    NAME: 'name',
    REF: 'refs/heads/feature/x',
    BRANCH: 'feature/x',
    TAG: '',
    COMMIT: commit(2),
    PREVIOUS: commit(1),
    CHANGED: '/changed',
    CHANGED_Z: '/changed.z',
    PAYLOAD: '/payload',
    CHECKOUT: '/checkout',
    ATTEMPT: '3',
    DATA: '/data',
  })
  assert.equal(environment({ ref: 'refs/tags/v1' })['LANDFALL_TAG'], 'v1')
})

test('later wins: the account, then CI, then pass_env, then env, then what is reserved', (t) => {
  Object.assign(process.env, { LANDFALL_RUN: 'outside', ONE: 'passed', TWO: 'passed', CI: 'passed' })
  t.after(() => {
    for (const name of ['LANDFALL_RUN', 'ONE', 'TWO', 'CI']) delete process.env[name]
  })
  const passEnv = ['ONE', 'TWO', 'CI', 'LANDFALL_RUN', 'NOT_THERE']
  const given = environment({ id: 7 }, { passEnv, env: { TWO: 'set', HOME: '/set', LANDFALL_REPO: 'set' } })
  const { ONE, TWO, CI, HOME, LANDFALL_RUN, LANDFALL_REPO } = given
  assert.deepEqual([ONE, TWO, CI, HOME], ['passed', 'set', 'passed', '/set'])
  assert.deepEqual([LANDFALL_RUN, LANDFALL_REPO, 'NOT_THERE' in given], ['7', 'acme/site', false])
})

test('without a delivery a script reads a push that was made up from the run', () => {
  const run = aRun({ repo: 'group/sub/name', commit: commit(2), previous: commit(1) })
  const repository = { full_name: 'group/sub/name', name: 'name', owner: { login: 'group/sub' } }
  const expected = { ref: 'refs/heads/main', before: commit(1), after: commit(2), repository }
  assert.deepEqual(JSON.parse(synthesisedPayload(run)), expected)
  assert.equal(JSON.parse(synthesisedPayload(aRun())).before, '0'.repeat(40))
})
