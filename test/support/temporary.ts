import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext } from 'node:test'

const ofTestsThatAreOver: string[] = []
after(() => {
  for (const directory of ofTestsThatAreOver) {
    rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }
})

/**
 * A fresh directory that is removed when the tests of the file have ended. Not by a hook of the test: hooks run in the order in
 * which they came, and what a later one stops may still be writing there.
 */
export function temporaryDirectory(t: Pick<TestContext, 'after'>): string {
  const directory = mkdtempSync(join(tmpdir(), 'landfall-test-'))
  t.after(() => void ofTestsThatAreOver.push(directory))
  return directory
}
