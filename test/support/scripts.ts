import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ScriptOrder } from '../../src/work.ts'
import { until } from './until.ts'

/** Writes an executable shell script and returns its path. */
export function shellScript(directory: string, name: string, ...lines: string[]): string {
  const file = join(directory, name)
  writeFileSync(file, `#!/bin/sh\n${lines.join('\n')}\n`)
  chmodSync(file, 0o755)
  return file
}

/** An order to run `argv` in `directory`, with generous limits and its log at `directory`/log. */
export function scriptOrder(
  directory: string,
  argv: readonly [string, ...string[]],
  more: Partial<ScriptOrder> = {},
): ScriptOrder {
  return {
    argv,
    cwd: directory,
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
    timeoutMs: 120_000,
    killGraceMs: 30_000,
    log: { file: join(directory, 'log'), maxBytes: 1_000_000, masked: [] },
    ...more,
  }
}

/** The number that a script writes to `file`, once it is there: `echo $$ > file`. */
export function pidIn(file: string): Promise<number> {
  return until(`a pid in ${file}`, () => Number(textOf(file).trim()) || null)
}

export function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/** True while the process runs; a zombie does not. */
export function lives(pid: number): boolean {
  const stat = textOf(`/proc/${pid}/stat`)
  return stat !== '' && !/\) [ZX] /.test(stat)
}
