/**
 * The launcher: the process that starts scripts and git for the daemon, and holds nothing else. It lives exactly as long as
 * the channel to the daemon. However the daemon ends, everything that was started here ends too.
 */
import { writeFileSync } from 'node:fs'
import { LandfallError, messageOf } from '../errors.ts'
import { processOf } from '../processes.ts'
import type { CallMessage, FromLauncher, SentError, ToLauncher } from './launcher.ts'
import { createScripts } from './script.ts'

const scripts = createScripts({ warn })
const cancels = new Map<number, AbortController>()
// Loaded when the first git command is wanted, so that nothing else waits for simple-git.
let git: ReturnType<typeof loadGit> | null = null

// A web server reads the releases, and scripts expect what cron and systemd give them, whoever started the daemon.
process.umask(0o022)
giveWay()
process.on('message', (message) => {
  const order = message as ToLauncher
  if (order.kind === 'cancel') cancels.get(order.id)?.abort()
  else void answer(order)
})
// The daemon decides when to end; a signal to everybody (Ctrl-C, a stopping service) is meant for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
process.on('disconnect', () => process.exit())
process.on('exit', () => {
  scripts.killAll()
  // git, and what git starts, is in this process's own group, which it leads. This is the last thing that it does.
  if (processOf(process.pid)?.group === process.pid) process.kill(-process.pid, 'SIGKILL')
})

async function answer(call: CallMessage): Promise<void> {
  const { id } = call
  const cancel = new AbortController()
  cancels.set(id, cancel)
  try {
    send({ kind: 'done', id, value: await perform(call, cancel.signal) })
  } catch (error) {
    send({ kind: 'failed', id, error: sendable(error) })
  } finally {
    cancels.delete(id)
  }
}

async function perform(call: CallMessage, signal: AbortSignal): Promise<unknown> {
  if (call.method === 'runScript') {
    return scripts.runScript(call.order, (mark) => send({ kind: 'started', id: call.id, mark }), signal)
  }
  git ??= loadGit()
  const { mirrors, checkouts, inPlace } = await git
  switch (call.method) {
    case 'listRefs':
      return mirrors.listRefs(call.order, signal)
    case 'fetch':
      return mirrors.fetch(call.order, signal)
    case 'chooseTag':
      return mirrors.chooseTag(call.order, signal)
    case 'relation':
      return mirrors.relation(call.order, signal)
    case 'touches':
      return mirrors.touches(call.order, signal)
    case 'pin':
      return mirrors.pin(call.order)
    case 'tidy':
      return mirrors.tidy(call.order, signal)
    case 'checkOut':
      return checkouts.checkOut(call.order, signal)
    case 'checkOutInPlace':
      return inPlace.checkOutInPlace(call.order, signal)
    case 'restore':
      return inPlace.restore(call.order)
    case 'switchLink':
      return checkouts.switchLink(call.order)
    case 'remove':
      return checkouts.remove(call.order)
  }
}

async function loadGit() {
  const [{ createGit }, { createMirrors }, { createCheckouts }, { createInPlace }] = await Promise.all([
    import('../git/git.ts'),
    import('../git/mirror.ts'),
    import('../git/checkout.ts'),
    import('../git/in-place.ts'),
  ])
  const openGit = createGit({ environment: process.env })
  const mirrors = createMirrors({ openGit, log: { warn } })
  const parts = { openGit, mirrors }
  return { mirrors, checkouts: createCheckouts(parts), inPlace: createInPlace(parts) }
}

/**
 * Forges wait for answers, nobody waits for git: under load it is git that gives way, where the kernel shares processors out by
 * session (sched_autogroup). Scripts have sessions of their own, and keep their priority.
 */
function giveWay(): void {
  try {
    writeFileSync('/proc/self/autogroup', '5')
  } catch {
    // A kernel without it, or a container that may not write there: then everybody is equal.
  }
}

function sendable(error: unknown): SentError {
  return {
    code: error instanceof LandfallError ? error.code : null,
    message: messageOf(error),
    stack: error instanceof Error ? (error.stack ?? null) : null,
  }
}

function warn(event: string, fields: Record<string, unknown> = {}): void {
  send({ kind: 'warning', event, fields })
}

function send(message: FromLauncher): void {
  // A failure means that the daemon is gone, and `disconnect` is on its way.
  process.send?.(message, () => {})
}
