/** Performs one checkout in place, given as JSON, in a process of its own: to be killed, or to run as another account. */
import { createGit } from '../../src/git/git.ts'
import { createInPlace } from '../../src/git/in-place.ts'
import { createMirrors } from '../../src/git/mirror.ts'

const openGit = createGit({ environment: process.env })
const { checkOutInPlace } = createInPlace({ openGit, mirrors: createMirrors({ openGit, log: { warn() {} } }) })
await checkOutInPlace(JSON.parse(process.argv[2] ?? '')).catch((error: Error & { readonly code: string }) => {
  console.log(`${error.code}: ${error.message}`)
})
