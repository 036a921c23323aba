import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type Decision, decide, decidePoll, type PollSituation, type Situation } from '../src/decide.ts'
import type { Sha, Trigger } from '../src/model.ts'
import type { Relation } from '../src/work.ts'
import { commit } from './support/nouns.ts'

const [C, D, T, OTHER] = [commit(1), commit(2), commit(3), commit(4)]

/** A push of C = T to an instance at D, where T descends from D. */
const PUSH: Situation = {
  trigger: 'push',
  policy: 'sequential',
  named: false,
  tags: null,
  tip: T,
  announced: T,
  deployed: D,
  rejected: [],
  tipToDeployed: 'ahead',
  announcedInTip: 'yes',
  announcedToDeployed: 'ahead',
  before: null,
  moves: [],
  pollsAgree: false,
  filesAreElsewhere: false,
}
const OLDER_C = { announced: C, announcedToDeployed: 'behind' } as const
const AT_D = { tip: D, announced: D, tipToDeployed: 'same', announcedToDeployed: 'same' } as const
const FORCED = { tipToDeployed: 'diverged', announcedToDeployed: 'diverged' } as const
/** C has been pushed, and T in its place. */
const LEFT = { ...FORCED, before: D, announced: C, announcedInTip: 'no' } as const
const MOVES = [
  { before: D, after: C },
  { before: C, after: T },
]
const TO_OTHER = [
  { before: D, after: C },
  { before: C, after: OTHER },
]
const WENT_BACK = { tipToDeployed: 'behind', announcedToDeployed: 'behind' } as const

/** What is decided: a commit's name, or `kind: reason`, `+ soon` where a poll shall follow. */
function told(decision: Decision): string {
  const names = new Map<Sha, string>([
    [C, 'C'],
    [D, 'D'],
    [T, 'T'],
  ])
  if (decision.kind === 'deploy') return names.get(decision.commit) ?? '?'
  if (decision.kind === 'refuse') return 'refused'
  return `skipped: ${decision.reason}${decision.pollSoon ? ' + soon' : ''}`
}

const ROWS: readonly (readonly [string, Partial<Situation>, string])[] = [
  // Named by a person
  ['named by a person, C is deployed', { named: true, trigger: 'manual', announced: C }, 'C'],
  ['a rollback names a commit older than D and gets it', { named: true, trigger: 'rollback', ...OLDER_C }, 'C'],
  ['a rollback to D runs it again', { named: true, trigger: 'rollback', announced: D }, 'D'],
  ['deploy --commit of an ancestor of D is refused', { named: true, trigger: 'manual', ...OLDER_C }, 'refused'],
  ['deploy --commit takes a rejected commit', { named: true, trigger: 'manual', announced: C, rejected: [C] }, 'C'],
  ['a named commit that is nowhere is refused', { named: true, announced: C, announcedInTip: 'missing' }, 'refused'],
  // Else with `sequential`
  ['sequential deploys C where T contains it', { announced: C }, 'C'],
  ['sequential deploys C at first sight too', { announced: C, deployed: null, tipToDeployed: 'unknown' }, 'C'],
  ['sequential deploys T where C is not reachable from T', { announced: C, announcedInTip: 'no' }, 'T'],
  ['sequential deploys T where C is D', { announced: D, announcedToDeployed: 'same' }, 'T'],
  ['sequential deploys T where C is an ancestor of D', OLDER_C, 'T'],
  ['sequential deploys T where nothing was named', { announced: null }, 'T'],
  // With `evict`
  ['evict deploys T, whatever was announced', { policy: 'evict', announced: C }, 'T'],
  // If the result is D
  ...(['push', 'poll', 'once', 'unfreeze'] as const).map(
    (trigger) => [`${trigger} of D ends already-deployed`, { ...AT_D, trigger }, 'skipped: already-deployed'] as const,
  ),
  ...(['redelivery', 'manual', 'retry', 'recovery', 'rollback'] as const).map(
    (trigger) => [`${trigger} of D runs the script again`, { ...AT_D, trigger }, 'D'] as const,
  ),
  [
    'a redelivery of an older push counts as a push',
    { ...AT_D, ...OLDER_C, trigger: 'redelivery' },
    'skipped: already-deployed',
  ],
  [
    'a redelivery of an older push counts as a push with evict',
    { ...AT_D, ...OLDER_C, trigger: 'redelivery', policy: 'evict' },
    'skipped: already-deployed',
  ],
  ['a redelivery of D deploys T where T is newer', { announced: D, trigger: 'redelivery', policy: 'evict' }, 'T'],
  // The fetch lacks the announced commit
  ['T is used where C is missing', { announced: C, announcedInTip: 'missing' }, 'T'],
  [
    'C is missing and T is older than D: stale, and a poll soon',
    { announced: C, announcedInTip: 'missing', tipToDeployed: 'behind' },
    'skipped: stale + soon',
  ],
  [
    'C is missing and T is still D: nothing new, and a poll soon',
    { ...AT_D, announced: C, announcedInTip: 'missing' },
    'skipped: already-deployed + soon',
  ],
  // A ref that is gone
  ['a ref that is gone is skipped', { tip: null, announcedInTip: 'missing' }, 'skipped: ref-gone'],
  ['a ref that is gone is skipped on recovery too', { tip: null, trigger: 'recovery' }, 'skipped: ref-gone'],
  // Force pushes and stale replicas
  ['a diverged T that nobody announced is not followed', FORCED, 'skipped: diverged + soon'],
  ['a T behind D that nobody announced is not followed', WENT_BACK, 'skipped: stale + soon'],
  ['a T is not followed where D is unknown to the remote', { tipToDeployed: 'unknown' }, 'skipped: diverged + soon'],
  ['a diverged T is followed if a delivery said D to T', { ...FORCED, before: D }, 'T'],
  ['a T behind D is followed if a delivery said D to T', { ...WENT_BACK, before: D }, 'T'],
  [
    'a T is not followed if the delivery spoke of another before',
    { ...FORCED, before: OTHER },
    'skipped: diverged + soon',
  ],
  [
    'a T is not followed if the delivery spoke of a commit that T does not contain',
    { ...FORCED, before: D, announced: C, announcedInTip: 'no' },
    'skipped: diverged + soon',
  ],
  [
    'a T is not followed if the delivery spoke of a commit that is not there',
    { ...WENT_BACK, before: D, announced: C, announcedInTip: 'missing' },
    'skipped: stale + soon',
  ],
  [
    'a T that has moved on since the announced force push is followed',
    { ...FORCED, before: D, announced: C, policy: 'evict' },
    'T',
  ],
  [
    'a diverged T is followed if deliveries said D to C and C to T, by the run of the first',
    { ...LEFT, moves: MOVES },
    'T',
  ],
  ['… and by the run of the second', { ...FORCED, before: C, moves: MOVES }, 'T'],
  ['… also where T has grown since', { ...FORCED, before: C, announced: OTHER, policy: 'evict', moves: TO_OTHER }, 'T'],
  ['… but by none that is no step of the way', { ...FORCED, before: OTHER, moves: MOVES }, 'skipped: diverged + soon'],
  ['… nor by a replay of one', { ...LEFT, before: null, moves: MOVES }, 'skipped: diverged + soon'],
  ['… nor where a step is missing', { ...FORCED, before: C, moves: MOVES.slice(1) }, 'skipped: diverged + soon'],
  [
    '… nor to a T that a further delivery said was left again',
    { ...FORCED, before: C, moves: [...MOVES, { before: T, after: D }] },
    'skipped: diverged + soon',
  ],
  ['a diverged T is followed if two polls agree', { ...FORCED, trigger: 'poll', pollsAgree: true }, 'T'],
  ['a T behind D is followed if two polls agree', { ...WENT_BACK, trigger: 'poll', pollsAgree: true }, 'T'],
  [
    'what two polls agreed on says nothing of another T',
    { ...FORCED, trigger: 'poll', pollsAgree: true, announced: C, announcedInTip: 'no' },
    'skipped: diverged + soon',
  ],
  // Also decided then
  ['a rejected commit is skipped', { rejected: [T] }, 'skipped: rejected'],
  ['a rejected commit is skipped on retry', { rejected: [T], trigger: 'retry' }, 'skipped: rejected'],
  ['a newer commit than the rejected one is deployed', { rejected: [OTHER] }, 'T'],
  [
    'D is run again where a failed run has left the files of its tree elsewhere',
    { ...AT_D, filesAreElsewhere: true },
    'D',
  ],
]

describe('the commit of a run', () => {
  for (const [title, change, expected] of ROWS) {
    test(title, () => assert.equal(told(decide({ ...PUSH, ...change })), expected))
  }

  test('the reason says that the tip was taken for a commit that is missing', () => {
    const decision = decide({ ...PUSH, announced: C, announcedInTip: 'missing' })
    assert.match(
      decision.kind === 'deploy' ? (decision.detail ?? '') : '',
      new RegExp(`${C.slice(0, 10)} is not on the`),
    )
  })

  test('a tip that is not followed is handed to the polls for confirmation', () => {
    const decision = decide({ ...PUSH, ...FORCED })
    assert.equal(decision.kind === 'skip' && decision.doubt, T)
  })
})

// --- Tags ----------------------------------------------------------------------------------------------------------

const TAGS = { tip: 'v2', announced: 'v2', deployed: 'v1' } as const
/** A delivery of the tag v2 to an instance at v1, where v2 is the highest. */
const TAGGED: Partial<Situation> = { tags: TAGS, announcedToDeployed: 'unknown' }

const TAG_ROWS: readonly (readonly [string, Partial<Situation>, string])[] = [
  ['a higher tag is deployed, whatever history it has', {}, 'T'],
  [
    'the highest tag is deployed in the place of a lower one',
    { announced: C, announcedInTip: 'no', tags: { ...TAGS, announced: 'v1.5' } },
    'T',
  ],
  [
    'a tag is not picked by its commit, as a branch’s would be',
    { announced: C, tags: { ...TAGS, announced: 'v1.5' } },
    'T',
  ],
  [
    'a tag that comes before the deployed one is stale',
    {
      tip: D,
      tipToDeployed: 'same',
      announced: C,
      announcedInTip: 'no',
      tags: { tip: 'v2', announced: 'v1.5', deployed: 'v2' },
    },
    'skipped: stale',
  ],
  [
    'a tag that the remote has yet to show is looked for soon',
    {
      tip: D,
      tipToDeployed: 'same',
      announced: C,
      announcedInTip: 'missing',
      tags: { tip: 'v2', announced: 'v3', deployed: 'v2' },
    },
    'skipped: already-deployed + soon',
  ],
  [
    'what is deployed stays where its tag was deleted',
    { tipToDeployed: 'behind', tags: { ...TAGS, deployed: 'v3' } },
    'skipped: stale',
  ],
  [
    '… however often polls see it',
    { tipToDeployed: 'behind', pollsAgree: true, trigger: 'poll', tags: { ...TAGS, deployed: 'v3' } },
    'skipped: stale',
  ],
  [
    'a tag that was moved is followed once a delivery or two polls say so',
    { tipToDeployed: 'diverged' },
    'skipped: diverged + soon',
  ],
  ['a tag that was moved from D to T by a delivery’s word is followed', { tipToDeployed: 'diverged', before: D }, 'T'],
  ['a tag that was moved is followed where two polls agree', { tipToDeployed: 'diverged', pollsAgree: true }, 'T'],
  [
    'a target that followed a branch until now follows its first tag',
    { tipToDeployed: 'unknown', tags: { ...TAGS, deployed: null } },
    'T',
  ],
  [
    'a higher tag at the deployed commit changes nothing',
    { tip: D, announced: D, tipToDeployed: 'same' },
    'skipped: already-deployed',
  ],
  [
    'a redelivery of the deployed tag runs again, though the forge names it by an object of its own',
    {
      tip: D,
      tipToDeployed: 'same',
      announced: OTHER,
      trigger: 'redelivery',
      tags: { tip: 'v2', announced: 'v2', deployed: 'v2' },
    },
    'D',
  ],
  ['no tag that fits is ref-gone', { tip: null, tags: { ...TAGS, tip: null } }, 'skipped: ref-gone'],
]

describe('the commit of a run that follows tags', () => {
  for (const [title, change, expected] of TAG_ROWS) {
    test(title, () => assert.equal(told(decide({ ...PUSH, ...TAGGED, ...change })), expected))
  }

  test('an older tag is ignored with a sentence that names both', () => {
    const tags = { tip: 'v2', announced: 'v1.5', deployed: 'v2' }
    const decision = decide({ ...PUSH, tip: D, tipToDeployed: 'same', announced: C, announcedInTip: 'no', tags })
    assert.match(decision.kind === 'skip' ? decision.detail : '', /v1\.5 .*v2/)
    assert.equal(decision.kind === 'skip' && decision.doubt, null)
  })
})

// --- Promise 4 ----------------------------------------------------------------------------------------------------

/** A history of commits 0…n-1, each with parents among the earlier ones. */
const histories = fc
  .array(fc.array(fc.nat(), { minLength: 0, maxLength: 2 }), { minLength: 2, maxLength: 8 })
  .map((choices) => choices.map((picks, n) => (n === 0 ? [] : [...new Set(picks.map((pick) => pick % n))])))

function ancestorsOf(history: readonly (readonly number[])[], of: number): ReadonlySet<number> {
  const found = new Set([of])
  for (let n = of; n >= 0; n -= 1) if (found.has(n)) for (const parent of history[n] ?? []) found.add(parent)
  return found
}

/** How `one` lies to `other`. */
function relation(history: readonly (readonly number[])[], one: number, other: number): Relation {
  if (one === other) return 'same'
  if (ancestorsOf(history, one).has(other)) return 'ahead'
  return ancestorsOf(history, other).has(one) ? 'behind' : 'diverged'
}

function reach(steps: readonly (readonly [number, number])[], from: number): ReadonlySet<number> {
  const found = new Set([from])
  for (const _ of steps) for (const [before, after] of steps) if (found.has(before)) found.add(after)
  return found
}

test('a webhook never moves an instance backwards unless a delivery said so or two polls agree', () => {
  const triggers: readonly Trigger[] = ['push', 'poll', 'redelivery', 'retry', 'recovery', 'once', 'unfreeze']
  const cases = fc.record({
    history: histories,
    picks: fc.tuple(fc.nat(), fc.nat(), fc.nat(), fc.nat()),
    before: fc.option(fc.nat()),
    moves: fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 6 }),
    pollsAgree: fc.boolean(),
    policy: fc.constantFrom('sequential' as const, 'evict' as const, 'parallel' as const),
    trigger: fc.constantFrom(...triggers),
    isMissing: fc.boolean(),
  })
  fc.assert(
    fc.property(cases, ({ history, picks, before, moves, pollsAgree, policy, trigger, isMissing }) => {
      const [tip, announced, deployed] = picks.map((pick) => pick % history.length)
      assert.ok(tip !== undefined && announced !== undefined && deployed !== undefined)
      const inTip = ancestorsOf(history, tip).has(announced)
      // Only a first delivery's word is carried to the run.
      const said = before === null || trigger === 'redelivery' ? null : before % history.length
      const steps = moves.map(([from, to]) => [from % history.length, to % history.length] as const)
      const decision = decide({
        ...PUSH,
        trigger,
        policy,
        pollsAgree,
        moves: steps.map(([from, to]) => ({ before: commit(from), after: commit(to) })),
        tip: commit(tip),
        announced: commit(announced),
        deployed: commit(deployed),
        tipToDeployed: relation(history, tip, deployed),
        announcedInTip: isMissing && !inTip ? 'missing' : inTip ? 'yes' : 'no',
        announcedToDeployed: relation(history, announced, deployed),
        before: said === null ? null : commit(said),
      })
      if (decision.kind !== 'deploy') return
      const chosen = history.findIndex((_, n) => commit(n) === decision.commit)
      assert.ok(ancestorsOf(history, tip).has(chosen), 'what is deployed is on the ref')
      const tipFollowsOn = ['ahead', 'same'].includes(relation(history, tip, deployed))
      const wasSaid = said === deployed && inTip
      const isEnd = steps.every(([from]) => from !== tip)
      const isChain =
        said !== null && isEnd && reach(steps, deployed).has(said) && (inTip || reach(steps, announced).has(tip))
      assert.ok(
        tipFollowsOn || wasSaid || isChain || (pollsAgree && inTip),
        'a tip that leads away was followed on nobody’s word',
      )
      if (tipFollowsOn) assert.notEqual(relation(history, chosen, deployed), 'behind')
    }),
    { numRuns: 5000 },
  )
})

// --- Polls --------------------------------------------------------------------------------------------------------

const POLL: PollSituation = {
  tip: T,
  deployed: D,
  considered: D,
  doubt: null,
  confirmAfterMs: 1000,
  retryFailed: false,
  broken: false,
  filesAreElsewhere: false,
  now: 10_000,
}
const RUN = { run: { tip: T, pollsAgree: false }, doubt: null }
const NOTHING = { run: null, doubt: null }
const doubted = (since: number | null) => ({ tip: T, since })

const POLLS: readonly (readonly [string, Partial<PollSituation>, ReturnType<typeof decidePoll>])[] = [
  ['a poll queues a run where T differs from the last considered commit', {}, RUN],
  ['a poll queues nothing for D', { tip: D }, NOTHING],
  ['a poll queues nothing for D, whatever was considered since', { tip: D, considered: OTHER }, NOTHING],
  [
    'a poll brings a tree in place back to D, where a failed run has left it elsewhere',
    { tip: D, considered: OTHER, filesAreElsewhere: true },
    { run: { tip: D, pollsAgree: false }, doubt: null },
  ],
  ['a poll queues nothing for a commit that was attempted, skipped or rejected', { considered: T }, NOTHING],
  ['a branch is deployed at first sight', { deployed: null, considered: null }, RUN],
  ['a poll queues nothing where the ref is gone', { tip: null }, NOTHING],
  ['a poll queues nothing for a commit whose last run failed', { considered: T, broken: true }, NOTHING],
  ['once takes up a commit whose last run failed', { considered: T, broken: true, retryFailed: true }, RUN],
  ['once queues nothing for a considered commit whose run did not fail', { considered: T, retryFailed: true }, NOTHING],
  [
    'the first poll to see a doubtful tip notes the time',
    { considered: T, doubt: doubted(null) },
    { run: null, doubt: doubted(10_000) },
  ],
  [
    'a second poll that comes sooner than `poll` confirms nothing',
    { considered: T, doubt: doubted(9001) },
    { run: null, doubt: doubted(9001) },
  ],
  [
    'a doubt from the future, of a clock that was set back, begins anew',
    { considered: T, doubt: doubted(10_001) },
    { run: null, doubt: doubted(10_000) },
  ],
  [
    'a second poll after `poll` confirms a doubtful tip',
    { considered: T, doubt: doubted(9000) },
    { run: { tip: T, pollsAgree: true }, doubt: doubted(9000) },
  ],
  [
    'a poll that sees another tip in between takes the doubt back',
    { considered: T, tip: OTHER, doubt: doubted(1) },
    { run: { tip: OTHER, pollsAgree: false }, doubt: null },
  ],
  ['a poll that sees D again takes the doubt back', { considered: T, tip: D, doubt: doubted(1) }, NOTHING],
  ['a poll that sees no ref takes the doubt back', { considered: T, tip: null, doubt: doubted(1) }, NOTHING],
]

describe('polling', () => {
  for (const [title, change, expected] of POLLS) {
    test(title, () => assert.deepEqual(decidePoll({ ...POLL, ...change }), expected))
  }
})
