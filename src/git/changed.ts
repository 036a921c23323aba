/** The paths that differ between two commits, and the two files that tell a script. */
import { writeFile } from 'node:fs/promises'
import type { CheckOutOrder } from '../work.ts'
import type { GitSession } from './git.ts'

/** NUL-terminated; both names of a rename; every file where there is no earlier commit, or it cannot be found any more. */
export async function changedPaths(
  { previous, commit }: Pick<CheckOutOrder, 'previous' | 'commit'>,
  gitDir: string,
  session: GitSession,
): Promise<Buffer> {
  if (previous !== null) {
    const options = ['-r', '-z', '--name-only', '--no-renames']
    const compared = await session.run(['diff-tree', ...options, previous, commit, '--'], { gitDir })
    if (compared.code === 0) return compared.stdout
    if (!/bad object|unable to read tree|not a tree/.test(compared.stderr)) throw session.failure(compared)
  }
  const listed = await session.run(['ls-tree', '-r', '-z', '--name-only', '--full-tree', commit], { gitDir })
  if (listed.code !== 0) throw session.failure(listed)
  return listed.stdout
}

/** `paths` as `changedPaths` gives them. */
export async function writeChanged({ lines, nul }: CheckOutOrder['changed'], paths: Buffer): Promise<void> {
  await writeFile(nul, paths, { mode: 0o600 })
  await writeFile(lines, asLines(paths), { mode: 0o600 })
}

const ESCAPES: Readonly<Record<string, string>> = {
  '\x07': '\\a',
  '\b': '\\b',
  '\t': '\\t',
  '\n': '\\n',
  '\v': '\\v',
  '\f': '\\f',
  '\r': '\\r',
  '"': '\\"',
  '\\': '\\\\',
}

/** One path a line. A path that would break the line is quoted as git does it with core.quotePath=false. */
function asLines(paths: Buffer): Buffer {
  const breaksLine = (byte: number) => (byte !== 0 && byte < 0x20) || byte === 0x22 || byte === 0x5c || byte === 0x7f
  const text = paths.toString('latin1') // keeps every byte, whatever the encoding is
  // Nearly always, and there may be very many.
  if (!paths.some(breaksLine)) return Buffer.from(text.replaceAll('\0', '\n'), 'latin1')
  const names = text.split('\0').slice(0, -1)
  return Buffer.from(names.map((name) => `${quoted(name)}\n`).join(''), 'latin1')
}

function quoted(name: string): string {
  const escaped = Array.from(name, (char) => ESCAPES[char] ?? (isControl(char) ? octal(char) : char)).join('')
  return escaped === name ? name : `"${escaped}"`
}

function isControl(char: string): boolean {
  return char < ' ' || char === '\x7f'
}

function octal(char: string): string {
  return `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`
}
