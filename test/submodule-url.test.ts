import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judgeSubmodule } from '../src/git/submodule-url.ts'

test('only https and ssh on the same host are allowed, and on hosts that the setting names', () => {
  const rows: [base: string, url: string, hosts: string[], allowed: string | RegExp][] = [
    ['https://forge.example/a/site.git', 'https://forge.example/a/lib.git', [], 'https://forge.example/a/lib.git'],
    ['https://forge.example/a/site.git', 'https://FORGE.example/a/lib', [], 'https://FORGE.example/a/lib'],
    ['https://forge.example/a/site.git', 'git@forge.example:a/lib.git', [], 'git@forge.example:a/lib.git'],
    ['git@forge.example:a/site.git', 'https://forge.example/a/lib', [], 'https://forge.example/a/lib'],
    ['git@forge.example:a/site.git', 'ssh://git@forge.example/a/lib', [], 'ssh://git@forge.example/a/lib'],
    ['https://forge.example/a/site.git', '../lib.git', [], 'https://forge.example/a/lib.git'],
    ['https://forge.example/a/site.git', './lib', [], 'https://forge.example/a/site.git/lib'],
    ['https://forge.example/a/site/', '../../b/lib/', [], 'https://forge.example/b/lib'],
    ['https://token@forge.example/a/site', '../lib', [], 'https://forge.example/a/lib'],
    ['git@forge.example:a/site.git', '../lib.git', [], 'git@forge.example:a/lib.git'],
    ['git@forge.example:site.git', '../lib.git', [], 'git@forge.example:lib.git'],
    ['ssh://git@forge.example:2222/a/site', '../lib', [], 'ssh://git@forge.example:2222/a/lib'],
    ['http://forge.example:3000/a/site', '../lib', [], 'http://forge.example:3000/a/lib'],
    ['https://forge.example/a/My%20Project', '../lib%20x', [], 'https://forge.example/a/lib%20x'],
    ['https://forge.example/x', 'https://code.example.com/lib', ['*.example.com'], 'https://code.example.com/lib'],
    ['https://forge.example/x', 'https://a.b.example.com/lib', ['*.example.com'], 'https://a.b.example.com/lib'],
    ['https://forge.example/x', 'git@Other.example:lib', ['a.example', 'OTHER.example'], 'git@Other.example:lib'],
    ['/srv/git/site.git', '../lib.git', [], '/srv/git/lib.git'],
    ['file:///srv/git/site.git', '../deep/lib.git', [], 'file:///srv/git/deep/lib.git'],
    ['/srv/git/site.git', 'https://forge.example/lib', ['forge.example'], 'https://forge.example/lib'],

    ['https://forge.example/x', 'https://example.com/lib', ['*.example.com'], /is on example\.com/],
    ['https://forge.example/x', 'https://evilexample.com/lib', ['*.example.com'], /is on evilexample\.com/],
    ['https://forge.example/x', 'https://forge.example.evil.com/lib', [], /is on forge\.example\.evil\.com/],
    ['https://forge.example/x', 'https://forge.example:8443/lib', [], /is on forge\.example/],
    ['https://forge.example/a/site', '../../../../evil.example/lib', [], /evil\.example|no URL|is on https/],
    ['https://forge.example/a/site', '../../evil.example/lib', [], 'https://forge.example/evil.example/lib'],
    ['https://forge.example/x', 'http://forge.example/lib', [], /neither https nor ssh/],
    ['https://forge.example/x', 'http://other.example/lib', ['other.example'], /neither https nor ssh/],
    ['https://forge.example/x', 'git://forge.example/lib', [], /neither https nor ssh/],
    ['https://forge.example/x', 'https://ada:s3cret@forge.example/lib', [], /user or a password/],
    ['https://forge.example/x', 'https://ada@forge.example/lib', [], /user or a password/],
    ['https://forge.example/x', 'ssh://git:pw@forge.example/lib', [], /user or a password/],
    ['https://forge.example/x', String.raw`https://forge.example\@evil.example/lib`, [], /user or a password|no URL/],
    ['https://forge.example/x', 'https://evil.example#@forge.example/lib', [], /user or a password|no URL/],
    ['https://forge.example/x', 'https://evil.example?@forge.example/lib', [], /user or a password|no URL/],
    ['https://forge.example/x', 'https://forge.example/lib%0ahost=evil', [], /no URL/],
    ['https://forge.example/x', 'https://forge.example/lib\nhost=evil', [], /no URL/],
    ['https://forge.example/x', 'ext::sh -c "touch /tmp/x"', [], /no URL/],
    ['https://forge.example/x', 'ext::sh', ['ext'], /no URL/],
    ['https://forge.example/x', 'fd::17', [], /no URL/],
    ['https://forge.example/x', '--upload-pack=touch', [], /no URL/],
    ['https://forge.example/x', '-oProxyCommand=x@forge.example:lib', [], /no URL/],
    ['https://forge.example/x', 'ssh://-oProxyCommand=x/lib', [], /no URL/],
    ['https://forge.example/x', 'git@forge.example:-x', [], /no URL/],
    ['https://forge.example/x', '', [], /no URL/],
    ['https://forge.example/x', '/srv/git/lib.git', [], /directory of this machine/],
    ['https://forge.example/x', 'file:///srv/git/lib.git', [], /directory of this machine/],
    ['/srv/git/site.git', '/srv/git/lib.git', [], /as a relative URL/],
    ['/srv/git/site.git', '../../other/lib.git', [], /directory of this machine/],
    ['/srv/git/site.git', '../lib/../../other', [], /directory of this machine/],
    ['file:///srv/git/site.git', '../%2e%2e/other', [], /directory of this machine/],
    ['/site.git', '../home/ada/lib', [], /directory of this machine/],
  ]
  for (const [base, url, hosts, expected] of rows) {
    const verdict = judgeSubmodule(url, base.replace('token@', ''), hosts)
    const said = verdict.kind === 'allowed' ? verdict.url : verdict.why
    if (typeof expected === 'string') assert.equal(said, expected)
    else assert.ok(verdict.kind === 'refused' && expected.test(said), `${url} seen from ${base}: ${said}`)
  }
})
