#!/usr/bin/env node
// Nothing is imported before the version is known to be enough: an older Node would fail in the middle of an import.
const NODE_MAJOR = 24
const major = Number(process.versions.node.split('.')[0])
if (major < NODE_MAJOR) {
  console.error(`landfall needs Node ${NODE_MAJOR} or newer, and this is ${process.versions.node}.`)
  process.exit(2)
}
// `landfall runs | head`: the reader has what it wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(0)
})
// A single executable allows no top-level await here.
void import('./commands/cli.ts')
  .then(({ runCli }) => runCli(process.argv))
  .catch((error: unknown) => {
    console.error(error)
    return 1
  })
  // After what was printed is out; a stop at once must not wait for anything else.
  .then((code) => process.stdout.write('', () => process.exit(code)))

export {}
