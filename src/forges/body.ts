/** What all forges share in reading a verified delivery: content types, JSON, and fields that somebody else chose. */
import { isUtf8 } from 'node:buffer'
import { timingSafeEqual } from 'node:crypto'
import type { Change } from '../model.ts'
import { isRef, isRepository, isZeroSha, parseSha } from '../model.ts'
import type { Accepted, ForgeRequest } from './forge.ts'

export const UNAUTHENTIC: Accepted = { kind: 'unauthentic' }
export const UNSUPPORTED_TYPE: Accepted = { kind: 'unsupported-type' }

/** A value that could not be taken, as a sentence that names the field. */
export interface Problem {
  readonly problem: string
}

export function isProblem(value: unknown): value is Problem {
  return typeof value === 'object' && value !== null && 'problem' in value
}

/** The content type without its parameters: `json`, `form`, or null for any other or none. */
export function mediaType(headers: ForgeRequest['headers']): 'json' | 'form' | null {
  const type = headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase()
  if (type === 'application/json') return 'json'
  return type === 'application/x-www-form-urlencoded' ? 'form' : null
}

/** The body as text, byte for byte; null where it is not UTF-8. A byte order mark stays, since it was signed too. */
export function textOf(body: Uint8Array): string | null {
  return isUtf8(body) ? Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8') : null
}

/** Compares digests without telling, by its time, how much of them agrees. */
export function sameBytes(given: Uint8Array, expected: Uint8Array): boolean {
  return given.byteLength === expected.byteLength && timingSafeEqual(given, expected)
}

/** A JSON object whose fields are read with `field`. */
export type Payload = object

/**
 * A list in JSON takes three characters and, parsed, some 60 bytes: 25 MB of them would end a small machine. Real payloads
 * of 25 MB are mostly text, and have a tenth of this.
 */
const MAX_PARTS = 1_000_000

export function parsePayload(text: string): Payload | Problem {
  if (text.length > MAX_PARTS && hasTooManyParts(text)) {
    return { problem: `The payload has more than ${MAX_PARTS} objects, lists and fields.` }
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { problem: 'The payload is not JSON.' }
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { problem: `The payload is ${quoted(value)}, not a JSON object.` }
  }
  return value
}

/** True where there could be too many: brackets and colons inside of strings count too. */
function hasTooManyParts(text: string): boolean {
  let parts = 0
  for (const mark of ['{', '[', ':']) {
    // Not a loop over characters: searching is many times faster, and the marks are few in what is real.
    for (let at = text.indexOf(mark); at !== -1; at = text.indexOf(mark, at + 1)) {
      if (++parts > MAX_PARTS) return true
    }
  }
  return false
}

/** The value at `path`, as JSON has it: own fields only, and undefined wherever the way is blocked. */
export function field(payload: Payload, ...path: readonly string[]): unknown {
  let value: unknown = payload
  for (const name of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}

/** The name at `path`, or null where the payload has no such field. */
export function readRepository(payload: Payload, ...path: readonly string[]): string | null | Problem {
  const name = field(payload, ...path)
  if (name === undefined || name === null) return null
  return isRepository(name) ? name : misread(path.join('.'), name, 'a repository name')
}

/** The forge's number for the repository, or null: it only helps to notice a new name. */
export function readRepositoryId(payload: Payload, ...path: readonly string[]): number | null {
  const id = field(payload, ...path)
  return typeof id === 'number' && Number.isSafeInteger(id) && id > 0 ? id : null
}

/** The short name of the default branch, or null: a hint is not worth an error. */
export function readDefaultBranch(payload: Payload, ...path: readonly string[]): string | null {
  const branch = field(payload, ...path)
  return typeof branch === 'string' && isRef(`refs/heads/${branch}`) ? branch : null
}

/** GitHub's and GitLab's pushes agree on `ref`, `before` and `after`. */
export function readChange(payload: Payload): Change | Problem {
  const ref = field(payload, 'ref')
  if (!isRef(ref)) return misread('ref', ref, 'a full ref name')
  const before = field(payload, 'before')
  const after = field(payload, 'after')
  for (const [name, value] of [
    ['before', before],
    ['after', after],
  ] as const) {
    if (parseSha(value) === null && !isZeroSha(value)) return misread(name, value, 'a commit id')
  }
  if (isZeroSha(before) && isZeroSha(after)) {
    return { problem: 'The fields `before` and `after` are both zeros: nothing was pushed.' }
  }
  return { ref, before: parseSha(before), after: parseSha(after) }
}

function misread(path: string, value: unknown, expected: string): Problem {
  return {
    problem:
      value === undefined
        ? `The field \`${path}\` is missing.`
        : `The field \`${path}\` is ${quoted(value)}, which is not ${expected}.`,
  }
}

/** landfall's word for an event: `pull_request` and `Pull Request` are `pull-request`. It names scripts, so it is strict. */
export function eventWord(forgeEvent: string): string | Problem {
  const word = forgeEvent.toLowerCase().replace(/[ _]+/g, '-')
  return /^[a-z0-9]+(?:-[a-z0-9]+)*$/.test(word) && word.length <= 100
    ? word
    : { problem: `The event is called ${quoted(forgeEvent)}, which is not an event's name.` }
}

/** An id that a header gave, or null where it is missing, or too odd to be one. */
export function readGuid(header: string | undefined): string | null {
  return header !== undefined && /^[\x21-\x7e]{1,200}$/.test(header) ? header : null
}

const QUOTED_CHARACTERS = 80

/** A stranger's value for a sentence: short, in JSON's notation, and nothing that moves a terminal's cursor. */
function quoted(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object' && value !== null) return 'an object'
  const short = typeof value === 'string' && value.length > QUOTED_CHARACTERS
  const json = JSON.stringify(short ? `${value.slice(0, QUOTED_CHARACTERS)}…` : value) ?? 'missing'
  return json.replace(/[^\x20-\x7e…]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

export const ZERO_SHA = '0'.repeat(40)
