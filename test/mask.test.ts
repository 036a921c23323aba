import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createMasker } from '../src/launcher/mask.ts'

function masked(values: readonly string[], ...chunks: string[]): string {
  const masker = createMasker(values)
  const shown = chunks.map((chunk) => Buffer.from(masker.push(Buffer.from(chunk))))
  return Buffer.concat([...shown, masker.flush()]).toString()
}

test('every occurrence of a value becomes ***, the longest first', () => {
  assert.equal(masked(['hunter2'], 'a hunter2 b hunter2hunter2'), 'a *** b ******')
  assert.equal(masked(['pass', 'password'], 'password pass passwor'), '*** *** ***wor')
})

test('values that overlap leave nothing of either', () => {
  assert.equal(masked(['abcdef', 'defghi'], '<abcdefghi>'), '<***>')
  assert.equal(masked(['abcdef', 'defghi'], '<abcdef', 'ghi>'), '<***>')
  assert.equal(masked(['aaaa'], 'aaaaaa'), '***')
})

test('empty and short values are left alone', () => {
  assert.equal(masked(['', 'a', 'no', 'yes', 'true'], 'a no yes true'), 'a no yes ***')
})

test('only what may be the beginning of a value is held back', () => {
  const masker = createMasker(['secret'])
  assert.equal(masker.push(Buffer.from('see sec')).toString(), 'see ')
  assert.equal(masker.push(Buffer.from('ond')).toString(), 'second')
  assert.equal(masker.push(Buffer.from('secre')).toString(), '')
  assert.equal(masker.flush().toString(), 'secre')
})

test('a short value inside the held beginning of a longer one is masked at the end', () => {
  assert.equal(masked(['token-and-more', 'token'], 'my token-and'), 'my ***-and')
})

test('how the stream is cut does not change what is shown', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 60 })
  const secret = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 4, maxLength: 9 })
  fc.assert(
    fc.property(
      fc.array(letters, { maxLength: 8 }),
      fc.array(secret, { minLength: 1, maxLength: 4 }),
      (chunks, secrets) => {
        const whole = masked(secrets, chunks.join(''))
        assert.equal(masked(secrets, ...chunks), whole)
        assert.equal(masked(secrets, ...Array.from(chunks.join(''))), whole)
        for (const value of secrets) assert.ok(!whole.includes(value))
      },
    ),
    { numRuns: 2000 },
  )
})

// --- Forms ----------------------------------------------------------------------------------------------------------

const TOKEN = 'gl/pat+20~é"q\\r x?>'

test('base64 of a secret is masked, standard and URL-safe, padded and not, also as a part of a longer text', () => {
  for (const before of ['', 'u:', 'us:', 'usr:', 'user:']) {
    for (const behind of ['', '@', 'xyz']) {
      const encoded = Buffer.from(before + TOKEN + behind).toString('base64')
      const urlSafe = encoded.replaceAll('+', '-').replaceAll('/', '_')
      for (const form of [encoded, urlSafe, encoded.replace(/=+$/, ''), urlSafe.replace(/=+$/, '')]) {
        // At either side less than a group is left, which the neighbours decide as well.
        assert.match(masked([TOKEN], `<${form}>`), /^<[\w+/-]{0,7}\*\*\*[\w+/=-]{0,8}>$/, form)
      }
    }
  }
  assert.equal(masked(['hunter2'], `Basic ${Buffer.from('hunter2').toString('base64')}`), 'Basic ***')
})

test('base64 that a program has broken into lines is masked, wherever the break is', () => {
  const long = 'github_pat_11AAAAAAA0abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijk'
  for (const before of ['', 'a', 'ab', 'abc', 'x'.repeat(50), 'x'.repeat(55), 'x'.repeat(56), 'x'.repeat(57)]) {
    for (const [width, between] of [
      [76, '\n'],
      [64, '\r\n'],
      [76, '\n      '],
    ] as const) {
      const lines =
        Buffer.from(before + long)
          .toString('base64')
          .match(RegExp(`.{1,${width}}`, 'g')) ?? []
      const shown = masked([long], lines.join(between))
      assert.match(shown, /\*\*\*/)
      for (const part of shown.split('***')) {
        const known = Buffer.from(part.replace(/\s/g, ''), 'base64').toString('latin1')
        assert.ok(known.length <= before.length + 3, `${before.length} ${width} ${part}`)
      }
    }
  }
  const prefixed = (
    Buffer.from(long)
      .toString('base64')
      .match(/.{1,76}/g) ?? []
  ).map((line) => `web-1 | ${line}\n`)
  assert.equal(masked([long], prefixed.join('')), 'web-1 | ***\nweb-1 | ***\n')
})

test('URL-encoded and JSON-escaped secrets are masked, as different encoders write them', () => {
  const lower = (text: string) => text.replace(/%[0-9A-F]{2}/g, (code) => code.toLowerCase())
  const encoded = encodeURIComponent(TOKEN)
  const json = JSON.stringify(TOKEN).slice(1, -1)
  const forms = [
    encoded,
    lower(encoded),
    new URLSearchParams({ '': TOKEN }).toString().slice(1),
    encodeURI(TOKEN),
    json,
    json.replaceAll('/', '\\/'),
    json.replaceAll('é', '\\u00e9'),
    json.replaceAll('/', '\\/').replaceAll('é', '\\u00E9'),
    json.replaceAll('>', '\\u003e'),
  ]
  for (const form of forms) assert.equal(masked([TOKEN], `<${form}>`), '<***>', form)
  assert.equal(masked(["it's so"], String.raw`+ K='it'\''s so' J='it'"'"'s so'`), "+ K='***' J='***'")
})

const KEY = [
  '-----BEGIN OPENSSH PRIVATE KEY-----',
  'b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW',
  'QyNTUxOQAAACDOiS0mzkM1pTjTzJ0gQ8EAAAAtzc2gtZWQyNTUxOQAAACDOiS0mzkM1pTj',
  '1234567',
  '-----END OPENSSH PRIVATE KEY-----',
].join('\n')

test('of a secret of several lines each line is masked by itself, but no header of a key and no short line', () => {
  const lines = KEY.split('\n')
  const shown = '-----BEGIN OPENSSH PRIVATE KEY-----|***|***|1234567|-----END OPENSSH PRIVATE KEY-----'.split('|')
  for (const [before, behind] of [
    ['', '!'],
    ['    ', '!'],
    ['+ ', '\r'],
    ['log | ', ' |'],
  ] as const) {
    const text = lines.map((line) => `${before}${line}${behind}\n`).join('')
    const expected = shown.map((line) => `${before}${line}${behind}\n`).join('')
    for (const value of [KEY, `${KEY}\n`, KEY.replaceAll('\n', '\r\n'), KEY.replaceAll('\n', '\\n')]) {
      assert.equal(masked([value], text), expected)
    }
  }
})

test('a secret of several lines is masked as a whole, with either newline, escaped or encoded', () => {
  for (const value of [KEY, `${KEY}\n`, KEY.replaceAll('\n', '\r\n')]) {
    for (const text of [KEY, KEY.replaceAll('\n', '\r\n')]) {
      const forms = [text, JSON.stringify(text).slice(1, -1), encodeURIComponent(text)]
      for (const form of forms) assert.equal(masked([value], `<${form}>`), '<***>', form)
      assert.match(masked([value], `<${Buffer.from(`${text}\n`).toString('base64')}>`), /^<\*\*\*[\w=]{0,4}>$/)
    }
  }
  assert.equal(masked(['secret\n'], 'echo secret\n'), 'echo ***\n')
})

test('an ordinary text that looks like no form comes out as it went in, and at once', () => {
  const text = 'Compiled 12 modules in 340 ms, see https://example.com/?a=b%20c\n{"level":"info"}\nYWJj\n'
  const masker = createMasker([TOKEN, KEY, 'abc', 'hunter2', 'correct horse battery staple'])
  for (const line of text.split(/(?<=\n)/)) assert.equal(masker.push(Buffer.from(line)).toString(), line)
  assert.equal(masker.flush().length, 0)
})

test('in whatever form secrets are written and wherever the stream is cut, the same is shown, and none of them', () => {
  const secret = fc.string({
    unit: fc.constantFrom(...Array.from('aZ9/+=%&"\'\\<>~ \u00e9\u{1f511}\n')),
    minLength: 12,
    maxLength: 90,
  })
  const known = secret.filter((value) => value.trim().length >= 8 && !/[*]/.test(value))
  const encode: readonly ((value: string) => string)[] = [
    (value) => value,
    (value) => Buffer.from(value).toString('base64'),
    (value) => Buffer.from(`user:${value}`).toString('base64url'),
    (value) =>
      (
        Buffer.from(`us:${value}!`)
          .toString('base64')
          .match(/.{1,76}/g) ?? []
      ).join('\n'),
    (value) => encodeURIComponent(value),
    (value) => new URLSearchParams({ v: value }).toString(),
    (value) => JSON.stringify({ value }),
  ]
  const piece = fc.record({ which: fc.nat(3), how: fc.nat(encode.length - 1), noise: fc.string({ maxLength: 5 }) })
  fc.assert(
    fc.property(
      fc.array(known, { minLength: 1, maxLength: 4 }),
      fc.array(piece, { minLength: 1, maxLength: 5 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      (secrets, pieces, cuts) => {
        const written = pieces.map(({ which, how, noise }) => {
          const text = encode[how]?.(secrets[which % secrets.length] ?? '') ?? ''
          return { text, noise: noise.replaceAll('*', '') }
        })
        const stream = Buffer.from(written.map(({ text, noise }) => `${noise} ${text}\n`).join(''))
        const places = cuts.map((cut) => cut % (stream.length + 1)).toSorted((a, b) => a - b)
        const chunks = [...places, stream.length].map((place, index) => stream.subarray(places[index - 1] ?? 0, place))
        const whole = maskedBytes(secrets, [stream])
        assert.equal(maskedBytes(secrets, chunks), whole)
        for (const { text } of written) assert.ok(!whole.includes(Buffer.from(text).toString('latin1')), text)
      },
    ),
    { numRuns: 500 },
  )
})

function maskedBytes(values: readonly string[], chunks: readonly Buffer[]): string {
  const masker = createMasker(values)
  const shown = chunks.map((chunk) => Buffer.from(masker.push(chunk)))
  return Buffer.concat([...shown, masker.flush()]).toString('latin1')
}
