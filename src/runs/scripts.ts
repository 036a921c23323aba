import { userInfo } from 'node:os'
import type { Config, Target } from '../config/config.ts'
import { type DataDir, exists } from '../data-dir.ts'
import { messageOf } from '../errors.ts'
import type { Clock, Log, Outcome, Run } from '../model.ts'
import type { Store } from '../stores/store.ts'
import type { ScriptEnd, Work } from '../work.ts'
import { scriptEnvironment } from './environment.ts'
import type { LivePaths } from './live-paths.ts'
import { findByConvention, findNamed, type Sought } from './scripts-dir.ts'
import { createSites, type LogPlace, type ScriptSite } from './site.ts'

/** Shorter secrets of hooks are left alone in logs: a script was not given them, and may well mean something else. */
const MIN_OWN_SECRET = 8
/** EX_TEMPFAIL of sysexits.h: the script asks to be run again later. */
const TEMPFAIL = 75

/** What a run executes: a file with the contract's two arguments, or an argv taken verbatim. */
export type Program =
  | { readonly kind: 'file'; readonly file: string }
  | { readonly kind: 'argv'; readonly argv: readonly [string, ...string[]] }
  | { readonly kind: 'none'; readonly detail: string }
  | { readonly kind: 'unstartable'; readonly detail: string }

export interface Scripts {
  /** `createSites`. */
  site(target: Target, run: Run): Promise<ScriptSite>
  find(target: Target, run: Run): Promise<Program>
  run(target: Target, run: Run, site: ScriptSite, checkout: string, program: Program): Promise<Outcome>
  /** The target's `activate`, in the given release. */
  activate(target: Target, run: Run, site: ScriptSite, release: string): Promise<Outcome>
  /** The target's `on_delete`, in what was deployed, where that is still there. */
  onDelete(target: Target, run: Run, site: ScriptSite, checkout: string | null): Promise<Outcome>
  /** An `on_…` script. Its failure is logged and changes nothing. */
  report(target: Target, run: Run, outcome: Outcome, checkout: string | null, name: string): Promise<void>
}

export function createScripts(parts: {
  readonly config: () => Config
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly dataDir: DataDir
  readonly log: Log
  readonly now: Clock
  readonly cutOff: AbortSignal
  readonly livePaths: LivePaths
}): Scripts {
  const { config, store, workOf, log, cutOff, livePaths } = parts
  const site = createSites(parts)

  const whereFor = ({ account }: Target): Sought => ({
    scriptsDir: config().scriptsDir,
    uid: userInfo().uid,
    ...(account === null ? {} : { alsoUid: account.uid }),
  })

  async function named(target: Target, name: string): Promise<Program> {
    const found = await findNamed(whereFor(target), name)
    return found.kind === 'found' ? { kind: 'file', file: found.file } : found
  }

  /** Executes a program to its end, with its processes on record as long as it lives. */
  async function execute(order: Execution): Promise<Outcome> {
    const { target, run, site, cwd, program, env = {}, log: place = site.log } = order
    if (program.kind === 'unstartable') return outcomeOf({ kind: 'unstartable', detail: program.detail }, 'the script')
    if (program.kind === 'none') return outcomeOf({ kind: 'unstartable', detail: program.detail }, 'the script')
    const facts = {
      target,
      run,
      forgeEvent: site.forgeEvent,
      payloadFile: site.payloadFile,
      changedFile: target.checkout === 'none' ? '' : site.changed.lines,
      changedNulFile: target.checkout === 'none' ? '' : site.changed.nul,
      checkout: cwd,
      dataDirectory: site.dataDirectory,
    }
    const argv = program.kind === 'argv' ? program.argv : ([program.file, run.event, site.payloadFile] as const)
    const end = await workOf(target).runScript(
      {
        argv,
        cwd,
        env: { ...scriptEnvironment(facts), ...env },
        timeoutMs: target.timeoutMs,
        killGraceMs: target.killGraceMs,
        log: { ...place, maxBytes: target.maxLogBytes, masked: [...target.masked, ...secretsFor(target, config())] },
      },
      (mark) => {
        // Not awaited: until it is on disk, the run's number in the environment marks the process as well.
        store.marked(run.id, mark).catch((cause: unknown) => log.error('process not recorded', { run: run.id, cause }))
      },
      cutOff,
    )
    return outcomeOf(end, argv[0])
  }

  return {
    site,

    async find(target, run) {
      if (target.run !== null) return { kind: 'argv', argv: target.run }
      if (target.script !== null) return named(target, target.script)
      const found = await findByConvention(whereFor(target), { hook: target.hook, repo: run.repo, event: run.event })
      return found.kind === 'found' ? { kind: 'file', file: found.file } : found
    },

    async run(target, run, site, checkout, program) {
      await site.describe(run)
      return execute({ target, run, site, cwd: checkout, program })
    },

    async activate(target, run, site, release) {
      const { activate } = target
      if (activate === null) return outcomeOf({ kind: 'exited', code: 0 }, 'activate')
      const program: Program =
        'argv' in activate ? { kind: 'argv', argv: activate.argv } : await named(target, activate.script)
      return execute({ target, run, site, cwd: release, program })
    },

    async onDelete(target, run, where, checkout) {
      const { onDelete } = target
      if (onDelete === null) return outcomeOf({ kind: 'exited', code: 0 }, 'on_delete')
      const isThere = checkout !== null && (await exists(checkout))
      const env = isThere ? {} : { LANDFALL_CHECKOUT: '' }
      const cwd = isThere ? checkout : await where.emptyDirectory()
      try {
        return await execute({ target, run, site: where, cwd, program: await named(target, onDelete), env })
      } finally {
        if (!isThere) await workOf(target).remove([cwd])
      }
    },

    async report(target, run, outcome, checkout, name) {
      const where = await site(target, run)
      const isOwn = (await livePaths.whyTaken(target, run.target)) === null
      const sealed = isOwn ? await lasting(target, outcome, checkout) : null
      const env = {
        LANDFALL_RESULT: outcome.end,
        LANDFALL_EXIT: outcome.exitCode === null ? '' : String(outcome.exitCode),
        LANDFALL_LOG: where.log.file,
        ...(sealed === null ? { LANDFALL_CHECKOUT: '' } : {}),
      }
      const cwd = sealed ?? (await where.emptyDirectory())
      const fields = { run: run.id, delivery: run.delivery, target: run.target, script: name, result: outcome.end }
      try {
        const ended = await execute({
          target,
          run,
          site: where,
          cwd,
          program: await named(target, name),
          env,
          log: where.reportLog,
        })
        await store.unmarked(run.id)
        if (ended.end === 'succeeded') log.info('reported', fields)
        else log.warn('report failed', { ...fields, detail: ended.detail, log: where.reportLog.file })
      } catch (cause) {
        log.warn('report failed', { ...fields, detail: messageOf(cause), log: where.reportLog.file })
      } finally {
        if (sealed === null) await workOf(target).remove([cwd])
      }
    },
  }
}

/**
 * landfall's own, none of which a script was given; but it may come upon one. Of another account only those that it can read
 * anyhow: a script can watch its log, and what is held back there tells it, byte by byte, how a secret goes on.
 */
function secretsFor({ account, hook }: Target, { hooks }: Config): readonly string[] {
  const within = account === null ? hooks : hooks.filter(({ name }) => name === hook)
  const found = within.flatMap(({ secrets, forgeToken, sshKey }) => [
    ...(account === null ? secrets : []),
    ...(forgeToken === null ? [] : [forgeToken]),
    ...(sshKey !== null && 'text' in sshKey ? [sshKey.text] : []),
  ])
  // A hook's secret may be a mere word, which a script says for its own reasons.
  return found.filter((secret) => secret.length >= MIN_OWN_SECRET)
}

/** What outlives the run: a sealed release, or a working tree in place. */
async function lasting(target: Target, { end }: Outcome, checkout: string | null): Promise<string | null> {
  if (target.path !== null) return (await exists(target.path)) ? target.path : null
  return end === 'succeeded' && target.checkout === 'release' ? checkout : null
}

interface Execution {
  readonly target: Target
  readonly run: Run
  readonly site: ScriptSite
  readonly cwd: string
  readonly program: Program
  readonly env?: Record<string, string>
  readonly log?: LogPlace
}

function outcomeOf(end: ScriptEnd, name: string): Outcome {
  const blank = { reason: null, detail: null, exitCode: null, signal: null }
  switch (end.kind) {
    case 'exited':
      if (end.code === 0) return { ...blank, end: 'succeeded', exitCode: 0 }
      if (end.code === TEMPFAIL) {
        return { ...blank, end: 'failed', reason: 'tempfail', exitCode: TEMPFAIL, detail: `${name} asked for a retry` }
      }
      return { ...blank, end: 'failed', exitCode: end.code, detail: `${name} exited with ${end.code}` }
    case 'killed':
      return { ...blank, end: 'failed', signal: end.signal, detail: `${name} was ended by ${end.signal}` }
    case 'timed-out':
      return { ...blank, end: 'timed-out', detail: `${name} took longer than its timeout and was ended` }
    case 'aborted':
      return {
        ...blank,
        end: 'interrupted',
        reason: 'shutdown',
        detail: 'landfall was stopped, and the drain time was over; it is not run again by itself',
      }
    case 'unstartable':
      return { ...blank, end: 'unstartable', detail: end.detail }
  }
}
