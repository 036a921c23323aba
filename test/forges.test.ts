import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { describe, test } from 'node:test'
import { Webhook } from 'standardwebhooks'
import type { Accepted, Forge, OutgoingDelivery } from '../src/forges/forge.ts'
import { FORGE } from '../src/forges/index.ts'
import type { ForgeName } from '../src/model.ts'
import { FORGES, parseSha } from '../src/model.ts'

const NOW = Date.UTC(2026, 10, 20, 12)
const BEFORE = parseSha('1'.repeat(40))
const AFTER = parseSha('a'.repeat(40))
const ZERO = '0'.repeat(40)
const SIGNING = `whsec_${Buffer.from('0123456789abcdef0123456789abcdef').toString('base64')}`
const OTHER_SIGNING = `whsec_${Buffer.from('fedcba9876543210fedcba9876543210').toString('base64')}`

const push: OutgoingDelivery = {
  event: 'push',
  repo: 'Acme/site',
  ref: 'refs/heads/main',
  before: BEFORE,
  after: AFTER,
  guid: '72d3162e-cc78-11e3-81ab-4c9367dc0958',
}

function accept(
  forge: Forge,
  { headers, body }: { headers: Record<string, string>; body: string | Uint8Array },
  secrets: readonly string[],
  now = NOW,
): Promise<Accepted> {
  return forge.accept({ headers, body: Buffer.from(body) }, secrets, now)
}

function omit(headers: Record<string, string>, ...names: string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)))
}

function announcementOf(accepted: Accepted) {
  assert.ok(accepted.kind === 'event' || accepted.kind === 'ping', JSON.stringify(accepted))
  return accepted.announcement
}

function detailOf(accepted: Accepted): string {
  assert.equal(accepted.kind, 'invalid', JSON.stringify(accepted))
  return accepted.kind === 'invalid' ? accepted.detail : ''
}

/** Every way of proving oneself, with the headers that carry the proof. */
const SCHEMES: readonly {
  readonly name: string
  readonly forge: ForgeName
  readonly secret: string
  readonly other: string
  readonly proof: string
  /** Whether the proof covers the body. */
  readonly signs: boolean
}[] = [
  { name: 'github', forge: 'github', secret: 'old', other: 'nëw', proof: 'x-hub-signature-256', signs: true },
  { name: 'gitlab with a token', forge: 'gitlab', secret: 'old', other: 'nëw', proof: 'x-gitlab-token', signs: false },
  {
    name: 'gitlab with a signing token',
    forge: 'gitlab',
    secret: SIGNING,
    other: OTHER_SIGNING,
    proof: 'webhook-signature',
    signs: true,
  },
]

test('every forge is judged', () => {
  assert.deepEqual(new Set(SCHEMES.map(({ forge }) => forge)), new Set(FORGES))
})

for (const { name, forge: forgeName, secret, other, proof, signs } of SCHEMES) {
  const forge = FORGE[forgeName]
  const made = (delivery: Partial<OutgoingDelivery> = {}, by = secret) =>
    forge.compose({ ...push, ...delivery }, by, NOW)

  describe(name, () => {
    test('a composed push is accepted and says what moved', async () => {
      const announcement = announcementOf(await accept(forge, made({ repoId: 4711 }), [secret]))
      assert.deepEqual(announcement, {
        guid: push.guid,
        event: 'push',
        forgeEvent: forgeName === 'github' ? 'push' : 'Push Hook',
        repo: 'Acme/site',
        repoId: 4711,
        changes: [{ ref: push.ref, before: BEFORE, after: AFTER }],
        defaultBranch: 'main',
        payload: null,
      })
    })

    test('any of several secrets may have signed, in any place', async () => {
      for (const by of [secret, other]) {
        for (const secrets of [
          [secret, other],
          [other, secret],
        ]) {
          assert.equal((await accept(forge, made({}, by), secrets)).kind, 'event')
        }
      }
    })

    test('a wrong secret, or a missing, empty or shortened proof is unauthentic', async () => {
      const { headers, body } = made()
      const value = headers[proof] ?? ''
      assert.notEqual(value, '')
      assert.equal((await accept(forge, { headers, body }, [other])).kind, 'unauthentic')
      assert.equal((await accept(forge, { headers: omit(headers, proof), body }, [secret])).kind, 'unauthentic')
      for (const wrong of ['', ' ', value.slice(0, -1), `${value}x`, `${value}, ${value}x`, 'sha256=', 'v1,', 'v1']) {
        const forged = await accept(forge, { headers: { ...headers, [proof]: wrong }, body }, [secret])
        assert.equal(forged.kind, 'unauthentic', wrong)
      }
    })

    if (signs) {
      test('a body that was altered is unauthentic', async () => {
        const { headers, body } = made()
        for (const altered of [`${body} `, body.replace('main', 'evil'), body.slice(0, -1), '']) {
          assert.equal((await accept(forge, { headers, body: altered }, [secret])).kind, 'unauthentic')
        }
      })
    }

    test('authentication precedes everything that could be said about the content', async () => {
      const { headers } = made()
      const odd = { headers: { ...headers, 'content-type': 'text/plain', [proof]: 'x' }, body: 'not json' }
      assert.equal((await accept(forge, odd, [secret])).kind, 'unauthentic')
    })

    test('only JSON, with or without a charset, and forms are types that a forge can send', async () => {
      const { headers, body } = made()
      const kinds: Record<string, string> = {}
      for (const type of [
        'application/json',
        'Application/JSON; charset=utf-8',
        'text/plain',
        'application/jsonp',
        'text/json, application/json',
        '',
      ]) {
        kinds[type] = (await accept(forge, { headers: { ...headers, 'content-type': type }, body }, [secret])).kind
      }
      assert.deepEqual(Object.values(kinds), ['event', 'event', ...Array(4).fill('unsupported-type')])
      assert.equal(
        (await accept(forge, { headers: omit(headers, 'content-type'), body }, [secret])).kind,
        'unsupported-type',
      )
    })

    test('what is composed for a deletion is what the forge itself sends', () => {
      const { body } = forge.compose({ ...push, event: 'push', before: BEFORE, after: null, guid: 'g' }, secret, NOW)
      const payload = JSON.parse(body)
      assert.deepEqual([payload.before, payload.after, payload.commits], [BEFORE, '0'.repeat(40), []])
      if (forge.name === 'github') assert.deepEqual([payload.deleted, payload.head_commit], [true, null])
      else assert.deepEqual([payload.checkout_sha, payload.total_commits_count], [null, 0])
    })

    test('a new ref has no before and a deleted one no after', async () => {
      const created = announcementOf(await accept(forge, made({ before: null, ref: 'refs/tags/v1' }), [secret]))
      assert.deepEqual(created.changes, [{ ref: 'refs/tags/v1', before: null, after: AFTER }])
      assert.equal(created.event, 'push')
      const deleted = announcementOf(await accept(forge, made({ after: null }), [secret]))
      assert.deepEqual(deleted.changes, [{ ref: push.ref, before: BEFORE, after: null }])
    })

    test('an event other than a push is an event without changes, in lower case with dashes', async () => {
      const { event, changes, repo } = announcementOf(await accept(forge, made({ event: 'merge-request' }), [secret]))
      assert.deepEqual({ event, changes, repo }, { event: 'merge-request', changes: [], repo: 'Acme/site' })
    })

    test('a payload that was given is sent as it is', async () => {
      const payload = '{ "object_kind" : "anything" }'
      assert.equal(made({ payload }).body, payload)
      assert.match(
        detailOf(await accept(forge, made({ payload }), [secret])),
        /(full_name|path_with_namespace)` is missing/,
      )
    })

    test('what is no JSON object is invalid and says so', async () => {
      for (const payload of ['nonsense', '[]', 'null', '"text"', '17', '{', '\ufeff{}', '{}{}']) {
        assert.match(detailOf(await accept(forge, made({ payload }), [secret])), /not (a )?JSON/, payload)
      }
    })

    test('a hundred thousand nested lists or objects neither crash nor pass', async () => {
      const depth = 100_000
      for (const payload of [
        '['.repeat(depth) + ']'.repeat(depth),
        `${'{"ref":'.repeat(depth)}1${'}'.repeat(depth)}`,
        '['.repeat(depth),
      ]) {
        assert.notEqual(detailOf(await accept(forge, made({ payload }), [secret])), '')
      }
    })

    test('fields named __proto__ or constructor change nothing', async () => {
      const smuggled = '{"__proto__":{"repository":{"full_name":"evil/x"},"project":{"path_with_namespace":"evil/x"}},'
      const body = made().body
      const payload = smuggled + body.slice(1)
      assert.equal(announcementOf(await accept(forge, made({ payload }), [secret])).repo, 'Acme/site')
      const alone = await accept(forge, made({ payload: '{"__proto__":{"ref":"x"},"constructor":1}' }), [secret])
      assert.match(detailOf(alone), /missing/)
      assert.equal(Object.hasOwn(Object.prototype, 'repository'), false)
    })

    test('a repository name that is none is invalid and is quoted short and harmless', async () => {
      const names = [
        '../etc',
        'acme/../x',
        'acme',
        '/acme/x',
        'acme/',
        'acme/a b',
        'acme/ü',
        '-x/y',
        'acme/-rf',
        'a/b.git',
      ]
      const odd = ['a\u001b[2Jb/c', 'a\u009b2Jb/c', 'acme/\u202e', 17, {}, [], `acme/${'x'.repeat(500)}`]
      for (const repo of [...names, ...odd]) {
        const payload = made().body.replaceAll('"Acme/site"', JSON.stringify(repo))
        const detail = detailOf(await accept(forge, made({ payload }), [secret]))
        assert.match(detail, /(full_name|path_with_namespace)` is .* not a repository name/)
        assert.ok(detail.length < 250 && /^[\x20-\x7e…]*$/.test(detail), detail)
      }
    })

    test('a ref that is none is invalid', async () => {
      for (const ref of [
        'main',
        '-x',
        'refs/heads/-x',
        'refs/heads/a..b',
        'refs/heads/a b',
        'refs/heads/',
        '',
        3,
        null,
      ]) {
        const payload = made().body.replace('"refs/heads/main"', JSON.stringify(ref))
        assert.match(detailOf(await accept(forge, made({ payload }), [secret])), /`ref` is .* not a full ref name/)
      }
    })

    test('a commit id that is none is invalid, and 64 digits are one', async () => {
      for (const [name, value] of [
        ['before', BEFORE],
        ['after', AFTER],
      ] as const) {
        for (const commit of ['', 'HEAD', 'a'.repeat(39), 'a'.repeat(41), 'g'.repeat(40), '0'.repeat(41), 7, null]) {
          const payload = made().body.replace(`"${name}":"${value}"`, `"${name}":${JSON.stringify(commit)}`)
          assert.match(
            detailOf(await accept(forge, made({ payload }), [secret])),
            new RegExp(`\`${name}\` is .* commit id`),
          )
        }
      }
      const long = parseSha('B'.repeat(64))
      const payload = made().body.replaceAll(String(AFTER), 'B'.repeat(64)).replaceAll(String(BEFORE), '0'.repeat(64))
      const { changes } = announcementOf(await accept(forge, made({ payload }), [secret]))
      assert.deepEqual(changes, [{ ref: push.ref, before: null, after: long }])
    })

    test('a push from nothing to nothing is invalid', async () => {
      const payload = made().body.replaceAll(String(AFTER), ZERO).replaceAll(String(BEFORE), ZERO)
      assert.match(detailOf(await accept(forge, made({ payload }), [secret])), /both zeros/)
    })

    test('a missing event, or one that could name a file elsewhere, is invalid', async () => {
      const { headers, body } = made()
      const header = forgeName === 'github' ? 'x-github-event' : 'x-gitlab-event'
      assert.match(detailOf(await accept(forge, { headers: omit(headers, header), body }, [secret])), /missing/)
      for (const event of ['../../bin/sh', 'a/b', '.', 'ü', 'x'.repeat(200), '-x', 'a--b']) {
        const named = await accept(forge, { headers: { ...headers, [header]: event }, body }, [secret])
        assert.match(detailOf(named), /not an event's name/)
      }
    })

    test('an id that is too long or has odd characters counts as none', async () => {
      const { headers, body } = made()
      const names = ['x-github-delivery', 'idempotency-key']
      const ids = Object.fromEntries(names.map((header) => [header, 'x'.repeat(300)]))
      const expected = proof === 'webhook-signature' ? push.guid : null
      assert.equal(
        announcementOf(await accept(forge, { headers: { ...headers, ...ids }, body }, [secret])).guid,
        expected,
      )
    })

    test('the form names the URL and the secret once each', () => {
      const values = forge.form('https://hooks.example.com/hooks/x', secret).map(({ value }) => value)
      assert.equal(values.filter((value) => value === secret).length, 1)
      assert.equal(values.filter((value) => value === 'https://hooks.example.com/hooks/x').length, 1)
    })
  })
}

test('the forms have the fields of the real ones, in their order', () => {
  assert.deepEqual(FORGE.github.form('https://x/hooks/github', 's'), [
    { field: 'Payload URL', value: 'https://x/hooks/github' },
    { field: 'Content type', value: 'application/json' },
    { field: 'Secret', value: 's' },
    { field: 'SSL verification', value: 'Enable SSL verification' },
    { field: 'Which events would you like to trigger this webhook?', value: 'Just the push event.' },
    { field: 'Active', value: 'checked' },
  ])
  const fields = (secret: string) => FORGE.gitlab.form('https://x/hooks/gitlab', secret).map(({ field }) => field)
  assert.deepEqual(fields('s'), ['URL', 'Secret token', 'Trigger', 'SSL verification'])
  assert.deepEqual(fields(SIGNING), ['URL', 'Signing token', 'Trigger', 'SSL verification'])
})

describe('GitHub in particular', () => {
  const forge = FORGE.github
  const signed = (body: string, headers: Record<string, string> = {}) => ({
    headers: {
      'content-type': 'application/json',
      'x-github-event': 'push',
      'x-github-delivery': push.guid,
      'x-hub-signature-256': `sha256=${createHmac('sha256', 's').update(body).digest('hex')}`,
      ...headers,
    },
    body,
  })

  test("GitHub's own example verifies", async () => {
    const headers = {
      'content-type': 'application/json',
      'x-github-event': 'push',
      'x-hub-signature-256': 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17',
    }
    const accepted = await accept(forge, { headers, body: 'Hello, World!' }, ["It's a Secret to Everybody"])
    assert.equal(detailOf(accepted), 'The payload is not JSON.')
  })

  test('the body of a form is signed as it stands, and its payload decoded with + and %2B told apart', async () => {
    const payload = JSON.stringify({ zen: '1 + 1', repository: { full_name: 'acme/site' } })
    const body = `payload=${encodeURIComponent(payload).replaceAll('%20', '+')}`
    assert.match(body, /1\+%2B\+1/)
    const form = { 'content-type': 'application/x-www-form-urlencoded', 'x-github-event': 'ping' }
    const accepted = await accept(forge, signed(body, form), ['s'])
    assert.equal(accepted.kind, 'ping')
    assert.equal(announcementOf(accepted).payload, payload)
    assert.match(detailOf(await accept(forge, signed('load=x', form), ['s'])), /no field `payload`/)
  })

  test('a signed body that is empty, or not UTF-8, is invalid; unsigned it is unauthentic', async () => {
    for (const [body, problem] of [
      [Buffer.from([0x7b, 0xff, 0x7d]), /not UTF-8/],
      [Buffer.alloc(0), /not JSON/],
    ] as const) {
      const signature = `sha256=${createHmac('sha256', 's').update(body).digest('hex')}`
      const headers = { ...signed('').headers, 'x-hub-signature-256': signature }
      assert.match(detailOf(await accept(forge, { headers, body }, ['other', 's'])), problem)
      assert.equal((await accept(forge, { headers, body }, ['other'])).kind, 'unauthentic')
      const plain = await accept(forge, { headers: { ...headers, 'content-type': 'text/plain' }, body }, ['s'])
      assert.equal(plain.kind, 'unsupported-type')
    }
  })

  test('the old SHA-1 signature proves nothing', async () => {
    const { headers, body } = signed('{}')
    const sha1 = `sha1=${createHmac('sha1', 's').update(body).digest('hex')}`
    const old = { ...omit(headers, 'x-hub-signature-256'), 'x-hub-signature': sha1 }
    assert.equal((await accept(forge, { headers: old, body }, ['s'])).kind, 'unauthentic')
  })

  test('a ping needs no repository', async () => {
    const accepted = await accept(forge, signed('{"zen":"x"}', { 'x-github-event': 'ping' }), ['s'])
    assert.equal(accepted.kind, 'ping')
    assert.equal(announcementOf(accepted).repo, null)
  })

  test('every example of octokit is understood, and every push in it names its ref and commits', async () => {
    const require = createRequire(import.meta.url)
    const file = require.resolve('@octokit/webhooks-examples/api.github.com/index.json')
    const events = JSON.parse(readFileSync(file, 'utf8')) as { name: string; examples: Record<string, unknown>[] }[]
    let pushes = 0
    for (const { name, examples } of events) {
      for (const example of examples) {
        const accepted = await accept(forge, signed(JSON.stringify(example), { 'x-github-event': name }), ['s'])
        assert.equal(accepted.kind, name === 'ping' ? 'ping' : 'event', `${name}: ${JSON.stringify(accepted)}`)
        const { event, changes, repo } = announcementOf(accepted)
        assert.equal(event, name.replaceAll('_', '-'))
        if (name !== 'push') continue
        pushes++
        const { ref, before, after } = example
        assert.equal(repo, (example['repository'] as { full_name: string }).full_name)
        assert.deepEqual(changes, [{ ref, before: parseSha(before), after: parseSha(after) }])
      }
    }
    assert.ok(pushes > 5 && events.length > 50)
  })
})

describe('GitLab in particular', () => {
  const forge = FORGE.gitlab
  const signedBy = (secret: string, delivery: Partial<OutgoingDelivery> = {}) =>
    forge.compose({ ...push, ...delivery }, secret, NOW)

  test("the vector of Standard Webhooks verifies, at the vector's time", async () => {
    const headers = {
      'content-type': 'application/json',
      'x-gitlab-event': 'Push Hook',
      'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      'webhook-timestamp': '1614265330',
      'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    }
    const secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw']
    const accepted = await accept(forge, { headers, body: '{"test": 2432232314}' }, secrets, 1614265330_000)
    assert.match(detailOf(accepted), /path_with_namespace/)
  })

  test('the standardwebhooks package signs what we verify and verifies what we sign', async () => {
    const now = Date.now()
    const { headers, body } = forge.compose({ ...push, repo: 'grüppe/x', payload: '{"ü":"€"}' }, SIGNING, now)
    assert.deepEqual(new Webhook(SIGNING).verify(body, headers), { ü: '€' })
    const theirs = new Webhook(SIGNING).sign('id-1', new Date(now), body)
    const signed = { ...headers, 'webhook-id': 'id-1', 'webhook-signature': theirs }
    assert.notEqual((await accept(forge, { headers: signed, body }, [SIGNING], now)).kind, 'unauthentic')
    assert.throws(() => new Webhook(OTHER_SIGNING).verify(body, headers))
  })

  test('one right signature among several is enough, and only v1 counts', async () => {
    const { headers, body } = signedBy(SIGNING)
    const right = headers['webhook-signature'] ?? ''
    const kindOf = async (signature: string) =>
      (await accept(forge, { headers: { ...headers, 'webhook-signature': signature }, body }, [SIGNING])).kind
    assert.equal(await kindOf(`v1,${Buffer.alloc(32).toString('base64')} v1a,x ${right}`), 'event')
    assert.equal(await kindOf(right.replace('v1,', 'v1a,')), 'unauthentic')
    assert.equal(await kindOf(right.replace('v1,', 'v2,')), 'unauthentic')
  })

  test('a timestamp more than five minutes off, in either direction, is unauthentic', async () => {
    const { headers, body } = signedBy(SIGNING)
    const kindAt = async (seconds: number) =>
      (await accept(forge, { headers, body }, [SIGNING], NOW + seconds * 1000)).kind
    assert.equal(await kindAt(300), 'event')
    assert.equal(await kindAt(-300), 'event')
    assert.equal(await kindAt(301), 'unauthentic')
    assert.equal(await kindAt(-301), 'unauthentic')
    const other = { ...headers, 'webhook-timestamp': String(NOW / 1000 + 1) }
    assert.equal((await accept(forge, { headers: other, body }, [SIGNING])).kind, 'unauthentic')
  })

  test('the id is covered by the signature', async () => {
    const { headers, body } = signedBy(SIGNING)
    const other = { ...headers, 'webhook-id': 'another' }
    assert.equal((await accept(forge, { headers: other, body }, [SIGNING])).kind, 'unauthentic')
  })

  test('a signature that is there must verify, even beside a right token', async () => {
    const { headers, body } = signedBy('token')
    for (const signature of ['', 'v1,AAAA']) {
      const both = {
        ...headers,
        'webhook-id': 'x',
        'webhook-timestamp': String(NOW / 1000),
        'webhook-signature': signature,
      }
      assert.equal((await accept(forge, { headers: both, body }, ['token'])).kind, 'unauthentic')
      assert.equal((await accept(forge, { headers: both, body }, ['token', SIGNING])).kind, 'unauthentic')
    }
  })

  test('a hook with a signing token accepts no bare token', async () => {
    assert.equal((await accept(forge, signedBy('token'), ['token', SIGNING])).kind, 'unauthentic')
    const asToken = { ...signedBy('x'), headers: { ...signedBy('x').headers, 'x-gitlab-token': SIGNING } }
    assert.equal((await accept(forge, asToken, [SIGNING])).kind, 'unauthentic')
  })

  test('a signing token without a key verifies nothing', async () => {
    const { headers, body } = signedBy(SIGNING)
    const content = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
    const forged = `v1,${createHmac('sha256', '').update(content).digest('base64')}`
    const signed = { ...headers, 'webhook-signature': forged }
    assert.equal((await accept(forge, { headers: signed, body }, ['whsec_'])).kind, 'unauthentic')
  })

  test('tag pushes and the pushes of system hooks are pushes, and the exact event is kept', async () => {
    const tag = signedBy('t', { ref: 'refs/tags/v1' })
    assert.equal(tag.headers['x-gitlab-event'], 'Tag Push Hook')
    for (const { headers, body } of [tag, signedBy('t')]) {
      for (const hook of [headers['x-gitlab-event'] ?? '', 'System Hook']) {
        const sent = { headers: { ...headers, 'x-gitlab-event': hook }, body }
        const { event, forgeEvent, changes } = announcementOf(await accept(forge, sent, ['t']))
        assert.deepEqual(
          { event, forgeEvent, changed: changes.length },
          { event: 'push', forgeEvent: hook, changed: 1 },
        )
      }
    }
    const created = signedBy('t', { payload: '{"event_name":"project_create"}' })
    const system = { ...created, headers: { ...created.headers, 'x-gitlab-event': 'System Hook' } }
    assert.equal(announcementOf(await accept(forge, system, ['t'])).event, 'project-create')
  })

  test('nested groups are repositories, and the id is webhook-id before Idempotency-Key', async () => {
    const { headers, body } = signedBy(SIGNING, { repo: 'group/sub/name' })
    const both = { headers: { ...headers, 'idempotency-key': 'other' }, body }
    const { repo, guid } = announcementOf(await accept(forge, both, [SIGNING]))
    assert.deepEqual({ repo, guid }, { repo: 'group/sub/name', guid: push.guid })
    const bare = signedBy('t')
    const none = { ...bare, headers: omit(bare.headers, 'idempotency-key') }
    assert.equal(announcementOf(await accept(forge, none, ['t'])).guid, null)
  })

  test('with a token, bytes that are not UTF-8, and forms, are invalid', async () => {
    const { headers } = signedBy('t')
    assert.match(detailOf(await accept(forge, { headers, body: Buffer.from([0x7b, 0xff]) }, ['t'])), /not UTF-8/)
    const form = { ...headers, 'content-type': 'application/x-www-form-urlencoded' }
    assert.match(detailOf(await accept(forge, { headers: form, body: 'payload={}' }, ['t'])), /form/)
  })
})
