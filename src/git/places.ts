/** Directories and links of a target, made and judged with the rights of its account. */
import { constants } from 'node:fs'
import { access, lstat, mkdir, rename } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname } from 'node:path'
import { systemCode } from '../errors.ts'
import type { Work } from '../work.ts'
import { removeTree } from './checkout.ts'

/** S_ISVTX, which node names nowhere: in such a directory only the owner of a file, or of the directory, may replace it. */
const STICKY = 0o1000

export const places: Pick<Work, 'wrongLink' | 'rename' | 'emptyDirectory'> = {
  wrongLink,

  rename: ({ from, to }) => rename(from, to),

  async emptyDirectory(directory) {
    await removeTree(directory)
    await mkdir(directory, { recursive: true, mode: 0o700 })
  },
}

/** What would fail only after the script has run. */
async function wrongLink(link: string): Promise<string | null> {
  const directory = dirname(link)
  try {
    const there = await lstat(link).catch((error: unknown) => {
      if (systemCode(error) === 'ENOENT') return null
      throw error
    })
    if (there !== null && !there.isSymbolicLink()) {
      return `${link} is no symlink, so it cannot be switched to a release: move what is there out of the way`
    }
    await access(directory, constants.W_OK | constants.X_OK)
    const { uid } = userInfo()
    const { mode, uid: owner } = await lstat(directory)
    const isSticky = (mode & STICKY) !== 0 && uid !== 0 && uid !== owner
    if (!isSticky || there === null || there.uid === uid) return null
    return `${link} cannot be switched: it is another account's, in a directory (${directory}) where only owners replace what is theirs`
  } catch (error) {
    if (systemCode(error) === 'ENOENT') {
      return `${directory} does not exist, so ${link} cannot be made in it: mkdir -p ${directory}`
    }
    const { username } = userInfo()
    return `${link} cannot be switched, for ${username} may not write in ${directory}; give it that right, or let current be in a directory of its own: install -d -o ${username} /srv/${username}`
  }
}
