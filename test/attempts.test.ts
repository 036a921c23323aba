import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Outcome, Run } from '../src/model.ts'
import { interruption, retryOf } from '../src/runs/attempts.ts'
import { aRun, aTarget } from './support/nouns.ts'

const ended = (end: Outcome['end'], reason: Outcome['reason'] = null): Outcome => ({
  end,
  reason,
  detail: null,
  exitCode: null,
  signal: null,
})
const FAILED = ended('failed')
const TEMPFAIL = ended('failed', 'tempfail')

/** Lets a run end in these ways, one attempt after the other. Resolves to the attempts that were made. */
function attempts(retries: number, outcomes: readonly Outcome[]): number {
  let run: Run = aRun()
  for (const [index, outcome] of outcomes.entries()) {
    const retry = retryOf(aTarget({ retries }), run, outcome, 0, 0.5)
    if (retry === null) return index + 1
    assert.equal(retry.trigger, 'retry')
    run = { ...run, ...retry }
    assert.equal(run.attempt, index + 2)
  }
  return outcomes.length + 1
}

const times = <T>(n: number, value: T): T[] => Array.from({ length: n }, () => value)

test('a failed or timed-out run is retried as often as `retries` says', () => {
  for (const end of ['failed', 'timed-out'] as const) {
    assert.equal(attempts(0, times(9, ended(end))), 1)
    assert.equal(attempts(1, times(9, ended(end))), 2)
    assert.equal(attempts(3, times(9, ended(end))), 4)
  }
})

test('exit 75 and failed fetches are retried ten times, also with retries = 0', () => {
  assert.equal(attempts(0, times(20, TEMPFAIL)), 11)
  assert.equal(attempts(0, times(20, ended('fetch-failed'))), 11)
  assert.equal(attempts(5, times(20, TEMPFAIL)), 11)
})

test('the two budgets do not take from each other', () => {
  const interleaved = [TEMPFAIL, FAILED, TEMPFAIL, FAILED, ...times(8, TEMPFAIL)]
  assert.equal(attempts(2, [...interleaved, FAILED]), 13)
  assert.equal(attempts(3, [...interleaved, FAILED]), 14)
  assert.equal(attempts(2, [...interleaved, TEMPFAIL]), 13)
})

test('no other end is retried', () => {
  const ends = ['succeeded', 'cancelled', 'superseded', 'interrupted', 'unstartable', 'skipped'] as const
  for (const end of ends) assert.equal(retryOf(aTarget({ retries: 9 }), aRun(), ended(end), 0, 0), null)
})

test('a retry comes after 10 s, doubling, with a tenth of jitter and never after more than 10 minutes', () => {
  const delay = (attempt: number, random: number) =>
    retryOf(aTarget({ retries: 1e9 }), aRun({ attempt }), FAILED, 5000, random)?.notBefore ?? Number.NaN
  assert.equal(delay(1, 0.5), 15_000)
  assert.equal(delay(2, 0.5), 25_000)
  assert.equal(delay(3, 0.5), 45_000)
  assert.equal(delay(1, 0), 14_000)
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (n, r) => {
        const plain = Math.min(9 * 60_000, 10_000 * 2 ** (n - 1))
        const delayMs = delay(n, r) - 5000
        assert.ok(Math.abs(delayMs - plain) <= plain / 10 + 1 && delayMs <= 10 * 60_000, `${delayMs} ms`)
      },
    ),
  )
})

test('an interrupted run is recovered where it was, and its attempts go on counting', () => {
  const { outcome, followUp } = interruption(aTarget(), aRun({ attempt: 3, softAttempts: 1 }))
  assert.deepEqual([outcome.end, outcome.reason], ['interrupted', 'crash'])
  const recovery = { trigger: 'recovery', attempt: 3, softAttempts: 1, interruptions: 1, notBefore: null }
  assert.deepEqual(followUp, recovery)
})

test('three interruptions in a row end in failed, and no retry follows', () => {
  const target = aTarget({ retries: 5 })
  const first = interruption(target, aRun())
  const second = interruption(target, aRun({ ...first.followUp, id: 2 }))
  assert.equal(second.followUp?.interruptions, 2)
  const third = interruption(target, aRun({ ...second.followUp, id: 3 }))
  assert.deepEqual([third.outcome.end, third.outcome.reason, third.followUp], ['failed', 'interruptions', null])
  assert.equal(retryOf(target, aRun({ ...second.followUp, id: 3 }), third.outcome, 0, 0), null)
})

test('a retry after a failure begins to count interruptions anew', () => {
  assert.equal(retryOf(aTarget({ retries: 1 }), aRun({ interruptions: 2 }), FAILED, 0, 0)?.interruptions, 0)
})

test('with rerun_interrupted = false an interrupted run is not recovered', () => {
  const { outcome, followUp } = interruption(aTarget({ rerunInterrupted: false }), aRun())
  assert.deepEqual([outcome.end, followUp], ['interrupted', null])
})

test('an interrupted run of a target that is gone is not recovered', () => {
  assert.equal(interruption(undefined, aRun()).followUp, null)
})
