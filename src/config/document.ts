/** A TOML file as a value, and the place of each of its keys; and the list of what is wrong with it. */
import { type AST, getStaticTOMLValue, ParseError, parseTOML } from 'toml-eslint-parser'
import { LandfallError } from '../errors.ts'

/** Where a key is: `['target', 'site', 'repo']`; numbers count the elements of lists. */
export type Path = readonly (string | number)[]

export interface Place {
  readonly line: number
  readonly column: number
}

export interface Document {
  readonly value: Readonly<Record<string, unknown>>
  /** True where the file itself has this key. */
  has(path: Path): boolean
  /** Line and column, both from 1, of the key, or of the nearest table or list around it that is written in the file. */
  placeOf(path: Path): Place
}

/** Reads TOML 1.0. Throws `config` with the place of the first syntax error. */
export function parseDocument(text: string, file: string): Document {
  const places = new Map<string, Place>()
  const ast = parse(text.replace(/^\uFEFF/, ''), file)
  for (const node of ast.body[0].body) {
    if (node.type === 'TOMLTable') {
      noteHeader(places, node)
      for (const entry of node.body) noteEntry(places, node.resolvedKey, entry)
    } else {
      noteEntry(places, [], node)
    }
  }
  refuseProto(places, file)
  return {
    value: getStaticTOMLValue(ast),
    has: (path) => places.has(keyOf(path)),
    placeOf(path) {
      for (let length = path.length; length > 0; length--) {
        const place = places.get(keyOf(path.slice(0, length)))
        if (place !== undefined) return place
      }
      return { line: 1, column: 1 }
    },
  }
}

function parse(text: string, file: string): AST.TOMLProgram {
  try {
    return parseTOML(text)
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
    const what = error.message.charAt(0).toLowerCase() + error.message.slice(1)
    // The line itself is not repeated: it may hold a secret.
    throw new LandfallError(
      'config',
      `${file}:${error.lineNumber}:${error.column + 1}: syntax: this is not TOML from here on: ${what} (a key is written once, text is quoted, the elements of a list have commas between them)`,
    )
  }
}

/** Before the file becomes an object: a key of this name would write into the prototype of every object there is. */
function refuseProto(places: ReadonlyMap<string, Place>, file: string): void {
  for (const [key, { line, column }] of places) {
    const path: Path = JSON.parse(key)
    if (path.at(-1) === '__proto__')
      throw new LandfallError('config', `${file}:${line}:${column}: ${spelled(path)}: unknown key, and no name either`)
  }
}

/** `[a.b]` places `a` and `b`; a table of a list, `[[a]]`, has a number in its resolved key, placed like the word before. */
function noteHeader(places: Map<string, Place>, table: AST.TOMLTable): void {
  let words = 0
  for (const [index, part] of table.resolvedKey.entries()) {
    if (typeof part === 'string') words++
    noteOnce(places, table.resolvedKey.slice(0, index + 1), table.key.keys[words - 1] ?? table)
  }
}

function noteEntry(places: Map<string, Place>, parent: Path, entry: AST.TOMLKeyValue): void {
  let path = parent
  for (const part of entry.key.keys) {
    path = [...path, part.type === 'TOMLBare' ? part.name : part.value]
    noteOnce(places, path, part)
  }
  noteValue(places, path, entry.value)
}

function noteValue(places: Map<string, Place>, path: Path, value: AST.TOMLContentNode): void {
  if (value.type === 'TOMLInlineTable') for (const entry of value.body) noteEntry(places, path, entry)
  if (value.type !== 'TOMLArray') return
  for (const [index, element] of value.elements.entries()) {
    noteOnce(places, [...path, index], element)
    noteValue(places, [...path, index], element)
  }
}

/** The first mention counts. The parser counts columns from 0, people from 1. */
function noteOnce(places: Map<string, Place>, path: Path, node: { readonly loc: { readonly start: Place } }): void {
  const { line, column } = node.loc.start
  if (!places.has(keyOf(path))) places.set(keyOf(path), { line, column: column + 1 })
}

function keyOf(path: Path): string {
  return JSON.stringify(path)
}

export interface Problems {
  /** `what` is a sentence that begins with a verb or a quoted value: it follows the key. */
  add(path: Path, what: string): void
  areNone(): boolean
  /** Throws `config` with every problem, one a line, in the order of the file; returns where there is none. */
  throwIfAny(): void
}

export function createProblems(file: string, document: Document): Problems {
  const found: { readonly place: Place; readonly text: string }[] = []
  return {
    add(path, what) {
      const place = document.placeOf(path)
      const text = `${file}:${place.line}:${place.column}: ${spelled(path)}: ${what}`
      // What is wrong in [defaults] would else be said again by each target that takes it from there.
      if (!found.some((problem) => problem.text === text)) found.push({ place, text })
    },
    areNone: () => found.length === 0,
    throwIfAny() {
      if (found.length === 0) return
      found.sort((a, b) => a.place.line - b.place.line || a.place.column - b.place.column)
      throw new LandfallError('config', found.map((problem) => problem.text).join('\n'))
    },
  }
}

/** `hook.github.secrets[0].env`, as TOML writes keys. */
function spelled(path: Path): string {
  return path
    .map((part, index) => {
      if (typeof part === 'number') return `[${part}]`
      const word = /^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part)
      return index === 0 ? word : `.${word}`
    })
    .join('')
}
