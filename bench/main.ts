/**
 * `npm run bench`: measures what docs/performance.md speaks of, each thing beside what it is compared with, and prints one
 * table. `npm run bench -- [--quick] [<row>…]` measures only those rows.
 */
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { acknowledge } from './acknowledge.ts'
import { burst } from './burst.ts'
import { build } from './daemon.ts'
import { latency } from './latency.ts'
import { memory } from './memory.ts'
import { polling } from './polling.ts'
import { spawning } from './spawn.ts'
import { starting } from './start.ts'
import { steadiness } from './steadiness.ts'
import { type Line, printTable, type Row } from './table.ts'
import { thousand } from './thousand.ts'

const ROWS: readonly Row[] = [acknowledge, latency, burst, starting, memory, steadiness, thousand, polling, spawning]

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false } },
  allowPositionals: true,
})
const unknown = positionals.filter((name) => !ROWS.some((row) => row.name === name))
if (unknown.length > 0) {
  console.error(`no such row: ${unknown.join(', ')}. There are:`)
  for (const { name, about } of ROWS) console.error(`  ${name.padEnd(14)} ${about}`)
  process.exit(2)
}

const directory = await mkdtemp(join(tmpdir(), 'landfall-bench-'))
// Also where a row fails or a signal comes.
process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
const lines: Line[] = []
const loadBefore = loadavg()[0] ?? 0
const notes: string[] = []
const program = await build(join(directory, 'landfall'))
for (const row of ROWS) {
  if (positionals.length > 0 && !positionals.includes(row.name)) continue
  const own = join(directory, row.name)
  await mkdir(own)
  const startedAt = performance.now()
  process.stderr.write(`${row.name}: ${row.about} …`)
  try {
    const result = await row.measure({ directory: own, program, quick: values.quick })
    lines.push(...result.lines)
    notes.push(...result.notes.map((note) => `${row.name}: ${note}`))
  } catch (error) {
    console.error(error)
    notes.push(`${row.name}: failed, see above`)
    process.exitCode = 1
  }
  process.stderr.write(` ${((performance.now() - startedAt) / 1000).toFixed(0)} s\n`)
  await rm(own, { recursive: true, force: true })
}
printTable(lines)
notes.push(
  `machine: node ${process.versions.node}, ${availableParallelism()} processors, load average ${loadBefore.toFixed(1)} before: much above 0, others were measured too`,
)
for (const note of notes) console.log(`- ${note}`)
