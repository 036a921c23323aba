/** The files of one run outside its checkout, each the account's that the run is of. */
import { lstat, writeFile } from 'node:fs/promises'
import { accountRoom, giveDirectory, giveFile, makePassage, writeFor } from '../belongings.ts'
import type { LoginAccount } from '../config/accounts.ts'
import type { Target } from '../config/config.ts'
import { type DataDir, directoryName } from '../data-dir.ts'
import { appendToLog } from '../launcher/log-file.ts'
import type { Run } from '../model.ts'
import type { Store } from '../stores/store.ts'
import type { InPlaceOrder, LogFileOrder, Work } from '../work.ts'
import { synthesisedPayload } from './environment.ts'

export type LogPlace = Required<Pick<LogFileOrder, 'file' | 'aside'>>

export interface ScriptSite {
  readonly payloadFile: string
  readonly changed: { readonly lines: string; readonly nul: string }
  readonly log: LogPlace
  /** Of the `on_…` scripts. */
  readonly reportLog: LogPlace
  readonly dataDirectory: string
  readonly forgeEvent: string | null
  /** Once the run knows its commit: what scripts read where no delivery's payload is at hand. */
  describe(run: Run): Promise<void>
  emptyDirectory(): Promise<string>
  /**
   * An empty file for edits that a checkout in place is about to reset, and where it may have others besides. Another one each
   * time: a run that a stop has returned to the queue may have saved some already.
   */
  patchFile(): Promise<Required<Pick<InPlaceOrder, 'patch' | 'patchAside'>>>
  /** Appends sentences of landfall's own to the log. */
  note(sentences: readonly string[]): Promise<void>
}

export interface SiteParts {
  readonly store: Store
  readonly workOf: (target: Target) => Work
  readonly dataDir: DataDir
}

/**
 * Makes the run's directory, its payload file and `LANDFALL_DATA`. Throws `unstartable` where something of it belongs to
 * another account than the target's.
 */
export function createSites({ store, workOf, dataDir }: SiteParts) {
  async function payloadOf(run: Run): Promise<{ readonly payload: string | null; readonly forgeEvent: string | null }> {
    const delivery = run.delivery === null ? null : await store.delivery(run.delivery)
    const payload = delivery === null ? null : await store.payload(delivery.id)
    return { payload, forgeEvent: delivery?.forgeEvent ?? null }
  }

  return async function site(target: Target, run: Run): Promise<ScriptSite> {
    const { account } = target
    const { directory, work, asideOf, ...places } = placesOf(dataDir, account, run.id)
    const dataDirectory = dataDir.room('data', directoryName(run.target))
    const payloadFile = `${directory}/payload.json`
    const changed = { lines: `${directory}/changed`, nul: `${directory}/changed-z` }
    const ofScripts = [places.log.file, places.reportLog.file, changed.lines, changed.nul]
    // First, so that the run has a log that can tell what is wrong with the rest.
    if (account === null) await giveDirectory(null, directory, 0o700)
    else {
      await makePassage(directory)
      await Promise.all(ofScripts.map((file) => giveFile(account, file)))
    }
    const [{ payload, forgeEvent }] = await Promise.all([payloadOf(run), giveDirectory(account, dataDirectory, 0o700)])
    await writeFor(account, payloadFile, payload ?? synthesisedPayload(run))
    return {
      ...places,
      payloadFile,
      changed,
      dataDirectory,
      forgeEvent,
      async describe(decided) {
        if (payload === null) await writeFor(account, payloadFile, synthesisedPayload(decided))
      },
      async emptyDirectory() {
        await workOf(target).emptyDirectory(work)
        return work
      },
      async patchFile() {
        const name = patchName((await savedEdits(dataDir, run.id)).length)
        const patch = `${directory}/${name}`
        if (account === null) await writeFile(patch, '', { mode: 0o600 })
        else await giveFile(account, patch)
        return { patch, patchAside: asideOf(name) }
      },
      async note(sentences) {
        const lines = sentences.map((sentence) => `[landfall: ${sentence}]\n`)
        if (lines.length > 0) await appendToLog(places.log.file, lines.join(''))
      },
    }
  }
}

/** What another account's launcher makes and removes of its own is in the account's rooms. */
export function placesOf(dataDir: DataDir, account: LoginAccount | null, run: number) {
  const directory = dataDir.room('runs', String(run))
  const asideOf = (name: string): string =>
    account === null ? `${directory}/${name}` : accountRoom(dataDir, account, 'logs', `${run}-${name}`)
  const place = (name: string): LogPlace => ({ file: `${directory}/${name}`, aside: asideOf(name) })
  const work = account === null ? `${directory}/work` : accountRoom(dataDir, account, 'work', String(run))
  return { directory, work, log: place('log'), reportLog: place('report.log'), asideOf }
}

/** The patches of a run that edits were saved in, in their order. */
export async function savedEdits(dataDir: DataDir, run: number): Promise<readonly string[]> {
  const saved: string[] = []
  for (;;) {
    const file = dataDir.room('runs', String(run), patchName(saved.length))
    const size = await lstat(file).then(
      (status) => status.size,
      () => 0,
    )
    if (size === 0) return saved
    saved.push(file)
  }
}

function patchName(before: number): string {
  return before === 0 ? 'edits.patch' : `edits-${before + 1}.patch`
}

/** Of a run that did not come to tell it itself. */
export function tellOfEdits(patches: readonly string[]): string {
  return `edits were saved as a patch before they were undone: ${patches.join(' and ')}`
}
