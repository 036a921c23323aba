import type { RunView } from '../admin/views.ts'
import { type Client, connect } from './client.ts'
import { openScreen, stateOf } from './print.ts'

export interface LogsOptions {
  readonly configFlag: string | undefined
  readonly run: number
  readonly follow: boolean
  readonly json: boolean
}

/** The log of a run as it is, and with `follow` as it grows, to the end of the run. */
export async function logs({ configFlag, run, follow, json }: LogsOptions): Promise<number> {
  const client = await connect(configFlag)
  const query = follow ? { follow: 1 } : {}
  if (json) await printEvents(client, run, query)
  else await printLog(client, run, query)
  return 0
}

async function printLog(client: Client, id: number, query: { readonly follow?: number }): Promise<void> {
  let bytes = 0
  for await (const chunk of client.stream(`runs/${id}/log`, query, 'text/plain')) {
    bytes += chunk.length
    process.stdout.write(chunk)
  }
  const screen = openScreen(process.stderr)
  if (bytes > 0 && !(screen.isTerminal && query.follow === 1)) return
  const run = await client.get<RunView>(`runs/${id}`)
  screen.line(bytes === 0 ? nothingOf(run) : `run ${id} ${stateOf(screen, run)}`)
}

function nothingOf({ id, state, reason, detail }: RunView): string {
  if (state === 'queued') return `run ${id} is queued and has no log yet; follow it with: landfall logs ${id} -f`
  if (state === 'running') return `run ${id} has printed nothing yet; follow it with: landfall logs ${id} -f`
  return `run ${id} printed nothing; it ended ${[state, reason, detail].filter((part) => part !== null).join(': ')}`
}

/** The events of the API's stream, a JSON object a line: `{"event":"log","id":"<next offset>","data":"…"}`, then `end`. */
async function printEvents(client: Client, id: number, query: { readonly follow?: number }): Promise<void> {
  const decoder = new TextDecoder()
  let pending = ''
  for await (const chunk of client.stream(`runs/${id}/log`, query, 'text/event-stream')) {
    const events = (pending + decoder.decode(chunk, { stream: true })).split('\n\n')
    pending = events.pop() ?? ''
    for (const event of events) process.stdout.write(`${JSON.stringify(fieldsOf(event))}\n`)
  }
}

/** https://html.spec.whatwg.org/multipage/server-sent-events.html: several `data` lines are one text of several lines. */
function fieldsOf(event: string): Readonly<Record<string, string>> {
  const fields: Record<string, string> = {}
  for (const line of event.split('\n')) {
    const [, name = '', value = ''] = /^([a-z]+): ?(.*)$/s.exec(line) ?? []
    if (name !== '')
      fields[name] = name === 'data' && fields['data'] !== undefined ? `${fields['data']}\n${value}` : value
  }
  return fields
}
