/**
 * The daemon's side of the launcher: a small child process that starts scripts and git, so that the daemon's event loop does
 * not. What crosses between the two is one JSON message each way and call, a mark when a script has started, and a cancel.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LoginAccount } from '../config/accounts.ts'
import { type ErrorCode, LandfallError } from '../errors.ts'
import type { Log } from '../model.ts'
import { GIT_ENVIRONMENT, type ProcessMark, type Work } from '../work.ts'

/** How long a launcher may take to end its children and itself. */
const CLOSE_MS = 5000

type Method = keyof Work
type Order<M extends Method> = Parameters<Work[M]>[0]
export type CallMessage = {
  [M in Method]: { readonly kind: 'call'; readonly id: number; readonly method: M; readonly order: Order<M> }
}[Method]
export type ToLauncher = CallMessage | { readonly kind: 'cancel'; readonly id: number }

/** An error without a code is a bug, and its stack is worth keeping. */
export interface SentError {
  readonly code: ErrorCode | null
  readonly message: string
  readonly stack: string | null
}
export type FromLauncher =
  | { readonly kind: 'started'; readonly id: number; readonly mark: ProcessMark }
  | { readonly kind: 'done'; readonly id: number; readonly value?: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: SentError }
  | { readonly kind: 'warning'; readonly event: string; readonly fields: Record<string, unknown> }

export interface LauncherParts {
  readonly log: Log
  /** What the launcher becomes before its first order; null: it stays what landfall itself is. */
  readonly account?: LoginAccount | null
  /** For the launcher itself and for git. Scripts get only what their order says. */
  readonly env?: Readonly<NodeJS.ProcessEnv>
}

export interface Launcher {
  /**
   * Calls reject with `lost` where the launcher dies, and its scripts then run on without it: end them by their marks. The
   * next call starts a new one.
   */
  readonly work: Work
  /** Kills whatever still runs. Pending calls reject with `lost`, later ones with `stopping`. */
  close(): Promise<void>
}

interface Pending {
  readonly method: Method
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
  readonly started: ((mark: ProcessMark) => void) | undefined
}
interface Connection {
  readonly child: ChildProcess
  readonly pending: Map<number, Pending>
  readonly gone: Promise<void>
}
interface CallOptions {
  readonly signal?: AbortSignal | undefined
  readonly started?: (mark: ProcessMark) => void
}

/** Starts the launcher at once, so that the first call need not wait for it. */
export function createLauncher({ log, env = process.env }: LauncherParts): Launcher {
  let lastId = 0
  let closed = false
  let current: Connection | null = connect()

  function connect(): Connection {
    const child = start(env)
    const pending = new Map<number, Pending>()
    const gone = Promise.withResolvers<void>()
    const connection: Connection = { child, pending, gone: gone.promise }
    let lost = false
    const lose = (why: string): void => {
      if (lost) return
      lost = true
      if (current === connection) current = null
      gone.resolve()
      if (!closed) log.error('launcher-lost', { pid: child.pid, why, calls: pending.size })
      for (const call of pending.values()) {
        call.reject(new LandfallError('lost', `the launcher process ended during ${call.method} (${why})`))
      }
      pending.clear()
    }
    child.on('message', (message) => receive(pending, message as FromLauncher))
    // Not `exit`, which may come before the last messages.
    child.once('disconnect', () => lose('its channel closed'))
    child.on('error', (error) => {
      if (child.pid === undefined) lose(error.message)
    })
    return connection
  }

  function receive(pending: Map<number, Pending>, message: FromLauncher): void {
    if (message.kind === 'warning') {
      log.warn(message.event, message.fields)
      return
    }
    const call = pending.get(message.id)
    if (call === undefined) return
    if (message.kind === 'started') {
      call.started?.(message.mark)
      return
    }
    pending.delete(message.id)
    if (message.kind === 'done') call.resolve(message.value)
    else call.reject(received(message.error, call.method))
  }

  function received({ code, message, stack }: SentError, method: Method): Error {
    if (code !== null) return new LandfallError(code, message)
    log.error('bug', { where: 'launcher', method, message, stack })
    const error = new Error(message)
    if (stack !== null) error.stack = stack
    return error
  }

  async function call<T>(method: Method, order: Order<Method>, { signal, started }: CallOptions = {}): Promise<T> {
    if (closed) throw new LandfallError('stopping', 'landfall is stopping and starts nothing more')
    if (signal?.aborted) throw new LandfallError('aborted', `${method} was called off before it began`)
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const id = ++lastId
    current ??= connect()
    const { child, pending } = current
    const cancel = (): void => send(child, { kind: 'cancel', id })
    pending.set(id, { method, resolve, reject, started })
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      send(child, { kind: 'call', id, method, order } as CallMessage)
      // The launcher is landfall itself and answers a method with what the method resolves to.
      return (await promise) as T
    } finally {
      signal?.removeEventListener('abort', cancel)
    }
  }

  return {
    work: {
      listRefs: (order, signal) => call('listRefs', order, { signal }),
      fetch: (order, signal) => call('fetch', order, { signal }),
      chooseTag: (order, signal) => call('chooseTag', order, { signal }),
      relation: (order, signal) => call('relation', order, { signal }),
      touches: (order, signal) => call('touches', order, { signal }),
      pin: (order) => call('pin', order),
      checkOut: (order, signal) => call('checkOut', order, { signal }),
      checkOutInPlace: (order, signal) => call('checkOutInPlace', order, { signal }),
      restore: (order) => call('restore', order),
      switchLink: (order) => call('switchLink', order),
      remove: (directories) => call('remove', directories),
      runScript: async (order, started, signal) =>
        signal?.aborted ? { kind: 'aborted' } : call('runScript', order, { started, signal }),
      tidy: (remote, signal) => call('tidy', remote, { signal }),
    },
    async close() {
      closed = true
      const connection = current
      if (connection === null) return
      const { child, gone } = connection
      const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : Promise.resolve()
      const patience = setTimeout(() => child.kill('SIGKILL'), CLOSE_MS)
      // Losing its channel is the launcher's one signal to end, the same whether the daemon closes or dies.
      if (child.connected) child.disconnect()
      await Promise.all([gone, ended])
      clearTimeout(patience)
    },
  }
}

function start(env: Readonly<NodeJS.ProcessEnv>): ChildProcess {
  // `.ts` in a checkout, `.js` where it was compiled.
  const entry = new URL(`./launcher-process${extname(fileURLToPath(import.meta.url))}`, import.meta.url)
  return fork(entry, {
    // A session of its own: Ctrl-C on a terminal reaches the daemon alone, which then decides.
    detached: true,
    execArgv: ['--max-semi-space-size=2'],
    env: launcherEnvironment(env),
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
}

/** For node itself, and for temporary files. */
const PASSED = ['PATH', 'HOME', 'TMPDIR', 'LANG', 'TZ', 'LD_LIBRARY_PATH', ...GIT_ENVIRONMENT]

/**
 * Nothing but what is needed: any script may read it as /proc/$PPID/environ, and ours holds the secrets that came as
 * variables. The marks of a script that has started us stay out as well: what we start belongs to no run of another landfall.
 */
function launcherEnvironment(env: Readonly<NodeJS.ProcessEnv>): NodeJS.ProcessEnv {
  return Object.fromEntries(PASSED.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])))
}

function send(child: ChildProcess, message: ToLauncher): void {
  // Where it fails, or there is no channel, the launcher is gone or never came, and the event that says so rejects the call.
  if (child.connected) child.send(message, () => {})
}
