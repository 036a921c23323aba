/** Secrets, from where the configuration says they are. */
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { systemCode } from '../errors.ts'
import type { Path, Problems } from './document.ts'
import { unsafe } from './ownership.ts'
import type { Source } from './words.ts'

export interface SecretParts {
  /** `.env` and the process environment, already merged. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** What relative files are relative to. */
  readonly base: string
  readonly uid: number
  readonly problems: Problems
}

/**
 * The text that a source leads to, without the newlines at the end of a file. What is missing, unreadable, empty or in a
 * file that others may write is a problem that names the key and the source, never the value, and gives null.
 */
export type ReadSecret = (source: Source, path: Path) => Promise<string | null>

export function createSecretReader({ environment, base, uid, problems }: SecretParts): ReadSecret {
  return async function readSecret(source, path) {
    const wrong = (what: string): null => {
      problems.add(path, what)
      return null
    }
    const notEmpty = (text: string, where: string) => (text.trim() === '' ? wrong(`${where} is empty`) : text)

    if (typeof source === 'string') return notEmpty(source, 'the secret')
    if (source.env !== undefined) {
      const value = environment[source.env]
      if (value === undefined) return wrong(`the environment variable ${source.env} is not set, nor is it in .env`)
      return notEmpty(value, `the environment variable ${source.env}`)
    }
    const file = fileOf(source, environment['CREDENTIALS_DIRECTORY'], base)
    if (file === null)
      return wrong(
        `there is no $CREDENTIALS_DIRECTORY: a credential needs systemd and LoadCredential=${source.credential}`,
      )
    try {
      const danger = await unsafe(file, { uid })
      if (danger !== null) return wrong(danger)
      const text = await readFile(file, 'utf8')
      return notEmpty(text.replace(/[\r\n]+$/, ''), file)
    } catch (error) {
      return wrong(`${file} cannot be read: ${reasonOf(error)}`)
    }
  }
}

/** The file behind `{ file = … }` or `{ credential = … }`; null for a credential where systemd gave none. */
function fileOf(source: Exclude<Source, string>, credentials: string | undefined, base: string): string | null {
  if (source.file !== undefined) return resolve(base, source.file)
  return credentials === undefined || credentials === '' ? null : join(credentials, source.credential ?? '')
}

/** Why a file cannot be read, in words. */
export function reasonOf(error: unknown): string {
  const code = systemCode(error)
  if (code === undefined) throw error
  const known: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such file',
    ENOTDIR: 'there is no such file',
    EACCES: 'permission denied',
    EISDIR: 'it is a directory',
  }
  return known[code] ?? code
}
