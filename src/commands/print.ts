/** How the verbs show things: tables and colour for people on a terminal, tab-separated lines for programs. */
import { stripVTControlCharacters, styleText } from 'node:util'
import Table from 'cli-table3'
import type { Listen, Target } from '../config/config.ts'
import type { RunState } from '../model.ts'

type Style = Parameters<typeof styleText>[0]

/** Where a verb writes to, and for whom. */
export interface Screen {
  readonly isTerminal: boolean
  readonly columns: number
  /** Milliseconds since the epoch, for relative times. */
  readonly now: number
  line(text?: string): void
  /** Coloured on a terminal, unless NO_COLOR says otherwise. */
  paint(style: Style, text: string): string
}

export function openScreen(out: NodeJS.WriteStream = process.stdout): Screen {
  const isTerminal = out.isTTY === true
  return {
    isTerminal,
    columns: isTerminal ? Math.max(out.columns || 80, 40) : 80,
    now: Date.now(),
    line: (text = '') => out.write(`${text}\n`),
    paint: (style, text) => (isTerminal ? styleText(style, text, { stream: out }) : text),
  }
}

/** Exactly what the API answered, indented. */
export function printJson(screen: Screen, value: unknown): void {
  screen.line(JSON.stringify(value, null, 2))
}

/**
 * A table as wide as the terminal, its last column cut where it must be; off a terminal a line a row, cells separated by
 * tabs, without a heading.
 */
export function printTable(screen: Screen, headings: readonly string[], rows: readonly (readonly string[])[]): void {
  if (!screen.isTerminal) {
    for (const row of rows) screen.line(row.map((cell) => oneLine(cell) || '-').join('\t'))
    return
  }
  const whole = rows.map((row) => row.map(withoutControls))
  const gaps = 2 * (headings.length - 1)
  const widths = fitting(
    headings.map((heading, column) => Math.max(...[heading, ...whole.map((row) => row[column] ?? '')].map(widthOf))),
    screen.columns - gaps,
  )
  const clean = whole.map((row) => row.map((cell, column) => cutInTheMiddle(cell, widths[column] ?? 0)))
  const others = widths.slice(0, -1).reduce((sum, width) => sum + width, gaps)
  const last = Math.max(8, Math.min(widths.at(-1) ?? 0, screen.columns - others))
  const table = new Table({
    chars: BORDERLESS,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colWidths: [...widths.slice(0, -1), last],
  })
  table.push(
    headings.map((heading) => screen.paint('dim', heading)),
    ...clean.map((row) => [...row]),
  )
  for (const line of table.toString().split('\n')) screen.line(line.trimEnd())
}

/** Enough for the widest of what is usual in a last column; it is cut at its end if need be. */
const LAST_COLUMN = 16
const NARROWEST = 12

/** The widest column but the last gives way until all fit, for that is where long names are. */
function fitting(widths: readonly number[], columns: number): readonly number[] {
  const fit = [...widths]
  const last = fit.length - 1
  for (;;) {
    const total = fit.reduce((sum, width, column) => sum + (column === last ? Math.min(width, LAST_COLUMN) : width), 0)
    const widest = fit.slice(0, -1).reduce((best, width, column) => (width > (fit[best] ?? 0) ? column : best), 0)
    const width = fit[widest] ?? 0
    if (total <= columns || last === 0 || width <= NARROWEST) return fit
    fit[widest] = Math.max(NARROWEST, width - (total - columns))
  }
}

/** Both ends of a name tell more than its beginning alone. Coloured text, which is short, is left as it is. */
function cutInTheMiddle(text: string, width: number): string {
  if (widthOf(text) <= width || text !== stripVTControlCharacters(text)) return text
  const end = Math.floor((width - 1) / 2)
  return `${text.slice(0, width - 1 - end)}…${text.slice(text.length - end)}`
}

/** Names and values, one a line; a value that is null is left out. */
export function printFacts(screen: Screen, facts: readonly (readonly [name: string, value: string | null])[]): void {
  const known = facts.flatMap(([name, value]) => (value === null ? [] : [{ name, value: withoutControls(value) }]))
  const width = Math.max(...known.map(({ name }) => name.length))
  for (const { name, value } of known) {
    if (screen.isTerminal) screen.line(`  ${screen.paint('dim', name.padEnd(width))}  ${value}`)
    else screen.line(`${name}\t${oneLine(value) || '-'}`)
  }
}

/** Every line and crossing that the library would draw, drawn as nothing, save a gap between columns. */
const LINES = ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right']
const CROSSINGS = ['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid']
const BORDERLESS = { ...Object.fromEntries([...LINES, ...CROSSINGS].map((name) => [name, ''])), middle: '  ' }

function widthOf(text: string): number {
  return stripVTControlCharacters(text).length
}

/** The colours that `paint` is asked for, and their ends. */
const OWN_COLOUR = '\u001b\\[(?:[12]|22|3[1236]|39)m'
const CONTROL = '[\\p{Cc}\\u202a-\\u202e\\u2066-\\u2069]'
const CONTROLS = new RegExp(`(${OWN_COLOUR})|${CONTROL}`, 'gu')

/** What came from outside must not move the cursor or pass itself off as another line; our own colours stay. */
function withoutControls(text: string): string {
  return text.replace(CONTROLS, (_, colour?: string) => colour ?? ' ')
}

function oneLine(text: string): string {
  return stripVTControlCharacters(text).replace(CONTROLS, ' ')
}

// --- Words ----------------------------------------------------------------------------------------------------------

/** `3 min ago` for people, ISO 8601 for programs; `-` for never. */
export function when(screen: Screen, iso: string | null): string {
  if (iso === null) return '-'
  if (!screen.isTerminal) return iso
  const ms = screen.now - Date.parse(iso)
  return ms < 0 ? `in ${coarse(-ms)}` : ms < 10_000 ? 'just now' : `${coarse(ms)} ago`
}

const STEPS = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
] as const

function coarse(ms: number): string {
  const [size, unit] = STEPS.find(([step]) => ms >= step) ?? [1000, 's']
  return `${Math.round(ms / size)} ${unit}`
}

/** `350 ms`, `4.2 s`, `3 min 5 s`, `1 h 2 min`. */
export function took(ms: number): string {
  if (ms < 1000) return `${ms} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
}

/** `5m`, `1h30m`: a duration as the configuration writes it. */
export function setting(ms: number): string {
  const units = [
    [86_400_000, 'd'],
    [3_600_000, 'h'],
    [60_000, 'm'],
    [1000, 's'],
    [1, 'ms'],
  ] as const
  let rest = ms
  let text = ''
  for (const [size, unit] of units) {
    if (rest >= size) text += `${Math.floor(rest / size)}${unit}`
    rest %= size
  }
  return text || '0s'
}

/** A commit as people know it. */
export function commitOf(sha: string | null): string {
  return sha === null ? '-' : sha.slice(0, 10)
}

/** `main` of `refs/heads/main`; any other ref as it is, without `refs/`. */
export function refOf(ref: string | null): string {
  return ref === null ? '-' : ref.replace(/^refs\/heads\//, '').replace(/^refs\//, '')
}

/** True for the ends that mean that something has to be looked at. */
export function isFailure(state: RunState): boolean {
  return !['queued', 'running', 'succeeded', 'superseded', 'skipped'].includes(state)
}

/** `succeeded`, `skipped: already-deployed`, in its colour. */
export function stateOf(screen: Screen, run: { readonly state: RunState; readonly reason: string | null }): string {
  const text = run.reason === null ? run.state : `${run.state}: ${run.reason}`
  if (run.state === 'succeeded') return screen.paint('green', text)
  if (run.state === 'running' || run.state === 'queued') return screen.paint('cyan', text)
  return isFailure(run.state) ? screen.paint('red', text) : screen.paint('dim', text)
}

/** `127.0.0.1:8787`: an address as the configuration writes it. */
export function addressOf(listen: Listen): string {
  switch (listen.kind) {
    case 'tcp':
      return `${listen.host.includes(':') ? `[${listen.host}]` : listen.host}:${listen.port}`
    case 'unix':
      return `unix:${listen.path}`
    case 'systemd':
      return `systemd:${listen.name}`
  }
}

/** What a target follows, in words: `branch main`, `tags v*`. */
export function followedBy({ follows }: Target): string {
  switch (follows.kind) {
    case 'default':
      return "the remote's default branch"
    case 'branch':
      return `branch ${follows.branch}`
    case 'branches':
      return `branches ${follows.patterns.join(', ')}, an instance each`
    case 'tags':
      return `tags ${follows.patterns.join(', ')}, ${follows.order === 'version' ? 'the highest version' : 'the newest'}`
  }
}
