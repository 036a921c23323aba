import type { TargetView } from '../admin/views.ts'
import { type Client, connect, type Listed } from './client.ts'
import { commitOf, openScreen, printFacts, printJson, printTable, type Screen, stateOf, when } from './print.ts'

export interface StatusOptions {
  readonly configFlag: string | undefined
  readonly target: string | undefined
  readonly json: boolean
}

/** What every target is at, or one of them in full. */
export async function status({ configFlag, target, json }: StatusOptions): Promise<number> {
  const client = await connect(configFlag)
  const screen = openScreen()
  if (target !== undefined) await showOne(client, screen, target, json)
  else await showAll(client, screen, json)
  return 0
}

async function showAll(client: Client, screen: Screen, json: boolean): Promise<void> {
  const targets = await client.get<Listed<TargetView>>('targets')
  if (json) return printJson(screen, targets)
  if (targets.items.length === 0) {
    if (screen.isTerminal)
      screen.line('No repository has been seen yet: one is known once its hook has delivered a push.')
    return
  }
  if (screen.isTerminal) printTable(screen, ['TARGET', 'STATE', 'DEPLOYED', 'NEXT', 'LAST RUN'], rows(screen, targets))
  else printTable(screen, [], targets.items.map(plainRow))
  if (!screen.isTerminal) return
  // Instances of one repository share its hook: what is to be said of it is said once.
  const pairs = new Map(targets.items.toReversed().map((view) => [`${view.hook} ${view.repo}`, view]))
  for (const view of [...pairs.values()].toReversed()) for (const note of notesOf(screen, view)) screen.line(note)
}

function rows(screen: Screen, { items }: Listed<TargetView>): readonly string[][] {
  return items.map((view) => [
    view.name,
    instanceState(screen, view),
    deployedOf(screen, view),
    nextOf(view) ?? '-',
    lastRunOf(screen, view),
  ])
}

/** For programs: name, state, deployed commit, wanted commit, running run, queued runs, last run, its state, silent since. */
function plainRow({ name, state, deployed, wanted, running, queued, lastRun, silentSince }: TargetView): string[] {
  const facts = [
    name,
    state,
    deployed?.commit,
    wanted?.commit,
    running,
    queued,
    lastRun?.id,
    lastRun?.state,
    silentSince,
  ]
  return facts.map((fact) => String(fact ?? ''))
}

function instanceState(screen: Screen, { state }: TargetView): string {
  return state === 'new' ? screen.paint('cyan', state) : screen.paint(state === 'ok' ? 'green' : 'red', state)
}

function deployedOf(screen: Screen, { deployed }: TargetView): string {
  return deployed === null ? '-' : `${commitOf(deployed.commit)} ${when(screen, deployed.at)}`
}

/** What is under way: `run 44 running, 2 queued`; else the commit that is wanted and not deployed. */
function nextOf({ running, queued, wanted, deployed }: TargetView): string | null {
  const active = [...(running === null ? [] : [`run ${running}`]), ...(queued === 0 ? [] : [`${queued} queued`])]
  if (active.length > 0) return active.join(', ')
  return wanted === null || wanted.commit === deployed?.commit ? null : `wants ${commitOf(wanted.commit)}`
}

function lastRunOf(screen: Screen, { lastRun }: TargetView): string {
  return lastRun === null ? '-' : `${lastRun.id} ${stateOf(screen, lastRun)}`
}

/** What is wrong with the way that pushes become known, with what to do. */
function notesOf(screen: Screen, { name, repo, hook, silentSince, heard }: TargetView): readonly string[] {
  if (silentSince !== null) {
    const since = `silent since ${when(screen, silentSince)}`
    return ['', screen.paint('yellow', `${name}: the hook ${hook} is ${since}`), ...SILENT]
  }
  if (heard !== false) return []
  return [
    '',
    `${name}: no delivery has come for ${repo} yet; pushes are found by polling.`,
    `  Try it: landfall send ${hook} --repo ${repo}`,
  ]
}

const SILENT = [
  '  Polling found a push that it did not announce: look at the deliveries',
  '  of the webhook in the settings of the repository.',
]

async function showOne(client: Client, screen: Screen, target: string, json: boolean): Promise<void> {
  const view = await client.get<TargetView>(`targets/${encodeURIComponent(target)}`)
  if (json) return printJson(screen, view)
  const { name, repo, hook, deployed, wanted, rejected, filesAt, queued, running, lastRun } = view
  if (screen.isTerminal) screen.line(`${screen.paint('bold', name)}  ${instanceState(screen, view)}`)
  const last =
    lastRun === null ? null : `${lastRunOf(screen, view)} ${when(screen, lastRun.finishedAt ?? lastRun.queuedAt)}`
  printFacts(screen, [
    ...(screen.isTerminal
      ? []
      : ([
          ['target', name],
          ['state', view.state],
        ] as const)),
    ['repository', repo],
    ['hook', hook === null ? 'none: found by polling alone' : hook],
    ['deployed', deployed && `${deployed.commit} by run ${deployed.run}, ${when(screen, deployed.at)}`],
    [
      'wanted',
      wanted && wanted.commit !== deployed?.commit ? `${wanted.commit} since ${when(screen, wanted.at)}` : null,
    ],
    ['files at', filesAt === null || filesAt === deployed?.commit ? null : filesAt],
    ['rejected', rejected.length === 0 ? null : rejected.map(commitOf).join(', ')],
    ['running', running === null ? null : `run ${running}`],
    ['queued', queued === 0 ? null : String(queued)],
    ['last run', last],
    ['why', lastRun?.detail ?? null],
  ])
  if (!screen.isTerminal) return
  for (const note of notesOf(screen, view)) screen.line(note)
  screen.line()
  screen.line(
    lastRun === null
      ? 'No run yet.'
      : `Its log: landfall logs ${lastRun.id}    All its runs: landfall runs --target ${name}`,
  )
}
