/** What follows a run that did not succeed: a retry, a recovery, or nothing. Pure. */
import type { Target } from '../config/config.ts'
import type { Outcome, Run } from '../model.ts'
import type { FollowUp } from '../stores/store.ts'

/** Fetch failures and exit 75 are retried this often, also with `retries = 0`. */
const SOFT_BUDGET = 10
const FIRST_DELAY_MS = 10_000
/** With its tenth of jitter at most 10 minutes. */
const LONGEST_DELAY_MS = 9 * 60_000
/** The third interruption in a row ends in `failed`: whatever ends it would do so for ever. */
const MAX_INTERRUPTIONS = 3

/** `random` is in [0, 1). */
export function retryOf(target: Target, run: Run, outcome: Outcome, now: number, random: number): FollowUp | null {
  const soft = outcome.end === 'fetch-failed' || outcome.reason === 'tempfail'
  const hard = !soft && outcome.reason !== 'interruptions' && ['failed', 'timed-out'].includes(outcome.end)
  const hardAttempts = run.attempt - run.softAttempts
  const due = soft ? run.softAttempts < SOFT_BUDGET : hard && hardAttempts <= target.retries
  if (!due) return null
  const delayMs = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(run.attempt - 1, 20))
  return {
    trigger: 'retry',
    attempt: run.attempt + 1,
    softAttempts: run.softAttempts + (soft ? 1 : 0),
    interruptions: 0,
    // A fifth of jitter, so that what failed together does not come back together.
    notBefore: now + Math.round(delayMs * (0.9 + 0.2 * random)),
  }
}

/** How a run ends that was cut off by a crash, and the recovery that takes its place. */
export function interruption(
  target: Target | undefined,
  run: Run,
): { readonly outcome: Outcome; readonly followUp: FollowUp | null } {
  const nothing = { exitCode: null, signal: null }
  const times = run.interruptions + 1
  if (times >= MAX_INTERRUPTIONS) {
    const detail = `cut off ${times} times in a row; look for what ends landfall while this runs`
    return { outcome: { end: 'failed', reason: 'interruptions', detail, ...nothing }, followUp: null }
  }
  const detail = 'landfall ended while this was running'
  const outcome: Outcome = { end: 'interrupted', reason: 'crash', detail, ...nothing }
  if (target === undefined || !target.rerunInterrupted) return { outcome, followUp: null }
  const { attempt, softAttempts } = run
  const followUp: FollowUp = { trigger: 'recovery', attempt, softAttempts, interruptions: times, notBefore: null }
  return { outcome, followUp }
}
