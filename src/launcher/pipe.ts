/**
 * The pipe that a script writes and landfall reads. Node's own `stdio: 'pipe'` is a socket, and a script cannot open a
 * socket a second time: `echo oops > /dev/stderr` fails with "No such device or address". So this makes real pipes, from
 * named ones that are unlinked as soon as both ends are open. Standard output and error share one: what a script
 * writes to them stays in order.
 */
import { execFile } from 'node:child_process'
import { constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LandfallError, messageOf, systemCode } from '../errors.ts'

/** Pipes made by one start of mkfifo. */
const BATCH = 8
/** When so few are left, more are made, so that no script waits for them. */
const LOW = 3
/** What Linux reads or writes at most at once with the usual size of a pipe. */
const CHUNK_BYTES = 64 * 1024
/** More than a pipe holds (1 MiB at most without privileges): who still writes after this much has left the script's group. */
const DRAIN_BYTES = 2 * 1024 * 1024

/** File descriptors, both closed on exec. The caller owns them. */
export interface Pipe {
  readonly readFd: number
  readonly writeFd: number
}

export interface Pipes {
  /** A fresh pipe. Throws `unstartable` where none can be made. */
  take(): Promise<Pipe>
  /** Leaves no file behind where pipes are just being made, for a process that is about to end. */
  clear(): void
}

export function createPipes(): Pipes {
  const spare: Pipe[] = []
  let making: Promise<void> | null = null
  let directory: string | null = null

  function more(): Promise<void> {
    making ??= makePipes((made) => {
      directory = made
    })
      .then((made) => {
        spare.push(...made)
      })
      .finally(() => {
        making = null
      })
    return making
  }

  // The first script need not wait either. A failure is met again by whoever needs a pipe and finds none.
  void more().catch(() => {})
  return {
    async take() {
      for (;;) {
        const pipe = spare.pop()
        if (spare.length < LOW) void more().catch(() => {})
        if (pipe !== undefined) return pipe
        await more()
      }
    },
    clear() {
      try {
        if (directory !== null) rmSync(directory, { recursive: true, force: true })
      } catch {
        // mkfifo is just making another: an empty directory in TMPDIR is no reason to leave what else is to be ended.
      }
    },
  }
}

async function makePipes(named: (directory: string) => void): Promise<Pipe[]> {
  try {
    const directory = mkdtempSync(join(tmpdir(), 'landfall-pipes-'))
    named(directory)
    try {
      const paths = Array.from({ length: BATCH }, (_, index) => join(directory, String(index)))
      await promisify(execFile)('mkfifo', ['-m', '600', ...paths])
      return paths.map(openPipe)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  } catch (error) {
    throw new LandfallError('unstartable', `cannot make a pipe for the script's output: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

function openPipe(path: string): Pipe {
  // Without O_NONBLOCK, opening would wait for the other end. The script's end must block, or programs lose output.
  const readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  return { readFd, writeFd: openSync(path, constants.O_WRONLY) }
}

export interface PipeReader {
  /**
   * Hands on what is in the pipe now and closes it. Does not wait for those who still hold the other end, and takes no
   * more than a bounded amount from one who never stops writing.
   */
  drain(): Promise<void>
}

/** Reads from `fd`, which it owns from here on. The next chunk is read when `write` has resolved for the one before. */
export function readPipe(fd: number, write: (chunk: Buffer) => Promise<void>): PipeReader {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
  let writing = Promise.resolve()
  let draining = false
  const socket = new Socket({
    fd,
    readable: true,
    writable: false,
    onread: {
      buffer,
      callback(bytes) {
        writing = write(buffer.subarray(0, bytes)).then(() => {
          if (!draining) socket.resume()
        })
        return false
      },
    },
  })
  // A pipe has no errors but those of a bad descriptor; the end of the script does not depend on it.
  socket.on('error', () => {})
  socket.resume()

  return {
    async drain() {
      draining = true
      socket.pause()
      await writing
      // Destroyed: everybody closed the other end and all was read. Then the number may already be another file's.
      for (let left = DRAIN_BYTES; left > 0 && !socket.destroyed; ) {
        const bytes = readNow(fd, buffer)
        if (bytes === 0) break
        await write(buffer.subarray(0, bytes))
        left -= bytes
      }
      socket.destroy()
    },
  }
}

/** 0 where there is nothing to read now, or never again. */
function readNow(fd: number, buffer: Buffer): number {
  try {
    return readSync(fd, buffer)
  } catch (error) {
    if (systemCode(error) === 'EAGAIN') return 0
    throw error
  }
}
