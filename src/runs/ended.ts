import type { Outcome, RunEnd, RunReason } from '../model.ts'

/** An end that is no surprise, thrown from any depth of a run. */
export class Ended extends Error {
  readonly outcome: Outcome
  constructor(end: RunEnd, reason: RunReason | null, detail: string | null) {
    super(detail ?? end)
    this.outcome = endedBy(end, reason, detail)
  }
}

/** An end that no exit code or signal tells. */
export function endedBy(end: Outcome['end'], reason: Outcome['reason'], detail: string | null): Outcome {
  return { end, reason, detail, exitCode: null, signal: null }
}
