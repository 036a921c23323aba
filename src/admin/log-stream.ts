import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { setTimeout as wait } from 'node:timers/promises'
import { systemCode } from '../errors.ts'

const CHUNK_BYTES = 64 * 1024
/** The log is written by another process, perhaps over hours: a look four times a second costs nothing and misses nothing. */
const LOOK_EVERY_MS = 250

export interface LogStreamParts {
  readonly file: string
  /** Byte offset to begin at. */
  readonly from: number
  /** Whether more may still come. Asked before each look, so that what was written before the end is read. */
  readonly goesOn: () => Promise<boolean>
  readonly signal: AbortSignal
}

/** The bytes of a log from an offset on, and what is added until nothing more comes. A log that is not there yet is empty. */
export async function* streamLog({ file, from, goesOn, signal }: LogStreamParts): AsyncGenerator<Uint8Array> {
  let offset = from
  for (;;) {
    const more = await goesOn()
    for await (const chunk of readFrom(file, offset)) {
      offset += chunk.length
      yield chunk
      if (signal.aborted) return
    }
    if (!more || signal.aborted) return
    await wait(LOOK_EVERY_MS, undefined, { signal }).catch(() => {})
  }
}

async function* readFrom(file: string, from: number): AsyncGenerator<Uint8Array> {
  // Without waiting: the account whose file it may be could hold a lease on it, and with a few logs all of our threads.
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    if (['ENOENT', 'EAGAIN'].includes(systemCode(cause) ?? '')) return null
    throw cause
  })
  if (handle === null) return
  try {
    for (let offset = from; ; ) {
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(CHUNK_BYTES), 0, CHUNK_BYTES, offset)
      if (bytesRead === 0) return
      offset += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await handle.close()
  }
}

export interface LogText {
  readonly text: string
  /** The byte offset behind it, at which to go on. */
  readonly end: number
}

/** The same as text: no character lies across two pieces, so that who goes on at the end of one misses nothing. */
export async function* inWholeCharacters(chunks: AsyncIterable<Uint8Array>, from: number): AsyncGenerator<LogText> {
  let held = Buffer.alloc(0)
  let end = from
  for await (const chunk of chunks) {
    const bytes = Buffer.concat([held, chunk])
    const whole = bytes.subarray(0, bytes.length - begunAtTheEnd(bytes))
    held = bytes.subarray(whole.length)
    end += whole.length
    if (whole.length > 0) yield { text: whole.toString(), end }
  }
  if (held.length > 0) yield { text: held.toString(), end: end + held.length }
}

/** How many bytes at the end are the beginning of a character of UTF-8 whose rest is yet to come. */
function begunAtTheEnd(bytes: Uint8Array): number {
  for (const back of [1, 2, 3]) {
    const byte = bytes.at(-back) ?? 0
    if (byte >> 6 === 0b10) continue // not the first of its character
    const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1
    return needed > back ? back : 0
  }
  return 0
}
