/** A disk that fills up while landfall runs: forges are told to come again, and what has happened is not forgotten. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { createSite } from './support/daemon.ts'
import { sha } from './support/git.ts'
import { until } from './support/until.ts'

const commit = (n: number) => sha(String(n).repeat(40))

test('on a full disk deliveries get 503, the daemon lives, and no end of a run is lost once there is room', async (t) => {
  const disk = smallDisk(t)
  if (disk === null) return
  const site = createSite(t, { dataDir: disk })
  site.script('deploy.sh', 'echo $LANDFALL_COMMIT >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure('[target.site]\nrepo = "acme/site"\ncheckout = "none"\nscript = "deploy.sh"')
  const daemon = await site.start()
  const first = await daemon.accepted({ after: commit(1) })
  const second = await daemon.accepted({ after: commit(2) })
  await until('the script', () => site.lines('runs').length === 1)
  const filler = join(site.dataDir, 'filler')
  fill(filler)
  // What the log of the database has allocated already is still written: the first few may get in, and count.
  const refused = await until('a 503', async () => {
    const answer = await daemon.post({ after: commit(3) })
    return answer.status === 503 ? answer : null
  })
  assert.deepEqual([refused.body.error, refused.retryAfter !== undefined], ['store', true])
  assert.equal((await fetch(`${daemon.url}/healthz`)).status, 503)
  writeFileSync(join(site.out, 'go'), '')
  await until('the end that cannot be written', () => daemon.logged('store failed').length > 0)
  assert.equal((await daemon.run(first)).state, 'running', 'the disk is all that is known')

  rmSync(filler)
  assert.equal((await daemon.ended(first)).state, 'succeeded')
  assert.equal((await daemon.ended(second)).state, 'succeeded')
  assert.equal((await daemon.ended(await daemon.accepted({ after: commit(4) }))).state, 'succeeded')
  assert.equal((await fetch(`${daemon.url}/healthz`)).status, 200)
  assert.deepEqual(site.lines('runs'), [...new Set(site.lines('runs'))], 'nothing was run twice')
  assert.equal(await daemon.stop(), 0)
})

test('a stop on a full disk loses no end of a run if there is room before the drain is over', async (t) => {
  const disk = smallDisk(t)
  if (disk === null) return
  const site = createSite(t, { dataDir: disk })
  site.script('deploy.sh', 'echo run >> $OUT/runs; until [ -e $OUT/go ]; do sleep 0.05; done')
  site.configure('[target.site]\nrepo = "acme/site"\ncheckout = "none"\nscript = "deploy.sh"')
  const daemon = await site.start()
  const run = await daemon.accepted({ after: commit(1) })
  await until('the script', () => site.lines('runs').length === 1)
  const filler = join(site.dataDir, 'filler')
  fill(filler)
  await until('a 503', async () => (await daemon.post({ after: commit(2) })).status === 503)
  writeFileSync(join(site.out, 'go'), '')
  await until('the end that cannot be written', () => daemon.logged('store failed').length > 0)
  daemon.signal('SIGTERM')
  await until('the stop', () => daemon.logged('stopping').length > 0)
  rmSync(filler)
  assert.equal(await daemon.exited, 0)

  const next = await site.start()
  assert.equal((await next.run(run)).state, 'succeeded')
  assert.equal(await next.stop(), 0)
})

/** A file system that is soon full; null, and the test skipped, where none can be mounted. */
function smallDisk(t: TestContext): string | null {
  const disk = mkdtempSync(join(tmpdir(), 'landfall-disk-'))
  const why = mountSmall(disk)
  t.after(() => {
    if (why === null) execFileSync('umount', ['--lazy', disk])
    rmSync(disk, { recursive: true })
  })
  if (why === null) return disk
  t.skip(why)
  return null
}

/** Null where it is mounted, or why it cannot be. */
function mountSmall(directory: string): string | null {
  if (process.getuid?.() !== 0) return 'only root can mount a small file system'
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', directory], { stdio: 'pipe' })
    return null
  } catch (error) {
    return `no small file system can be mounted here: ${String(error)}`
  }
}

function fill(file: string): void {
  const handle = openSync(file, 'w')
  try {
    for (let bytes = 64 * 1024; bytes >= 1; ) {
      try {
        writeSync(handle, Buffer.alloc(bytes))
      } catch {
        bytes = Math.floor(bytes / 2)
      }
    }
  } finally {
    closeSync(handle)
  }
}
