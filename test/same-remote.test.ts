import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { compareRemotes } from '../src/git/same-remote.ts'
import { temporaryDirectory } from './support/temporary.ts'

const SAME = 'https://forge.example/acme/Site.git'

for (const url of [
  'https://forge.example/acme/site',
  'https://forge.example:443/acme/site.git/',
  'https://ada:s3cr@t@FORGE.example/Acme/Site.git',
  'https://forge.example./acme//site/',
  'http://forge.example/acme/site',
  'HTTPS://forge.example/acme/%73ite',
  'ssh://git@forge.example:22/acme/site.git',
  'ssh://forge.example:2222/acme/site',
  'git+ssh://git@forge.example/acme/site',
  'git@forge.example:acme/site.git',
  'git@forge.example:/acme/site.git',
  'forge.example:acme/site',
  'git://forge.example/acme/site',
]) {
  test(`${url} is the repository ${SAME}`, async () => {
    assert.equal((await compareRemotes(url, SAME, '/srv')).same, true)
    assert.equal((await compareRemotes(SAME, url, '/srv')).same, true)
  })
}

for (const url of [
  'https://forge.example/acme/site2',
  'https://forge.example/acme/site/more',
  'https://forge.example/acme/git',
  'https://forge.example:8443/acme/site',
  'https://forge.example.evil.example/acme/site',
  'https://forge.example@evil.example/acme/site',
  'https://evil.example/forge.example/acme/site',
  'https://evil.example/?x=://forge.example/acme/site',
  'https://forge.example/acme/site/../other',
  'git@evil.example:acme/site.git',
  'ext::sh -c true https://forge.example/acme/site.git',
  'evil::https://forge.example/acme/site.git',
  '/srv/acme/site.git',
  'file://forge.example/acme/site.git',
  './forge.example:acme/site',
  'acme/site',
  'https:///acme/site',
  '',
]) {
  test(`"${url}" is not the repository ${SAME}`, async () => {
    assert.equal((await compareRemotes(url, SAME, '/srv')).same, false)
    assert.equal((await compareRemotes(SAME, url, '/srv')).same, false)
  })
}

test('ports are told apart between URLs of one scheme', async () => {
  const same = async (one: string, other: string) => (await compareRemotes(one, other, '/')).same
  assert.equal(await same('https://h:3000/a/b', 'https://h:3001/a/b'), false)
  assert.equal(await same('https://h:3000/a/b', 'https://h:03000/a/b.git'), true)
  assert.equal(await same('https://h:3000/a/b', 'ssh://git@h:2222/a/b'), true)
  assert.equal(await same('ssh://h:2222/a/b', 'git@h:a/b'), false)
  assert.equal(await same('ssh://[::1]:22/a/b', 'git@[::1]:a/b'), true)
})

test('local repositories are compared as directories, and their case matters', async (t) => {
  const directory = temporaryDirectory(t)
  const repository = join(directory, 'a b.git')
  mkdirSync(repository)
  mkdirSync(join(directory, 'A B.git'))
  symlinkSync(repository, join(directory, 'link'))
  for (const url of [
    repository,
    `${repository}/`,
    join(directory, 'a b'),
    join(directory, 'link'),
    '../a b.git',
    String(pathToFileURL(repository)),
    `file://localhost${pathToFileURL(repository).pathname}`,
  ]) {
    assert.equal((await compareRemotes(url, repository, join(directory, 'tree'))).same, true, url)
  }
  for (const url of [join(directory, 'A B.git'), '../a', directory]) {
    assert.equal((await compareRemotes(url, repository, join(directory, 'tree'))).same, false, url)
  }
})

test('what is shown of a URL holds no user, password, query or control character', async () => {
  for (const url of [
    'https://ada:s3cret@h/a/b',
    'https://s3cret@h/a/b',
    'https://h/a/b?token=s3cret',
    'https://x:s3@cret@h/a/b#s3cret',
    'ext::curl https://s3cret@h',
    'oauth:s3cret@h:a/b',
    'ssh://s3cret:s3cret@h/a\u001b[2Jb',
  ]) {
    const { shown } = await compareRemotes(url, SAME, '/')
    assert.doesNotMatch(shown, /s3|cret|ada|\p{Cc}/u, url)
  }
})
