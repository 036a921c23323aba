import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Hook } from '../src/config/config.ts'
import { ownDataDir } from '../src/data-dir.ts'
import { openRemotes } from '../src/remotes.ts'
import { aConfig, aHook, aTarget } from './support/nouns.ts'
import { temporaryDirectory } from './support/temporary.ts'

async function remotes(t: TestContext, hook: Partial<Hook> = {}) {
  const dataDir = await ownDataDir(temporaryDirectory(t))
  t.after(() => dataDir.release())
  return { dataDir, ...(await openRemotes({ config: aConfig({ hooks: [aHook(hook)] }), dataDir })) }
}

test('a repository is fetched from the hook’s `clone`, or from the target’s own `url`', async (t) => {
  const { of } = await remotes(t, { clone: 'https://git.example/{repo}.git' })
  assert.equal(of(aTarget(), 'acme/site').url, 'https://git.example/acme/site.git')
  assert.equal(of(aTarget({ url: 'git@x.example:y.git' }), 'acme/site').url, 'git@x.example:y.git')
  assert.equal(of(aTarget({ hook: null, url: '/srv/a.git' }), 'acme/site').url, '/srv/a.git')
})

test('the forge’s token goes to the forge’s own host over HTTPS and nowhere else', async (t) => {
  const { of } = await remotes(t, { clone: 'https://git.example:8443/{repo}.git', forgeToken: 'a:t/k@n' })
  const sent = (url: string) => of(aTarget({ url }), 'acme/site').credentialsFile !== null
  assert.equal(of(aTarget(), 'acme/site').credentialsFile !== null, true)
  assert.equal(sent('https://git.example:8443/other/repo.git'), true)
  for (const url of [
    'https://git.example/acme/site.git',
    'http://git.example:8443/acme/site.git',
    'https://git.example.evil.example:8443/acme/site.git',
    'https://evil.example/git.example:8443/',
    'ssh://git.example:8443/acme/site.git',
    'git@git.example:acme/site.git',
    '/srv/git.example/site.git',
  ]) {
    assert.equal(sent(url), false, url)
  }
})

test('a token and a key given as text are laid into files for nobody else, in the form that git and ssh read', async (t) => {
  const { of } = await remotes(t, { forgeToken: 'a:t/k@n', sshKey: { text: 'KEY\n\n' } })
  const { credentialsFile, sshKeyFile } = of(aTarget(), 'acme/site')
  assert.equal(readFileSync(credentialsFile ?? '', 'utf8'), 'https://x-access-token:a%3At%2Fk%40n@github.com\n')
  assert.equal(readFileSync(sshKeyFile ?? '', 'utf8'), 'KEY\n')
  for (const file of [credentialsFile, sshKeyFile]) assert.equal(statSync(file ?? '').mode & 0o777, 0o600)
})

test('there is one mirror for each remote and user, in the room of the mirrors', async (t) => {
  const { of, dataDir } = await remotes(t)
  const mirror = (url: string, user = 'deploy') => of(aTarget({ url, user }), 'acme/site').mirror
  const urls = [
    '/srv/a.git',
    '/srv/a',
    '/srv/A.git',
    '/srv-a.git',
    'https://x.example/a',
    'http://x.example/a',
    '/',
    '/..',
  ]
  const mirrors = [...urls.map((url) => mirror(url)), mirror('/srv/a.git', 'other')]
  assert.equal(new Set(mirrors).size, mirrors.length)
  assert.equal(mirror('/srv/a.git'), mirror('/srv/a.git'))
  for (const one of mirrors) {
    assert.equal(dirname(one), join(dataDir.path, 'mirrors'))
    assert.match(basename(one), /^[a-z0-9][a-z0-9-]*--[0-9a-f]{32}\.git$/)
  }
})
