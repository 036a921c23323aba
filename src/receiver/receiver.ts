/** The public listener: receive, verify, have it recorded and queued, then answer. Serves hooks and health, nothing else. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { createAdaptorServer, type HttpBindings } from '@hono/node-server'
import { Hono } from 'hono'
import type { Config, Hook, Listen } from '../config/config.ts'
import { hasCode, systemCode } from '../errors.ts'
import { startListening } from '../listen.ts'
import type { Clock, Log, Receipt, Received } from '../model.ts'
import { type Allowance, type ClientOf, createAllowance, createClientOf, senderOf } from './clients.ts'
import { createExaminer, type Examiner, type Finding } from './examine.ts'
import { BODY_TIMEOUT_MS, BUDGET_BYTES, closeUnread, createUploads, hasUnreadBody } from './upload.ts'

export interface ReceiverParts {
  /** That of the moment. A delivery is judged by what it is when the last byte has come, and by nothing later. */
  readonly config: () => Config
  /**
   * Resolves once the delivery and what it caused are on disk. Rejects with `store` or `stopping` where that cannot be now;
   * the forge is then told to come again.
   */
  readonly intake: (received: Received, config: Config) => Promise<Receipt>
  /** Whether the store works. Asked for `/healthz` only: a delivery finds out by itself. */
  readonly healthy: () => Promise<boolean>
  /** Whether the daemon is on its way out and takes no more deliveries. */
  readonly stopping: () => boolean
  readonly log: Log
  readonly now: Clock
  /** Other limits than the contract's, so that tests need not wait. */
  readonly limits?: {
    readonly headersTimeoutMs?: number
    readonly bodyTimeoutMs?: number
    readonly budgetBytes?: number
    readonly maxConnections?: number
  }
}

export interface Receiver {
  /** Resolves to `http://host:port` or `unix:/path`. Throws `start`. */
  listen(listen: Listen): Promise<string>
  /** Takes no new connections, gives answers under way `graceMs`, and then closes every connection. */
  close(graceMs?: number): Promise<void>
}

/** From the first byte of a connection to the end of the headers. */
const HEADERS_TIMEOUT_MS = 10_000
/** Longer than the 60 s that nginx and others keep an idle upstream: the side that reuses must be the one that closes. */
const KEEP_ALIVE_MS = 75_000
const MAX_CONNECTIONS = 1000
const CLOSE_GRACE_MS = 5000
const RETRY_AFTER_SECONDS = 10

export function createReceiver(parts: ReceiverParts): Receiver {
  const { config, healthy, stopping, log, now, limits = {} } = parts
  const bodyTimeoutMs = limits.bodyTimeoutMs ?? BODY_TIMEOUT_MS
  const headersTimeoutMs = limits.headersTimeoutMs ?? HEADERS_TIMEOUT_MS
  const budgetBytes = limits.budgetBytes ?? BUDGET_BYTES
  const upload = createUploads({ maxBodyBytes: () => config().server.maxBodyBytes, budgetBytes, bodyTimeoutMs })
  const clientFor = derived(({ server }: Config) => createClientOf(server.trustedProxies))
  const clientOf: ClientOf = (incoming) => clientFor(config())(incoming)
  const failures = createAllowance({ burst: 50, refillMs: 1000, maxKeys: 10_000, now })
  const rejections = createRejectionLog(log, now)
  const examiner = createExaminer({ log })
  const hooksOf = derived(({ hooks }: Config) => new Map(hooks.map((hook) => [hook.name, hook])))

  const app = new Hono<{ Bindings: HttpBindings }>()
  app.all('/hooks/:hook', ({ env, req }) => {
    const { incoming, outgoing } = env
    const hook = hooksOf(config()).get(req.param('hook'))
    if (hook === undefined) return refuse(incoming, outgoing, REFUSALS.notFound)
    if (incoming.method !== 'POST') return refuse(incoming, outgoing, { ...REFUSALS.method, allow: 'POST', hook })
    return receive(hook, incoming, outgoing)
  })
  app.all('/healthz', async ({ env: { incoming, outgoing } }) => {
    if (incoming.method !== 'GET' && incoming.method !== 'HEAD') {
      return refuse(incoming, outgoing, { ...REFUSALS.method, allow: 'GET, HEAD' })
    }
    if (stopping()) return json(503, '{"status":"stopping"}', { 'Retry-After': String(RETRY_AFTER_SECONDS) })
    if (!(await healthy())) return json(503, '{"status":"failing"}', { 'Retry-After': String(RETRY_AFTER_SECONDS) })
    return json(200, '{"status":"ok"}')
  })
  app.notFound(({ env }) => refuse(env.incoming, env.outgoing, REFUSALS.notFound))
  app.onError((error, { env }) => {
    log.error('bug', { error, client: clientOf(env.incoming) })
    return json(500, '{"error":"internal"}')
  })

  async function receive(addressed: Hook, incoming: IncomingMessage, outgoing: ServerResponse): Promise<Response> {
    const no = (refusal: Refusal) => refuse(incoming, outgoing, { ...refusal, hook: addressed })
    if (stopping()) return no(REFUSALS.stopping)
    const uploaded = await upload(incoming, outgoing)
    if (uploaded.kind !== 'complete') return no(UPLOAD_REFUSALS[uploaded.kind])
    const { body, release } = uploaded

    const judge = config()
    const hook = hooksOf(judge).get(addressed.name)
    if (hook === undefined) {
      release()
      return no(REFUSALS.notFound)
    }
    const receivedAt = now()
    const headers = incoming.headers as Record<string, string | undefined> // only set-cookie is ever a list
    let finding: Finding
    try {
      const { forge, secrets } = hook
      finding = await examiner.examine({ forge, secrets, headers, body, receivedAt })
    } finally {
      release()
    }
    if (finding.kind === 'unsupported-type') return no(REFUSALS.unsupportedType)
    if (finding.kind === 'unauthentic') return no(unauthentic(incoming))
    return await record(judge, incoming, { ...finding, hook: hook.name, forge: hook.forge, receivedAt }, no)
  }

  /** 429 stands in for a 401 only: whoever verifies is served, however often the address behind it has failed. */
  function unauthentic(incoming: IncomingMessage): Refusal {
    const sender = senderOf(clientOf(incoming))
    if (failures.take(sender)) return REFUSALS.unauthentic
    return { ...REFUSALS.tooMany, retryAfter: failures.secondsUntilNext(sender) }
  }

  async function record(
    judge: Config,
    incoming: IncomingMessage,
    received: Received,
    no: (refusal: Refusal) => Response,
  ): Promise<Response> {
    let receipt: Receipt
    try {
      receipt = await parts.intake(received, judge)
    } catch (error) {
      if (hasCode(error, 'stopping')) return no(REFUSALS.stopping)
      if (!hasCode(error, 'store')) throw error
      log.error('not-recorded', { hook: received.hook, client: clientOf(incoming), error })
      return no(REFUSALS.store)
    }
    const { delivery, verdict, reason, targets } = receipt
    const detail = receipt.detail ?? received.detail
    log.info(verdict, {
      delivery,
      hook: received.hook,
      client: clientOf(incoming),
      forgeEvent: received.forgeEvent,
      repo: received.repo,
      runs: targets.flatMap((effect) => ('run' in effect ? [effect.run] : [])),
      ...(reason === null ? {} : { reason }),
      ...(detail === null ? {} : { detail }),
    })
    return answerWith({ ...receipt, detail })
  }

  function refuse(incoming: IncomingMessage, outgoing: ServerResponse, refusal: Refusal): Response {
    const { status, error, hook, allow, retryAfter } = refusal
    if (refusal.close !== undefined || hasUnreadBody(incoming)) closeUnread(incoming, outgoing, refusal.close)
    rejections.log(hook?.name, { status, reason: error, client: clientOf(incoming), path: pathOf(incoming) })
    return json(status, `{"error":"${error}"}`, {
      ...(allow === undefined ? {} : { Allow: allow }),
      ...(retryAfter === undefined ? {} : { 'Retry-After': String(retryAfter) }),
    })
  }

  const maxConnections = limits.maxConnections ?? MAX_CONNECTIONS
  const server = createHttpServer({ app, headersTimeoutMs, bodyTimeoutMs, maxConnections, rejections })
  return {
    // Like a port, a public socket is open to everybody on the machine: what counts is what a delivery proves.
    listen: (listen) => startListening({ server, listen, socketMode: 0o666, env: process.env }),
    close: (graceMs = CLOSE_GRACE_MS) => close(server, examiner, graceMs),
  }
}

interface Refusal {
  readonly status: number
  /** The whole answer: which part of a signature was wrong is nobody's business. */
  readonly error: string
  readonly allow?: string
  /** Seconds. */
  readonly retryAfter?: number
  /** The rest of the body is not wanted, nor is the connection. */
  readonly close?: 'gently' | 'at once'
  readonly hook?: Hook
}

const REFUSALS = {
  notFound: { status: 404, error: 'not-found' },
  method: { status: 405, error: 'method-not-allowed' },
  tooLarge: { status: 413, error: 'too-large', close: 'gently' },
  tooSlow: { status: 408, error: 'too-slow', close: 'gently' },
  unauthentic: { status: 401, error: 'unauthentic' },
  tooMany: { status: 429, error: 'too-many-failures' },
  unsupportedType: { status: 415, error: 'unsupported-type' },
  stopping: { status: 503, error: 'stopping', retryAfter: RETRY_AFTER_SECONDS },
  busy: { status: 503, error: 'busy', retryAfter: RETRY_AFTER_SECONDS, close: 'gently' },
  store: { status: 503, error: 'store', retryAfter: RETRY_AFTER_SECONDS },
  crumbled: { status: 400, error: 'chunks-too-small', close: 'at once' },
  aborted: { status: 400, error: 'aborted', close: 'gently' },
} satisfies Record<string, Refusal>

const UPLOAD_REFUSALS = {
  'too-large': REFUSALS.tooLarge,
  'too-slow': REFUSALS.tooSlow,
  busy: REFUSALS.busy,
  crumbled: REFUSALS.crumbled,
  aborted: REFUSALS.aborted,
}

const STATUS_OF_VERDICT = {
  accepted: 202,
  ping: 200,
  ignored: 200,
  duplicate: 200,
  invalid: 400,
} satisfies Record<Receipt['verdict'], number>

function answerWith({ delivery, verdict, reason, detail, targets }: Receipt): Response {
  const body = {
    delivery,
    verdict,
    ...(reason === null ? {} : { reason }),
    ...(detail === null ? {} : { detail }),
    ...(verdict === 'invalid' ? {} : { targets }),
  }
  return json(STATUS_OF_VERDICT[verdict], JSON.stringify(body))
}

function json(status: number, body: string, headers?: Record<string, string>): Response {
  return new Response(body, { status, headers: { 'Content-Type': 'application/json', ...headers } })
}

/** What follows from a configuration, made once for each. */
function derived<T>(make: (config: Config) => T): (config: Config) => T {
  let last: { readonly from: Config; readonly made: T } | null = null
  return (config) => {
    if (last?.from !== config) last = { from: config, made: make(config) }
    return last.made
  }
}

/** The path without its query, which may hold a token; short, since it is a stranger's. */
function pathOf({ url = '' }: IncomingMessage): string {
  return (url.split('?', 1)[0] ?? '').slice(0, 100).replace(/[^\x21-\x7e]/g, '?')
}

interface RejectionLog {
  log(hook: string | undefined, fields: Record<string, unknown>): void
}

/** A flood of refused requests must not fill the disk; what goes unsaid is counted in the next line. */
function createRejectionLog(log: Log, now: Clock): RejectionLog {
  const lines: Allowance = createAllowance({ burst: 20, refillMs: 1000, maxKeys: 1000, now })
  let suppressed = 0
  return {
    log(hook, fields) {
      // An allowance a hook, so that scanners of other paths cannot drown what its owner needs to see.
      if (!lines.take(hook ?? '')) {
        suppressed++
        return
      }
      const counted = suppressed > 0 ? { suppressed } : {}
      suppressed = 0
      log.warn('rejected', { ...(hook === undefined ? {} : { hook }), ...fields, ...counted })
    },
  }
}

interface HttpServerParts {
  readonly app: Hono<{ Bindings: HttpBindings }>
  readonly headersTimeoutMs: number
  readonly bodyTimeoutMs: number
  readonly maxConnections: number
  readonly rejections: RejectionLog
}

function createHttpServer(parts: HttpServerParts): Server {
  const { app, headersTimeoutMs, bodyTimeoutMs, maxConnections, rejections } = parts
  const server = createAdaptorServer({
    fetch: app.fetch,
    hostname: 'localhost', // for HTTP/1.0, which need not name a host
    autoCleanupIncoming: false, // it would read on for 64 MB
    createServer,
    serverOptions: {
      headersTimeout: headersTimeoutMs,
      // A net below our own timer, which begins with the end of the headers.
      requestTimeout: headersTimeoutMs + bodyTimeoutMs + 5000,
      connectionsCheckingInterval: Math.min(1000, headersTimeoutMs),
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: 16 * 1024,
      // What node still takes of a body that we have refused, be it byte by byte.
      highWaterMark: 8 * 1024,
    },
  }) as Server // what `createServer` above makes
  server.maxConnections = maxConnections
  let connections = 0
  server.on('connection', (socket) => {
    connections += 1
    socket.once('close', () => {
      connections -= 1
    })
    // Else who asks once for nothing, on each of them, and stays, would shut out everybody else as long as we keep alive.
    if (connections > 0.9 * maxConnections) server.closeIdleConnections()
  })
  // The 100 is sent by whoever wants the body.
  server.on('checkContinue', (incoming, outgoing) => server.emit('request', incoming, outgoing))
  server.on('clientError', (error, socket: Socket) => {
    const [status, line] = PROTOCOL_REFUSALS[systemCode(error) ?? ''] ?? ([400, 'Bad Request'] as const)
    if (systemCode(error) !== 'ECONNRESET') {
      rejections.log(undefined, { status, reason: systemCode(error), client: socket.remoteAddress ?? 'unix' })
    }
    // An answer that has begun must not get a second one in its middle; node's own handler looks at the same field.
    const { _httpMessage: underway } = socket as Socket & { readonly _httpMessage?: ServerResponse | null }
    if (socket.writable && underway?.headersSent !== true) {
      socket.write(`HTTP/1.1 ${status} ${line}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
    }
    socket.destroySoon()
  })
  server.on('drop', (dropped) => {
    rejections.log(undefined, { reason: 'too-many-connections', client: dropped?.remoteAddress ?? 'unix' })
  })
  return server
}

/** What node's parser refuses before there is a request. */
const PROTOCOL_REFUSALS: Readonly<Record<string, readonly [number, string]>> = {
  HPE_HEADER_OVERFLOW: [431, 'Request Header Fields Too Large'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'Content Too Large'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout'],
}

async function close(server: Server, examiner: Examiner, graceMs: number): Promise<void> {
  const closed = Promise.withResolvers<void>()
  const end = setTimeout(() => server.closeAllConnections(), graceMs)
  // Kept-alive connections become idle one by one, as their answers are finished.
  const sweep = setInterval(() => server.closeIdleConnections(), 50)
  server.close(() => closed.resolve()) // calls back also where it never listened
  await closed.promise
  clearTimeout(end)
  clearInterval(sweep)
  await examiner.close()
}
