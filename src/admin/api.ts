import { chown } from 'node:fs/promises'
import { createServer } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { stream, streamSSE } from 'hono/streaming'
import { z } from 'zod'
import { gidOfGroup } from '../config/accounts.ts'
import type { Config } from '../config/config.ts'
import type { DataDir } from '../data-dir.ts'
import { LandfallError, messageOf } from '../errors.ts'
import { filesOf, targetOf, targetOfRun } from '../instances.ts'
import { startListening } from '../listen.ts'
import { type Instance, type Log, RUN_ENDS, type Run } from '../model.ts'
import type { PollResult } from '../polling/look.ts'
import type { Store } from '../stores/store.ts'
import { inWholeCharacters, streamLog } from './log-stream.ts'
import { type TargetFacts, viewDelivery, viewRun, viewTarget } from './views.ts'

export interface ApiParts {
  readonly config: () => Config
  readonly store: Store
  readonly dataDir: DataDir
  readonly once: () => Promise<readonly PollResult[]>
  readonly log: Log
}

export interface Api {
  /** Serves the unix socket of the data_dir, whose file permission is the authentication. Throws `start`. */
  listen(server: Config['server']): Promise<void>
  close(): Promise<void>
}

/** After a stop there is usually a start. */
const RETRY_AFTER_SECONDS = 10

const BASE = '/api/v1'

const Id = z.coerce.number().int().positive()
const Paging = { limit: z.coerce.number().int().min(1).max(500).default(50), before: Id.nullable().default(null) }
const RunQuery = z.object({
  ...Paging,
  target: z.string().nullable().default(null),
  state: z
    .enum(['queued', 'running', ...RUN_ENDS])
    .nullable()
    .default(null),
})
const DeliveryQuery = z.object({
  ...Paging,
  hook: z.string().nullable().default(null),
  repo: z.string().nullable().default(null),
  verdict: z.enum(['accepted', 'ping', 'ignored', 'duplicate', 'invalid']).nullable().default(null),
})
const LogQuery = z.object({
  from: z.coerce.number().int().min(0).default(0),
  follow: z.enum(['0', '1']).default('0'),
})

/** What operators and tools ask a running landfall: JSON under `/api/v1`, errors as RFC 9457. */
export function createApi({ config, store, dataDir, once, log }: ApiParts): Api {
  const app = new Hono().basePath(BASE)

  app.get('/targets', async ({ json }) => {
    const facts = await factsOfAll()
    const instances = inFileOrder((await store.instances()).filter(isLive))
    return json({ items: instances.map((instance) => viewTarget(instance, facts(instance))), next: null })
  })
  app.get('/targets/:name', async ({ req, json }) => {
    const name = req.param('name')
    const instance = await store.instance(name)
    if (instance === null) throw new LandfallError('not-found', `no target ${name} has been seen; see landfall status`)
    return json(viewTarget(instance, (await factsOfAll())(instance)))
  })

  app.get('/runs', async ({ req, json }) => {
    const query = parse(RunQuery, req.query())
    return json(page(await store.runs(oneMore(query)), query.limit, viewRun))
  })
  app.get('/runs/:id', async ({ req, json }) => json(viewRun(await runOf(req.param('id')))))
  app.get('/runs/:id/log', async (context) => {
    const { req } = context
    const { id } = await runOf(req.param('id'))
    const isEvents = (req.header('accept') ?? '').includes('text/event-stream')
    const { from: asked, follow } = parse(LogQuery, req.query())
    // An event's id is the offset behind it, and who was cut off comes back with the address of the first time.
    const from = (isEvents ? offsetIn(req.header('last-event-id')) : null) ?? asked
    const goesOn = async () => follow === '1' && (await store.run(id))?.finishedAt === null
    const aborted = new AbortController()
    const chunks = streamLog({
      file: dataDir.room('runs', String(id), 'log'),
      from,
      goesOn,
      signal: aborted.signal,
    })
    if (!isEvents) {
      context.header('Content-Type', 'text/plain; charset=utf-8')
      return stream(context, async (out) => {
        out.onAbort(() => aborted.abort())
        for await (const chunk of chunks) await out.write(chunk)
      })
    }
    return streamSSE(context, async (out) => {
      out.onAbort(() => aborted.abort())
      for await (const { text, end } of inWholeCharacters(chunks, from)) {
        await out.writeSSE({ event: 'log', id: String(end), data: text })
      }
      await out.writeSSE({ event: 'end', data: (await store.run(id))?.state ?? '' })
    })
  })

  app.post('/once', async ({ json }) => json({ items: await once() }, 202))

  app.get('/deliveries', async ({ req, json }) => {
    const query = parse(DeliveryQuery, req.query())
    return json(page(await store.deliveries(oneMore(query)), query.limit, viewDelivery))
  })
  app.get('/deliveries/:id', async ({ req, json }) => {
    const delivery = await store.delivery(idOf(req.param('id')))
    if (delivery === null) throw new LandfallError('not-found', `there is no delivery ${req.param('id')}`)
    return json(viewDelivery(delivery))
  })

  // Last: only what no route has taken comes here.
  for (const [path, routes] of Map.groupBy(app.routes, (route) => route.path)) {
    const allow = routes.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ')
    app.all(path.slice(BASE.length), ({ req }) =>
      problem(405, 'Method Not Allowed', `${req.path} is for ${allow}, not for ${req.method}`, { Allow: allow }),
    )
  }
  app.notFound(({ req }) => problem(404, 'Not Found', `${req.method} ${req.path} is not part of this API`))
  app.onError((error) => {
    if (error instanceof LandfallError && error.code === 'not-found') return problem(404, 'Not Found', error.message)
    if (error instanceof LandfallError && error.code === 'invalid') return problem(400, 'Bad Request', error.message)
    if (error instanceof LandfallError && error.code === 'store') {
      return problem(503, 'Service Unavailable', error.message)
    }
    if (error instanceof LandfallError && error.code === 'stopping') {
      return problem(503, 'Service Unavailable', error.message, { 'Retry-After': String(RETRY_AFTER_SECONDS) })
    }
    log.error('bug', { cause: error })
    return problem(500, 'Internal Server Error', 'landfall itself failed; its log has the details')
  })

  async function runOf(id: string): Promise<Run> {
    const run = await store.run(idOf(id))
    if (run === null) throw new LandfallError('not-found', `there is no run ${id}; see landfall runs`)
    return run
  }

  async function factsOfAll(): Promise<(instance: Instance) => TargetFacts> {
    const [activity, speakers] = await Promise.all([store.activity(), store.speakers()])
    return (instance) => {
      const target = config().targets.find(({ name }) => name === instance.target)
      const own = targetOf(config(), instance.name)
      const hook = target?.hook ?? null
      const active = activity.get(instance.name)
      const speaker = speakers.find((one) => one.hook === hook && one.repo === instance.repo.toLowerCase())
      return {
        hook,
        filesAt: own === undefined ? null : filesOf(own, instance),
        last: active?.last ?? null,
        running: active?.running ?? null,
        queued: active?.queued ?? 0,
        silentSince: speaker?.silentSince ?? null,
        heard: hook === null ? null : speaker !== undefined,
      }
    }
  }

  /** What the file has no target for any more is still told of by its name. */
  function isLive({ name, repo, retiredAt }: Instance): boolean {
    return retiredAt === null && targetOfRun(config(), { target: name, repo }) !== undefined
  }

  /** As configured. */
  function inFileOrder(instances: readonly Instance[]): readonly Instance[] {
    const order = new Map(config().targets.map(({ name }, index) => [name, index]))
    const place = ({ target }: Instance): number => order.get(target) ?? order.size
    return instances.toSorted((one, other) => place(one) - place(other) || one.name.localeCompare(other.name))
  }

  const answer = getRequestListener(app.fetch)
  const server = createServer((incoming, outgoing) => void answer(incoming, outgoing))
  let isListening = false
  return {
    async listen({ socketMode, socketGroup }) {
      const { socket } = dataDir
      await startListening({ server, listen: { kind: 'unix', path: socket }, socketMode, env: {} })
      isListening = true
      if (socketGroup !== null) await giveToGroup(socket, socketGroup)
    },
    async close() {
      if (!isListening) return
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

async function giveToGroup(socket: string, group: string): Promise<void> {
  const gid = await gidOfGroup(group)
  try {
    if (gid !== null) await chown(socket, -1, gid)
  } catch (cause) {
    const mend = `run landfall as root or as a member of ${group}`
    throw new LandfallError('start', `${socket} cannot be given to the group ${group}: ${messageOf(cause)}; ${mend}`)
  }
}

/** One row more than a page has tells whether there is a next page. */
function oneMore<Q extends { readonly limit: number }>(query: Q): Q {
  return { ...query, limit: query.limit + 1 }
}

function page<T extends { readonly id: number }, V>(rows: readonly T[], limit: number, view: (row: T) => V) {
  const items = rows.slice(0, limit)
  const last = items.at(-1)
  return { items: items.map(view), next: rows.length > limit && last !== undefined ? String(last.id) : null }
}

function idOf(text: string): number {
  const parsed = Id.safeParse(text)
  if (!parsed.success) throw new LandfallError('invalid', `${text} is no id: ids are whole numbers from 1`)
  return parsed.data
}

function offsetIn(lastEventId: string | undefined): number | null {
  return /^\d{1,15}$/.test(lastEventId ?? '') ? Number(lastEventId) : null
}

function parse<T extends z.ZodType>(schema: T, query: Record<string, string>): z.output<T> {
  const parsed = schema.safeParse(query)
  if (parsed.success) return parsed.data
  const mistakes = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
  throw new LandfallError('invalid', mistakes.join('; '))
}

function problem(
  status: number,
  title: string,
  detail: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(JSON.stringify({ type: 'about:blank', title, status, detail }), {
    status,
    headers: { 'Content-Type': 'application/problem+json', ...headers },
  })
}
