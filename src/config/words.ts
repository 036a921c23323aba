/**
 * What keys are made of: words, tables, strings that are parsed, each with a sentence for whoever gets it wrong, and with what
 * the JSON Schema and the page about the configuration tell of it (`.meta`): there its `kind` is its type in words.
 */
import { closest, distance } from 'fastest-levenshtein'
import * as z from 'zod'
import { DURATION, parseDuration, parseSize, quoted, REPOSITORY_OR_PATTERN, SIZE, wrongRepository } from './grammar.ts'

/** What the contract reserves for a later issue is refused in these words, wherever it stands. */
export const LATER = 'known, but not available in this version'

// --- Words that may be misspelt -----------------------------------------------------------------------------------

/** ` (did you mean "x"?)`, or nothing where no word is near. */
export function didYouMean(word: string, known: readonly string[]): string {
  if (known.length === 0) return ''
  const given = word.toLowerCase()
  const near = closest(given, known)
  const far = distance(given, near)
  const isNear = far <= Math.max(1, Math.floor(Math.max(given.length, near.length) / 3)) || isSwapped(given, near, far)
  return isNear && far < near.length ? `; did you mean \`${near}\`?` : ''
}

/** Two letters swapped are two steps, and one mistake. */
function isSwapped(given: string, near: string, far: number): boolean {
  const letters = (word: string): string => word.split('').toSorted().join('')
  return far === 2 && letters(given) === letters(near)
}

/** Below a `[table]` they belong to it, which is TOML's way and nobody's intention. */
const AT_THE_TOP = ['data_dir', 'scripts_dir', 'max_jobs', 'drain', 'keep_deliveries', 'keep_payloads', 'keep_runs']

/** A table that takes no other keys. Its message has a line for each unknown key, in the order of the issue's `keys`. */
export function table<Shape extends z.core.$ZodLooseShape>(shape: Shape, later: readonly string[] = []) {
  const known = Object.keys(shape)
  const unknown = (key: string): string => {
    if (later.includes(key)) return LATER
    if (AT_THE_TOP.includes(key)) return 'stands at the top of the file: put it above the first [table]'
    return `unknown key${didYouMean(key, known)}`
  }
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? issue.keys.map(unknown).join('\n') : undefined),
  })
}

/** One of `words`; the words of `later` belong to later issues. */
export function oneOf<const Words extends readonly [string, ...string[]]>(words: Words, later: readonly string[] = []) {
  return z.enum(words, {
    error: ({ input }) => {
      if (typeof input !== 'string') return undefined
      if (later.includes(input)) return `${quoted(input)} is ${LATER}`
      return `must be one of ${words.map(quoted).join(', ')}, not ${quoted(input)}${didYouMean(input, words)}`
    },
  })
}

/** A string that `parse` turns into something; null from it means that the text is not `what`. */
export function written<Value>(parse: (text: string) => Value | null, what: string) {
  return z.string().transform((text, context) => {
    const value = parse(text)
    if (value !== null) return value
    context.issues.push({ code: 'custom', message: `${quoted(text)} is not ${what}`, input: text })
    return z.NEVER
  })
}

/** A string that is as it should be where `wrong` gives null, and otherwise the sentence that follows the key. */
export function proven(wrong: (text: string) => string | null) {
  return z.string().superRefine((text, context) => {
    const message = wrong(text)
    if (message !== null) context.addIssue({ code: 'custom', message })
  })
}

/**
 * What the JSON Schema says of a string, which must fit one of `patterns`. It may be laxer than the validation, never stricter,
 * and keeps to what regular expressions have in every language: no looking ahead, no classes by name.
 */
export function looksLike(...patterns: readonly RegExp[]): { readonly pattern: string } {
  return { pattern: patterns.map(({ source }) => source.replaceAll('\\/', '/')).join('|') }
}

const DAY_MS = 86_400_000
/** Node's timers hold 2^31 - 1 ms; a longer one would fire at once. */
const MAX_TIMER_MS = 24 * DAY_MS
export const A_DURATION = 'a duration such as "90s", "5m", "1h30m" or "7d"'

export const duration = () =>
  written(parseDuration, A_DURATION).meta({ ...looksLike(DURATION), minLength: 1, kind: 'duration' })
export const timer = (least = 0, leastText = '') =>
  duration()
    .refine((ms) => ms <= MAX_TIMER_MS, 'must be at most "24d"')
    .refine((ms) => ms >= least, `must be at least ${quoted(leastText)}`)
export const size = () =>
  written(parseSize, 'a size such as "25MB", "512KB" or "1GB"')
    .refine((n) => n > 0, 'must not be 0')
    .meta({ ...looksLike(SIZE), kind: 'size' })
export const count = (least: number) => z.int().min(least)
export const path = () =>
  proven((text) => (text === '' || text.includes('\0') ? 'must be a path' : null)).meta({ minLength: 1, kind: 'path' })
const argument = proven((text) => (text.includes('\0') ? 'must not contain a NUL' : null))
export const argv = () =>
  z
    .array(argument)
    .refine(([program = '']) => program !== '' && !program.startsWith('-'), 'must begin with the program')
    .meta({ minItems: 1, kind: 'list: a program and its arguments' })
export const script = () => proven(wrongScript).meta({ ...looksLike(SCRIPT), kind: 'script' })
export const repository = proven(wrongRepository).meta({
  ...looksLike(REPOSITORY_OR_PATTERN),
  kind: 'repository or pattern',
})

/** No part is empty, `.` or `..`, and the first does not begin with `-`. */
const SCRIPT = /^(?:[^-./][^/]*|\.[^./][^/]*|\.\.[^/]+)(?:\/(?:[^./][^/]*|\.[^./][^/]*|\.\.[^/]+))*$/

function wrongScript(text: string): string | null {
  if (text.startsWith('/')) return 'must be a name in scripts_dir, not an absolute path'
  return SCRIPT.test(text) && !/\p{Cc}/u.test(text) ? null : `${quoted(text)} is not a name in scripts_dir`
}

// --- Secrets ------------------------------------------------------------------------------------------------------

const CREDENTIAL = /^[A-Za-z0-9_.@-]+$/

const sourceTable = table(
  {
    env: z
      .string()
      .min(1, 'must not be empty')
      .optional()
      .describe('The name of a variable, of the process or of `.env`.'),
    file: path().optional().describe('The path of a file; line breaks at its end do not count.'),
    credential: proven((text) =>
      CREDENTIAL.test(text) && !/^\.+$/.test(text) ? null : 'is not the name of a credential',
    )
      .meta(looksLike(CREDENTIAL))
      .optional()
      .describe('The name of a systemd credential (`LoadCredential=`).'),
  },
  ['exec'],
)
  .refine((source) => Object.keys(source).length === 1, {
    error: 'must have exactly one of env, file and credential',
    when: ({ issues }) => issues.length === 0,
  })
  .meta({ minProperties: 1, maxProperties: 1 })

/** A string is the value itself. */
export const source = () =>
  z
    .union([z.string(), sourceTable], {
      error: 'must be a string, or one of { env = … }, { file = … }, { credential = … }',
    })
    .meta({ kind: 'secret' })
export type Source = z.output<ReturnType<typeof source>>
