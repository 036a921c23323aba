/** In what forms a secret may turn up in a log: as it is, encoded, or line by line. */

/** Shorter values are left alone: blotting out every `1` or `no` would make a log unreadable and hide nothing. */
const MIN_CHARACTERS = 4
/** Shorter encodings may be ordinary text. From 5 characters on a secret has none so short. */
const MIN_ENCODED = 6
/** A line of a longer secret may be as common as `{` or `EOF`. */
const MIN_LINE = 8
const NO_SECRET = /^-----(?:BEGIN|END) [A-Z0-9 ]+-----$/
/** Where `base64` and PEM writers break their lines. */
const LINE_WIDTHS = [64, 76]

export interface SecretForm {
  readonly bytes: Buffer
  /** True for base64: line breaks with indentation may stand anywhere behind the first four bytes. */
  readonly wraps: boolean
}

/** Every form once; each is at least four bytes long. */
export function formsOf(values: readonly string[]): SecretForm[] {
  const plain = new Set<string>()
  const wrapping = new Set<string>()
  for (const value of values) {
    // `$(cat file)` loses the newline at the end, and so do most programs.
    const secret = value.replace(/^[\r\n]+|[\r\n]+$/g, '')
    if (secret.length < MIN_CHARACTERS) continue
    for (const text of new Set([secret, secret.replace(/\r?\n/g, '\n'), secret.replace(/\r?\n/g, '\r\n')])) {
      plain.add(text)
      for (const form of [...shellQuoted(text), ...jsonEscaped(text), ...percentEncoded(text)]) {
        if (form.length >= MIN_ENCODED) plain.add(form)
      }
      const encoded = base64(Buffer.from(text))
      for (const form of encoded.anywhere) if (form.length >= MIN_ENCODED) wrapping.add(form)
      for (const line of encoded.lines) if (line.length >= MIN_LINE) plain.add(line)
    }
    for (const line of linesOf(secret)) plain.add(line)
  }
  return [...plain]
    .map((form) => ({ bytes: Buffer.from(form), wraps: false }))
    .concat([...wrapping].map((form) => ({ bytes: Buffer.from(form), wraps: true })))
}

/** Also of a value that spells its newlines `\n`, as keys in variables often do. */
function linesOf(secret: string): string[] {
  const lines = secret.split(/\r?\n|(?:\\r)?\\n/)
  if (lines.length === 1) return []
  return lines.map((line) => line.trim()).filter((line) => line.length >= MIN_LINE && !NO_SECRET.test(line))
}

/** As `set -x` of bash and of dash writes it. */
function shellQuoted(text: string): string[] {
  return [text.replaceAll("'", String.raw`'\''`), text.replaceAll("'", `'"'"'`)]
}

/** JSON as different libraries write it: `/`, what HTML gives a meaning to, and letters beyond ASCII may be escaped. */
function jsonEscaped(text: string): string[] {
  const escaped = JSON.stringify(text).slice(1, -1)
  const slashes = [escaped, escaped.replaceAll('/', String.raw`\/`)]
  const html = slashes.flatMap((form) => [form, unicode(form, /[<>&]/g), unicode(form, /[<>&'=]/g)])
  const ascii = html.flatMap((form) => [form, unicode(form, /[^\0-\x7e]/g)])
  return ascii.flatMap((form) => [form, form.replace(/\\u[0-9a-f]{4}/g, (code) => `\\u${code.slice(2).toUpperCase()}`)])
}

function unicode(text: string, which: RegExp): string {
  return text.replace(which, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** What encoders change: RFC 3986, JavaScript, forms, Python, a URL's user part, encodeURI. */
const CHANGED = [
  /[^\w.~-]/g,
  /[^\w.~!*'()-]/g,
  /[^\w.*-]/g,
  /[^\w.~/-]/g,
  /[^\w.~!$&'()*+,%-]/g,
  /[^\w.~!*'();/?:@&=+$,#-]/g,
]

function percentEncoded(text: string): string[] {
  const bytes = Buffer.from(text).toString('latin1')
  return CHANGED.flatMap((changed) => {
    const lower = bytes.replace(changed, (byte) => `%${byte.charCodeAt(0).toString(16).padStart(2, '0')}`)
    const upper = lower.replace(/%[0-9a-f]{2}/g, (code) => code.toUpperCase())
    return [upper, lower].flatMap((form) => [form, form.replaceAll('%20', '+')])
  })
}

/**
 * `anywhere`: also as a part of a longer text that is encoded as one, behind a number of bytes that leaves 0, 1 or 2 over
 * when divided by 3; without the characters that depend on what is around it. `lines`: the secret alone, line by line.
 */
function base64(secret: Buffer): { readonly anywhere: readonly string[]; readonly lines: readonly string[] } {
  const anywhere = [0, 1, 2].flatMap((before) => {
    const encoded = Buffer.concat([Buffer.alloc(before), secret]).toString('base64')
    const bytes = before + secret.length
    const unpadded = encoded.replace(/=+$/, '')
    const ends = [encoded, unpadded, unpadded.slice(0, Math.floor((bytes * 8) / 6))]
    // The first whole group too: where a line breaks in front of it, less than a group is left on the line before.
    const starts = before === 0 ? [0] : [before + 1, 4]
    return ends.flatMap((end) => starts.map((start) => end.slice(start)))
  })
  const whole = secret.toString('base64')
  const lines = LINE_WIDTHS.flatMap((width) =>
    whole.length > width ? (whole.match(RegExp(`.{1,${width}}`, 'g')) ?? []) : [],
  )
  return { anywhere: withUrlSafe(anywhere), lines: withUrlSafe(lines) }
}

function withUrlSafe(forms: readonly string[]): string[] {
  return forms.flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_')])
}
