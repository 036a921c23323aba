/** Bodies of strangers: how much of them is taken, for how long, and how a connection ends whose body nobody wants. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { MessageChannel, type MessagePort } from 'node:worker_threads'

/** All that strangers may make us hold at once, before any of it has proved authentic. */
export const BUDGET_BYTES = 64 * 1024 * 1024
/** From the end of the headers to the end of the body. */
export const BODY_TIMEOUT_MS = 30_000

/** Above this, verifying and packing would hold up other deliveries for more than some milliseconds: a thread does it. */
const BIG_BYTES = 256 * 1024

/**
 * The pieces of a body in order; those of a big one as messages that wait for the thread. There they are none of our heap's: a
 * heap that 25 MB are added to is soon searched for garbage, and that stops all other deliveries for as long.
 */
export type Body = readonly Uint8Array[] | MessagePort

export type Upload =
  /** To be released once the body has proved authentic or is no longer held. */
  | { readonly kind: 'complete'; readonly body: Body; readonly release: () => void }
  | { readonly kind: 'too-large' }
  /** The budget is spent. */
  | { readonly kind: 'busy' }
  | { readonly kind: 'too-slow' }
  /** It comes in crumbs that cost more than they bring. */
  | { readonly kind: 'crumbled' }
  /** The client is gone; no answer will reach it. */
  | { readonly kind: 'aborted' }

export interface UploadLimits {
  /** Of the moment: it is asked for with each body. */
  readonly maxBodyBytes: () => number
  readonly budgetBytes: number
  readonly bodyTimeoutMs: number
}

/** Smaller pieces are copied together: node spends some 240 bytes on each, even if a client's chunks have one byte. */
const SMALL_BYTES = 4096
const SLAB_BYTES = 16 * 1024
/** A client whose pieces are this small on the average, after so many of them, keeps us busy and says nothing. */
const CRUMB_BYTES = 16
const CRUMBS_FORGIVEN = 2048

/** Reads bodies within the limits. Of a body that says itself that it is too large, nothing is read. */
export function createUploads({ maxBodyBytes: limit, budgetBytes, bodyTimeoutMs }: UploadLimits) {
  let held = 0

  return function read(incoming: IncomingMessage, outgoing: ServerResponse): Promise<Upload> {
    const maxBodyBytes = limit()
    const declared = Number(incoming.headers['content-length'] ?? 0)
    if (declared > maxBodyBytes) return Promise.resolve({ kind: 'too-large' })
    // Only what has arrived counts as held: a length that is merely declared would let one packet lock out everybody.
    if (held + declared > budgetBytes) return Promise.resolve({ kind: 'busy' })
    if (incoming.headers.expect !== undefined && incoming.httpVersion === '1.1') outgoing.writeContinue()

    return new Promise((resolve) => {
      const pieces = createPieces(declared)
      let bytes = 0
      let count = 0
      const release = () => {
        held -= bytes
        bytes = 0
        pieces.drop()
      }
      const take = (piece: Uint8Array) => {
        bytes += piece.byteLength
        held += piece.byteLength
        count += 1
        if (bytes > maxBodyBytes) refuse('too-large')
        else if (held > budgetBytes) refuse('busy')
        else if (count > CRUMBS_FORGIVEN && bytes < count * CRUMB_BYTES) refuse('crumbled')
        else pieces.add(piece)
      }
      const refuse = (kind: Exclude<Upload['kind'], 'complete'>) => {
        incoming.pause()
        release()
        settle({ kind })
      }
      const complete = () => settle({ kind: 'complete', body: pieces.all(), release })
      const abort = () => refuse('aborted')
      const timer = setTimeout(() => refuse('too-slow'), bodyTimeoutMs)
      const settle = (upload: Upload) => {
        clearTimeout(timer)
        incoming.off('data', take).off('end', complete).off('error', abort).off('close', abort)
        resolve(upload)
      }
      incoming.on('data', take).on('end', complete).on('error', abort).on('close', abort)
    })
  }
}

/** Keeps pieces in order, in memory that is not much more than their bytes. `declared` is what the whole should have. */
function createPieces(declared: number) {
  const full: Uint8Array[] = []
  let fullBytes = 0
  let away: MessageChannel | null = null
  let slab = Buffer.alloc(0)
  let filled = 0

  function keep(piece: Uint8Array): void {
    full.push(piece)
    fullBytes += piece.byteLength
    if (fullBytes <= BIG_BYTES) return
    away ??= new MessageChannel()
    for (const own of full.splice(0).map(ownMemory)) away.port1.postMessage(own, [own.buffer])
  }

  function closeSlab(): void {
    // A copy: what is left of the slab must not stay with a few bytes of it.
    if (filled > 0) keep(filled === slab.byteLength ? slab : Buffer.from(slab.subarray(0, filled)))
    slab = Buffer.alloc(0)
    filled = 0
  }

  return {
    add(piece: Uint8Array): void {
      const staysAlone = piece.byteLength >= SMALL_BYTES || piece.byteLength === declared
      if (staysAlone || filled + piece.byteLength > SLAB_BYTES) closeSlab()
      if (staysAlone) {
        keep(piece)
        return
      }
      if (slab.byteLength === 0) slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      slab.set(piece, filled)
      filled += piece.byteLength
    },
    all(): Body {
      closeSlab()
      return away === null ? full : away.port2
    },
    /**
     * Nothing is left of what waits for the thread; what the thread has is its own. To be called last: to send a closed port, or
     * to read from one, ends the whole process (nodejs/node#56362).
     */
    drop(): void {
      away?.port2.close()
    },
  }
}

/** A piece that can move to another thread without taking its neighbours in a shared pool along. */
export function ownMemory(piece: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteLength } = piece
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength
    ? new Uint8Array(buffer)
    : new Uint8Array(piece)
}

/** What node reads and throws away after an answer so that the connection can serve on. Beyond it, closing is cheaper. */
const SKIPPED_BYTES = 64 * 1024

/** True where a body may still be on its way that is not worth reading just to keep the connection. */
export function hasUnreadBody({ headers, complete }: IncomingMessage): boolean {
  if (complete) return false
  // A client that waits for "100 Continue" may leave its body out after a refusal: what follows would be misread.
  return (
    headers.expect !== undefined ||
    headers['transfer-encoding'] !== undefined ||
    Number(headers['content-length'] ?? 0) > SKIPPED_BYTES
  )
}

/** How long a client that is still sending has for reading our refusal. */
const LINGER_MS = 1000

/**
 * Ends the connection after the answer without reading on. Closing a socket that has unread bytes resets it, and a reset
 * can overtake the answer: so our side is closed first, and the socket a moment later. `at once` risks that, and holds
 * nothing any longer.
 */
export function closeUnread(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  how: 'gently' | 'at once' = 'gently',
): void {
  const { socket } = incoming
  outgoing.shouldKeepAlive = false
  // What node calls on a connection's last answer.
  socket.destroySoon = () => {
    socket.end()
    if (how === 'gently') setTimeout(() => socket.destroy(), LINGER_MS).unref()
    else socket.destroy()
  }
  // Node has just begun to throw the rest of the body away; it shall stay where it is.
  outgoing.once('finish', () => {
    incoming.pause()
    socket.pause()
  })
}
