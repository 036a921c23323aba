import { execFile } from 'node:child_process'
import { chmod, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LandfallError, messageOf, systemCode } from '../errors.ts'

export interface DeployKey {
  readonly file: string
  /** One line, as a forge's form takes it. */
  readonly publicKey: string
}

/** A fresh key pair, `deploy_key` and `deploy_key.pub`, without a passphrase. Throws `start`. */
export async function makeDeployKey(directory: string, repo: string): Promise<DeployKey> {
  const file = join(directory, 'deploy_key')
  try {
    const args = ['-q', '-t', 'ed25519', '-N', '', '-C', `landfall ${repo}`, '-f', file]
    await promisify(execFile)('ssh-keygen', args)
    await chmod(file, 0o600)
    return { file, publicKey: (await readFile(`${file}.pub`, 'utf8')).trim() }
  } catch (cause) {
    const why = systemCode(cause) === 'ENOENT' ? 'there is no ssh-keygen; install the ssh client' : messageOf(cause)
    throw new LandfallError('start', `no deploy key could be made: ${why}`, { cause })
  }
}
