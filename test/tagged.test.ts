/** Targets that follow tags, through the whole program. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import test from 'node:test'
import type { Sha } from '../src/model.ts'
import { createSite, type Daemon, type Site } from './support/daemon.ts'
import { GIT_ENV, git, type Origin, sha } from './support/git.ts'
import { until } from './support/until.ts'

/** Makes a tag of a new commit at the remote. Resolves to the commit and to what a forge announces. */
async function tag(origin: Origin, name: string, annotated = false) {
  const commit = await origin.commit({ version: name })
  await git(origin.work, 'tag', '--force', ...(annotated ? ['-a', '-m', name] : []), name)
  await git(origin.work, 'push', '--quiet', '--force', 'origin', `refs/tags/${name}`)
  return { commit, object: sha(await git(origin.work, 'rev-parse', `refs/tags/${name}`)) }
}

const announce = (daemon: Daemon, name: string, after: Sha | null, before: Sha | null = null) =>
  daemon.accepted({ ref: `refs/tags/${name}`, before, after })

async function tagged(site: Site, more = ''): Promise<Origin> {
  site.script('acme/site', 'echo "$LANDFALL_TAG $LANDFALL_BRANCH $LANDFALL_REF $(cat version)" >> "$OUT/runs"')
  site.configure(`[target.site]\nrepo = "acme/site"\ntags = "v*"\n${more}`)
  return await site.origin('acme/site')
}

test('the highest version is deployed, and one that comes before it is ignored with its reason', async (t) => {
  const site = createSite(t)
  const origin = await tagged(site)
  const daemon = await site.start()
  const first = await tag(origin, 'v1.9', true)
  assert.notEqual(first.commit, first.object)
  const one = await daemon.ended(await announce(daemon, 'v1.9', first.object))
  assert.deepEqual([one.state, one.commit, one.ref], ['succeeded', first.commit, 'refs/tags/v1.9'])
  const second = await tag(origin, 'v1.10')
  assert.equal((await daemon.ended(await announce(daemon, 'v1.10', second.object))).commit, second.commit)
  const older = await tag(origin, 'v1.9.1', true)
  const skipped = await daemon.ended(await announce(daemon, 'v1.9.1', older.object))
  assert.deepEqual([skipped.state, skipped.reason], ['skipped', 'stale'])
  assert.match(skipped.detail ?? '', /v1\.9\.1 comes before v1\.10/)
  const candidate = await tag(origin, 'v1.10-rc.1')
  assert.equal((await daemon.ended(await announce(daemon, 'v1.10-rc.1', candidate.object))).reason, 'stale')
  assert.deepEqual(site.lines('runs'), ['v1.9  refs/tags/v1.9 v1.9', 'v1.10  refs/tags/v1.10 v1.10'])

  const branch = await daemon.post({ branch: 'main', after: candidate.commit })
  assert.equal(branch.body.targets?.[0]?.reason, 'ref')
  const gone = await daemon.post({ ref: 'refs/tags/v1.10', before: second.object, after: null })
  assert.deepEqual([gone.status, gone.body.targets?.[0]?.reason], [200, 'ref-deleted'])
})

test('a tag that was moved is followed on a delivery’s word, and a deleted one leaves what is deployed', async (t) => {
  const site = createSite(t)
  const origin = await tagged(site)
  const daemon = await site.start()
  const first = await tag(origin, 'v1')
  await daemon.ended(await announce(daemon, 'v1', first.object))
  const second = await tag(origin, 'v2')
  await daemon.ended(await announce(daemon, 'v2', second.object))

  const moved = await tag(origin, 'v2')
  const unsaid = await daemon.ended(await announce(daemon, 'v2', moved.object, first.object))
  assert.deepEqual([unsaid.state, unsaid.reason], ['skipped', 'diverged'])
  const again = await tag(origin, 'v2')
  const said = await daemon.ended(await announce(daemon, 'v2', again.object, second.object))
  assert.deepEqual([said.state, said.commit], ['succeeded', again.commit])

  await git(origin.path, 'update-ref', '-d', 'refs/tags/v2')
  const late = await daemon.ended(await daemon.accepted({ ref: 'refs/tags/v1', after: first.object, guid: 'another' }))
  assert.deepEqual([late.state, late.reason], ['skipped', 'stale'])
  assert.equal((await daemon.target('site')).deployed?.commit, again.commit)
})

test('polls record the tags that are there at first, and deploy the next one that comes above them', async (t) => {
  const site = createSite(t)
  const origin = await tagged(site, 'poll = "1s"')
  await tag(origin, 'v1.0')
  const daemon = await site.start()
  await daemon.api('once', 'POST')
  assert.deepEqual(await daemon.runs(), [])
  const lower = await tag(origin, 'v0.9')
  const next = await tag(origin, 'v1.1', true)
  await until('v1.1', async () => (await daemon.target('site')).deployed?.commit === next.commit)
  assert.deepEqual(site.lines('runs'), ['v1.1  refs/tags/v1.1 v1.1'])
  assert.notEqual(lower.commit, next.commit)
})

test('tag_order = "newest" deploys the tag that was made last, whatever its version', async (t) => {
  const site = createSite(t)
  const origin = await tagged(site, 'tag_order = "newest"')
  const daemon = await site.start()
  const dated = async (name: string, day: number) => {
    const commit = await origin.commit({ version: name })
    const date = `2026-01-0${day}T00:00:00Z`
    execFileSync('git', ['tag', '-a', '-m', name, name], {
      cwd: origin.work,
      env: { ...GIT_ENV, GIT_COMMITTER_DATE: date },
    })
    await git(origin.work, 'push', '--quiet', 'origin', `refs/tags/${name}`)
    return { commit, object: sha(await git(origin.work, 'rev-parse', name)) }
  }
  const high = await dated('v9', 1)
  await daemon.ended(await announce(daemon, 'v9', high.object))
  const low = await dated('v1', 2)
  const run = await daemon.ended(await announce(daemon, 'v1', low.object))
  assert.deepEqual([run.state, run.commit], ['succeeded', low.commit])
})
