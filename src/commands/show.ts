import type { RunView } from '../admin/views.ts'
import { connect } from './client.ts'
import { isFailure, openScreen, printFacts, printJson, type Screen, stateOf, took, when } from './print.ts'

export interface ShowOptions {
  readonly configFlag: string | undefined
  readonly run: number
  readonly json: boolean
}

/** Everything about one run. */
export async function show({ configFlag, run: id, json }: ShowOptions): Promise<number> {
  const client = await connect(configFlag)
  const screen = openScreen()
  const run = await client.get<RunView>(`runs/${id}`)
  if (json) printJson(screen, run)
  else print(screen, run)
  return 0
}

function print(screen: Screen, run: RunView): void {
  if (screen.isTerminal) screen.line(`${screen.paint('bold', `Run ${run.id}`)}  ${stateOf(screen, run)}`)
  printFacts(screen, [
    ...(screen.isTerminal
      ? []
      : ([
          ['run', String(run.id)],
          ['state', run.state],
          ['reason', run.reason],
        ] as const)),
    ['why', run.detail],
    ['target', run.target],
    ['repository', run.repo],
    ['ref', run.ref],
    ['commit', run.commit],
    ['announced', run.announced !== run.commit || run.commit === null ? run.announced : null],
    ['previous', run.previous],
    ['trigger', run.delivery === null ? run.trigger : `${run.trigger}, delivery ${run.delivery}`],
    ['event', run.event],
    ['attempt', run.attempt > 1 ? String(run.attempt) : null],
    ['exit code', run.exitCode === null ? null : String(run.exitCode)],
    ['signal', run.signal],
    ['queued', when(screen, run.queuedAt)],
    ['not before', run.notBefore === null ? null : when(screen, run.notBefore)],
    ['started', run.startedAt === null ? null : when(screen, run.startedAt)],
    ['finished', run.finishedAt === null ? null : when(screen, run.finishedAt)],
    ['superseded', run.supersededBy === null ? null : `by run ${run.supersededBy}`],
    ['phases', phasesOf(screen, run)],
  ])
  if (screen.isTerminal) screen.line(`\n${nextStep(run)}`)
}

function phasesOf(screen: Screen, { phases }: RunView): string | null {
  if (phases.length === 0) return null
  return phases
    .map(({ name, ms }) => `${name} ${screen.isTerminal ? took(ms) : ms}`)
    .join(screen.isTerminal ? ', ' : ' ')
}

function nextStep(run: RunView): string {
  const { id, state, supersededBy, target } = run
  if (supersededBy !== null) return `What took its place: landfall show ${supersededBy}`
  if (state === 'queued') return `It waits for its turn. Follow it with: landfall logs ${id} -f`
  if (state === 'running') return `Follow it with: landfall logs ${id} -f`
  if (isFailure(state)) return `What it printed: landfall logs ${id}    To try again: landfall once`
  return state === 'skipped' ? `What is deployed: landfall status ${target}` : `What it printed: landfall logs ${id}`
}
