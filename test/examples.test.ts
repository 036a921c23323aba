/** The scripts that we hand to people do what their comments say. */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createSite, type Site } from './support/daemon.ts'

const examples = fileURLToPath(new URL('../per-repo-scripts/examples', import.meta.url))

function example(site: Site, name: string): void {
  copyFileSync(join(examples, name), site.script(name))
}

test('the static site goes live once it is built, and a build without a page changes nothing', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/site')
  example(site, 'static-site.sh')
  const current = join(site.directory, 'www')
  site.configure(`[target.site]\nrepo = "acme/site"\nscript = "static-site.sh"\ncurrent = "${current}"\npoll = "off"`)
  const daemon = await site.start()
  const good = await origin.commit({
    Makefile: 'all:\n\tmkdir -p public\n\techo "<h1>built</h1>" > public/index.html\n',
  })
  const first = await daemon.ended(await daemon.accepted({ repo: 'acme/site', after: good }))
  assert.equal(first.state, 'succeeded', await daemon.log(first.id))
  assert.equal(readFileSync(join(current, 'public/index.html'), 'utf8'), '<h1>built</h1>\n')

  const bad = await origin.commit({ Makefile: 'all:\n\ttrue\n' })
  const second = await daemon.ended(await daemon.accepted({ repo: 'acme/site', before: good, after: bad }))
  assert.equal(second.state, 'failed')
  assert.match(await daemon.log(second.id), /nothing goes live/)
  assert.equal(readFileSync(join(current, 'public/index.html'), 'utf8'), '<h1>built</h1>\n')
})

test('the Node service is built in its release, restarted, and brought back when the restart fails', async (t) => {
  const site = createSite(t)
  const origin = await site.origin('acme/api')
  example(site, 'node-service.sh')
  const current = join(site.directory, 'api')
  // In the place of systemctl: a service that comes up only if its release says so.
  const restart = site.script(
    'restart',
    `cat '${current}/dist.txt' >> "$OUT/restarts"`,
    `grep -q up '${current}/dist.txt'`,
  )
  site.configure(
    `[target.api]\nrepo = "acme/api"\nscript = "node-service.sh"\ncurrent = "${current}"\nactivate = ["${restart}"]\npoll = "off"`,
  )
  const daemon = await site.start()
  const service = (state: string) => ({
    'package.json': JSON.stringify({ name: 'api', version: '1.0.0', scripts: { build: `echo ${state} > dist.txt` } }),
    'package-lock.json': JSON.stringify({
      name: 'api',
      version: '1.0.0',
      lockfileVersion: 3,
      packages: { '': { name: 'api', version: '1.0.0' } },
    }),
  })
  const up = await origin.commit(service('up'))
  const first = await daemon.ended(await daemon.accepted({ repo: 'acme/api', after: up }))
  assert.equal(first.state, 'succeeded', await daemon.log(first.id))

  const down = await origin.commit(service('down'))
  const second = await daemon.ended(await daemon.accepted({ repo: 'acme/api', before: up, after: down }))
  assert.deepEqual([second.state, second.reason], ['failed', 'activate'])
  assert.deepEqual(site.lines('restarts'), ['up', 'down', 'up'])
  assert.equal(existsSync(join(current, 'dist.txt')), true)
})
