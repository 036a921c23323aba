import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Target } from '../src/config/config.ts'
import { aPush, aTarget, commit } from './support/nouns.ts'
import { fakePolls, gaps, type Polls, pass } from './support/polls.ts'
import { routed } from './support/stores.ts'

const POLL_MS = 300_000

/** The hook has spoken for the repository, long ago. */
const spoken = ({ store }: Polls) => store.record(aPush({ receivedAt: 1 }), routed())
const announced = (n: number) => aPush({ changes: [{ ref: 'refs/heads/main', before: null, after: commit(n) }] })

async function watched(t: TestContext, pollMs = POLL_MS, targets?: readonly Target[]) {
  const { remotes, polls } = await fakePolls(t, pollMs, targets)
  const moveTo = async (n: number) => {
    remotes.tip = commit(n)
    await polls.poller.once()
  }
  const missed = () => polls.events('missed webhook').map(({ fields }) => fields['commit'])
  return { remotes, polls, moveTo, missed }
}

test('a change that no delivery announces within missed_after is a missed webhook, and its pair is silent', async (t) => {
  const { polls, moveTo, missed } = await watched(t)
  await spoken(polls)
  await moveTo(1)
  await moveTo(2)
  await pass(t, 59_000, 1000)
  assert.deepEqual(missed(), [])
  await pass(t, 2000, 1000)
  assert.deepEqual(missed(), [commit(2).slice(0, 10)])
  assert.equal((await polls.store.speakers())[0]?.silentSince !== null, true)
  assert.equal(polls.silences.isWatched('github', 'Acme/Site'), true)
  await pass(t, 600_000, 10_000)
  assert.equal(polls.silences.isWatched('github', 'acme/site'), false)
})

test('a change that several instances of a repository see is one missed webhook', async (t) => {
  const { polls, moveTo, missed } = await watched(t, POLL_MS, [aTarget(), aTarget({ name: 'docs' })])
  await spoken(polls)
  await moveTo(1)
  await moveTo(2)
  await pass(t, 70_000, 1000)
  assert.equal(missed().length, 1)
})

test('a delivery before or after the poll, but within missed_after, is none missed', async (t) => {
  const { polls, moveTo, missed } = await watched(t)
  await spoken(polls)
  await moveTo(1)
  polls.silences.heard(announced(2))
  await moveTo(2)
  await moveTo(3)
  await pass(t, 30_000, 1000)
  polls.silences.heard(announced(3))
  await pass(t, 60_000, 1000)
  assert.deepEqual(missed(), [])
})

test('a change that is older than this start is no missed webhook', async (t) => {
  const { polls, moveTo, missed } = await watched(t)
  await spoken(polls)
  await polls.store.seen({ name: 'site', target: 'site', repo: 'acme/site', branch: null }, 1)
  await polls.store.remember('site', { deployed: { commit: commit(1), run: 1, at: 1 }, considered: commit(1) })
  await moveTo(2)
  await pass(t, 120_000, 1000)
  assert.deepEqual(missed(), [])
})

test('a pair that never spoke is a hint, once', async (t) => {
  const { polls, moveTo, missed } = await watched(t)
  for (const n of [1, 2, 3]) await moveTo(n)
  await pass(t, 120_000, 1000)
  assert.deepEqual(missed(), [])
  assert.deepEqual(
    polls.events('never-heard').map(({ level }) => level),
    ['info'],
  )
  assert.equal(polls.silences.isWatched('github', 'acme/site'), false)
})

test('a silent pair is polled every 30 s, until it speaks again', async (t) => {
  const { remotes, polls, moveTo } = await watched(t, 600_000)
  await spoken(polls)
  await polls.poller.start()
  await pass(t, 1000, 1000)
  await moveTo(2)
  await pass(t, 61_000, 1000)
  remotes.at.length = 0
  await pass(t, 200_000, 1000)
  assert.ok(remotes.at.length >= 6, `${remotes.at.length} polls`)
  for (const gap of gaps(remotes.at)) assert.ok(gap <= 34_000, `${gap} ms`)
  polls.silences.heard(announced(3))
  await pass(t, 34_000, 1000)
  remotes.at.length = 0
  await pass(t, 500_000, 1000)
  assert.equal(remotes.at.length, 0)
})

test('a silent pair is polled every 30 s also while a tip waits for its confirmation', async (t) => {
  const { remotes, polls, moveTo } = await watched(t, 600_000)
  await spoken(polls)
  await polls.poller.start()
  await pass(t, 1000, 1000)
  await moveTo(2)
  await polls.store.remember('site', { considered: commit(2), doubt: { tip: commit(2), since: Date.now() } })
  await pass(t, 70_000, 1000)
  remotes.at.length = 0
  await pass(t, 200_000, 1000)
  assert.ok(remotes.at.length >= 6, `${remotes.at.length} polls`)
})
