/** Targets that only some files concern, and several of them on one repository. */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import type { Sha } from '../src/model.ts'
import { createSite } from './support/daemon.ts'
import { git, sha } from './support/git.ts'

test('a run whose difference from what is deployed touches none of the paths is skipped, and counts as considered', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/mono')
  site.script('acme/mono', 'echo "$LANDFALL_COMMIT" >> "$OUT/runs"', 'test ! -e fail')
  site.configure('[target.site]\nrepo = "acme/mono"\npaths = ["site/**", "!**/*.md"]')
  const daemon = await site.start()
  const push = async (files: Record<string, string | null>) => {
    const after = await origin.commit(files)
    return { after, run: await daemon.ended(await daemon.accepted({ repo: 'acme/mono', after })) }
  }
  const first = await push({ 'docs/a.txt': '1' })
  assert.equal(first.run.state, 'succeeded', 'a first deployment is not asked')

  const docs = await push({ 'docs/a.txt': '2', 'site/README.md': 'x', site2: 'x' })
  assert.deepEqual([docs.run.state, docs.run.reason, docs.run.commit], ['skipped', 'paths', docs.after])
  assert.match(docs.run.detail ?? '', /site\/\*\*/)
  const { items } = await daemon.api<{ items: readonly { reason?: string }[] }>('once', 'POST')
  assert.equal(items[0]?.reason, 'up-to-date', 'a poll makes no run for it')

  const touched = await push({ 'site/index.html': '1' })
  assert.deepEqual([touched.run.state, touched.run.previous], ['succeeded', first.after])
  const renamed = await push({ 'site/index.html': null, 'docs/index.html': '1' })
  assert.equal(renamed.run.state, 'succeeded', 'a file that left counts')

  const broken = await push({ 'site/b': '1', fail: '' })
  assert.equal(broken.run.state, 'failed')
  const mended = await push({ fail: null })
  assert.equal(mended.run.state, 'succeeded', 'what a failed push had touched is still to be deployed')
})

test('the targets of a monorepo share one fetch', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/mono')
  const tip = sha(await git(origin.path, 'rev-parse', 'main'))
  // A git that counts, first on the PATH.
  const bin = join(site.directory, 'bin')
  mkdirSync(bin)
  writeFileSync(join(bin, 'git'), `#!/bin/sh\necho "$@" >> '${site.out}/git'\nPATH=\${PATH#*:}\nexec git "$@"\n`)
  chmodSync(join(bin, 'git'), 0o755)
  process.env['PATH'] = `${bin}:${process.env['PATH']}`
  t.after(() => {
    process.env['PATH'] = process.env['PATH']?.replace(`${bin}:`, '')
  })
  site.script('deploy.sh', 'true')
  const names = ['a', 'b', 'c', 'd']
  const tables = names.map(
    (name) => `[target.${name}]\nrepo = "acme/mono"\nscript = "deploy.sh"\npaths = ["${name}/**"]`,
  )
  site.configure(tables.join('\n'))
  const daemon = await site.start()
  async function push(after: Sha) {
    const before = fetches()
    await daemon.accepted({ repo: 'acme/mono', after })
    await daemon.quiet()
    const runs = (await daemon.runs()).slice(-names.length)
    const phases = runs.flatMap((run) => run.phases.filter(({ name }) => name === 'fetch'))
    const starts = phases.map(({ startedAt }) => Date.parse(startedAt))
    const ends = phases.map(({ startedAt, ms }) => Date.parse(startedAt) + ms)
    const states = runs.map(({ target, state, reason }) => `${target} ${reason ?? state}`)
    return { states, fetched: fetches() - before, tookMs: Math.max(...ends) - Math.min(...starts) }
  }
  const first = await push(tip)
  assert.deepEqual(
    first.states,
    names.map((name) => `${name} succeeded`),
  )
  const second = await push(await origin.commit({ 'c/file': '1' }))
  assert.deepEqual(second.states, ['a paths', 'b paths', 'c succeeded', 'd paths'])
  for (const { fetched, tookMs } of [first, second]) {
    // What a fetch found is shared for ten seconds, which a machine that stalls may use up.
    const most = 1 + Math.floor(tookMs / 10_000)
    assert.ok(fetched >= 1 && fetched <= most, `${fetched} fetches in ${tookMs} ms`)
  }

  function fetches(): number {
    return site.lines('git').filter((line) => / fetch /.test(` ${line} `)).length
  }
})
