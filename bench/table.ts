/** What a row of the table says, and how the table is printed. */
import CliTable from 'cli-table3'

export interface Line {
  readonly what: string
  readonly ours: string
  /** What ours is measured against; empty where the goal is a plain number. */
  readonly beside: string
  /** Ours divided by what is beside it. */
  readonly ratio: number | null
  readonly toReach: string
  /** Null where nothing is to be reached and the line is for show. */
  readonly ok: boolean | null
}

export interface Result {
  readonly lines: readonly Line[]
  /** Sentences to print beneath the table: where time went, what was skipped and why. */
  readonly notes: readonly string[]
}

/** A row, by the name that the command line knows it by. */
export interface Row {
  readonly name: string
  readonly about: string
  readonly measure: (bench: Bench) => Promise<Result>
}

/** What every row gets. */
export interface Bench {
  /** A directory of the row's own, removed at the end. */
  readonly directory: string
  /** The compiled program, as the package ships it. */
  readonly program: string
  /** Smaller numbers and fewer rounds. */
  readonly quick: boolean
}

export function atLeast(goal: number, ratio: number): Pick<Line, 'ratio' | 'toReach' | 'ok'> {
  return { ratio, toReach: `≥ ${goal}×`, ok: ratio >= goal }
}

export function atMost(goal: number, ratio: number): Pick<Line, 'ratio' | 'toReach' | 'ok'> {
  return { ratio, toReach: `≤ ${goal}×`, ok: ratio <= goal }
}

export function printTable(lines: readonly Line[]): void {
  const table = new CliTable({
    head: ['what', 'ours', 'beside', 'ratio', 'to reach', 'ok'],
    style: { head: [], border: [] },
    chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
  })
  for (const { what, ours, beside, ratio, toReach, ok } of lines) {
    const judgement = ok === null ? '' : ok ? 'yes' : 'no'
    table.push([what, ours, beside, ratio === null ? '' : `${ratio.toFixed(2)}×`, toReach, judgement])
  }
  console.log(table.toString())
}

// --- Figures ------------------------------------------------------------------------------------------------------

export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** The median of the ratios of what was measured side by side: a disturbance of the machine meets both of a pair. */
export function medianRatio(ours: readonly number[], beside: readonly number[]): number {
  return median(ours.map((value, index) => value / (beside[index] ?? Number.NaN)))
}

export const perSecond = (value: number): string => `${Math.round(value)}/s`
export const milliseconds = (value: number): string => `${value.toFixed(value < 10 ? 2 : 1)} ms`
export const megabytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MB`
