/** The order of tags: by the version that a name tells, or by the date at which a tag was made. Both are total. */

/** What is compared of a name. Numbers are strings of digits without leading zeros: they may be longer than a number is exact. */
interface Version {
  /** `1.10` is 1, 10; null for a name without any number. */
  readonly numbers: readonly string[] | null
  /** The identifiers of a pre-release (`rc.1`), empty for a release. */
  readonly preRelease: readonly string[]
}

/**
 * Where the version begins in a name such as `v1`, `release-1.10`, `log4j-2.17` or `site/v3`: at the first number that begins a
 * word, with or without a `v`, or that has a dot in it. A number within a word counts only where there is no such.
 */
const BEGINS = [/(?<=^v?|[-_/@]v?)\d|(?<!\d)\d+(?=\.\d)/i, /\d/] as const
const VERSION = /^(\d+(?:\.\d+)*)[-._]?([^+]*)/

/**
 * Below zero where `one` is the lower version, above where it is the higher; zero for equal names alone. As semantic versions
 * (https://semver.org/#spec-item-11), with any prefix and any count of numbers, missing ones being 0. Build metadata does not
 * count. Names without a number are below all versions. What is equal by all this is ordered by name.
 */
export function compareVersions(one: string, other: string): number {
  const [a, b] = [versionOf(one), versionOf(other)]
  return compareNumbers(a.numbers, b.numbers) || comparePreReleases(a.preRelease, b.preRelease) || compare(one, other)
}

export interface DatedTag {
  readonly tag: string
  /** When it was made: seconds since the epoch, by whatever clock its maker had. */
  readonly madeAt: number
}

/** The same by date; tags of one second are ordered by version. */
export function compareDates(one: DatedTag, other: DatedTag): number {
  return one.madeAt - other.madeAt || compareVersions(one.tag, other.tag)
}

function versionOf(name: string): Version {
  const at = BEGINS.map((begin) => name.search(begin)).find((index) => index >= 0)
  const [, dotted, rest] = (at === undefined ? null : VERSION.exec(name.slice(at))) ?? []
  if (dotted === undefined) return { numbers: null, preRelease: [] }
  return { numbers: dotted.split('.').map(plain), preRelease: rest ? rest.split('.').map(plain) : [] }
}

/** A number without leading zeros; anything else as it is. */
function plain(identifier: string): string {
  return /^\d+$/.test(identifier) ? identifier.replace(/^0+(?=\d)/, '') : identifier
}

function compareNumbers(one: Version['numbers'], other: Version['numbers']): number {
  if (one === null || other === null) return Number(one !== null) - Number(other !== null)
  return firstDifference(one, other, '0', compareDigits)
}

function comparePreReleases(one: readonly string[], other: readonly string[]): number {
  // A release is above its pre-releases.
  if (one.length === 0 || other.length === 0) return Number(one.length === 0) - Number(other.length === 0)
  return firstDifference(one, other, MISSING, compareIdentifiers)
}

/** In the place of the identifier that the shorter of two pre-releases has not: below all others. */
const MISSING = ''

function compareIdentifiers(one: string, other: string): number {
  const [rank, otherRank] = [rankOf(one), rankOf(other)]
  if (rank !== otherRank) return rank - otherRank
  return rank === 1 ? compareDigits(one, other) : compare(one, other)
}

function rankOf(identifier: string): 0 | 1 | 2 {
  if (identifier === MISSING) return 0
  return /^\d+$/.test(identifier) ? 1 : 2
}

function firstDifference(
  one: readonly string[],
  other: readonly string[],
  missing: string,
  compareEach: (a: string, b: string) => number,
): number {
  const places = Math.max(one.length, other.length)
  for (let place = 0; place < places; place += 1) {
    const difference = compareEach(one[place] ?? missing, other[place] ?? missing)
    if (difference !== 0) return difference
  }
  return 0
}

function compareDigits(one: string, other: string): number {
  return one.length - other.length || compare(one, other)
}

/** By UTF-16 unit, not by a locale: the same on every machine. */
function compare(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1
}
