/**
 * The log of a run: bounded on disk however much is written, with the beginning and the end kept.
 *
 * The first half of the limit goes straight into the file. What follows goes into segments in a directory beside it, of
 * which only as many are kept as the second half needs. Sealing appends them to the file, so that a reader who follows it
 * only ever sees it grow. A crash at any point leaves what `sealLog` can finish. A segment's name says how long the head
 * is and how many bytes of the stream come between the head and the segment.
 */
import { constants, createReadStream, createWriteStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, truncate } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { systemCode } from '../errors.ts'
import type { LogFileOrder } from '../work.ts'
import { createMasker } from './mask.ts'

const MIN_SEGMENT_BYTES = 64 * 1024
/**
 * The tail of a loud script is rewritten all the time, and on ext4 a commit of the store waits for what others have written:
 * so it is kept in memory and goes to disk this often. A crash costs at most so much of it.
 */
const FLUSH_EVERY_MS = 2000
/** A longer tail does not wait in memory. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024
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
export async function openLog({ file, maxBytes, masked, aside = file }: LogFileOrder): Promise<LogWriter> {
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
    parts = await openCapped(file, aside, maxBytes)
  })
  return {
    write: (chunk) => write(masker.push(chunk)),
    async end() {
      await write(masker.flush())
      await parts?.close().catch((error: unknown) => {
        cause ??= error
      })
      lostBytes += parts?.lostBytes() ?? 0
      await sealLog({ file, aside, maxBytes }).catch((error: unknown) => {
        cause ??= error
      })
      if (lostBytes > 0) await confess(file, lostBytes, cause)
      return { lostBytes, cause }
    },
  }
}

/**
 * Appends what landfall itself has to say. Opened without waiting: the file may be another account's, which could hold a lease
 * on it, and keep a thread of the daemon for as long as the kernel lets it.
 */
export async function appendToLog(file: string, text: string): Promise<void> {
  const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = constants
  const handle = await open(file, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600)
  try {
    await handle.appendFile(text)
  } finally {
    await handle.close()
  }
}

/** Leaves a word in the log if there is room again, for instance because the script removed its temporary files. */
async function confess(file: string, lostBytes: number, cause: unknown): Promise<void> {
  const why = systemCode(cause) === 'ENOSPC' ? 'the disk was full' : (systemCode(cause) ?? 'the log failed')
  try {
    await appendToLog(file, `\n[landfall: ${lostBytes} bytes lost: ${why}]\n`)
  } catch {
    // Still no room: the caller learns it from the result of `end`.
  }
}

interface CappedFile {
  append(chunk: Buffer): Promise<void>
  lostBytes(): number
  close(): Promise<void>
}

async function openCapped(file: string, aside: string, maxBytes: number): Promise<CappedFile> {
  const { headBytes, tailBytes, segmentBytes } = share(maxBytes)
  await sealLog({ file, aside, maxBytes })
  await unseal(file, aside, headBytes)
  const head = await open(file, 'a', 0o600)
  let headSize = (await head.stat()).size
  const segments: Segment[] = await segmentsOf(aside)
  let current: { handle: FileHandle; file: string; start: number; size: number } | null = null
  /** Of the stream behind the head: how much has come, and what of it is not in a segment yet. */
  let come = endOf(segments)
  let waiting: Buffer[] = []
  let waitingBytes = 0
  /** Taken, and not written because writing failed. */
  let lost = 0
  let timer: NodeJS.Timeout | null = null
  let last: Promise<void> = Promise.resolve()

  async function closeSegment(): Promise<void> {
    if (current === null) return
    const { handle, ...segment } = current
    current = null
    segments.push({ ...segment, headBytes })
    await handle.close()
  }

  async function nextSegment(start: number): Promise<NonNullable<typeof current>> {
    await closeSegment()
    await mkdir(tailOf(aside), { recursive: true, mode: 0o700 })
    const name = `${tailOf(aside)}/${headBytes}-${start}`
    // The oldest goes once those after it fill the tail by themselves, or where something between them was left out.
    for (let oldest = segments[0]; oldest !== undefined; oldest = segments[0]) {
      const isConnected = endOf(segments) === start
      if (isConnected && start - (oldest.start + oldest.size) < tailBytes) break
      await rm(oldest.file, { force: true })
      segments.shift()
    }
    current = { handle: await open(name, 'a', 0o600), file: name, start, size: 0 }
    return current
  }

  /** What has come since the last time and is still of the tail goes into segments. */
  async function flush(): Promise<void> {
    if (timer !== null) clearTimeout(timer)
    timer = null
    const chunks = waiting
    let start = come - waitingBytes
    waiting = []
    waitingBytes = 0
    lost = chunks.reduce((sum, { length }) => sum + length, lost)
    for (const chunk of chunks) {
      for (let rest = chunk; rest.length > 0; ) {
        const isNext = current !== null && current.size < segmentBytes && current.start + current.size === start
        const segment: NonNullable<typeof current> = isNext && current !== null ? current : await nextSegment(start)
        const part = rest.subarray(0, segmentBytes - segment.size)
        await segment.handle.appendFile(part)
        segment.size += part.length
        start += part.length
        lost -= part.length
        rest = rest.subarray(part.length)
      }
    }
  }

  /** One at a time, whether a timer or a chunk asks. */
  function flushInTurn(): Promise<void> {
    last = last.then(flush)
    return last
  }

  async function keep(rest: Buffer): Promise<void> {
    waiting.push(Buffer.from(rest)) // a copy: its memory is the pipe's
    waitingBytes += rest.length
    come += rest.length
    // What the tail has no room for need not be written at all.
    for (
      let oldest = waiting[0];
      oldest !== undefined && waitingBytes - oldest.length >= tailBytes;
      oldest = waiting[0]
    ) {
      waitingBytes -= oldest.length
      waiting.shift()
    }
    if (tailBytes > MAX_WAITING_BYTES && waitingBytes >= MAX_WAITING_BYTES) await flushInTurn()
    // A failure shows at the next write, or at the end.
    timer ??= setTimeout(() => void flushInTurn().catch(() => {}), FLUSH_EVERY_MS)
  }

  return {
    lostBytes: () => lost,
    async append(chunk) {
      await last
      const part = chunk.subarray(0, Math.max(0, headBytes - headSize))
      if (part.length > 0) await head.appendFile(part)
      headSize += part.length
      if (part.length < chunk.length) await keep(chunk.subarray(part.length))
    },
    async close() {
      try {
        await flushInTurn()
      } finally {
        if (timer !== null) clearTimeout(timer)
        await closeSegment()
        await head.close()
      }
    },
  }
}

function share(maxBytes: number): { headBytes: number; tailBytes: number; segmentBytes: number } {
  const headBytes = Math.floor(maxBytes / 2)
  const tailBytes = maxBytes - headBytes
  return { headBytes, tailBytes, segmentBytes: Math.max(MIN_SEGMENT_BYTES, Math.ceil(tailBytes / 4)) }
}

/** `Work.sealLog`. */
export async function sealLog({ file, maxBytes, aside = file }: Omit<LogFileOrder, 'masked'>): Promise<void> {
  // A finished join that was not cleared away, and half of an unseal: in both cases the file itself is whole.
  await Promise.all([sealedOf(aside), halfOf(aside)].map((path) => rm(path, { recursive: true, force: true })))
  const segments = await segmentsOf(aside)
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
  await rename(tailOf(aside), sealedOf(aside))
  await rm(sealedOf(aside), { recursive: true, force: true })
}

/** Turns a sealed log that is longer than its head into head and tail again, so that more can be written behind it. */
async function unseal(file: string, aside: string, headBytes: number): Promise<void> {
  const size = (await unlessMissing(stat(file)))?.size ?? 0
  if (size <= headBytes) return
  const mark = /^\n\[landfall: (\d{1,15}) bytes left out\]\n/.exec(await textAt(file, headBytes, CUT_MARK_BYTES))
  const start = headBytes + (mark?.[0].length ?? 0)
  await mkdir(halfOf(aside), { recursive: true, mode: 0o700 })
  const segment = `${halfOf(aside)}/${headBytes}-${Number(mark?.[1] ?? 0)}`
  await pipeline(createReadStream(file, { start }), createWriteStream(segment, { mode: 0o600, flush: true }))
  await rename(halfOf(aside), tailOf(aside))
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
async function segmentsOf(aside: string): Promise<Segment[]> {
  const names = (await unlessMissing(readdir(tailOf(aside)))) ?? []
  const segments: Segment[] = []
  for (const name of names) {
    const [headBytes, start] = name.split('-').map(Number)
    if (headBytes === undefined || start === undefined) continue
    const path = `${tailOf(aside)}/${name}`
    segments.push({ file: path, headBytes, start, size: (await stat(path)).size })
  }
  return segments.sort((a, b) => a.start - b.start)
}

function endOf(segments: readonly Segment[]): number {
  const last = segments.at(-1)
  return last === undefined ? 0 : last.start + last.size
}

const tailOf = (aside: string): string => `${aside}.tail`
const sealedOf = (aside: string): string => `${aside}.tail-sealed`
const halfOf = (aside: string): string => `${aside}.tail-half`

async function unlessMissing<T>(reading: Promise<T>): Promise<T | null> {
  try {
    return await reading
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error
  }
}
