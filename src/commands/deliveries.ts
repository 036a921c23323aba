import type { DeliveryView } from '../admin/views.ts'
import { connect, type Listed } from './client.ts'
import { openScreen, printJson, printTable, refOf, type Screen, when } from './print.ts'

export interface DeliveriesOptions {
  readonly configFlag: string | undefined
  readonly hook: string | undefined
  readonly repo: string | undefined
  readonly verdict: string | undefined
  readonly limit: number
  readonly before: number | undefined
  readonly json: boolean
}

/** The authenticated deliveries, newest first, each with its verdict and what came of it. */
export async function deliveries({ configFlag, json, ...query }: DeliveriesOptions): Promise<number> {
  const client = await connect(configFlag)
  const screen = openScreen()
  const found = await client.get<Listed<DeliveryView>>('deliveries', query)
  if (json) printJson(screen, found)
  else if (found.items.length === 0) sayNone(screen, query)
  else {
    const headings = ['DELIVERY', 'WHEN', 'HOOK', 'EVENT', 'REPOSITORY', 'REF', 'VERDICT']
    printTable(
      screen,
      headings,
      found.items.map((delivery) => rowOf(screen, delivery)),
    )
    if (screen.isTerminal && found.next !== null)
      screen.line(`\nOlder ones: landfall deliveries --before ${found.next}`)
  }
  return 0
}

function rowOf(screen: Screen, delivery: DeliveryView): readonly string[] {
  const { id, receivedAt, hook, event, repo, changes } = delivery
  const refs = changes.map(({ ref }) => refOf(ref)).join(' ')
  return [String(id), when(screen, receivedAt), hook, event ?? '', repo ?? '', refs, outcomeOf(screen, delivery)]
}

/** `accepted: run 42`, `ignored: ref`, `duplicate of 17`. */
function outcomeOf(screen: Screen, { verdict, reason, repeats, targets }: DeliveryView): string {
  const effects = targets.map((effect) => ('run' in effect ? `run ${effect.run}` : effect.reason))
  const because = reason === null ? [...new Set(effects)] : [reason]
  const repeated = repeats === null ? [] : [`repeats ${repeats}`]
  const text = [verdict, [...because, ...repeated].join(', ')].filter((part) => part !== '').join(': ')
  if (verdict === 'accepted') return screen.paint('green', text)
  return verdict === 'invalid' ? screen.paint('red', text) : text
}

function sayNone(
  screen: Screen,
  { hook, repo, verdict, before }: Omit<DeliveriesOptions, 'configFlag' | 'json'>,
): void {
  if (!screen.isTerminal) return
  if (hook !== undefined || repo !== undefined || verdict !== undefined || before !== undefined) {
    screen.line('No such delivery.')
    return
  }
  screen.line('No delivery yet. Nothing that fails its signature is kept, so if the forge has sent one,')
  screen.line('compare its secret and URL with: landfall check. To send one from here: landfall send <hook>')
}
