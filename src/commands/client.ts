/** The verbs' side of the API: HTTP over the unix socket of the data_dir. */
import { once } from 'node:events'
import { type IncomingMessage, type RequestOptions, request } from 'node:http'
import { request as requestSecurely } from 'node:https'
import { join } from 'node:path'
import { findConfig } from '../config/find.ts'
import { readDataDir } from '../config/read.ts'
import { LandfallError, messageOf, systemCode } from '../errors.ts'

/** Parameters of a query; those that are undefined are left out. */
export type Query = Readonly<Record<string, string | number | undefined>>

/** A list as the API gives it. */
export interface Listed<T> {
  readonly items: readonly T[]
  readonly next: string | null
}

/** Asks one daemon. Every call throws `unreachable`, or what the API says is wrong. */
export interface Client {
  get<T>(path: string, query?: Query): Promise<T>
  post<T>(path: string): Promise<T>
  /** The bytes of an answer as they come. */
  stream(path: string, query: Query, accept: string): AsyncGenerator<Buffer>
}

/**
 * The daemon of the configuration that this command line means. No secret is opened for it; and when somebody has broken
 * something is when one looks, so mistakes in the file are said, and no more.
 */
export async function connect(configFlag: string | undefined): Promise<Client> {
  const file = await findConfig({ flag: configFlag, passedOver: (why) => console.error(why) })
  const { dataDir, isFaultless } = await readDataDir(file)
  if (!isFaultless) {
    const check = `landfall${configFlag === undefined ? '' : ` -c ${configFlag}`} check`
    console.error(`${file} has mistakes, which a landfall that runs has not taken over. They are told by: ${check}`)
  }
  return clientOf(dataDir)
}

export function clientOf(dataDir: string): Client {
  const socket = join(dataDir, 'landfall.sock')

  async function ask(method: 'GET' | 'POST', path: string, query: Query, accept: string): Promise<IncomingMessage> {
    const options = { socketPath: socket, method, path: `/api/v1/${path}${search(query)}`, headers: { accept } }
    const answer = await exchange(options).catch((cause: unknown) => {
      throw unreachable(socket, cause)
    })
    if ((answer.statusCode ?? 500) >= 400)
      throw refusal(await textOf(answer, socket), answer.headers['retry-after'] !== undefined)
    return answer
  }

  return {
    async get(path, query = {}) {
      return JSON.parse(await textOf(await ask('GET', path, query, 'application/json'), socket))
    },
    async post(path) {
      return JSON.parse(await textOf(await ask('POST', path, {}, 'application/json'), socket))
    },
    async *stream(path, query, accept) {
      const answer = await ask('GET', path, query, accept)
      try {
        for await (const chunk of answer) yield chunk
      } catch (cause) {
        throw wentAway(socket, cause)
      }
    },
  }
}

/** One request with its body sent; resolves to the answer, whose body has not been read yet. */
export async function exchange(options: RequestOptions, body?: string): Promise<IncomingMessage> {
  // A connection of its own: one that was kept may have been closed while this process was stopped, by Ctrl-Z for instance.
  const alone = { ...options, agent: false }
  const sending = options.protocol === 'https:' ? requestSecurely(alone) : request(alone)
  sending.end(body)
  const [answer] = await once(sending, 'response')
  return answer
}

async function textOf(answer: IncomingMessage, socket: string): Promise<string> {
  try {
    return Buffer.concat(await answer.toArray()).toString()
  } catch (cause) {
    throw wentAway(socket, cause)
  }
}

function search(query: Query): string {
  const given = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value !== undefined) given.set(name, String(value))
  return given.size === 0 ? '' : `?${given.toString()}`
}

function unreachable(socket: string, cause: unknown): LandfallError {
  return new LandfallError('unreachable', `no answer from ${socket}: ${whyUnreachable(cause)}`, { cause })
}

function whyUnreachable(cause: unknown): string {
  switch (systemCode(cause) ?? '') {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ECONNREFUSED':
      return 'landfall does not run there.\nStart it with: landfall serve'
    case 'EACCES':
    case 'EPERM':
      return 'permission denied.\nAsk as the account that landfall runs as, or let a group in: under [server], write\nsocket_mode = "0660" and socket_group = "<a group you are in>", and restart landfall'
    default:
      return messageOf(cause)
  }
}

function wentAway(socket: string, cause: unknown): LandfallError {
  return new LandfallError('unreachable', `${socket} went away in the middle of an answer: landfall stopped`, { cause })
}

/** RFC 9457: `status` for programs, `detail` for people. */
function refusal(body: string, isForLater: boolean): LandfallError {
  const { status, detail } = problemOf(body)
  // It is on its way out: for whoever asks it is not there.
  if (status === 503 && isForLater) return new LandfallError('unreachable', detail)
  return new LandfallError(status === 404 ? 'not-found' : status === 503 ? 'store' : 'invalid', detail)
}

function problemOf(body: string): { readonly status: number; readonly detail: string } {
  try {
    const { status, detail } = JSON.parse(body)
    return { status: Number(status), detail: String(detail) }
  } catch {
    return { status: 500, detail: 'landfall answered with something that is not its API' }
  }
}
