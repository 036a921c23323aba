import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { inflateRawSync } from 'node:zlib'
import { hasCode } from '../src/errors.ts'
import { CODEC, packPayload, unpackPayload } from '../src/payload-codec.ts'

const examples: { name: string; examples: Record<string, unknown>[] }[] = createRequire(import.meta.url)(
  '@octokit/webhooks-examples',
)

test('every real payload comes back as it was', () => {
  for (const payload of examples.flatMap((event) => event.examples)) {
    const text = JSON.stringify(payload)
    const { compressed, bytes } = packPayload(text)
    assert.equal(unpackPayload(compressed, CODEC), text)
    assert.equal(bytes, Buffer.byteLength(text))
  }
  assert.equal(unpackPayload(packPayload('').compressed, CODEC), '')
})

test('a push takes less than an eighth of its size', () => {
  const push = examples.find(({ name }) => name === 'push')?.examples[4]
  const { compressed, bytes } = packPayload(JSON.stringify(push))
  assert.ok(compressed.length < bytes / 8, `${compressed.length} of ${bytes} bytes`)
})

test('what the first version packed can be read for ever', () => {
  // Packed by codec 1: a changed dictionary would not give it back.
  const kept = 'wz3QDi5Z4CPlyIPhicm5qfqg7ErKCBlcE3SoDFQNI+a3sM8NJeonKdXWAgA='
  assert.deepEqual(JSON.parse(unpackPayload(Buffer.from(kept, 'base64'), 1)), {
    ref: 'refs/heads/main',
    repository: { full_name: 'acme/site', forks_url: 'https://api.github.com/repos/acme/site/forks' },
    project: { path_with_namespace: 'a/b' },
  })
})

test('a payload of a newer version is refused and not misread', () => {
  assert.throws(
    () => unpackPayload(packPayload('{}').compressed, CODEC + 1),
    (error: unknown) => hasCode(error, 'store'),
  )
})

test('without the dictionary nothing can be read, so it is part of the format', () => {
  assert.throws(() => inflateRawSync(packPayload(JSON.stringify(examples[0])).compressed))
})
