/** Blots values out of a stream of bytes. */

/** Shorter values are left alone: blotting out every `1` or `no` would make a log unreadable and hide nothing. */
const MIN_MASKED_CHARACTERS = 4
const BLOT = Buffer.from('***')
const NOTHING = Buffer.alloc(0)

export interface Masker {
  /** What may be shown by now. Holds back only an end that may be the beginning of a value. Does not keep `chunk`. */
  push(chunk: Buffer): Buffer
  /** What was held back. */
  flush(): Buffer
}

interface Span {
  readonly from: number
  readonly to: number
}

/**
 * Every occurrence of a value of at least 4 characters becomes `***`, however the stream is cut into chunks; values
 * that overlap in the text become one `***`.
 */
export function createMasker(values: readonly string[]): Masker {
  const secrets = [...new Set(values)]
    .filter((value) => value.length >= MIN_MASKED_CHARACTERS)
    .map((value) => Buffer.from(value))
  let held: Buffer = NOTHING
  // How many of the held bytes belong to a value whose `***` is already out.
  let blotted = 0

  function pass(text: Buffer, final: boolean): Buffer {
    const holdFrom = final ? text.length : Math.min(...secrets.map((secret) => beginningAt(text, secret)))
    const shown: Buffer[] = []
    let position = 0
    let blottedTo = 0
    for (const span of occurrences(text, secrets, blotted)) {
      const isOut = span.from === 0 && blotted > 0
      if (span.from >= holdFrom && !isOut) break
      shown.push(text.subarray(position, span.from))
      if (!isOut) shown.push(BLOT)
      position = Math.min(span.to, holdFrom)
      blottedTo = span.to
    }
    shown.push(text.subarray(position, holdFrom))
    const out = Buffer.concat(shown)
    // A copy: the caller reads its next chunk into the same memory.
    held = Buffer.from(text.subarray(holdFrom))
    blotted = Math.max(0, blottedTo - holdFrom)
    return out
  }

  return {
    push: (chunk) => {
      if (secrets.length === 0) return chunk
      return pass(held.length === 0 ? chunk : Buffer.concat([held, chunk]), false)
    },
    flush: () => (held.length === 0 ? NOTHING : pass(held, true)),
  }
}

/** Where the longest end of `text` begins that is a beginning of `secret`, but not all of it; the text's length if none. */
function beginningAt(text: Buffer, secret: Buffer): number {
  const first = secret.subarray(0, 1)
  let at = text.indexOf(first, Math.max(0, text.length - secret.length + 1))
  while (at !== -1) {
    if (text.subarray(at).equals(secret.subarray(0, text.length - at))) return at
    at = text.indexOf(first, at + 1)
  }
  return text.length
}

/** The parts of `text` to blot out, in order, apart from each other. The first `blotted` bytes are one from the start. */
function occurrences(text: Buffer, secrets: readonly Buffer[], blotted: number): Span[] {
  const found: Span[] = blotted > 0 ? [{ from: 0, to: blotted }] : []
  for (const secret of secrets) {
    for (let at = text.indexOf(secret); at !== -1; at = text.indexOf(secret, at + 1)) {
      found.push({ from: at, to: at + secret.length })
    }
  }
  found.sort((a, b) => a.from - b.from || b.to - a.to)
  const spans: Span[] = []
  for (const span of found) {
    const last = spans.at(-1)
    if (last === undefined || span.from >= last.to) spans.push(span)
    else spans[spans.length - 1] = { from: last.from, to: Math.max(last.to, span.to) }
  }
  return spans
}
