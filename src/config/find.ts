/** Which `landfall.toml`: `-c FILE`, `$LANDFALL_CONFIG`, `./landfall.toml`, `/etc/landfall/landfall.toml`. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { LandfallError, systemCode } from '../errors.ts'
import { ownAccount } from './accounts.ts'
import { unsafe } from './ownership.ts'

export interface FindConfigOptions {
  /** What `-c` said. */
  readonly flag?: string | undefined
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  readonly uid?: number
  readonly systemFile?: string
  /** Told why `./landfall.toml` was passed over for the system's file, which root should know. */
  readonly passedOver?: (why: string) => void
}

/** The file to read. Throws `config` where there is none, and says where it looked. */
export async function findConfig({
  flag,
  env = process.env,
  cwd = process.cwd(),
  uid = ownAccount().uid,
  systemFile = '/etc/landfall/landfall.toml',
  passedOver = () => {},
}: FindConfigOptions = {}): Promise<string> {
  if (flag !== undefined) return theOnly(flag, '-c')
  const named = env['LANDFALL_CONFIG']
  if (named !== undefined && named !== '') return theOnly(named, '$LANDFALL_CONFIG')

  const local = join(cwd, 'landfall.toml')
  const distrust = (await exists(local)) ? await whyNotAsRoot(cwd, local, uid) : `there is no ${local}`
  if (distrust === null) return local
  if (!(await exists(systemFile)))
    throw new LandfallError('config', `no configuration: ${distrust}, and there is no ${systemFile}; ${MAKE_ONE}`)
  if (await exists(local)) passedOver(distrust)
  return systemFile
}

const MAKE_ONE = '"landfall init" makes one, and -c FILE names one elsewhere'

async function theOnly(file: string, from: string): Promise<string> {
  if (await exists(file)) return file
  throw new LandfallError(
    'config',
    `no configuration: there is no ${file}, which ${from} names; "landfall init" makes one`,
  )
}

/** Root must not do what somebody left in a directory that root happens to stand in. Null: it may be believed. */
async function whyNotAsRoot(directory: string, file: string, uid: number): Promise<string | null> {
  if (uid !== 0) return null
  for (const path of [directory, file]) {
    const danger = await unsafe(path, { uid })
    if (danger !== null) return `root does not read ${file}, because ${danger}`
  }
  return null
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file)
    return true
  } catch (error) {
    // Anything else, such as a lack of permission, is for the reader to report.
    return systemCode(error) !== 'ENOENT' && systemCode(error) !== 'ENOTDIR'
  }
}
