/** Blots secrets out of a stream of bytes, in every form that they take (`formsOf`). */
import { formsOf, type SecretForm } from './secret-forms.ts'

const BLOT = Buffer.from('***')
const NOTHING = Buffer.alloc(0)
/** No form is shorter. Its first bytes, as one number, are what the stream is searched for. */
const KEY_BYTES = 4
const FILTER_BITS = 16
/** Indentation that a line of wrapped base64 may have. */
const MAX_INDENT = 64
const [LF, CR, SPACE, TAB] = [0x0a, 0x0d, 0x20, 0x09]

export interface Masker {
  /** What may be shown by now. Holds back only an end that may be the beginning of a form. Does not keep `chunk`. */
  push(chunk: Buffer): Buffer
  /** What was held back. */
  flush(): Buffer
}

interface Span {
  readonly from: number
  readonly to: number
}

interface Found {
  /** The parts to blot out, in order, apart from each other. */
  readonly spans: readonly Span[]
  /** Where the first end begins that may become a form; the text's length if there is none. */
  readonly openFrom: number
}

/**
 * Every form of a value of at least 4 characters becomes `***`, however the stream is cut into chunks; forms that overlap in
 * the text become one `***`.
 */
export function createMasker(values: readonly string[]): Masker {
  const forms = formsOf(values)
  const find = createFinder(forms)
  let held: Buffer = NOTHING
  // How many of the held bytes belong to a form whose `***` is already out.
  let blotted = 0

  function pass(text: Buffer, final: boolean): Buffer {
    const { spans, openFrom } = find(text, blotted)
    const holdFrom = final ? text.length : openFrom
    const shown: Buffer[] = []
    let position = 0
    let blottedTo = 0
    for (const span of spans) {
      const isOut = span.from === 0 && blotted > 0
      if (span.from >= holdFrom && !isOut) break
      shown.push(text.subarray(position, span.from))
      if (!isOut) shown.push(BLOT)
      position = Math.min(span.to, holdFrom)
      blottedTo = span.to
    }
    // A copy: the caller reads its next chunk into the same memory.
    held = Buffer.from(text.subarray(holdFrom))
    blotted = Math.max(0, blottedTo - holdFrom)
    const rest = text.subarray(position, holdFrom)
    return shown.length === 0 ? rest : Buffer.concat([...shown, rest])
  }

  return {
    push: (chunk) => {
      if (forms.length === 0) return chunk
      return pass(held.length === 0 ? chunk : Buffer.concat([held, chunk]), false)
    },
    flush: () => (held.length === 0 ? NOTHING : pass(held, true)),
  }
}

/**
 * Looks at each byte once: four bytes, hashed, say in one read whether a form may begin with them, however many forms there
 * are. Only then forms are compared.
 */
function createFinder(forms: readonly SecretForm[]): (text: Buffer, blotted: number) => Found {
  const filter = new Uint8Array(1 << FILTER_BITS)
  const byKey = new Map<number, SecretForm[]>()
  /** What a form may begin with, shorter than a key. */
  const stubs = new Set<string>()
  for (const form of forms) {
    const key = form.bytes.readInt32BE()
    filter[slotOf(key)] = 1
    byKey.set(key, [...(byKey.get(key) ?? []), form])
    for (let length = 1; length < KEY_BYTES; length += 1) stubs.add(form.bytes.toString('latin1', 0, length))
  }

  return function find(text, blotted) {
    const found: Span[] = blotted > 0 ? [{ from: 0, to: blotted }] : []
    let openFrom = text.length
    for (let from = nextKey(filter, text, 0); from !== -1; from = nextKey(filter, text, from + 1)) {
      for (const form of byKey.get(text.readInt32BE(from)) ?? []) {
        const to = endOf(form, text, from)
        if (to === 'open') openFrom = Math.min(openFrom, from)
        else if (to !== null) found.push({ from, to })
      }
    }
    for (let from = Math.max(0, text.length + 1 - KEY_BYTES); from < openFrom; from += 1) {
      if (stubs.has(text.toString('latin1', from))) openFrom = from
    }
    return { spans: apart(found), openFrom }
  }
}

/** Where the next bytes begin, at `from` or behind, that may be a key; -1 if there are none. A loop of its own runs twice as fast. */
function nextKey(filter: Uint8Array, text: Buffer, from: number): number {
  const length = text.length
  let key = 0
  for (let index = from; index < length; index += 1) {
    key = (key << 8) | (text[index] ?? 0)
    if (filter[slotOf(key)] === 1 && index - from >= KEY_BYTES - 1) return index + 1 - KEY_BYTES
  }
  return -1
}

function slotOf(key: number): number {
  return Math.imul(key, 0x9e3779b1) >>> (32 - FILTER_BITS)
}

/** Where `form`, which begins at `from`, ends; `open` where the text ends before it, null where something else stands. */
function endOf({ bytes, wraps }: SecretForm, text: Buffer, from: number): number | 'open' | null {
  let at = from + KEY_BYTES
  for (let index = KEY_BYTES; index < bytes.length; index += 1) {
    if (wraps) at = behindBreak(text, at)
    if (at >= text.length) return 'open'
    if (text[at] !== bytes[index]) return null
    at += 1
  }
  return at
}

function behindBreak(text: Buffer, from: number): number {
  let at = text[from] === CR ? from + 1 : from
  if (at === text.length) return at
  if (text[at] !== LF) return from
  at += 1
  const limit = at + MAX_INDENT
  while (at < limit && (text[at] === SPACE || text[at] === TAB)) at += 1
  return at
}

function apart(found: Span[]): Span[] {
  found.sort((a, b) => a.from - b.from || b.to - a.to)
  const spans: Span[] = []
  for (const span of found) {
    const last = spans.at(-1)
    if (last === undefined || span.from >= last.to) spans.push(span)
    else spans[spans.length - 1] = { from: last.from, to: Math.max(last.to, span.to) }
  }
  return spans
}
