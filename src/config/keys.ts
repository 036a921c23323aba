/** The file against the schema: every wrong key becomes a problem with its place, and the rest goes on without it. */
import type * as z from 'zod'
import type { Document, Path, Problems } from './document.ts'
import { landfallToml, type Settings } from './schema.ts'
import type { TargetSettings } from './target-keys.ts'

type Issue = z.core.$ZodIssue
type Table = Record<string, unknown>

export interface Checked {
  /** What is right in the file, with defaults filled in and `[defaults]` poured into every target. */
  readonly settings: Settings
  /** True where the setting holds for this table, from its own words or from `[defaults]`. */
  isGiven(path: Path): boolean
  /** Where the file says it: a target's setting may stand in `[defaults]`. */
  writtenAt(path: Path): Path
  /** True where the setting was left out because it is wrong: what follows from its absence is no news. */
  isFaulty(path: Path): boolean
}

export function checkKeys(document: Document, problems: Problems): Checked {
  const raw: Table = structuredClone(document.value)
  const faulty = new Set<string>()
  // A rule about a whole table is only asked once its parts are right, so what is wrong is taken out until nothing is.
  let known = -1
  while (faulty.size > known) {
    known = faulty.size
    for (const issue of landfallToml.safeParse(raw).error?.issues ?? []) {
      for (const { path, what } of explain(issue, raw)) {
        problems.add(path, what)
        faulty.add(JSON.stringify(settingOf(path)))
      }
    }
    for (const path of faulty) remove(raw, JSON.parse(path))
  }
  pourDefaults(raw)
  const writtenAt = (path: Path): Path => {
    const byDefault = ['defaults', ...path.slice(2)]
    return path[0] === 'target' && !document.has(path) && document.has(byDefault) ? byDefault : path
  }
  return {
    settings: landfallToml.parse(raw),
    isGiven: (path) => valueAt(raw, path) !== undefined,
    writtenAt,
    isFaulty: (path) => faulty.has(JSON.stringify(writtenAt(path))),
  }
}

// --- What zod found, in words -------------------------------------------------------------------------------------

interface Finding {
  readonly path: Path
  readonly what: string
}

function explain(issue: Issue, raw: unknown, around: Path = []): readonly Finding[] {
  const path: Path = [...around, ...issue.path.filter((part) => typeof part !== 'symbol')]
  const only = (what: string): readonly Finding[] => [{ path, what }]
  if (issue.code === 'unrecognized_keys') {
    // The schema's message has a line for each key.
    const lines = issue.message.split('\n')
    return issue.keys.map((key, index) => ({ path: [...path, key], what: lines[index] ?? 'unknown key' }))
  }
  if (issue.code === 'invalid_union') {
    const meant = issue.errors.find((branch) => !branch.some(isAnotherKind))
    return meant?.flatMap((inner) => explain(inner, raw, path)) ?? only(issue.message)
  }
  if (issue.code === 'invalid_type')
    return only(`must be ${kindNames[issue.expected] ?? issue.expected}, not ${kindOf(valueAt(raw, path))}`)
  if (issue.code === 'too_small' && issue.origin === 'number') return only(`must be at least ${issue.minimum}`)
  return only(issue.message)
}

/** True for an issue which says that the value is not of this branch of a union at all. */
function isAnotherKind(issue: Issue): boolean {
  return issue.path.length === 0 && (issue.code === 'invalid_type' || issue.code === 'invalid_value')
}

const kindNames: Readonly<Record<string, string>> = {
  string: 'a string',
  int: 'a whole number',
  number: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a table',
  record: 'a table',
}

/** Never the value: it may be a secret. */
function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (value instanceof Date) return 'a date'
  if (typeof value === 'number') return Number.isInteger(value) ? 'a number' : 'a fraction'
  return { string: 'a string', boolean: 'a boolean', object: 'a table' }[typeof value as string] ?? 'nothing'
}

// --- Settings -----------------------------------------------------------------------------------------------------

/** Settings whose entries are judged one by one, so that a wrong one does not hide what is wrong with the next. */
const SEVERAL: readonly unknown[] = ['env', 'secrets']

/** How deep a setting of a table lies. A map, because the file may have a key that every object has, such as `constructor`. */
const DEPTHS: ReadonlyMap<unknown, number> = new Map([
  ['hook', 3],
  ['target', 3],
  ['server', 2],
  ['defaults', 2],
])

/** What is left out for what is wrong at `path`: the whole setting, or its one entry. */
function settingOf(path: Path): Path {
  const depth = DEPTHS.get(path[0]) ?? 1
  return path.slice(0, SEVERAL.includes(path[depth - 1]) ? depth + 1 : depth)
}

function remove(raw: Table, path: Path): void {
  const parent = valueAt(raw, path.slice(0, -1))
  const key = path.at(-1)
  // The entries of a list keep their numbers; whoever reads them asks `isFaulty`.
  if (Array.isArray(parent) && typeof key === 'number') parent[key] = ''
  else if (isTable(parent) && key !== undefined) delete parent[key]
}

/** A target's own word on one of these leaves no room for the default of the other. */
const RIVALS: Readonly<Record<string, readonly string[]>> = {
  script: ['run'],
  run: ['script'],
  branches: ['tags', 'tag_order'],
  tags: ['branches'],
}
type Checkout = TargetSettings['checkout']
/** What only some checkouts have; a default of it means nothing to a target with another one. */
const OF_CHECKOUT: Readonly<Partial<Record<keyof TargetSettings, readonly Checkout[]>>> = {
  current: ['release'],
  activate: ['release'],
  keep_releases: ['release'],
  path: ['inplace'],
  clean: ['inplace'],
  adopt: ['inplace'],
  restore_on_failure: ['inplace'],
  paths: ['release', 'inplace'],
  submodules: ['release', 'inplace'],
  lfs: ['release', 'inplace'],
}

/** The keys that a target with this checkout has no use for. */
export function wordsOfOthers(checkout: unknown): readonly (keyof typeof OF_CHECKOUT)[] {
  const words = Object.keys(OF_CHECKOUT) as (keyof typeof OF_CHECKOUT)[]
  return words.filter((word) => !OF_CHECKOUT[word]?.some((owner) => owner === checkout))
}

function pourDefaults(raw: Table): void {
  const targets = isTable(raw['target']) ? raw['target'] : {}
  const defaults = isTable(raw['defaults']) ? raw['defaults'] : {}
  for (const [name, own] of Object.entries(targets)) {
    if (!isTable(own)) continue
    const implied = 'path' in own || 'path' in defaults ? 'inplace' : 'release'
    const checkout = own['checkout'] ?? defaults['checkout'] ?? implied
    const fitting = Object.entries(defaults).filter(([key]) => isOfUse(key, own, defaults, checkout))
    targets[name] = { ...Object.fromEntries(fitting), checkout, ...own }
  }
}

/** False for a default that means nothing to a target, or for which its own words leave no room. */
function isOfUse(key: string, own: Table, defaults: Table, checkout: unknown): boolean {
  if (RIVALS[key]?.some((rival) => rival in own)) return false
  if (key === 'tag_order') return 'tags' in own || ('tags' in defaults && !('branches' in own))
  if (key === 'lane') return own['queue'] !== 'parallel'
  // Where it is [defaults] that says the checkout, [defaults] contradicts itself, and that is told.
  const saysCheckout = 'checkout' in own || !('checkout' in defaults)
  return !(saysCheckout && wordsOfOthers(checkout).some((word) => word === key))
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (inner, part) => (isTable(inner) || Array.isArray(inner) ? (inner as Table)[part] : undefined),
    value,
  )
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}
