import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { streamLog } from '../src/admin/log-stream.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

/** Takes a lease on a file, and does not give it up when the kernel asks for it. */
const LEASE =
  '$SIG{IO} = "IGNORE"; open(F, "+<", $ARGV[0]) or die; defined fcntl(F, 1024, 1) or die; $| = 1; print "held\\n"; sleep 600'
/** How long the kernel lets an open wait for a lease. */
const BREAK_MS = Number(readFileSync('/proc/sys/fs/lease-break-time', 'utf8')) * 1000

test('a log that its account holds a lease on makes nobody wait, and is read once the lease is gone', {
  skip: BREAK_MS < 30_000 && 'the kernel ends leases too soon to tell',
}, async (t) => {
  const file = join(temporaryDirectory(t), 'log')
  writeFileSync(file, 'told\n')
  const holder = spawn('perl', ['-e', LEASE, file], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => holder.kill('SIGKILL'))
  const answer = await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit')])
  assert.equal(String(answer[0]), 'held\n', 'no lease can be had here')

  const before = performance.now()
  const goesOn = async () => holder.exitCode === null && holder.signalCode === null
  const told: string[] = []
  let looks = 0
  // More than there are threads for files.
  const readers = Array.from({ length: 8 }, async (_, reader) => {
    const parts = { file, from: 0, signal: new AbortController().signal }
    const counted = async () => {
      looks += 1
      return await goesOn()
    }
    for await (const chunk of streamLog({ ...parts, goesOn: counted })) told[reader] = Buffer.from(chunk).toString()
  })
  await until('second looks', () => looks >= 16, BREAK_MS / 2)
  assert.ok(performance.now() - before < BREAK_MS / 2)
  assert.deepEqual(told, [])
  holder.kill('SIGKILL')
  await Promise.all(readers)
  assert.deepEqual(told, Array(8).fill('told\n'))
})
