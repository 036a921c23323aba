import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import type { Sha } from '../src/model.ts'
import { git, sha } from './support/git.ts'
import { createBench, originIn } from './support/mirrors.ts'

const NOWHERE = sha('1'.repeat(40))

async function repository(t: Parameters<typeof createBench>[0], format: 'sha1' | 'sha256' = 'sha1') {
  const bench = createBench(t)
  const origin = await originIn(bench, { format })
  const remote = bench.remote(origin.path)
  const touches = (from: Sha, to: Sha, ...patterns: string[]) =>
    bench.work.touches({ remote, from, to, patterns, env: {}, timeoutMs: 60_000 })
  /** Commits and fetches; the commit. */
  async function commit(files: Readonly<Record<string, string | null>>): Promise<Sha> {
    const tip = await origin.commit(files)
    await bench.fetch(remote)
    return tip
  }
  return { bench, origin, remote, touches, commit }
}

test('what includes name and excludes do not counts, over all commits between, with one git command', async (t) => {
  const { bench, commit, touches } = await repository(t)
  const first = await commit({ 'site/a.html': '1', 'site/README.md': '1', 'api/main.go': '1', 'top.txt': '1' })
  const readme = await commit({ 'site/README.md': '2' })
  const html = await commit({ 'site/deep/b.html': '2' })
  const deleted = await commit({ 'api/main.go': null })
  bench.started()
  const site = ['site/**', '!**/*.md']
  assert.equal(await touches(first, readme, ...site), false)
  assert.deepEqual(bench.started().length, 1)
  assert.equal(await touches(first, html, ...site), true)
  assert.equal(await touches(html, first, ...site), true, 'backwards as well')
  assert.equal(await touches(html, deleted, ...site), false)
  assert.equal(await touches(html, deleted, 'api/**'), true)
  assert.equal(await touches(first, deleted, '*'), false, '* stops at a slash')
  assert.equal(await touches(first, deleted, '!site/**', '!api/**'), false)
  assert.equal(await touches(first, readme, '!api/**'), true, 'excludes alone mean everything else')
  assert.equal(await touches(first, first, '**'), false)
})

test('what came and went between the two does not count, nor does the same tree', async (t) => {
  const { commit, touches } = await repository(t)
  const first = await commit({ 'site/a': '1' })
  await commit({ 'site/a': '2' })
  const back = await commit({ 'site/a': '1', 'api/b': '1' })
  assert.equal(await touches(first, back, 'site/**'), false)
  const same = await commit({})
  assert.equal(await touches(back, same, '**'), false)
})

test('a renamed file counts by its old name and by its new one', async (t) => {
  const { origin, commit, touches } = await repository(t)
  const text = 'the same in both places\n'.repeat(50)
  const first = await commit({ 'old/file': text, 'other/file': text })
  await git(origin.work, 'config', 'diff.renames', 'copies')
  const renamed = await commit({ 'old/file': null, 'new/name': text })
  for (const path of ['old/**', 'new/**']) assert.equal(await touches(first, renamed, path), true, path)
  assert.equal(await touches(first, renamed, 'other/**'), false)
})

test('modes, links and names of every kind are files like others', async (t) => {
  const { origin, commit, touches } = await repository(t)
  const first = await commit({ 'bin/run': '#!/bin/sh\n' })
  await git(origin.work, 'update-index', '--chmod=+x', 'bin/run')
  await git(origin.work, 'commit', '--quiet', '-m', 'mode')
  await git(origin.work, 'checkout', '--quiet', '--', '.')
  const executable = await commit({})
  assert.equal(await touches(first, executable, 'bin/*'), true)
  let before = executable
  for (const name of [
    'a b',
    'tab\there',
    'line\nbreak',
    '"quoted"',
    "it's",
    'back\\slash',
    'ünïcode',
    '-x',
    '--',
    ':(top)x',
    '.hidden',
    'e\u001b[31mred',
    '*',
    '[x]',
    ' ',
  ]) {
    const after = await commit({ [`dir/${name}`]: '1' })
    for (const pattern of ['dir/**', 'dir/*', '**', '**/*']) {
      assert.equal(await touches(before, after, pattern), true, `${JSON.stringify(name)} by ${pattern}`)
    }
    assert.equal(await touches(before, after, '**', '!dir/**'), false, `${JSON.stringify(name)} is left out`)
    before = after
  }
  const umlaut = await commit({ 'dir/ünïcode': '2' })
  assert.equal(await touches(before, umlaut, 'dir/ün*'), true)
})

test('where a commit is not in the mirror, or there is none, everything counts as changed', async (t) => {
  const { bench, remote, origin, commit, touches } = await repository(t)
  const first = sha(await git(origin.path, 'rev-parse', 'main'))
  assert.equal(await touches(first, NOWHERE, 'none'), true, 'no mirror')
  const second = await commit({ 'site/a': '1' })
  assert.equal(await touches(first, second, 'none'), false)
  assert.equal(await touches(NOWHERE, second, 'none'), true)
  assert.equal(await touches(second, NOWHERE, 'none'), true)
  const long = sha('1'.repeat(64))
  assert.equal(await touches(long, second, 'none'), true, 'of a remote that has changed to SHA-256 ids')
  const order = { remote, from: first, to: second, patterns: ['**'], env: {}, timeoutMs: 60_000 }
  await assert.rejects(bench.work.touches(order, AbortSignal.abort()), (error) => hasCode(error, 'aborted'))
})

test('commits with SHA-256 ids are compared too', async (t) => {
  const { commit, touches } = await repository(t, 'sha256')
  const [first, second] = [await commit({ a: '1' }), await commit({ 'site/b': '1' })]
  assert.deepEqual([await touches(first, second, 'site/**'), await touches(first, second, 'api/**')], [true, false])
})
