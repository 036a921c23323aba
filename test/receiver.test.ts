import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { Agent, createServer as createHttpServer, request } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, test } from 'node:test'
import { MessageChannel, MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import type { Config, Hook, Listen } from '../src/config/config.ts'
import { hasCode, LandfallError } from '../src/errors.ts'
import type { OutgoingDelivery } from '../src/forges/forge.ts'
import { FORGE } from '../src/forges/index.ts'
import type { Log, Receipt, Received } from '../src/model.ts'
import { parseSha } from '../src/model.ts'
import { CODEC, unpackPayload } from '../src/payload-codec.ts'
import { createExaminer } from '../src/receiver/examine.ts'
import { createReceiver, type Receiver, type ReceiverParts } from '../src/receiver/receiver.ts'
import { createUploads, type Upload } from '../src/receiver/upload.ts'
import { aConfig } from './support/nouns.ts'
import { exchange, openRaw } from './support/raw-http.ts'
import { until } from './support/until.ts'

const MB = 1024 * 1024
const SECRET = 'a secret of some length'
const push: OutgoingDelivery = {
  event: 'push',
  repo: 'acme/site',
  ref: 'refs/heads/main',
  before: parseSha('1'.repeat(40)),
  after: parseSha('a'.repeat(40)),
  guid: 'guid-1',
}
const hookOf = (name: string, forge: Hook['forge'], secrets: readonly string[]): Hook => ({
  name,
  forge,
  secrets,
  repos: null,
  clone: FORGE[forge].clone,
  forgeToken: null,
  sshKey: null,
  knownHosts: null,
  missedAfterMs: 60_000,
})
const HOOKS = [hookOf('github', 'github', [SECRET]), hookOf('lab', 'gitlab', [SECRET])]
function configWith(server: Partial<Config['server']>): Config {
  const usual = aConfig({ hooks: HOOKS })
  const limits = { maxBodyBytes: 25 * MB, trustedProxies: ['127.0.0.1/32'] }
  return { ...usual, server: { ...usual.server, ...limits, ...server } }
}
const USUAL = configWith({})
const ACCEPTED: Receipt = {
  delivery: 17,
  verdict: 'accepted',
  reason: null,
  detail: null,
  targets: [
    { target: 'site', run: 42 },
    { target: 'docs', reason: 'ref', detail: 'refs/heads/main is not refs/heads/docs.' },
  ],
}

type Line = { readonly level: string; readonly event: string } & Record<string, unknown>

const open: { receiver: Receiver; directory: string }[] = []
afterEach(async () => {
  for (const { receiver, directory } of open.splice(0)) {
    await receiver.close(0)
    rmSync(directory, { recursive: true, force: true })
  }
})

interface Answer {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: unknown
}

async function start(parts: Partial<ReceiverParts> = {}, listen: Listen = { kind: 'tcp', host: '127.0.0.1', port: 0 }) {
  const received: Received[] = []
  const lines: Line[] = []
  const logAs = (level: string) => (event: string, fields?: Record<string, unknown>) => {
    lines.push({ level, event, ...fields })
  }
  const log: Log = { debug: logAs('debug'), info: logAs('info'), warn: logAs('warn'), error: logAs('error') }
  const receiver = createReceiver({
    config: () => USUAL,
    intake: async (delivery) => {
      received.push(delivery)
      return ACCEPTED
    },
    healthy: async () => true,
    stopping: () => false,
    log,
    now: Date.now,
    ...parts,
  })
  const directory = mkdtempSync(join(tmpdir(), 'landfall-receiver-'))
  open.push({ receiver, directory })
  const url = await receiver.listen(listen)
  return { receiver, url, received, lines, directory }
}

function made(payload?: string, forge: 'github' | 'gitlab' = 'github', secret = SECRET) {
  return FORGE[forge].compose(payload === undefined ? push : { ...push, payload }, secret, Date.now())
}

/** One request on a connection of its own. */
function send(url: string, { path = '/hooks/github', method = 'POST', ...message }: SendOptions = {}): Promise<Answer> {
  const { headers, body } = { ...made(), ...message }
  return new Promise((resolve, reject) => {
    const outgoing = request(url + path, { method, headers, agent: new Agent({ keepAlive: false }) }, (incoming) => {
      const pieces: Buffer[] = []
      incoming.on('data', (piece: Buffer) => pieces.push(piece))
      incoming.on('end', () => {
        const text = Buffer.concat(pieces).toString()
        const { statusCode = 0 } = incoming
        resolve({ status: statusCode, headers: incoming.headers, body: text === '' ? null : JSON.parse(text) })
      })
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
interface SendOptions {
  readonly path?: string
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string | Uint8Array
}

/** The text of a POST to a hook, signed, with a header line or two beside the usual ones. */
function rawPost({ headers, body }: { headers: Record<string, string>; body: string }, ...lines: string[]): string {
  const fixed = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  return [`POST /hooks/github HTTP/1.1`, 'Host: x', ...fixed, ...lines, '', body].join('\r\n')
}

function forged() {
  const { headers, body } = made()
  return { headers: { ...headers, 'x-hub-signature-256': `sha256=${'0'.repeat(64)}` }, body }
}

describe('the HTTP table', () => {
  test('a delivery with a run is 202, with its number, verdict and every target', async () => {
    const { url, received, lines } = await start()
    const delivery = made()
    const answer = await send(url, delivery)
    assert.equal(answer.status, 202)
    assert.deepEqual(answer.body, { delivery: 17, verdict: 'accepted', targets: ACCEPTED.targets })
    assert.equal(answer.headers['content-type'], 'application/json')

    const [only] = received
    assert.ok(only && received.length === 1)
    const { bodyHash, payload, receivedAt, ...rest } = only
    assert.deepEqual(rest, {
      hook: 'github',
      forge: 'github',
      kind: 'event',
      guid: 'guid-1',
      event: 'push',
      forgeEvent: 'push',
      repo: 'acme/site',
      repoId: null,
      changes: [{ ref: push.ref, before: push.before, after: push.after }],
      defaultBranch: 'main',
      detail: null,
    })
    assert.deepEqual(Buffer.from(bodyHash), createHash('sha256').update(delivery.body).digest())
    assert.equal(unpackPayload(payload.compressed, CODEC), delivery.body)
    assert.equal(payload.bytes, Buffer.byteLength(delivery.body))
    assert.ok(Math.abs(receivedAt - Date.now()) < 60_000)
    const line = lines.find(({ event }) => event === 'accepted')
    assert.deepEqual(
      [line?.['hook'], line?.['client'], line?.['delivery'], line?.['runs']],
      ['github', '127.0.0.1', 17, [42]],
    )
  })

  test('other verdicts are 200, with the reason beside the verdict only where there is one', async () => {
    let receipt: Receipt = ACCEPTED
    const { url } = await start({ intake: async () => receipt })
    const nothing = { delivery: 18, reason: null, detail: null, targets: [] } as const
    for (const verdict of ['ping', 'ignored', 'duplicate'] as const) {
      receipt = { ...nothing, verdict }
      assert.deepEqual(await send(url).then(({ status, body }) => ({ status, body })), {
        status: 200,
        body: { delivery: 18, verdict, targets: [] },
      })
    }
    receipt = { ...nothing, verdict: 'ignored', reason: 'no-target', detail: 'No target follows acme/site.' }
    assert.deepEqual((await send(url)).body, {
      delivery: 18,
      verdict: 'ignored',
      reason: 'no-target',
      detail: 'No target follows acme/site.',
      targets: [],
    })
  })

  test('a ping is kept as one', async () => {
    const { url, received } = await start()
    const ping = FORGE.github.compose({ ...push, event: 'ping' }, SECRET, Date.now())
    await send(url, ping)
    assert.equal(received[0]?.kind, 'ping')
  })

  test('what is authentic but not understood is 400, and kept with its body', async () => {
    const { url, received } = await start({
      intake: async (delivery) => {
        received.push(delivery)
        return { ...ACCEPTED, verdict: 'invalid', targets: [] }
      },
    })
    const answer = await send(url, made('nonsense'))
    assert.equal(answer.status, 400)
    assert.deepEqual(answer.body, { delivery: 17, verdict: 'invalid', detail: 'The payload is not JSON.' })
    const [kept] = received
    assert.equal(kept?.kind, 'invalid')
    assert.equal(kept && unpackPayload(kept.payload.compressed, CODEC), 'nonsense')
  })

  test('whatever is wrong with the proof, the answer is the same 401 and nothing is recorded', async () => {
    const { url, received, lines } = await start()
    const { headers, body } = made()
    const { 'x-hub-signature-256': _, ...unsigned } = headers
    const wrong = [
      forged(),
      { headers: unsigned, body },
      { headers: { ...headers, 'x-hub-signature-256': '' }, body },
      { headers: { ...headers, 'x-hub-signature-256': 'sha256=' }, body },
      { headers, body: '' },
      { headers, body: `${body} ` },
      { headers: { ...unsigned, 'content-type': 'text/plain' }, body },
      made(undefined, 'github', 'another secret'),
    ]
    for (const message of wrong) {
      const { status, body: said } = await send(url, message)
      assert.deepEqual({ status, said }, { status: 401, said: { error: 'unauthentic' } })
    }
    assert.equal(received.length, 0)
    const line = lines.find(({ event }) => event === 'rejected')
    assert.deepEqual([line?.['hook'], line?.['client'], line?.['status']], ['github', '127.0.0.1', 401])
    assert.ok(!JSON.stringify(lines).includes(SECRET))
  })

  test('the forge is known from the hook: a GitLab delivery proves nothing to a GitHub hook', async () => {
    const { url } = await start()
    assert.equal((await send(url, made(undefined, 'gitlab'))).status, 401)
    assert.equal((await send(url, { path: '/hooks/lab', ...made(undefined, 'gitlab') })).status, 202)
    assert.equal((await send(url, { path: '/hooks/lab', ...made() })).status, 401)
  })

  test('only hooks that exist and health are there', async () => {
    const { url } = await start()
    for (const path of [
      '/',
      '/hooks',
      '/hooks/',
      '/hooks/other',
      '/hooks/github/',
      '/hooks/github/x',
      '//hooks/github',
      '/api/v1/runs',
      '/metrics',
      '/hooks/__proto__',
      '/hooks/GITHUB',
      '/hooks/%00',
      '/hooks/%ff',
    ]) {
      for (const method of ['GET', 'POST']) {
        const { status, body } = await send(url, { path, method, body: '' })
        assert.deepEqual({ status, body }, { status: 404, body: { error: 'not-found' } }, `${method} ${path}`)
      }
    }
    assert.equal((await send(url, { path: '/hooks/github?token=x' })).status, 202)
  })

  test('a method that is not POST is 405 and says what is', async () => {
    const { url } = await start()
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      const { status, headers } = await send(url, { method, body: '' })
      assert.deepEqual([status, headers['allow']], [405, 'POST'], method)
    }
    const { status, headers } = await send(url, { path: '/healthz' })
    assert.deepEqual([status, headers['allow']], [405, 'GET, HEAD'])
  })

  test('a type that is neither JSON nor a form is 415, after authentication', async () => {
    const { url, received } = await start()
    const { headers, body } = made()
    for (const odd of [{ 'content-type': 'text/plain' }, { 'content-encoding': 'gzip' }, { 'content-type': '' }]) {
      const answer = await send(url, { headers: { ...headers, ...odd }, body })
      assert.deepEqual([answer.status, answer.body], [415, { error: 'unsupported-type' }])
    }
    assert.equal((await send(url, { headers: { ...headers, 'content-encoding': 'identity' }, body })).status, 202)
    assert.equal(received.length, 1)
  })

  test('health says ok, stopping or failing, also to HEAD', async () => {
    let healthy = true
    let stopping = false
    const { url } = await start({ healthy: async () => healthy, stopping: () => stopping })
    const health = async (method = 'GET') => {
      const { status, body } = await send(url, { path: '/healthz', method, headers: {}, body: '' })
      return { status, body }
    }
    assert.deepEqual(await health(), { status: 200, body: { status: 'ok' } })
    assert.deepEqual(await health('HEAD'), { status: 200, body: null })
    healthy = false
    assert.deepEqual(await health(), { status: 503, body: { status: 'failing' } })
    stopping = true
    assert.deepEqual(await health(), { status: 503, body: { status: 'stopping' } })
    const answer = await send(url)
    assert.deepEqual([answer.status, answer.body], [503, { error: 'stopping' }])
    assert.match(String(answer.headers['retry-after']), /^\d+$/)
  })

  test('a store that fails is 503 with Retry-After; a bug is a bare 500 that the log explains', async () => {
    let error: Error = new LandfallError('store', 'The disk is full.')
    const { url, lines } = await start({ intake: () => Promise.reject(error) })
    const full = await send(url)
    assert.deepEqual([full.status, full.body], [503, { error: 'store' }])
    assert.match(String(full.headers['retry-after']), /^\d+$/)
    error = new LandfallError('stopping', 'Stopping.')
    assert.equal((await send(url)).status, 503)
    error = new TypeError('x is not a function')
    const bug = await send(url)
    assert.deepEqual([bug.status, bug.body], [500, { error: 'internal' }])
    assert.equal(lines.find(({ event }) => event === 'bug')?.['error'], error)
  })

  test('no answer is given before the delivery is recorded', async () => {
    const recorded = Promise.withResolvers<Receipt>()
    const reached = Promise.withResolvers<void>()
    const { url } = await start({
      intake: () => {
        reached.resolve()
        return recorded.promise
      },
    })
    const raw = await openRaw(url)
    raw.socket.write(rawPost(made(), `Content-Length: ${Buffer.byteLength(made().body)}`))
    await reached.promise
    assert.equal(raw.text(), '')
    recorded.resolve(ACCEPTED)
    assert.match(await raw.until(/\r\n\r\n.*\}$/s), /^HTTP\/1.1 202 /)
    raw.socket.destroy()
  })

  test('a hook that was removed or added counts from the next request', async () => {
    let config = USUAL
    const { url } = await start({ config: () => config })
    assert.equal((await send(url)).status, 202)
    config = { ...config, hooks: [hookOf('new', 'github', ['another'])] }
    assert.equal((await send(url)).status, 404)
    assert.equal((await send(url, { path: '/hooks/new', ...made(undefined, 'github', 'another') })).status, 202)
  })
})

describe('bodies', () => {
  test('a form is decoded after its raw body was verified', async () => {
    const { url, received } = await start()
    const payload = made().body.replace('Sent by landfall', '1 + 1')
    const form = made(`payload=${encodeURIComponent(payload).replaceAll('%20', '+')}`)
    const headers = { ...form.headers, 'content-type': 'application/x-www-form-urlencoded' }
    assert.equal((await send(url, { headers, body: form.body })).status, 202)
    const kept = received[0]?.payload
    assert.equal(kept && unpackPayload(kept.compressed, CODEC), payload)
    assert.equal(kept?.bytes, Buffer.byteLength(payload))
  })

  test('a chunked body is read like any other', async () => {
    const { url } = await start()
    const { headers, body } = made()
    const chunks = body.match(/[\s\S]{1,100}/g)?.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`) ?? []
    const text = rawPost(
      { headers, body: `${chunks.join('')}0\r\n\r\n` },
      'Transfer-Encoding: chunked',
      'Connection: close',
    )
    assert.match(await exchange(url, text), /^HTTP\/1.1 202 /)
  })

  test('a length over the limit is refused at once, and no more is read', async () => {
    // Who waited for the body would have nothing to say but 408.
    const { url } = await start({ limits: { bodyTimeoutMs: 60_000 } })
    const raw = await openRaw(url)
    raw.socket.write(rawPost({ headers: made().headers, body: '' }, `Content-Length: ${25 * MB + 1}`))
    const answer = await raw.closed
    assert.match(answer, /^HTTP\/1.1 413 [\s\S]*connection: close[\s\S]*\{"error":"too-large"\}$/i)
    raw.socket.destroy()
  })

  test('a sender that reads only after it has sent much finds the refusal, not a reset', async () => {
    const { url, lines } = await start()
    const raw = await openRaw(url)
    raw.socket.pause()
    raw.socket.write(rawPost({ headers: made().headers, body: '' }, `Content-Length: ${26 * MB}`))
    raw.socket.write('x'.repeat(8 * MB))
    await until('the refusal', () => lines.length > 0)
    raw.socket.resume()
    assert.match(await raw.closed, /^HTTP\/1.1 413 /)
    raw.socket.destroy()
  })

  test('a body that outgrows the limit while streaming is refused, and the sender gets rid of little more', async () => {
    const { url, received } = await start({ config: () => configWith({ maxBodyBytes: MB }) })
    const raw = await openRaw(url)
    raw.socket.write(rawPost({ headers: made().headers, body: '' }, 'Transfer-Encoding: chunked'))
    const chunk = `10000\r\n${'x'.repeat(65536)}\r\n`
    const gone = new Promise((resolve) => raw.socket.on('close', resolve))
    let sent = 0
    while (!raw.socket.destroyed && sent < 200 * MB) {
      if (!raw.socket.write(chunk)) await Promise.race([once(raw.socket, 'drain').catch(() => {}), gone])
      sent += chunk.length
    }
    assert.match(await raw.closed, /^HTTP\/1.1 413 [\s\S]*connection: close[\s\S]*\{"error":"too-large"\}$/i)
    // One limit's worth, and what the kernel's and the parser's buffers hold.
    assert.ok(sent < 32 * MB, `${sent} bytes were taken`)
    assert.equal(received.length, 0)
    raw.socket.destroy()
  })

  test('a limit is reached, not exceeded, by a body of exactly that size', async () => {
    const { body, headers } = made()
    const { url } = await start({ config: () => configWith({ maxBodyBytes: Buffer.byteLength(body) }) })
    assert.equal((await send(url, { headers, body })).status, 202)
    assert.equal((await send(url, made(`${body} `))).status, 413)
  })

  test('whoever expects "100 Continue" is told 413 before it sends, and to go on where the body is wanted', async () => {
    const { url } = await start()
    const refused = await exchange(
      url,
      rawPost({ headers: made().headers, body: '' }, 'Expect: 100-continue', `Content-Length: ${26 * MB}`),
    )
    assert.match(refused, /^HTTP\/1.1 413 /)
    const { headers, body } = made()
    const raw = await openRaw(url)
    const lines = ['Expect: 100-continue', `Content-Length: ${Buffer.byteLength(body)}`, 'Connection: close']
    raw.socket.write(rawPost({ headers, body: '' }, ...lines))
    await raw.until(/^HTTP\/1.1 100 Continue\r\n\r\n$/)
    raw.socket.write(body)
    assert.match(await raw.closed, /\r\n\r\nHTTP\/1.1 202 /)
    raw.socket.destroy()
  })

  test('strangers cannot make us hold more than the budget, and leaving gives it back', async () => {
    const { url } = await start({ limits: { budgetBytes: 2 * MB } })
    const holders = [await openRaw(url), await openRaw(url)]
    for (const { socket } of holders) {
      socket.write(rawPost({ headers: made().headers, body: '' }, `Content-Length: ${MB - 100}`))
      socket.write('x'.repeat(MB - 200))
    }
    const big = made(JSON.stringify({ x: 'x'.repeat(1000) }))
    // What was written need not have arrived yet.
    const answer = await until('a refusal', async () => {
      const tried = await send(url, big)
      return tried.status === 503 ? tried : null
    })
    assert.deepEqual(answer.body, { error: 'busy' })
    assert.match(String(answer.headers['retry-after']), /^\d+$/)
    for (const { socket } of holders) socket.destroy()
    const half = made(JSON.stringify({ x: 'x'.repeat(MB) }))
    // So big that both holders must be gone for it: they are seen to leave one after the other.
    await until('a delivery that is served again', async () => (await send(url, half)).status === 202)
    for (let i = 0; i < 5; i++) assert.equal((await send(url, half)).status, 202)
  })

  test('a body in crumbs is given up early, and one in small pieces comes together in order', async () => {
    const { url, received } = await start()
    const head = (extra: string) => rawPost({ headers: made().headers, body: '' }, 'Transfer-Encoding: chunked') + extra
    assert.match(await exchange(url, head('1\r\nx\r\n'.repeat(20_000))), /^HTTP\/1\.1 400 .*chunks-too-small/s)

    const filler = Array.from({ length: 40_000 }, (_, index) => index.toString(36)).join()
    const { headers, body } = made(JSON.stringify({ ...JSON.parse(made().body), filler }))
    const sizes = [1, 5000, 17, 4095, 30, 20_000, 3000, 999]
    const chunks: string[] = []
    for (let at = 0, turn = 0; at < body.length; turn += 1) {
      const chunk = body.slice(at, at + (sizes[turn % sizes.length] ?? 1))
      chunks.push(`${chunk.length.toString(16)}\r\n${chunk}\r\n`)
      at += chunk.length
    }
    const text = rawPost(
      { headers, body: `${chunks.join('')}0\r\n\r\n` },
      'Transfer-Encoding: chunked',
      'Connection: close',
    )
    assert.match(await exchange(url, text), /^HTTP\/1\.1 202 /)
    assert.equal(received.length, 1)
  })

  test('connections that are only kept do not keep others out', async () => {
    const { url } = await start({ limits: { maxConnections: 20 } })
    for (let index = 0; index < 30; index += 1) {
      const { socket, until: comes } = await openRaw(url)
      socket.write('GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n')
      await comes(/^HTTP\/1\.1 404 /)
    }
    assert.equal((await send(url)).status, 202)
  })

  test('a budget that is spent while streaming ends the body that spends it', async () => {
    const { url } = await start({ limits: { budgetBytes: MB } })
    const raw = await openRaw(url)
    raw.socket.write(rawPost({ headers: made().headers, body: '' }, 'Transfer-Encoding: chunked'))
    raw.socket.write(`200000\r\n${'x'.repeat(2 * MB)}\r\n`)
    assert.match(await raw.closed, /^HTTP\/1.1 503 [\s\S]*"busy"/)
    raw.socket.destroy()
    assert.equal((await send(url)).status, 202)
  })

  test('a body of 25 MB is verified, read and packed, while others are answered', async () => {
    const { url, received } = await start()
    const filler = 'x'.repeat(25 * MB - made().body.length - 20)
    const big = made(made().body.replace('{', `{"filler":"${filler}",`))
    const sending = send(url, big)
    let others = 0
    let isDone = false
    const done = sending.finally(() => {
      isDone = true
    })
    while (!isDone) {
      assert.equal((await send(url)).status, 202)
      others++
    }
    assert.equal((await done).status, 202)
    assert.ok(others > 1)
    const kept = received.find(({ payload }) => payload.bytes > MB)
    assert.equal(kept?.payload.bytes, Buffer.byteLength(big.body))
    assert.deepEqual(Buffer.from(kept?.bodyHash ?? []), createHash('sha256').update(big.body).digest())
    assert.ok(kept && unpackPayload(kept.payload.compressed, CODEC) === big.body)
    assert.equal((await send(url, { headers: big.headers, body: big.body.replace('x', 'y') })).status, 401)
  })

  test('a big body waits in order, and is gone once it is released', async (t) => {
    const upload = createUploads({ maxBodyBytes: () => 25 * MB, budgetBytes: 64 * MB, bodyTimeoutMs: 10_000 })
    const uploaded = Promise.withResolvers<Upload>()
    const server = createHttpServer((incoming, outgoing) => {
      upload(incoming, outgoing).then(uploaded.resolve, uploaded.reject)
    }).listen(0, '127.0.0.1')
    t.after(() => server.close())
    await once(server, 'listening')
    const sent = Buffer.from(Array.from({ length: MB / 8 }, (_, n) => String(n).padStart(8, '0')).join(''))
    const { port } = server.address() as AddressInfo
    const sending = request({ host: '127.0.0.1', port, method: 'POST', agent: false }).on('error', () => {})
    sending.write('small first')
    sending.end(sent)
    t.after(() => sending.destroy())
    const whole = await uploaded.promise
    assert.ok(whole.kind === 'complete' && whole.body instanceof MessagePort)
    const first = receiveMessageOnPort(whole.body) as { readonly message: Uint8Array }
    assert.equal(Buffer.from(first.message).toString('utf8', 0, 11), 'small first')
    const closed = once(whole.body, 'close')
    whole.release()
    await closed
  })

  test('JSON of millions of lists, objects or fields is kept without being parsed', async () => {
    const { url, received } = await start()
    for (const part of ['{},', '[],', '"a":1,', '[[']) {
      await send(url, made(`{"x":[${part.repeat((24 * MB) / part.length)}`))
      assert.match(String(received.at(-1)?.detail), /more than 1000000 objects/)
    }
  })

  test('a thread that dies over a big body is an error for that body, and the next one gets a new thread', async () => {
    const scripts = ['process.exit(1)', "require('node:worker_threads').parentPort.on('message', () => null.x)"]
    const lines: string[] = []
    const nothing = () => {}
    const log: Log = { debug: nothing, info: nothing, warn: nothing, error: (event) => lines.push(event) }
    const examiner = createExaminer({
      log,
      makeThread: () => {
        const script = scripts.shift()
        return script === undefined
          ? new Worker(new URL('../src/receiver/examine-thread.ts', import.meta.url))
          : new Worker(script, { eval: true })
      },
    })
    const { headers, body } = made(made().body.replace('{', `{"filler":"${'x'.repeat(MB)}",`))
    const examine = () => {
      const { port1, port2 } = new MessageChannel()
      for (const piece of [body.slice(0, MB / 2), body.slice(MB / 2)]) port1.postMessage(Buffer.from(piece))
      return examiner.examine({ forge: 'github', secrets: [SECRET], headers, body: port2, receivedAt: 1 })
    }
    await assert.rejects(examine(), /thread/)
    await assert.rejects(examine(), /thread/)
    assert.deepEqual(lines, ['examiner-died'])
    assert.equal((await examine()).kind, 'event')
    await examiner.close()
  })
})

describe('slow, lying and malformed clients', () => {
  test('headers that do not end in time are answered with 408', async () => {
    const { url, lines } = await start({ limits: { headersTimeoutMs: 300 } })
    const raw = await openRaw(url)
    raw.socket.write('POST /hooks/github HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    const drip = setInterval(() => raw.socket.write('x'), 50)
    assert.match(await raw.closed, /^HTTP\/1.1 408 /)
    clearInterval(drip)
    raw.socket.destroy()
    assert.equal(lines.find(({ event }) => event === 'rejected')?.['status'], 408)
  })

  test('a connection that says nothing at all is closed', async () => {
    const { url } = await start({ limits: { headersTimeoutMs: 300 } })
    const raw = await openRaw(url)
    await raw.closed
    raw.socket.destroy()
  })

  test('a body that does not end in time, also one that claims to be longer than it is, is 408', async () => {
    const { url, lines } = await start({ limits: { bodyTimeoutMs: 300 } })
    const { headers, body } = made()
    const raw = await openRaw(url)
    raw.socket.write(rawPost({ headers, body }, `Content-Length: ${body.length + 10}`))
    assert.match(await raw.closed, /^HTTP\/1.1 408 [\s\S]*connection: close[\s\S]*\{"error":"too-slow"\}$/i)
    raw.socket.destroy()
    assert.equal(lines.find(({ event }) => event === 'rejected')?.['reason'], 'too-slow')
  })

  test('a body that is longer than it claims is cut there, does not verify, and the rest is no request', async () => {
    const { url, received } = await start()
    const { headers, body } = made()
    const answer = await exchange(url, rawPost({ headers, body }, `Content-Length: ${body.length - 10}`))
    assert.doesNotMatch(answer, /HTTP\/1.1 2/)
    assert.match(answer, /HTTP\/1.1 400 /)
    assert.equal(received.length, 0)
  })

  test('what proxies and we could read differently is refused', async () => {
    const { url, received } = await start()
    const { headers, body } = made()
    const length = `Content-Length: ${body.length}`
    for (const lines of [
      [length, 'Transfer-Encoding: chunked'],
      [length, `Content-Length: ${body.length + 1}`],
      [length, 'Transfer-Encoding: xchunked'],
      ['Transfer-Encoding: chunked, identity'],
      ['Content-Length: +10'],
      ['Content-Length: -1'],
      ['Content-Length: 0x10'],
      [`Content-Length : ${body.length}`],
      [`X: a\r\n Content-Length: ${body.length}`, 'Transfer-Encoding: chunked'],
    ]) {
      assert.match(await exchange(url, rawPost({ headers, body }, ...lines)), /^HTTP\/1.1 400 /, lines.join(' | '))
    }
    assert.match(await exchange(url, 'nonsense\r\n\r\n'), /^HTTP\/1.1 400 /)
    assert.match(await exchange(url, '\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03'), /^HTTP\/1.1 400 /)
    assert.match(await exchange(url, 'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n'), /^HTTP\/1.1 400 /)
    assert.equal(received.length, 0)
  })

  test('a flood of headers is 431', async () => {
    const { url } = await start()
    const flood = `GET /healthz HTTP/1.1\r\nHost: x\r\n${'X-Flood: yes\r\n'.repeat(5000)}\r\n`
    assert.match(await exchange(url, flood), /^HTTP\/1.1 431 /)
  })

  test('a chunk that is none ends the connection and frees what was held', async () => {
    const { url } = await start({ limits: { budgetBytes: MB } })
    const { headers } = made()
    const text = rawPost({ headers, body: `80000\r\n${'x'.repeat(0x80000)}\r\nzz\r\n` }, 'Transfer-Encoding: chunked')
    for (let i = 0; i < 4; i++) assert.match(await exchange(url, text), /^HTTP\/1.1 400 /)
    assert.equal((await send(url, made(JSON.stringify({ x: 'x'.repeat(900_000) })))).status, 202)
  })

  test('HTTP/1.0, absolute targets and odd hosts get an answer', async () => {
    const { url } = await start()
    assert.match(await exchange(url, 'GET /healthz HTTP/1.0\r\n\r\n'), / 200 /)
    const absolute = 'GET http://other.example/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    assert.match(await exchange(url, absolute), / 200 /)
    const odd = 'GET /healthz HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n'
    assert.match(await exchange(url, odd), / 400 /)
  })

  test('requests on one connection are answered one after the other', async () => {
    const { url, received } = await start()
    const { headers, body } = made()
    const one = rawPost({ headers, body }, `Content-Length: ${body.length}`)
    const last = rawPost({ headers, body }, `Content-Length: ${body.length}`, 'Connection: close')
    assert.equal((await exchange(url, one + one + last)).match(/HTTP\/1.1 202 /g)?.length, 3)
    assert.equal(received.length, 3)
  })
})

describe('clients', () => {
  test('too many failures of one address are 429, while whoever verifies is served', async () => {
    const { url, lines } = await start({ now: () => 1_000_000 })
    const statuses = new Set<number>()
    let last: Answer | undefined
    for (let i = 0; i < 200 && last?.status !== 429; i++) {
      last = await send(url, forged())
      statuses.add(last.status)
    }
    assert.deepEqual([...statuses], [401, 429])
    assert.match(String(last?.headers['retry-after']), /^[1-9]\d*$/)
    assert.notDeepEqual(last?.body, { error: 'unauthentic' })
    assert.equal((await send(url)).status, 202)
    const { headers, body } = forged()
    const elsewhere = { headers: { ...headers, 'x-forwarded-for': '192.0.2.7' }, body }
    assert.equal((await send(url, elsewhere)).status, 401, 'another address has its own allowance')
    assert.ok(lines.filter(({ event }) => event === 'rejected').length <= 25, 'a flood does not fill the log')
  })

  test('lines that a flood kept out of the log are counted in the next one', async () => {
    let time = 1_000_000
    const { url, lines } = await start({ now: () => time })
    for (let i = 0; i < 30; i++) await send(url, forged())
    time += 60_000
    await send(url, forged())
    assert.equal(lines.at(-1)?.['suppressed'], 10)
  })

  test('X-Forwarded-For is believed from trusted proxies only, up to the first hop that is none', async () => {
    const clientFor = async (trustedProxies: string[], forwarded: string) => {
      const { url, lines } = await start({ config: () => configWith({ trustedProxies }) })
      const { headers, body } = made()
      await send(url, { headers: { ...headers, 'x-forwarded-for': forwarded }, body })
      return lines.find(({ event }) => event === 'accepted')?.['client']
    }
    const local = ['127.0.0.1/32']
    assert.equal(await clientFor(local, '192.0.2.7'), '192.0.2.7')
    assert.equal(await clientFor(local, '198.51.100.1, 192.0.2.7'), '192.0.2.7')
    assert.equal(await clientFor([...local, '10.0.0.0/8'], '203.0.113.9, 192.0.2.7, 10.1.2.3'), '192.0.2.7')
    assert.equal(await clientFor(local, '10.1.2.3, ::ffff:127.0.0.1'), '10.1.2.3')
    assert.equal(await clientFor(local, '192.0.2.7:4711'), '192.0.2.7')
    assert.equal(await clientFor(local, '[2001:DB8::1]:4711'), '2001:db8::1')
    assert.equal(await clientFor(local, '192.0.2.7, nonsense'), '127.0.0.1')
    assert.equal(await clientFor(['10.0.0.0/8'], '192.0.2.7'), '127.0.0.1')
    assert.equal(await clientFor([], '192.0.2.7'), '127.0.0.1')
  })

  test('one IPv6 network counts as one sender', async () => {
    const { url } = await start({ now: () => 1_000_000 })
    const { headers, body } = forged()
    const from = async (address: string) =>
      (await send(url, { headers: { ...headers, 'x-forwarded-for': address }, body })).status
    for (let i = 1; i <= 50; i++) assert.equal(await from(`2001:db8:1:2::${i.toString(16)}`), 401)
    assert.equal(await from('2001:db8:1:2:ffff::1'), 429)
    assert.equal(await from('2001:db8:1:3::1'), 401)
  })
})

describe('listening', () => {
  test('a port in use is a clear error', async () => {
    const { url } = await start()
    const port = Number(new URL(url).port)
    await assert.rejects(start({}, { kind: 'tcp', host: '127.0.0.1', port }), (error) => {
      assert.ok(hasCode(error, 'start'))
      assert.match(error.message, new RegExp(`127.0.0.1:${port}: another process listens there`))
      return true
    })
  })

  test('a unix socket serves, its peers count as proxies, and it is gone afterwards', async () => {
    const { directory, receiver: unused } = await start()
    await unused.close()
    const path = join(directory, 'hooks.sock')
    const { url, lines, receiver } = await start({}, { kind: 'unix', path })
    assert.equal(url, `unix:${path}`)
    assert.equal(statSync(path).mode & 0o777, 0o666)
    const { headers, body } = made()
    const text = (...more: string[]) =>
      rawPost({ headers, body }, `Content-Length: ${body.length}`, 'Connection: close', ...more)
    assert.match(await exchange(url, text()), /^HTTP\/1.1 202 /)
    assert.match(await exchange(url, text('X-Forwarded-For: 192.0.2.7')), /^HTTP\/1.1 202 /)
    const clients = lines.filter(({ event }) => event === 'accepted').map((line) => line['client'])
    assert.deepEqual(clients, ['unix', '192.0.2.7'])
    await receiver.close()
    assert.equal(existsSync(path), false)
  })

  test('a socket file that nobody listens on is replaced; a live one, or another file, is an error', async () => {
    const { directory } = await start()
    const path = join(directory, 'hooks.sock')
    const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
    await once(spawn(process.execPath, ['-e', script]), 'exit')
    assert.equal(statSync(path).isSocket(), true)
    await start({}, { kind: 'unix', path })
    await assert.rejects(start({}, { kind: 'unix', path }), /another process listens there/)

    const file = join(directory, 'file')
    writeFileSync(file, 'precious')
    await assert.rejects(start({}, { kind: 'unix', path: file }), /a file that is no socket/)
    await assert.rejects(start({}, { kind: 'unix', path: join(directory, 'no', 'x') }), /directory does not exist/)
    await assert.rejects(start({}, { kind: 'unix', path: join(directory, 'x'.repeat(200)) }), /107 bytes/)
  })

  test('a socket that systemd does not pass is an error that names it', async () => {
    await assert.rejects(start({}, { kind: 'systemd', name: 'web' }), (error) => {
      assert.ok(hasCode(error, 'start'))
      assert.match(error.message, /FileDescriptorName=web/)
      return true
    })
  })

  test('a socket that systemd passes is found by its name', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    const mine = createServer().listen(0, '127.0.0.1')
    await Promise.all([once(other, 'listening'), once(mine, 'listening')])
    const handle = (server: object) => (server as { _handle: { fd: number } })._handle.fd
    const listening = new URL('../src/listen.ts', import.meta.url).href
    const script = `
      import { createServer } from 'node:http'
      import { startListening } from ${JSON.stringify(listening)}
      const server = createServer((incoming, outgoing) => outgoing.end('served'))
      const env = { LISTEN_PID: String(process.pid), LISTEN_FDS: '2', LISTEN_FDNAMES: 'other:web' }
      console.log(await startListening({ server, listen: { kind: 'systemd', name: 'web' }, socketMode: 0o600, env }))`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit', handle(other), handle(mine)],
    })
    assert.ok(child.stdout)
    const [told] = await once(child.stdout, 'data')
    const address = mine.address()
    assert.ok(typeof address === 'object' && address !== null)
    assert.equal(String(told).trim(), `http://127.0.0.1:${address.port}`)
    mine.close()
    other.close()
    assert.equal(await (await fetch(`http://127.0.0.1:${address.port}/`)).text(), 'served')
    child.kill('SIGKILL')
    await once(child, 'exit')
  })

  test('closing lets an answer under way finish, takes no more, and does not wait for idle connections', async () => {
    const recorded = Promise.withResolvers<Receipt>()
    const reached = Promise.withResolvers<void>()
    const intake = () => {
      reached.resolve()
      return recorded.promise
    }
    // An address of its own, so that no other test can be given the port once it is free.
    const { url, receiver } = await start({ intake }, { kind: 'tcp', host: '127.0.0.2', port: 0 })
    const idle = await openRaw(url)
    idle.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
    await idle.until(/"ok"/)
    const busy = await openRaw(url)
    busy.socket.write(rawPost(made(), `Content-Length: ${made().body.length}`))
    await reached.promise
    const closing = receiver.close(600_000)
    await idle.closed
    await assert.rejects(send(url, { path: '/healthz', method: 'GET', body: '' }), { code: 'ECONNREFUSED' })
    const started = performance.now()
    recorded.resolve(ACCEPTED)
    assert.match(await busy.closed, /^HTTP\/1.1 202 /)
    busy.socket.destroy()
    await closing
    assert.ok(performance.now() - started < 300_000)
    idle.socket.destroy()
  })

  test('closing ends connections that never finish', async () => {
    const { url, receiver } = await start({ limits: { bodyTimeoutMs: 600_000 } })
    const raw = await openRaw(url)
    raw.socket.write(rawPost({ headers: made().headers, body: 'x' }, 'Content-Length: 100'))
    const started = performance.now()
    await receiver.close(100)
    assert.ok(performance.now() - started < 300_000, 'it did not wait for the body')
    await raw.closed
    raw.socket.destroy()
  })
})
