/**
 * The log of a run: bounded on disk however much is written, with the beginning and the end kept.
 *
 * The first half of the limit goes straight into the file. What follows goes into segments in a directory beside it, of
 * which only as many are kept as the second half needs. Sealing appends them to the file, so that a reader who follows it
 * only ever sees it grow. A crash at any point leaves what `sealLog` can finish. A segment's name says how long the head
 * is and how many bytes of the stream come between the head and the segment.
 */
import { createReadStream, createWriteStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, truncate } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { systemCode } from '../errors.ts'
import type { LogFileOrder } from '../work.ts'
import { createMasker } from './mask.ts'

const MIN_SEGMENT_BYTES = 64 * 1024
/** Longer than any mark of a cut. */
const CUT_MARK_BYTES = 80

export interface LogWriter {
  /**
   * Resolves when the chunk is in the file, and its memory may be used again: wait for it before the next one, so that a
   * loud script waits for the disk. Never rejects: what a full disk does not take is counted and dropped.
   */
  write(chunk: Buffer): Promise<void>
  /** Writes what is held back, joins head and tail and closes. Afterwards nothing may be written. */
  end(): Promise<LogEnd>
}

/** What went wrong while logging; `cause` is null if nothing did. */
export interface LogEnd {
  readonly lostBytes: number
  readonly cause: unknown
}

interface Segment {
  readonly file: string
  readonly headBytes: number
  /** Bytes of the stream between the head and this segment. */
  readonly start: number
  readonly size: number
}

/** Opens a log to append to. Never rejects: a script runs even where its output cannot be kept. */
export async function openLog({ file, maxBytes, masked }: LogFileOrder): Promise<LogWriter> {
  const masker = createMasker(masked)
  let lostBytes = 0
  let cause: unknown = null
  let parts: CappedFile | null = null

  async function attempt(bytes: number, act: () => Promise<void>): Promise<void> {
    try {
      if (cause === null) await act()
      else lostBytes += bytes
    } catch (error) {
      // For good: with gaps in it, a log would tell a story that did not happen.
      cause = error
      lostBytes += bytes
    }
  }
  const write = (chunk: Buffer): Promise<void> =>
    chunk.length === 0 ? Promise.resolve() : attempt(chunk.length, async () => parts?.append(chunk))

  await attempt(0, async () => {
    parts = await openCapped(file, maxBytes)
  })
  return {
    write: (chunk) => write(masker.push(chunk)),
    async end() {
      await write(masker.flush())
      await parts?.close().catch((error: unknown) => {
        cause ??= error
      })
      await sealLog(file, maxBytes).catch((error: unknown) => {
        cause ??= error
      })
      if (lostBytes > 0) await confess(file, lostBytes, cause)
      return { lostBytes, cause }
    },
  }
}

/** Leaves a word in the log if there is room again, for instance because the script removed its temporary files. */
async function confess(file: string, lostBytes: number, cause: unknown): Promise<void> {
  const why = systemCode(cause) === 'ENOSPC' ? 'the disk was full' : (systemCode(cause) ?? 'the log failed')
  try {
    const handle = await open(file, 'a', 0o600)
    try {
      await handle.appendFile(`\n[landfall: ${lostBytes} bytes lost: ${why}]\n`)
    } finally {
      await handle.close()
    }
  } catch {
    // Still no room: the caller learns it from the result of `end`.
  }
}

interface CappedFile {
  append(chunk: Buffer): Promise<void>
  close(): Promise<void>
}

async function openCapped(file: string, maxBytes: number): Promise<CappedFile> {
  const { headBytes, tailBytes, segmentBytes } = share(maxBytes)
  await sealLog(file, maxBytes)
  await unseal(file, headBytes)
  const head = await open(file, 'a', 0o600)
  let headSize = (await head.stat()).size
  const segments: Segment[] = await segmentsOf(file)
  let current: { handle: FileHandle; file: string; start: number; size: number } | null = null

  async function nextSegment(): Promise<NonNullable<typeof current>> {
    if (current !== null) {
      const { handle, ...segment } = current
      current = null
      segments.push({ ...segment, headBytes })
      await handle.close()
    }
    await mkdir(tailOf(file), { recursive: true, mode: 0o700 })
    const start = endOf(segments)
    const name = `${tailOf(file)}/${headBytes}-${start}`
    current = { handle: await open(name, 'a', 0o600), file: name, start, size: 0 }
    // The oldest goes once those after it fill the tail by themselves.
    for (let oldest = segments[0]; oldest !== undefined; oldest = segments[0]) {
      if (start - (oldest.start + oldest.size) < tailBytes) break
      await rm(oldest.file, { force: true })
      segments.shift()
    }
    return current
  }

  return {
    async append(chunk) {
      let rest = chunk
      if (headSize < headBytes) {
        const part = rest.subarray(0, headBytes - headSize)
        await head.appendFile(part)
        headSize += part.length
        rest = rest.subarray(part.length)
      }
      while (rest.length > 0) {
        const segment = current !== null && current.size < segmentBytes ? current : await nextSegment()
        const part = rest.subarray(0, segmentBytes - segment.size)
        await segment.handle.appendFile(part)
        segment.size += part.length
        rest = rest.subarray(part.length)
      }
    },
    async close() {
      await current?.handle.close()
      await head.close()
    },
  }
}

function share(maxBytes: number): { headBytes: number; tailBytes: number; segmentBytes: number } {
  const headBytes = Math.floor(maxBytes / 2)
  const tailBytes = maxBytes - headBytes
  return { headBytes, tailBytes, segmentBytes: Math.max(MIN_SEGMENT_BYTES, Math.ceil(tailBytes / 4)) }
}

/**
 * Joins a log's head with the tail that waits beside it; needed after a crash, harmless at any other time, unless the log is
 * being written. Afterwards the file has at most `maxBytes` and, where something was left out, one line that says so.
 */
export async function sealLog(file: string, maxBytes: number): Promise<void> {
  // A finished join that was not cleared away, and half of an unseal: in both cases the file itself is whole.
  await Promise.all([sealedOf(file), halfOf(file)].map((path) => rm(path, { recursive: true, force: true })))
  const segments = await segmentsOf(file)
  const first = segments[0]
  if (first === undefined) return
  const start = Math.max(first.start, endOf(segments) - (maxBytes - first.headBytes))
  // What lies behind the head comes from an earlier attempt at this.
  await truncate(file, first.headBytes)
  const handle = await open(file, 'a', 0o600)
  try {
    if (start > 0) await handle.appendFile(`\n[landfall: ${start} bytes left out]\n`)
    for (const segment of segments) {
      const skip = Math.max(0, start - segment.start)
      if (skip < segment.size) await handle.appendFile(createReadStream(segment.file, { start: skip }))
    }
    await handle.datasync()
  } catch (error) {
    // No room for both: the segments stay, and a later call finds the file as this one did.
    await handle.truncate(first.headBytes)
    throw error
  } finally {
    await handle.close()
  }
  // This makes it final: from here on the segments are no longer what counts.
  await rename(tailOf(file), sealedOf(file))
  await rm(sealedOf(file), { recursive: true, force: true })
}

/** Turns a sealed log that is longer than its head into head and tail again, so that more can be written behind it. */
async function unseal(file: string, headBytes: number): Promise<void> {
  const size = (await unlessMissing(stat(file)))?.size ?? 0
  if (size <= headBytes) return
  const mark = /^\n\[landfall: (\d{1,15}) bytes left out\]\n/.exec(await textAt(file, headBytes, CUT_MARK_BYTES))
  const start = headBytes + (mark?.[0].length ?? 0)
  await mkdir(halfOf(file), { recursive: true, mode: 0o700 })
  const segment = `${halfOf(file)}/${headBytes}-${Number(mark?.[1] ?? 0)}`
  await pipeline(createReadStream(file, { start }), createWriteStream(segment, { mode: 0o600, flush: true }))
  await rename(halfOf(file), tailOf(file))
  await truncate(file, headBytes)
}

async function textAt(file: string, position: number, bytes: number): Promise<string> {
  const handle = await open(file, 'r')
  try {
    const { buffer, bytesRead } = await handle.read({ buffer: Buffer.alloc(bytes), position })
    return buffer.toString('latin1', 0, bytesRead)
  } finally {
    await handle.close()
  }
}

/** Oldest first. Each begins where the one before it ends. */
async function segmentsOf(file: string): Promise<Segment[]> {
  const names = (await unlessMissing(readdir(tailOf(file)))) ?? []
  const segments: Segment[] = []
  for (const name of names) {
    const [headBytes, start] = name.split('-').map(Number)
    if (headBytes === undefined || start === undefined) continue
    const path = `${tailOf(file)}/${name}`
    segments.push({ file: path, headBytes, start, size: (await stat(path)).size })
  }
  return segments.sort((a, b) => a.start - b.start)
}

function endOf(segments: readonly Segment[]): number {
  const last = segments.at(-1)
  return last === undefined ? 0 : last.start + last.size
}

const tailOf = (file: string): string => `${file}.tail`
const sealedOf = (file: string): string => `${file}.tail-sealed`
const halfOf = (file: string): string => `${file}.tail-half`

async function unlessMissing<T>(reading: Promise<T>): Promise<T | null> {
  try {
    return await reading
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error
  }
}
