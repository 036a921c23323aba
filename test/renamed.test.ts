/** Repositories that get another name at their forge. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { createSite } from './support/daemon.ts'
import { git, sha } from './support/git.ts'

test('a delivery under a new name is ignored as renamed, until an alias says that it is meant', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  const tip = sha(await git(origin.path, 'rev-parse', 'main'))
  site.script('deploy.sh', 'echo "$LANDFALL_REPO $LANDFALL_COMMIT" >> "$OUT/runs"')
  const target = '[target.site]\nrepo = "acme/site"\nscript = "deploy.sh"'
  site.configure(target)
  const first = await site.start()
  await first.ended(await first.accepted({ after: tip, repoId: 7 }))
  const renamed = await first.post({ repo: 'acme/web', after: tip, repoId: 7 })
  assert.deepEqual([renamed.status, renamed.body.verdict], [200, 'ignored'])
  const [effect] = (await first.delivery(2)).targets
  assert.ok(effect && 'reason' in effect)
  assert.deepEqual([effect.target, effect.reason], ['site', 'renamed'])
  assert.match(effect.detail, /acme\/site is now called acme\/web; .*aliases = \["acme\/web"\]/)
  const stranger = await first.post({ repo: 'acme/web', after: tip, repoId: 8 })
  assert.equal((await first.delivery(3)).reason, 'no-target')
  assert.equal(stranger.body.verdict, 'ignored')
  await first.stop()

  site.configure(`${target}\naliases = ["acme/web"]`)
  const second = await site.start()
  const commit = await origin.commit({ 'file.txt': '2' })
  await second.ended(await second.accepted({ repo: 'acme/web', after: commit, repoId: 7 }))
  assert.deepEqual(site.lines('runs'), [`acme/site ${tip}`, `acme/site ${commit}`])
  assert.equal((await second.target('site')).deployed?.commit, commit)

  const third = await origin.commit({ 'file.txt': '3' })
  await second.ended(await second.accepted({ repo: 'acme/site', after: third, repoId: 7 }))
  assert.equal((await second.target('site')).deployed?.commit, third, 'and back again')
})
