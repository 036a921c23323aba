/** The thread of examine.ts: bodies in, findings out. */
import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads'
import { examine, type Finding, type ThreadOrder, type ThreadReply } from './examine.ts'
import { ownMemory } from './upload.ts'

const port = parentPort
stepBack()

port?.on('message', ({ id, body, ...about }: ThreadOrder) => {
  examine({ ...about, pieces: messagesOf(body) }).then(
    (finding) => answer(id, finding),
    (error: unknown) => port.postMessage({ id, error } satisfies ThreadReply),
  )
})

function messagesOf(body: MessagePort): readonly Uint8Array[] {
  const pieces: Uint8Array[] = []
  for (;;) {
    const piece = receiveMessageOnPort(body) as { readonly message: Uint8Array } | undefined
    if (piece === undefined) break
    pieces.push(piece.message)
  }
  body.close()
  return pieces
}

/** The packed payload moves rather than being copied. */
function answer(id: number, finding: Finding): void {
  if (!('payload' in finding)) {
    port?.postMessage({ id, finding } satisfies ThreadReply)
    return
  }
  const compressed = ownMemory(finding.payload.compressed)
  const moved: Finding = { ...finding, payload: { ...finding.payload, compressed } }
  port?.postMessage({ id, finding: moved } satisfies ThreadReply, [compressed.buffer])
}

/** Where processors are few, the thread that answers everybody else goes first. Linux has a priority for each thread. */
function stepBack(): void {
  try {
    const id = Number(/\d+$/.exec(readlinkSync('/proc/thread-self'))?.[0])
    if (id > 0) setPriority(id, 10)
  } catch {
    // Without /proc, or where priorities are forbidden, all is as correct, and only a little slower.
  }
}
