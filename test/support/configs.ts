import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { type ReadConfigOptions, readConfig } from '../../src/config/read.ts'
import { hasCode } from '../../src/errors.ts'

const scratch = await mkdtemp(join(tmpdir(), 'landfall-config-'))
after(() => rm(scratch, { recursive: true, force: true }))

/** The account that landfall runs as in these tests. Root's files are trusted by everybody, so this works for root and for anybody else. */
export const USER = { uid: process.geteuid?.() || 4242, name: 'keeper' }

/** A fresh directory, removed when the tests of the file have ended. */
export async function directory(): Promise<string> {
  return mkdtemp(join(scratch, 'case-'))
}

/** The path of a `landfall.toml` with this text. */
export async function written(text: string, at?: string): Promise<string> {
  const file = join(at ?? (await directory()), 'landfall.toml')
  await writeFile(file, text)
  return file
}

export async function read(text: string, options: Partial<ReadConfigOptions> = {}) {
  return readConfig({ file: await written(text), env: {}, secrets: 'resolve', user: USER, ...options })
}

/** The lines of the error without the file's name: `line:column: key: what is wrong`. */
export async function mistakes(text: string, options: Partial<ReadConfigOptions> = {}): Promise<readonly string[]> {
  const file = options.file ?? (await written(text))
  try {
    await readConfig({ file, env: {}, secrets: 'resolve', user: USER, ...options })
    return []
  } catch (error) {
    if (!hasCode(error, 'config')) throw error
    return error.message.split('\n').map((line) => line.replace(`${file}:`, ''))
  }
}

/** Minimal tables, and minimal files around lines of one table. */
export const HOOK = '[hook.github]\nsecrets = ["a secret"]\n'
export const TARGET = '[target.site]\nrepo = "acme/site"\n'
export const hooked = (lines: string) => `${HOOK}${lines}\n${TARGET}`
export const targeted = (lines: string) => `${HOOK}${TARGET}${lines}\n`
export const served = (lines: string) => `${HOOK}${TARGET}[server]\n${lines}\n`
export const topped = (lines: string) => `${lines}\n${HOOK}${TARGET}`

/** Asserts one mistake, whose line, column and key are `place` and whose sentence fits `what`. */
export async function oneMistake(text: string, place: string, what: RegExp, options: Partial<ReadConfigOptions> = {}) {
  const found = await mistakes(text, options)
  assert.equal(found.length, 1, `expected one mistake, got:\n${found.join('\n')}`)
  assert.ok(found[0]?.startsWith(`${place}: `), `${found[0]} is not at ${place}`)
  assert.match(found[0]?.slice(place.length + 2) ?? '', what)
}
