import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * The floors of the house, from the ground up. A file may import from its own floor's room and from every floor below, never
 * from one above. A room is a folder of `src`, or a file directly in it.
 */
const FLOORS: readonly (readonly string[])[] = [
  ['model', 'errors', 'globs', 'tag-order'],
  ['work', 'log', 'processes', 'decide', 'payload-codec'],
  ['config', 'forges', 'data-dir', 'belongings', 'listen'],
  ['stores', 'git', 'launcher'],
  ['instances', 'remotes', 'lanes', 'receiver', 'pruner'],
  ['polling', 'runs', 'reload'],
  ['intake'],
  ['recovery'],
  ['admin'],
  ['agent'],
  ['commands'],
  ['main'],
]

/** Rooms on one floor that know each other, and why. */
const NEIGHBOURS: readonly (readonly [from: string, to: string, why: string])[] = [
  ['config', 'forges', 'a forge tells its default clone URL'],
  ['decide', 'work', 'a decision is made over what a fetch has told'],
  ['processes', 'work', 'a process is marked in the words of an order'],
  ['belongings', 'config', 'what belongs to an account is given to it'],
  ['belongings', 'data-dir', 'it all lies in data_dir'],
  ['launcher', 'git', 'the launcher hosts git'],
  ['listen', 'config', 'where to listen is configured'],
]

/** One library, one file (or folder): what else may reach it is a mistake. */
const OWNERS: Readonly<Record<string, readonly string[]>> = {
  'simple-git': ['src/git/git.ts'],
  'p-queue': ['src/lanes.ts', 'src/polling/poller.ts'],
  hono: ['src/receiver/receiver.ts', 'src/admin'],
  '@hono/node-server': ['src/receiver/receiver.ts', 'src/admin'],
  'node:sqlite': ['src/stores', 'src/data-dir.ts'],
  '@octokit/webhooks': ['src/forges/github.ts'],
  commander: ['src/commands'],
  'cli-table3': ['src/commands'],
  pino: ['src/log.ts'],
  'pino-pretty': ['src/log.ts'],
  dotenv: ['src/config'],
  'toml-eslint-parser': ['src/config'],
  'fastest-levenshtein': ['src/config'],
  picomatch: ['src/globs.ts'],
}

interface Import {
  readonly file: string
  readonly from: string
}

const imports: readonly Import[] = filesBelow(join(root, 'src')).flatMap((file) =>
  [...readFileSync(join(root, file), 'utf8').matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)'([^']+)'/g)].map(([, from]) => ({
    file,
    from: from ?? '',
  })),
)

test('imports run downwards: no part knows what is above it', () => {
  const wrong = imports.flatMap(({ file, from }) => {
    if (!from.startsWith('.')) return []
    const target = normalize(join(dirname(file), from))
    const [upper, lower] = [roomOf(file), roomOf(target)]
    if (upper === lower || floorOf(lower) < floorOf(upper)) return []
    if (NEIGHBOURS.some(([one, other]) => one === upper && other === lower)) return []
    return [`${file} imports ${target}: ${upper} may not know ${lower}`]
  })
  assert.deepEqual(wrong, [])
})

test('every file of src has its floor', () => {
  const rooms = new Set(filesBelow(join(root, 'src')).map(roomOf))
  assert.deepEqual(
    [...rooms].filter((room) => !FLOORS.flat().includes(room)),
    [],
  )
})

test('a library is known to its owner alone', () => {
  const wrong = imports.flatMap(({ file, from }) => {
    const library = Object.keys(OWNERS).find((name) => from === name || from.startsWith(`${name}/`))
    const owners = library === undefined ? [file] : (OWNERS[library] ?? [])
    return owners.some((owner) => file === owner || file.startsWith(`${owner}/`)) ? [] : [`${file} imports ${from}`]
  })
  assert.deepEqual(wrong, [])
})

test('only main.ts reads argv or leaves the process, and only the launcher beside it', () => {
  const wrong = filesBelow(join(root, 'src'))
    .filter((file) => !['src/main.ts', 'src/launcher/launcher-process.ts'].includes(file))
    .filter((file) => /\bprocess\.(?:argv|exit)\b(?!Code)/.test(readFileSync(join(root, file), 'utf8')))
  assert.deepEqual(wrong, [])
})

function roomOf(file: string): string {
  return (file.split('/')[1] ?? '').replace(/\.ts$/, '')
}

function floorOf(room: string): number {
  return FLOORS.findIndex((rooms) => rooms.includes(room))
}

function filesBelow(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
}
