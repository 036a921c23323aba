/**
 * The launcher: the process that starts scripts and git for the daemon, and holds nothing else. It lives exactly as long as
 * the channel to the daemon. However the daemon ends, everything that was started here ends too.
 */
import { writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { giveDirectory, makePassage } from '../belongings.ts'
import { accountNamed } from '../config/accounts.ts'
import { LandfallError, messageOf, systemCode } from '../errors.ts'
import { processOf } from '../processes.ts'
import { becomeAccount } from './account.ts'
import { closedDirectory } from './executable.ts'
import type { Becoming, CallMessage, FromLauncher, SentError, ToLauncher } from './launcher.ts'
import { sealLog } from './log-file.ts'
import { createScripts, type Scripts } from './script.ts'

const cancels = new Map<number, AbortController>()
// Loaded when the first git command is wanted, so that nothing else waits for simple-git.
let git: ReturnType<typeof loadGit> | null = null
let scripts: Scripts | null = null

// A web server reads the releases, and scripts expect what cron and systemd give them, whoever started the daemon.
process.umask(0o022)
giveWay()
// The daemon decides when to end; a signal to everybody (Ctrl-C, a stopping service) is meant for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
process.on('disconnect', () => process.exit())
process.on('exit', () => {
  scripts?.killAll()
  // git, and what git starts, is in this process's own group, which it leads. This is the last thing that it does.
  if (processOf(process.pid)?.group === process.pid) process.kill(-process.pid, 'SIGKILL')
})
const [, , given] = process.argv
if (given === undefined) takeOrders()
else void become(JSON.parse(given))

/** Leaves root for good, or ends. No order is taken before. */
async function become({ account, rooms }: Becoming): Promise<void> {
  try {
    // The program's own directory may be closed to the account: what will ever be needed of it is read now.
    git = loadGit()
    await git
    const known = await accountNamed(account.name)
    if (known?.uid !== account.uid || known.gid !== account.gid) {
      const what = known === null ? 'is not on this machine any more' : 'has other numbers now: restart landfall'
      throw new LandfallError('unstartable', `the account ${account.name} ${what}`)
    }
    for (const room of rooms) {
      await makePassage(dirname(room))
      await giveDirectory(account, room, 0o700)
    }
    becomeAccount(account)
    for (const room of rooms) {
      const closed = await closedDirectory(room)
      if (closed !== null) throw new LandfallError('unstartable', `${account.name} cannot reach data_dir: ${closed}`)
    }
  } catch (error) {
    process.send?.({ kind: 'refused', error: sendable(error) } satisfies FromLauncher, () => process.exit())
    return
  }
  takeOrders()
  send({ kind: 'ready' })
}

function takeOrders(): void {
  // Not earlier: its pipes are files of the account.
  const mine = createScripts({ warn })
  scripts = mine
  process.on('message', (message) => {
    const order = message as ToLauncher
    if (order.kind === 'cancel') cancels.get(order.id)?.abort()
    else if (order.kind === 'ping') send({ kind: 'pong' })
    else void answer(order, mine)
  })
}

async function answer(call: CallMessage, mine: Scripts): Promise<void> {
  const { id } = call
  const cancel = new AbortController()
  cancels.set(id, cancel)
  try {
    send({ kind: 'done', id, value: await perform(call, mine, cancel.signal) })
  } catch (error) {
    send({ kind: 'failed', id, error: sendable(error) })
  } finally {
    cancels.delete(id)
  }
}

async function perform(call: CallMessage, mine: Scripts, signal: AbortSignal): Promise<unknown> {
  if (call.method === 'runScript') {
    return mine.runScript(call.order, (mark) => send({ kind: 'started', id: call.id, mark }), signal)
  }
  if (call.method === 'sealLog') return sealLog(call.order)
  git ??= loadGit()
  const { mirrors, checkouts, inPlace, places } = await git
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
    case 'wrongLink':
      return places.wrongLink(call.order)
    case 'switchLink':
      return checkouts.switchLink(call.order)
    case 'rename':
      return places.rename(call.order)
    case 'emptyDirectory':
      return places.emptyDirectory(call.order)
    case 'remove':
      return checkouts.remove(call.order)
  }
}

async function loadGit() {
  const [{ createGit }, { createMirrors }, { createCheckouts }, { createInPlace }, { places }] = await Promise.all([
    import('../git/git.ts'),
    import('../git/mirror.ts'),
    import('../git/checkout.ts'),
    import('../git/in-place.ts'),
    import('../git/places.ts'),
  ])
  const openGit = createGit({ environment: process.env })
  const mirrors = createMirrors({ openGit, log: { warn } })
  const parts = { openGit, mirrors }
  return { mirrors, places, checkouts: createCheckouts(parts), inPlace: createInPlace(parts) }
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
    code: codeOf(error),
    message: messageOf(error),
    stack: error instanceof Error ? (error.stack ?? null) : null,
  }
}

function codeOf(error: unknown): SentError['code'] {
  if (error instanceof LandfallError) return error.code
  // Files of another account are as it leaves them, which is no bug of ours.
  return given !== undefined && systemCode(error) !== undefined ? 'git' : null
}

function warn(event: string, fields: Record<string, unknown> = {}): void {
  send({ kind: 'warning', event, fields })
}

function send(message: FromLauncher): void {
  // A failure means that the daemon is gone, and `disconnect` is on its way.
  process.send?.(message, () => {})
}
