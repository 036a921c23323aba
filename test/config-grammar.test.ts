import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseCidr, parseDuration, parseListen, parseSize, wrongClone, wrongRemote } from '../src/config/grammar.ts'

describe('the little languages', () => {
  test('durations', () => {
    const right = { '90s': 90_000, '5m': 300_000, '1h30m': 5_400_000, '7d': 604_800_000, '250ms': 250, '0s': 0 }
    for (const [text, ms] of Object.entries(right)) assert.equal(parseDuration(text), ms, text)
    for (const text of ['', '5', 's', '30m1h', '1.5h', '-5s', ' 5s', '5 s', '5S', '5s5s', '1w', `${'9'.repeat(30)}d`])
      assert.equal(parseDuration(text), null, text)
  })

  test('sizes, in powers of two', () => {
    const right = { '25MB': 25 * 2 ** 20, '1KB': 1024, '1GB': 2 ** 30, '7B': 7 }
    for (const [text, bytes] of Object.entries(right)) assert.equal(parseSize(text), bytes, text)
    for (const text of ['', '25', 'MB', '25mb', '1.5MB', '-1MB', '1TB', ' 1MB'])
      assert.equal(parseSize(text), null, text)
  })

  test('places to listen', () => {
    assert.deepEqual(parseListen('localhost:0'), { kind: 'tcp', host: 'localhost', port: 0 })
    assert.deepEqual(parseListen('[::]:8787'), { kind: 'tcp', host: '::', port: 8787 })
    assert.deepEqual(parseListen('unix:/run/x.sock'), { kind: 'unix', path: '/run/x.sock' })
    assert.deepEqual(parseListen('systemd:web'), { kind: 'systemd', name: 'web' })
    for (const text of [
      '',
      ':80',
      '80',
      'a:',
      'a:65536',
      '[zz]:80',
      '::1:80',
      'unix:',
      'systemd:',
      `unix:/${'x'.repeat(108)}`,
    ])
      assert.equal(parseListen(text), null, text)
  })

  test('networks', () => {
    const right = { '10.0.0.0/8': '10.0.0.0/8', '127.0.0.1': '127.0.0.1/32', '::1': '::1/128', 'fd00::/8': 'fd00::/8' }
    for (const [text, network] of Object.entries(right)) assert.equal(parseCidr(text), network, text)
    for (const text of ['', 'localhost', '10.0.0.0/33', '::/129', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0.0/-1', '/8'])
      assert.equal(parseCidr(text), null, text)
  })

  test('remotes: https, http, ssh, file, scp-like and paths, and nothing that git would run', () => {
    for (const text of [
      'https://github.com/a/b.git',
      'http://localhost:3000/a/b',
      'ssh://git@host:22/a',
      'file:///srv/a.git',
      'git@github.com:a/b.git',
      'host:a/b',
      '/srv/a.git',
      './a.git',
      '../a',
      'a.git',
      'dir:ty/../x',
    ])
      assert.equal(wrongRemote(text), null, text)
    for (const text of [
      '',
      '-x',
      '--upload-pack=x',
      'ext::sh',
      'fd::7',
      'git://host/a',
      'ftp://host/a',
      'https://u:p@host/a',
      'https://token@host/a',
      'ssh://git:pw@host/a',
      'ssh://-oProxyCommand=x/a',
      '-oX@host:a',
      'git@-host:a',
      'host:-a',
      'https://host/a?token=x',
      'https:///a b',
      'a\nb',
      'https://',
      'ext::sh -c id',
    ])
      assert.notEqual(wrongRemote(text), null, text)
  })

  test('clone: {repo}, in the path and nowhere else', () => {
    for (const text of [
      'https://h/{repo}.git',
      'git@h:{repo}.git',
      '/srv/{repo}',
      'x/{repo}',
      '{repo}',
      'file:///{repo}',
    ])
      assert.equal(wrongClone(text), null, text)
    for (const text of [
      'https://h/x',
      'https://{repo}/x',
      'https://{repo}.h/x',
      '{repo}:x',
      'https://h/{repo}/{owner}',
      'https://h/{repo}}',
    ])
      assert.notEqual(wrongClone(text), null, text)
  })
})
