/**
 * The daemon's side of the launcher: a small child process that starts scripts and git, so that the daemon's event loop does
 * not. What crosses between the two is one JSON message each way and call, a mark when a script has started, and a cancel.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { environmentOf, type LoginAccount } from '../config/accounts.ts'
import { type ErrorCode, LandfallError } from '../errors.ts'
import type { Log } from '../model.ts'
import { GIT_ENVIRONMENT, type ProcessMark, type Work } from '../work.ts'

/** How long a launcher may take to end its children and itself. */
const CLOSE_MS = 5000
/** Another account's launcher that says nothing for so long was stopped by a script, which would then never end. */
const SILENCE_MS = 30_000
/**
 * How long a call to another account's launcher may take beyond its own time limit, fetches of the same mirror before it
 * included. Whoever owns the files there can make any look at them wait for ever: a FIFO does.
 */
const STUCK_MS = 30 * 60_000
/** What a launcher that has ended has said is read by then. */
const LAST_WORDS_MS = 1000
/** How often it is asked for a sign of life in that time. */
const PINGS = 6

type Method = keyof Work
type Order<M extends Method> = Parameters<Work[M]>[0]
export type CallMessage = {
  [M in Method]: { readonly kind: 'call'; readonly id: number; readonly method: M; readonly order: Order<M> }
}[Method]
export type ToLauncher = CallMessage | { readonly kind: 'cancel'; readonly id: number } | { readonly kind: 'ping' }

/** An error without a code is a bug, and its stack is worth keeping. */
export interface SentError {
  readonly code: ErrorCode | null
  readonly message: string
  readonly stack: string | null
}
export type FromLauncher =
  /** It has become the account that it was to become. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'refused'; readonly error: SentError }
  | { readonly kind: 'pong' }
  | { readonly kind: 'started'; readonly id: number; readonly mark: ProcessMark }
  | { readonly kind: 'done'; readonly id: number; readonly value?: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: SentError }
  | { readonly kind: 'warning'; readonly event: string; readonly fields: Record<string, unknown> }

/** Another account than landfall's own. */
export interface Becoming {
  readonly account: LoginAccount
  /** Directories that are to be the account's, made where they are missing. */
  readonly rooms: readonly string[]
}

export interface LauncherParts {
  readonly log: Log
  /** What the launcher becomes before its first order; null: it stays what landfall itself is. */
  readonly becomes?: Becoming | null
  /** How long another account's launcher may be silent before it is ended. */
  readonly silenceMs?: number
  /** How long another account's launcher may take for a call beyond the call's own time limit. */
  readonly stuckMs?: number
  /** For the launcher itself and for git. Scripts get only what their order says. */
  readonly env?: Readonly<NodeJS.ProcessEnv>
}

export interface Launcher {
  /**
   * Calls reject with `lost` where the launcher dies, and its scripts then run on without it: end them by their marks. They
   * reject with `unstartable` where it cannot become its account. The next call starts a new one.
   */
  readonly work: Work
  /** Kills whatever still runs. Pending calls reject with `lost`, later ones with `stopping`. */
  close(): Promise<void>
}

interface Pending {
  readonly method: Method
  /** When it has taken too long, by `performance.now()`; null for a script, which owns its deadline. */
  readonly until: number | null
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
  readonly started: ((mark: ProcessMark) => void) | undefined
}
interface Connection {
  readonly child: ChildProcess
  readonly pending: Map<number, Pending>
  /** Orders are taken from here on. */
  readonly ready: Promise<void>
  readonly gone: Promise<void>
}
interface CallOptions {
  readonly signal?: AbortSignal | undefined
  readonly started?: (mark: ProcessMark) => void
}

/** Starts landfall's own launcher at once, so that the first call need not wait for it, and another account's with that call. */
export function createLauncher({
  log,
  becomes = null,
  silenceMs = SILENCE_MS,
  stuckMs = STUCK_MS,
  env = process.env,
}: LauncherParts): Launcher {
  let lastId = 0
  let closed = false
  let current: Connection | null = becomes === null ? connect() : null

  function connect(): Connection {
    const child = start(env, becomes)
    const pending = new Map<number, Pending>()
    const gone = Promise.withResolvers<void>()
    const ready = Promise.withResolvers<void>()
    const connection: Connection = { child, pending, ready: ready.promise, gone: gone.promise }
    let lost = false
    let isRefused = false
    let isReady = becomes === null
    let heardAt = performance.now()
    let lookedAt = heardAt
    ready.promise.catch(() => {}) // each call that waits for it is told
    if (becomes === null) ready.resolve()
    const watch = becomes === null ? null : setInterval(askForLife, silenceMs / PINGS).unref()
    const lose = (why: string): void => {
      if (lost) return
      lost = true
      if (current === connection) current = null
      gone.resolve()
      if (watch !== null) clearInterval(watch)
      const account = becomes?.account.name
      if (!closed && !isRefused) log.error('launcher-lost', { pid: child.pid, account, why, calls: pending.size })
      ready.reject(new LandfallError('lost', `the launcher process ended before it was ready (${why})`))
      for (const call of pending.values()) {
        call.reject(new LandfallError('lost', `the launcher process ended during ${call.method} (${why})`))
      }
      pending.clear()
    }
    function askForLife(): void {
      const isLate = performance.now() - lookedAt > (2 * silenceMs) / PINGS
      lookedAt = performance.now()
      // We were stopped ourselves, by Ctrl-Z for instance: what it has said meanwhile lies unread.
      if (isLate) heardAt = lookedAt
      // Before it is ready calls wait for it too, and its account can stop it from the moment that it has become it.
      if (pending.size === 0 && isReady) heardAt = performance.now()
      else if (performance.now() - heardAt > silenceMs || isStuck(pending)) child.kill('SIGKILL')
      send(child, { kind: 'ping' })
    }
    child.on('message', (message) => {
      heardAt = performance.now()
      const told = message as FromLauncher
      if (told.kind === 'ready') {
        isReady = true
        ready.resolve()
      } else if (told.kind === 'refused') {
        isRefused = true
        // It is on its way out: the next call tries anew, for what was wrong may have been mended.
        if (current === connection) current = null
        ready.reject(received(told.error, 'becoming the account'))
      } else if (told.kind !== 'pong') receive(pending, told)
    })
    // Not `exit`, which may come before the last messages.
    child.once('disconnect', () => lose('its channel closed'))
    // A child of its that was stopped before it became its program holds the channel open, and no message comes any more.
    child.once('exit', () =>
      setTimeout(() => {
        lose('it has ended')
        if (child.connected) child.disconnect()
      }, LAST_WORDS_MS).unref(),
    )
    child.on('error', (error) => {
      if (child.pid === undefined) lose(error.message)
    })
    return connection
  }

  function receive(
    pending: Map<number, Pending>,
    message: Exclude<FromLauncher, { readonly kind: 'ready' | 'refused' | 'pong' }>,
  ): void {
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

  function received({ code, message, stack }: SentError, method: string): Error {
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
    const { child, pending, ready } = current
    // Waited for only where it takes long: a call to landfall's own launcher is under way when this function returns.
    if (becomes !== null) await ready
    if (signal?.aborted) throw new LandfallError('aborted', `${method} was called off before it began`)
    const cancel = (): void => send(child, { kind: 'cancel', id })
    const limitMs = typeof order === 'object' && 'timeoutMs' in order ? order.timeoutMs : 0
    const until = method === 'runScript' ? null : performance.now() + stuckMs + limitMs
    pending.set(id, { method, until, resolve, reject, started })
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
      wrongLink: (link) => call('wrongLink', link),
      switchLink: (order) => call('switchLink', order),
      rename: (order) => call('rename', order),
      emptyDirectory: (directory) => call('emptyDirectory', directory),
      remove: (directories) => call('remove', directories),
      runScript: async (order, started, signal) =>
        signal?.aborted ? { kind: 'aborted' } : call('runScript', order, { started, signal }),
      sealLog: (order) => call('sealLog', order),
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

function start(env: Readonly<NodeJS.ProcessEnv>, becomes: Becoming | null): ChildProcess {
  // `.ts` in a checkout, `.js` where it was compiled.
  const entry = new URL(`./launcher-process${extname(fileURLToPath(import.meta.url))}`, import.meta.url)
  return fork(entry, becomes === null ? [] : [JSON.stringify(becomes)], {
    // A session of its own: Ctrl-C on a terminal reaches the daemon alone, which then decides.
    detached: true,
    // A script may signal the launcher of its account, and by SIGUSR1 node would open it to a debugger.
    execArgv: ['--max-semi-space-size=2', '--disable-sigusr1'],
    env: launcherEnvironment(env, becomes),
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
}

/** For node itself, and for temporary files. */
const PASSED = ['PATH', 'HOME', 'TMPDIR', 'LANG', 'TZ', 'LD_LIBRARY_PATH', ...GIT_ENVIRONMENT]

/**
 * Nothing but what is needed: any script may read it as /proc/$PPID/environ, and ours holds the secrets that came as
 * variables. The marks of a script that has started us stay out as well: what we start belongs to no run of another landfall.
 */
function launcherEnvironment(env: Readonly<NodeJS.ProcessEnv>, becomes: Becoming | null): NodeJS.ProcessEnv {
  // The agent of whoever started landfall is theirs alone.
  const names = becomes === null ? PASSED : PASSED.filter((name) => name !== 'SSH_AUTH_SOCK')
  const passed = Object.fromEntries(names.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])))
  return becomes === null ? passed : { ...passed, ...environmentOf(becomes.account) }
}

function isStuck(pending: ReadonlyMap<number, Pending>): boolean {
  return [...pending.values()].some(({ until }) => until !== null && performance.now() > until)
}

function send(child: ChildProcess, message: ToLauncher): void {
  // Where it fails, or there is no channel, the launcher is gone or never came, and the event that says so rejects the call.
  if (child.connected) child.send(message, () => {})
}
