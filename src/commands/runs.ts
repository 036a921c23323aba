import type { RunView } from '../admin/views.ts'
import { connect, type Listed } from './client.ts'
import { commitOf, openScreen, printJson, printTable, type Screen, stateOf, took, when } from './print.ts'

export interface RunsOptions {
  readonly configFlag: string | undefined
  readonly target: string | undefined
  readonly state: string | undefined
  readonly limit: number
  readonly before: number | undefined
  readonly json: boolean
}

/** The runs, newest first. */
export async function runs({ configFlag, json, ...query }: RunsOptions): Promise<number> {
  const client = await connect(configFlag)
  const screen = openScreen()
  const found = await client.get<Listed<RunView>>('runs', query)
  if (json) printJson(screen, found)
  else if (found.items.length === 0) sayNone(screen, query)
  else {
    const headings = ['RUN', 'TARGET', 'COMMIT', 'TRIGGER', 'STATE', 'WHEN', 'TOOK']
    printTable(
      screen,
      headings,
      found.items.map((run) => rowOf(screen, run)),
    )
    if (screen.isTerminal && found.next !== null) screen.line(`\nOlder ones: landfall runs --before ${found.next}`)
  }
  return 0
}

function rowOf(screen: Screen, run: RunView): readonly string[] {
  const { id, target, commit, announced, trigger, queuedAt, startedAt, finishedAt } = run
  const sha = commit ?? announced
  const ms = startedAt === null || finishedAt === null ? null : Date.parse(finishedAt) - Date.parse(startedAt)
  return [
    String(id),
    target,
    screen.isTerminal ? commitOf(sha) : (sha ?? ''),
    trigger,
    stateOf(screen, run),
    when(screen, finishedAt ?? startedAt ?? queuedAt),
    ms === null ? '' : screen.isTerminal ? took(ms) : String(ms),
  ]
}

function sayNone(screen: Screen, { target, state, before }: Omit<RunsOptions, 'configFlag' | 'json'>): void {
  if (!screen.isTerminal) return
  if (target !== undefined || state !== undefined || before !== undefined) screen.line('No such run.')
  else screen.line('No run yet. A push makes one; so does: landfall once')
}
