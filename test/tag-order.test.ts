import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compareDates, compareVersions } from '../src/tag-order.ts'

/** Each row from the lowest to the highest. */
const ROWS: Readonly<Record<string, readonly string[]>> = {
  'numbers count as numbers': ['v1', 'v1.2', 'v1.9', 'v1.10', 'v2', 'v10'],
  'missing numbers are 0': ['1.0-rc', '1', '1.0.0.1', '1.0.1'],
  'a count of numbers is not asked for': ['1.2.3', '1.2.3.4', '1.2.3.4.5', '1.2.3.10', '2024.11.20'],
  'pre-releases are below their release, as semver.org has them': [
    '1.0.0-alpha',
    '1.0.0-alpha.1',
    '1.0.0-alpha.beta',
    '1.0.0-beta',
    '1.0.0-beta.2',
    '1.0.0-beta.11',
    '1.0.0-rc.1',
    '1.0.0',
  ],
  'rc.10 follows rc.2': ['v1.0.0-rc.2', 'v1.0.0-rc.10', 'v1.0.0', 'v1.0.1-rc.1'],
  'a number is below a word': ['1.0.0-9', '1.0.0-10', '1.0.0-a'],
  'a pre-release needs no dash': ['1.0b1', '1.0rc1', '1.0', '1.1rc1'],
  'leading zeros mean nothing': ['1.08', '1.9', '1.010', '1.11'],
  'a prefix may be of any length, and have numbers in its words': [
    'log4j-2.9',
    'log4j-2.17-rc.1',
    'log4j-2.17',
    'log4j-10',
  ],
  'a prefix may be a path': ['site/v9', 'site/v10-rc1', 'site/v10'],
  'a prefix of k8s is no version 8': ['k8s-v1.2', 'k8s-v7.0.0', 'k8s-v10.0'],
  'a prefix does not count': ['release-1.2', 'v1.3', '1.4', 'site1.5'],
  'a second number after a dash is of a pre-release': ['v2-rc.1.2', 'v2', 'site2.1-1', 'site2.1'],
  'numbers have no largest one': [
    'v9007199254740992',
    'v9007199254740993',
    `v1${'0'.repeat(300)}`,
    `v1${'0'.repeat(299)}1`,
  ],
  'without a number a tag is below all versions': ['latest', 'stable', 'v', 'v0.0.0-0', 'v0'],
  'what is equal is ordered by name': ['v1.0', 'v1.0.0+a', 'v1.0.0+b'],
}

for (const [claim, row] of Object.entries(ROWS)) {
  test(`of versions: ${claim}`, () => {
    for (const [place, one] of row.entries()) {
      for (const [otherPlace, other] of row.entries()) {
        const [difference, expected] = [compareVersions(one, other), Math.sign(place - otherPlace)]
        assert.equal(Math.sign(difference), expected, `${one} and ${other}`)
      }
    }
  })
}

test('build metadata makes no version higher', () => {
  assert.ok(compareVersions('1.0.0+99', '1.0.1') < 0)
  assert.ok(compareVersions('1.0.0-rc.1+99', '1.0.0') < 0)
  assert.ok(compareVersions('1.0.0-rc.1+z', '1.0.0-rc.2+a') < 0)
})

/** Names that share much, so that every rule is met, and any others. */
const piece = fc.constantFrom(
  'v',
  '0',
  '1',
  '2',
  '10',
  '01',
  '.',
  '-',
  '/',
  '+',
  'rc',
  'a',
  'release-',
  '99999999999999999999',
)
const name = fc.oneof(
  fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join('')),
  fc.string({ maxLength: 12, unit: 'binary' }),
)
const tag = fc.record({ tag: name, madeAt: fc.integer({ min: -2, max: 2 }) })

test('both orders are total: the same from either side, without circles, and equal only to itself', () => {
  fc.assert(
    fc.property(tag, tag, tag, (a, b, c) => {
      const orders = [
        (one: typeof a, other: typeof a) => Math.sign(compareVersions(one.tag, other.tag)),
        (one: typeof a, other: typeof a) => Math.sign(compareDates(one, other)),
      ]
      for (const [index, order] of orders.entries()) {
        assert.equal(order(a, b) + order(b, a), 0)
        assert.equal(order(a, b) === 0, a.tag === b.tag && (index === 0 || a.madeAt === b.madeAt))
        if (order(a, b) <= 0 && order(b, c) <= 0) assert.ok(order(a, c) <= 0)
      }
    }),
    { numRuns: 20_000 },
  )
})

test('the date comes first, and the version decides between tags of one second', () => {
  assert.ok(compareDates({ tag: 'v1', madeAt: 2 }, { tag: 'v2', madeAt: 1 }) > 0)
  assert.ok(compareDates({ tag: 'v1.9', madeAt: 1 }, { tag: 'v1.10', madeAt: 1 }) < 0)
})

test('a name that somebody made very long is compared in no time', () => {
  const [long, longer] = ['1'.repeat(50_000), `${'1.'.repeat(25_000)}1-${'a.'.repeat(25_000)}`]
  // Of the processor: what else the machine does meanwhile does not count.
  const start = process.cpuUsage()
  assert.ok(compareVersions(`v${longer}`, `v${long}`) < 0)
  assert.ok(compareVersions(`x${'-'.repeat(50_000)}`, long) < 0)
  assert.ok(process.cpuUsage(start).user < 2_000_000)
})
