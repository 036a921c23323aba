import { tmpdir, userInfo } from 'node:os'
import { posix } from 'node:path'
import { environmentOf } from '../config/accounts.ts'
import type { Target } from '../config/config.ts'
import type { Run } from '../model.ts'

export interface ScriptFacts {
  readonly target: Target
  readonly run: Run
  readonly forgeEvent: string | null
  readonly payloadFile: string
  readonly changedFile: string
  readonly changedNulFile: string
  readonly checkout: string
  /** Kept between runs of the instance. */
  readonly dataDirectory: string
}

/** The whole environment of a script; later wins: the account's, `CI`, `pass_env`, `env`, then what is reserved. */
export function scriptEnvironment(facts: ScriptFacts): Record<string, string> {
  const { target } = facts
  const passed = target.passEnv.flatMap((name) => {
    const value = process.env[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return {
    ...accountEnvironment(target),
    CI: 'true',
    ...Object.fromEntries(passed),
    ...target.env,
    ...landfallVariables(facts),
  }
}

function accountEnvironment({ account }: Target): Record<string, string> {
  const { username, homedir, shell } = userInfo()
  const own = {
    PATH: process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: homedir,
    USER: username,
    LOGNAME: username,
    SHELL: shell ?? '/bin/sh',
    TMPDIR: tmpdir(),
  }
  return {
    ...(account === null ? own : environmentOf(account)),
    LANG: process.env['LANG'] ?? 'C.UTF-8',
    TZ: process.env['TZ'] ?? Intl.DateTimeFormat().resolvedOptions().timeZone,
  }
}

function landfallVariables(facts: ScriptFacts): Record<string, string> {
  const { target, run } = facts
  const ref = run.ref ?? ''
  return {
    ...markOf(run.id, facts.dataDirectory),
    LANDFALL_TARGET: run.target,
    LANDFALL_TRIGGER: run.trigger,
    LANDFALL_EVENT: run.event,
    LANDFALL_FORGE_EVENT: facts.forgeEvent ?? '',
    LANDFALL_HOOK: target.hook ?? '',
    LANDFALL_DELIVERY: run.delivery === null ? '' : String(run.delivery),
    LANDFALL_REPO: run.repo,
    LANDFALL_OWNER: posix.dirname(run.repo),
    LANDFALL_NAME: posix.basename(run.repo),
    LANDFALL_REF: ref,
    LANDFALL_BRANCH: ref.startsWith('refs/heads/') ? ref.slice('refs/heads/'.length) : '',
    LANDFALL_TAG: ref.startsWith('refs/tags/') ? ref.slice('refs/tags/'.length) : '',
    LANDFALL_COMMIT: run.commit ?? '',
    LANDFALL_PREVIOUS: run.previous ?? '',
    LANDFALL_CHANGED: facts.changedFile,
    LANDFALL_CHANGED_Z: facts.changedNulFile,
    LANDFALL_PAYLOAD: facts.payloadFile,
    LANDFALL_CHECKOUT: facts.checkout,
    LANDFALL_ATTEMPT: String(run.attempt),
  }
}

/** What marks a process as one of a run of this data_dir, so that it can be found and ended after a crash. */
export function markOf(run: number, dataDirectory: string): Record<string, string> {
  return { LANDFALL_RUN: String(run), LANDFALL_DATA: dataDirectory }
}

/** What a script reads where no delivery caused the run. */
export function synthesisedPayload(run: Run): string {
  const none = '0'.repeat(40)
  return `${JSON.stringify({
    ref: run.ref ?? '',
    before: run.previous ?? none,
    after: run.commit ?? none,
    repository: {
      full_name: run.repo,
      name: posix.basename(run.repo),
      owner: { login: posix.dirname(run.repo) },
    },
  })}\n`
}
