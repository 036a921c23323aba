import assert from 'node:assert/strict'
import { closeSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { createPipes, readPipe } from '../src/launcher/pipe.ts'

const pipes = createPipes()

test('what is in the pipe is handed on to the last byte although the other end stays open', async (t) => {
  const { readFd, writeFd } = await pipes.take()
  t.after(() => closeSync(writeFd))
  let read = 0
  const reader = readPipe(readFd, async (chunk) => {
    read += chunk.length
  })
  writeSync(writeFd, Buffer.alloc(50_000))
  await reader.drain()
  assert.equal(read, 50_000)
})

test('one who writes as fast as it is read cannot hold up the end', async (t) => {
  const { readFd, writeFd } = await pipes.take()
  t.after(() => closeSync(writeFd))
  let read = 0
  const reader = readPipe(readFd, async (chunk) => {
    read += chunk.length
    if (read < 100_000_000) writeSync(writeFd, Buffer.alloc(chunk.length))
  })
  writeSync(writeFd, Buffer.alloc(50_000))
  await reader.drain()
  assert.ok(read < 10_000_000, `${read} bytes`)
})

test('the next chunk is read only when the one before was taken', async (t) => {
  const { readFd, writeFd } = await pipes.take()
  t.after(() => closeSync(writeFd))
  const taken = Promise.withResolvers<void>()
  const first = Promise.withResolvers<void>()
  const chunks: string[] = []
  const reader = readPipe(readFd, async (chunk) => {
    chunks.push(chunk.toString())
    first.resolve()
    await taken.promise
  })
  writeSync(writeFd, 'one')
  await first.promise
  writeSync(writeFd, 'two')
  const drained = reader.drain()
  assert.deepEqual(chunks, ['one'])
  taken.resolve()
  await drained
  assert.deepEqual(chunks, ['one', 'two'])
})

test('the two ends of a pipe are each taken once, however many ask at once', async (t) => {
  const taken = await Promise.all(Array.from({ length: 20 }, () => pipes.take()))
  const fds = taken.flatMap(({ readFd, writeFd }) => [readFd, writeFd])
  t.after(() => fds.forEach(closeSync))
  assert.equal(new Set(fds).size, 40)
})
