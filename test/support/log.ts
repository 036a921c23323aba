import type { Log } from '../../src/model.ts'

export interface Entry {
  readonly level: keyof Log
  readonly event: string
  readonly fields: Record<string, unknown>
}

/** A log that keeps what it is told. */
export function keptLog(): { readonly log: Log; readonly entries: Entry[] } {
  const entries: Entry[] = []
  const at =
    (level: keyof Log) =>
    (event: string, fields: Record<string, unknown> = {}): void => {
      entries.push({ level, event, fields })
    }
  return { entries, log: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') } }
}
