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
  if (json) printJson(screen, targets)
  else if (targets.items.length > 0) printAll(screen, targets.items)
  else if (screen.isTerminal)
    screen.line('Nothing has been seen yet. The first push or poll that fits a target shows it here.')
}

function printAll(screen: Screen, views: readonly TargetView[]): void {
  if (!screen.isTerminal) {
    printTable(screen, [], views.map(plainRow))
    return
  }
  printTable(screen, ['TARGET', 'STATE', 'DEPLOYED', 'NEXT', 'LAST RUN'], rows(screen, views))
  // Instances of one repository share its hook: what is to be said of it is said once.
  const pairs = new Map(views.toReversed().map((view) => [`${view.hook} ${view.repo}`, view]))
  for (const view of [...pairs.values()].toReversed()) for (const note of notesOf(screen, view)) screen.line(note)
}

function rows(screen: Screen, views: readonly TargetView[]): readonly string[][] {
  return views.map((view) => [
    view.name,
    instanceState(screen, view),
    deployedOf(screen, view),
    nextOf(view) ?? '-',
    lastRunOf(screen, view),
  ])
}

/** For programs: name, state, deployed commit, wanted commit, running run, queued runs, last run, its state, what its hook is. */
function plainRow(view: TargetView): string[] {
  const { name, state, deployed, wanted, running, queued, lastRun } = view
  const facts = [
    name,
    state,
    deployed?.commit,
    wanted?.commit,
    running,
    queued,
    lastRun?.id,
    lastRun?.state,
    hookIs(view),
  ]
  return facts.map((fact) => String(fact ?? ''))
}

function hookIs({ silentSince, heard }: TargetView): string | null {
  if (silentSince !== null) return `silent since ${silentSince}`
  return heard === false ? 'never-heard' : null
}

function instanceState(screen: Screen, { state }: TargetView): string {
  return state === 'new' ? screen.paint('cyan', state) : screen.paint(state === 'ok' ? 'green' : 'red', state)
}

function deployedOf(screen: Screen, { deployed }: TargetView): string {
  return deployed === null ? '-' : `${commitOf(deployed.commit)} ${when(screen, deployed.at)}`
}

/** What is under way: `run 44 running, 2 queued`; else the commit that is wanted and not deployed. */
function nextOf(view: TargetView): string | null {
  const { running, queued } = view
  const active = [...(running === null ? [] : [`run ${running}`]), ...(queued === 0 ? [] : [`${queued} queued`])]
  if (active.length > 0) return active.join(', ')
  return isWanted(view) ? `wants ${commitOf(view.wanted.commit)}` : null
}

/** Not what a run has decided to leave alone: it would look like a target that is behind for ever. */
function isWanted(view: TargetView): view is TargetView & { readonly wanted: NonNullable<TargetView['wanted']> } {
  const { wanted, deployed, lastRun } = view
  if (wanted === null || wanted.commit === deployed?.commit) return false
  const isLeftAlone = lastRun?.reason === 'paths' || lastRun?.reason === 'stale'
  return !(isLeftAlone && (lastRun.commit ?? lastRun.announced) === wanted.commit)
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
  const { items } = await client.get<Listed<TargetView>>('targets')
  const instances = items.filter((view) => view.target === target && view.name !== target)
  if (instances.length > 0) {
    if (json) printJson(screen, { items: instances, next: null })
    else printAll(screen, instances)
    return
  }
  const view = await client.get<TargetView>(`targets/${encodeURIComponent(target)}`)
  if (json) return printJson(screen, view)
  const { name, repo, hook, deployed, rejected, filesAt, retiredAt, queued, running, lastRun } = view
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
    ['retired', retiredAt && `${when(screen, retiredAt)}: its branch was deleted`],
    [
      retiredAt === null ? 'deployed' : 'had deployed',
      deployed && `${deployed.commit} by run ${deployed.run}, ${when(screen, deployed.at)}`,
    ],
    ['wanted', isWanted(view) ? `${view.wanted.commit} since ${when(screen, view.wanted.at)}` : null],
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
