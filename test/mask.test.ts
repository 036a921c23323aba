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
