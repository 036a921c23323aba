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
// A reload asked for before the configuration is read: without a listener it would end the process.
if (process.argv.includes('serve')) process.on('SIGHUP', () => {})
/**
 * A burst of deliveries makes V8 grow its young generation to 128 MB and keep it. 4 MB serve as fast, and leave the daemon at
 * half the memory, which process starts pay for too; with 2 MB a delivery costs a twelfth more. V8 takes this at its start
 * only, so the daemon starts itself over, in the same process. Not with sockets or a channel that it inherited: Node closes
 * them when it starts another program.
 */
const YOUNG_GENERATION = '--max-semi-space-size=4'
const hasInherited = process.env['LISTEN_FDS'] !== undefined || process.channel !== undefined
if (process.argv.includes('serve') && !process.execArgv.includes(YOUNG_GENERATION) && !hasInherited) {
  process.execve?.(process.execPath, [
    process.execPath,
    YOUNG_GENERATION,
    ...process.execArgv,
    ...process.argv.slice(1),
  ])
}
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
