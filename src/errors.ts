/**
 * What can go wrong in a way that a person can mend. Each code has one meaning everywhere:
 *
 * - `config`      the configuration, `.env` or a secret is wrong; exit code 2
 * - `usage`       the command line is wrong; exit code 2
 * - `start`       the daemon cannot start: port in use, data_dir unreadable or owned by another process
 * - `unreachable` no daemon answers on the socket; exit code 3
 * - `not-found`   the thing that was named does not exist
 * - `invalid`     a request to the API makes no sense
 * - `store`       the store cannot be read or written: disk full, read-only, corrupt
 * - `stopping`    the daemon is on its way out and takes no more work
 * - `remote`      the remote repository cannot be reached or refuses us; trying again may help
 * - `git`         git failed for a reason that is not the remote's
 * - `unstartable` a run can not begin: no interpreter, not executable, unsafe ownership
 * - `aborted`     the caller asked to stop
 * - `lost`        the process that did the work is gone
 */
export type ErrorCode =
  | 'config'
  | 'usage'
  | 'start'
  | 'unreachable'
  | 'not-found'
  | 'invalid'
  | 'store'
  | 'stopping'
  | 'remote'
  | 'git'
  | 'unstartable'
  | 'aborted'
  | 'lost'

/** The one error class: a code for programs, a message for people, a cause for the log. Anything else thrown is a bug. */
export class LandfallError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options)
    this.name = 'LandfallError'
    this.code = code
  }
}

export function hasCode(error: unknown, code: ErrorCode): error is LandfallError {
  return error instanceof LandfallError && error.code === code
}

/** The text of anything thrown, for a log line or a sentence. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The `code` of a system error such as `ENOENT`, or undefined for any other value. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
