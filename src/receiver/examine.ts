/** What a body turns out to be: verified, read, hashed and packed. Small ones here, big ones in a thread of their own. */
import { hash } from 'node:crypto'
import { extname } from 'node:path'
import { MessagePort, Worker } from 'node:worker_threads'
import type { Accepted } from '../forges/forge.ts'
import { FORGE } from '../forges/index.ts'
import type { ForgeName, Log, Received } from '../model.ts'
import { packPayload } from '../payload-codec.ts'
import type { Body } from './upload.ts'

export interface Specimen {
  readonly forge: ForgeName
  readonly secrets: readonly string[]
  /** Header names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly pieces: readonly Uint8Array[]
  readonly receivedAt: number
}

export type Finding = { readonly kind: 'unauthentic' } | { readonly kind: 'unsupported-type' } | Understood
export type Understood = Omit<Received, 'hook' | 'forge' | 'receivedAt'>

/** Verifies first; nothing is read, hashed or packed of a body that is not authentic. */
export async function examine({ forge, secrets, headers, pieces, receivedAt }: Specimen): Promise<Finding> {
  const body = pieces.length === 1 && pieces[0] ? pieces[0] : Buffer.concat(pieces)
  const accepted = await FORGE[forge].accept({ headers, body }, secrets, receivedAt)
  if (accepted.kind === 'unauthentic' || accepted.kind === 'unsupported-type') return accepted
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') return { kind: 'unsupported-type' }
  return { ...understand(accepted, body), bodyHash: hash('sha256', body, 'buffer') }
}

function understand(
  accepted: Exclude<Accepted, { kind: 'unauthentic' | 'unsupported-type' }>,
  body: Uint8Array,
): Omit<Understood, 'bodyHash'> {
  if (accepted.kind === 'invalid') {
    const { kind, guid, forgeEvent, detail } = accepted
    const nothing = { event: null, repo: null, repoId: null, changes: [], defaultBranch: null }
    return { ...nothing, kind, guid, forgeEvent, detail, payload: packPayload(body) }
  }
  const { payload, ...announcement } = accepted.announcement
  return { ...announcement, kind: accepted.kind, detail: null, payload: packPayload(payload ?? body) }
}

const IDLE_MS = 60_000

/** Its pieces are the messages that wait in `body`. */
export type ThreadOrder = Omit<Specimen, 'pieces'> & { readonly id: number; readonly body: MessagePort }
export type ThreadReply =
  | { readonly id: number; readonly finding: Finding }
  | { readonly id: number; readonly error: unknown }

export interface Examiner {
  /** A big body is gone afterwards. Rejects where the thread died over this body, or over one beside it. */
  examine(given: Omit<Specimen, 'pieces'> & { readonly body: Body }): Promise<Finding>
  close(): Promise<void>
}

export interface ExaminerParts {
  readonly log: Log
  /** Makes the thread; tests bring one that dies. */
  readonly makeThread?: () => Worker
}

export function createExaminer({ log, makeThread = examineThread }: ExaminerParts): Examiner {
  const waiting = new Map<number, PromiseWithResolvers<Finding>>()
  let lastId = 0
  let thread: Worker | null = null
  let idle: NodeJS.Timeout | undefined

  function start(): Worker {
    const worker = makeThread()
    worker.unref()
    worker.on('message', settle)
    worker.on('error', (error) => log.error('examiner-died', { error }))
    worker.on('exit', () => {
      if (thread === worker) lose()
    })
    return worker
  }

  function settle(reply: ThreadReply): void {
    const answer = waiting.get(reply.id)
    waiting.delete(reply.id)
    if ('finding' in reply) answer?.resolve(reply.finding)
    else answer?.reject(reply.error)
    if (waiting.size === 0) idle = setTimeout(() => void stop(), IDLE_MS).unref()
  }

  /** The thread is gone with whatever it had: each of those gets an error, the next body a new thread. */
  function lose(): void {
    thread = null
    for (const answer of waiting.values()) answer.reject(new Error('the thread that examines big bodies died'))
    waiting.clear()
  }

  async function stop(): Promise<void> {
    clearTimeout(idle)
    const worker = thread
    lose()
    await worker?.terminate()
  }

  function examineInThread(order: Omit<ThreadOrder, 'id'>): Promise<Finding> {
    clearTimeout(idle)
    thread ??= start()
    const id = ++lastId
    const answer = Promise.withResolvers<Finding>()
    waiting.set(id, answer)
    thread.postMessage({ ...order, id } satisfies ThreadOrder, [order.body])
    return answer.promise
  }

  return {
    examine: ({ body, ...about }) =>
      body instanceof MessagePort ? examineInThread({ ...about, body }) : examine({ ...about, pieces: body }),
    close: stop,
  }
}

/** No resource limits: to exceed one amid JSON.parse ends the whole process. What is parsed is limited instead. */
function examineThread(): Worker {
  return new Worker(new URL(`./examine-thread${extname(import.meta.url)}`, import.meta.url))
}
