/** The launcher of spawn.ts: starts what it is told to, and says when that has ended. */
import { spawn } from 'node:child_process'

process.on('message', ({ argv: [command = '', ...args] }: { argv: string[] }) => {
  spawn(command, args, { stdio: 'ignore', detached: true }).once('exit', () => process.send?.('ended'))
})
process.once('disconnect', () => process.exit())
