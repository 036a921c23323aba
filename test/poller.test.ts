import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { RemoteRefs, Work } from '../src/work.ts'
import { git, sha } from './support/git.ts'
import { originIn } from './support/mirrors.ts'
import { aTarget, commit } from './support/nouns.ts'
import { createPolls, fakePolls, gaps, type Polls, pass } from './support/polls.ts'
import { finish } from './support/stores.ts'
import { until } from './support/until.ts'

const POLL_MS = 300_000

const listings = ({ bench }: Polls): number => bench.started().filter((line) => line.startsWith('ls-remote')).length

test('several instances of one remote and user are served by one listing', async (t) => {
  const urls = (directory: string) => join(directory, 'forge', 'origin.git')
  const polls = await createPolls(t, {
    targets: ({ directory }) => [
      aTarget({ url: urls(directory) }),
      aTarget({ name: 'dev', follows: { kind: 'branch', branch: 'dev' }, url: urls(directory) }),
      aTarget({ name: 'head', follows: { kind: 'default' }, url: urls(directory) }),
      aTarget({ name: 'other', user: 'somebody', url: urls(directory) }),
    ],
  })
  const origin = await originIn(polls.bench)
  const tip = await git(origin.path, 'rev-parse', 'main')
  assert.deepEqual((await polls.once()).toSorted(), [
    'dev: ref-gone',
    `head: run ${tip}`,
    `other: run ${tip}`,
    `site: run ${tip}`,
  ])
  assert.equal(listings(polls), 2)
  assert.equal((await polls.instance('head')).defaultBranch, 'main')
  assert.equal((await polls.store.run(1))?.ref, 'refs/heads/main')
})

test('a branch is deployed at first sight, and then only what is new', async (t) => {
  const polls = await createPolls(t)
  const origin = await originIn(polls.bench)
  const first = await git(origin.path, 'rev-parse', 'main')
  assert.deepEqual(await polls.once(), [`site: run ${first}`])
  assert.deepEqual(await polls.once(), [`site: run ${first}`], 'the same run')
  assert.equal((await polls.store.unfinished()).length, 1)
  await polls.deployAll()
  assert.deepEqual(await polls.once(), ['site: up-to-date'])
  const second = await origin.commit({ 'file.txt': '2' })
  assert.deepEqual(await polls.once(), [`site: run ${second}`])
  await origin.deleteBranch('main')
  assert.deepEqual(await polls.once(), ['site: ref-gone'])
})

test('once takes up a commit whose last run failed, and targets with poll = "off"; a poll does neither', async (t) => {
  const polls = await createPolls(t, {
    targets: ({ directory }) => {
      const url = join(directory, 'forge', 'origin.git')
      return [aTarget({ url, pollMs: 20 }), aTarget({ name: 'off', url, pollMs: null })]
    },
  })
  const origin = await originIn(polls.bench)
  const tip = sha(await git(origin.path, 'rev-parse', 'main'))
  await polls.store.seen({ name: 'site', target: 'site', repo: 'acme/site', branch: null }, 1)
  await polls.store.remember('site', { considered: tip, state: 'broken' })
  await polls.poller.start()
  let seen = 0
  await until('three polls', () => {
    seen += listings(polls)
    return seen >= 3
  })
  await polls.poller.stop()
  assert.deepEqual(await polls.store.unfinished(), [])

  const fresh = await createPolls(t, { targets: () => [aTarget({ url: origin.path, pollMs: null })] })
  await fresh.store.seen({ name: 'site', target: 'site', repo: 'acme/site', branch: null }, 1)
  await fresh.store.remember('site', { considered: tip })
  assert.deepEqual(await fresh.once(), ['site: up-to-date'])
  await fresh.store.remember('site', { state: 'broken' })
  assert.deepEqual(await fresh.once(), [`site: run ${tip}`])
  assert.equal((await fresh.store.run(1))?.trigger, 'once')
})

test('once does not ask git for a target without a checkout that does not poll', async (t) => {
  const polls = await createPolls(t, { targets: () => [aTarget({ checkout: 'none', pollMs: null, url: '/nowhere' })] })
  assert.deepEqual(await polls.once(), ['site: up-to-date'])
  assert.equal(listings(polls), 0)
})

test('a remote that cannot be reached does not stop the others', async (t) => {
  const polls = await createPolls(t, {
    targets: ({ directory }) => [
      aTarget({ name: 'lost', url: join(directory, 'nowhere.git') }),
      aTarget({ url: join(directory, 'forge', 'origin.git') }),
    ],
  })
  const tip = await git((await originIn(polls.bench)).path, 'rev-parse', 'main')
  assert.deepEqual(await polls.once(), ['lost: failed', `site: run ${tip}`])
  assert.deepEqual(
    polls.events('poll failed').map(({ fields }) => fields['targets']),
    [['lost']],
  )
})

test('instances of a glob are polled once they were seen, and from a start on', async (t) => {
  const polls = await createPolls(t, {
    targets: ({ directory }) => [
      aTarget({ repo: 'acme/*', repoIsGlob: true, url: join(directory, 'forge', 'origin.git'), pollMs: 3_600_000 }),
    ],
  })
  const tip = await git((await originIn(polls.bench)).path, 'rev-parse', 'main')
  await polls.poller.start()
  assert.deepEqual(await polls.once(), [])
  const instance = await polls.store.seen(
    { name: 'site:acme/blog', target: 'site', repo: 'acme/blog', branch: null },
    1,
  )
  polls.poller.add(instance)
  const run = await until('a run', async () => (await polls.store.unfinished())[0])
  assert.deepEqual([run.target, run.announced, run.trigger], ['site:acme/blog', tip, 'poll'])
  assert.deepEqual(await polls.once(), [`site:acme/blog: run ${tip}`])
})

// --- Doubt ----------------------------------------------------------------------------------------------------------

/** An instance at the second commit of a remote that was forced back to the first, and whose run was skipped for that. */
async function doubtful(t: TestContext) {
  const polls = await createPolls(t)
  const origin = await originIn(polls.bench)
  const first = sha(await git(origin.path, 'rev-parse', 'main'))
  const second = await origin.commit({ 'file.txt': '2' })
  await polls.once()
  await polls.deployAll()
  assert.equal((await polls.instance()).deployed?.commit, second)
  await origin.forceTo(first)
  const skip = async (at: number | null) => {
    for (const { id } of await polls.store.unfinished()) {
      await polls.store.finished(
        id,
        finish('skipped', { instance: { considered: first, doubt: { tip: first, since: at } } }),
      )
    }
  }
  assert.deepEqual(await polls.once(), [`site: run ${first}`])
  return { polls, origin, first, second, skip }
}

test('two polls at least `poll` apart confirm a tip that leads away', async (t) => {
  const { polls, first, skip } = await doubtful(t)
  const foundAt = polls.clock.now
  await skip(foundAt)
  polls.clock.now = foundAt + POLL_MS - 1
  assert.deepEqual(await polls.once(), ['site: unconfirmed'])
  polls.clock.now = foundAt + POLL_MS
  assert.deepEqual(await polls.once(), [`site: run ${first}`])
  const [run] = await polls.store.unfinished()
  assert.equal(run?.pollsAgree, true)
})

test('what a push found is confirmed by two polls, not by one', async (t) => {
  const { polls, first, skip } = await doubtful(t)
  await skip(null)
  polls.clock.now += 10 * POLL_MS
  assert.deepEqual(await polls.once(), ['site: unconfirmed'])
  polls.clock.now += POLL_MS
  assert.deepEqual(await polls.once(), [`site: run ${first}`])
})

test('a poll in between that disagrees takes the confirmation back', async (t) => {
  const { polls, origin, first, second, skip } = await doubtful(t)
  await skip(polls.clock.now)
  await origin.forceTo(second)
  polls.clock.now += POLL_MS / 2
  assert.deepEqual(await polls.once(), ['site: up-to-date'])
  assert.equal((await polls.instance()).doubt, null)
  await origin.forceTo(first)
  polls.clock.now += POLL_MS
  assert.deepEqual(await polls.once(), ['site: up-to-date'], 'considered, and no longer in doubt: nobody saw it twice')
})

// --- When -----------------------------------------------------------------------------------------------------------

test('polls come as often as `poll` says, with a tenth of jitter', async (t) => {
  const { remotes, polls } = await fakePolls(t, 60_000)
  await polls.poller.start()
  await pass(t, 600_000, 1000)
  assert.ok(remotes.at.length >= 9, `${remotes.at.length} polls`)
  for (const gap of gaps(remotes.at)) assert.ok(gap >= 54_000 && gap <= 67_000, `${gap} ms`)
})

test('errors make polls rarer, doubling, up to an hour; then all is well again', async (t) => {
  const { remotes, polls } = await fakePolls(t, 60_000)
  remotes.isDown = true
  await polls.poller.start()
  await pass(t, 6 * 3_600_000, 30_000)
  const [first = 0, second = 0, ...later] = gaps(remotes.at)
  assert.ok(first >= 105_000 && first <= 165_000, `${first} ms`)
  assert.ok(second >= 210_000 && second <= 300_000, `${second} ms`)
  for (const gap of later) assert.ok(gap <= 3_630_000, `${gap} ms`)
  assert.ok((later.at(-1) ?? 0) >= 3_200_000)
  remotes.isDown = false
  await pass(t, 3_700_000, 30_000)
  assert.equal(polls.events('poll works again').length, 1)
  assert.ok((gaps(remotes.at).at(-1) ?? 0) <= 90_000)
})

test('a target that polls less than once an hour does not poll more for its remote being down', async (t) => {
  const { remotes, polls } = await fakePolls(t, 6 * 3_600_000)
  remotes.isDown = true
  await polls.poller.start()
  await pass(t, 24 * 3_600_000, 300_000)
  for (const gap of gaps(remotes.at)) assert.ok(gap >= 0.9 * 6 * 3_600_000, `${gap} ms`)
})

test('a poll soon is after 5 s, or after `poll` where that is sooner', async (t) => {
  const { remotes, polls } = await fakePolls(t, 600_000)
  await polls.poller.start()
  await pass(t, 1000, 1000)
  polls.poller.soon('site')
  polls.poller.soon('unheard-of')
  await pass(t, 5000, 1000)
  assert.equal(remotes.at.length, 2)
})

test('a poll soon does not put off the next poll', async (t) => {
  const { remotes, polls } = await fakePolls(t, 1000)
  await polls.poller.start()
  await pass(t, 100, 100)
  polls.poller.soon('site')
  await pass(t, 1200, 100)
  assert.ok(remotes.at.length >= 2)
})

test('a store that fails once does not end the polling', async (t) => {
  const { remotes, polls } = await fakePolls(t, 60_000)
  await polls.poller.start()
  await pass(t, 10_000, 1000)
  await polls.store.close()
  await pass(t, 180_000, 1000)
  assert.ok(polls.events('poll went wrong').length >= 1)
  assert.ok(remotes.at.length >= 3, `${remotes.at.length} polls`)
})

test('at most four listings of a host are under way at once', async (t) => {
  let [now, most] = [0, 0]
  const listRefs: Work['listRefs'] = async () => {
    now += 1
    most = Math.max(most, now)
    for (let n = 0; n < 5; n += 1) await turn()
    now -= 1
    return { head: null, branches: {}, tags: {} }
  }
  const targets = () =>
    Array.from({ length: 20 }, (_, n) =>
      aTarget({ name: `t${n}`, url: `https://${n < 10 ? 'a' : 'b'}.example/${n}.git` }),
    )
  const polls = await createPolls(t, { listRefs, targets })
  assert.equal((await polls.once()).length, 20)
  assert.equal(most, 8)
})

test('a stop waits for the poll under way, and none follows', async (t) => {
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<RemoteRefs>()
  const listRefs: Work['listRefs'] = () => {
    asked.resolve()
    return answer.promise
  }
  const polls = await createPolls(t, { listRefs, targets: () => [aTarget({ pollMs: 10 })] })
  await polls.poller.start()
  await asked.promise
  let isOver = false
  const stopped = polls.poller.stop().then(() => {
    isOver = true
  })
  await turn()
  assert.equal(isOver, false)
  answer.resolve({ head: null, branches: { main: commit(1) }, tags: {} })
  await stopped
  await polls.store.close()
  assert.deepEqual(polls.events('poll went wrong'), [])
})

test('jitter does not put off the poll that confirms a tip', async (t) => {
  const { remotes, polls } = await fakePolls(t, 60_000)
  await polls.poller.start()
  await pass(t, 500, 500)
  await polls.store.finished(1, finish('skipped'))
  remotes.tip = commit(2)
  await polls.store.remember('site', {
    deployed: { commit: commit(1), run: 1, at: 1 },
    considered: commit(2),
    doubt: { tip: commit(2), since: null },
  })
  const confirmed = async () => (await polls.store.unfinished()).some((run) => run.pollsAgree)
  // The first poll to see it, and one `poll` later.
  await pass(t, 66_500 + 67_000, 500)
  assert.equal(await confirmed(), true)
})

test('a remote that shows no branch at all retires nothing, however often it is asked', async (t) => {
  const main = { head: { branch: 'main', tip: commit(1) }, branches: { main: commit(1), x: commit(2) }, tags: {} }
  let refs: RemoteRefs = main
  const several = aTarget({ follows: { kind: 'branches', patterns: ['main', 'x'] }, pollMs: 1 })
  const polls = await createPolls(t, { listRefs: async () => refs, targets: () => [several] })
  await polls.once()
  for (const { id, announced } of await polls.store.unfinished()) {
    const deployed = announced && { commit: announced, run: id, at: 1 }
    await polls.store.finished(id, finish('succeeded', { instance: { deployed, considered: announced, state: 'ok' } }))
  }
  const deletions = async () => {
    polls.clock.now += 1000
    await polls.once()
    return (await polls.store.unfinished()).map(({ target, event }) => `${target} ${event}`)
  }
  refs = { head: null, branches: {}, tags: {} }
  for (let n = 0; n < 3; n += 1) assert.deepEqual(await deletions(), [])
  refs = { ...main, branches: { main: commit(1) } }
  assert.deepEqual(await deletions(), [], 'one poll is not enough')
  assert.deepEqual(await deletions(), ['site@x delete'])
})
