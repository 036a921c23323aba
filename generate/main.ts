/**
 * `npm run generate` writes what is made from the configuration's schema. With `--check` it writes nothing, and fails where a
 * file is not what would be written.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { generatedFiles } from './files.ts'

const stale: string[] = []
for (const { name, url, text } of await generatedFiles()) {
  if ((await readFile(url, 'utf8').catch(() => null)) === text) continue
  stale.push(name)
  if (!process.argv.includes('--check')) await writeFile(url, text)
}
if (process.argv.includes('--check') && stale.length > 0) {
  console.error(`${stale.join(', ')}: not what src/config says. Run npm run generate, and commit what it writes.`)
  process.exitCode = 1
} else {
  console.log(stale.length === 0 ? 'Everything is as it should be.' : `Wrote ${stale.join(', ')}.`)
}
