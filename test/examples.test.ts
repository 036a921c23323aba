/** What all examples have in common. What each of them does is tried in the files beside this one. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { HOOK, read } from './support/configs.ts'
import { EXAMPLES } from './support/examples.ts'

const names = readdirSync(EXAMPLES)
const textOf = (name: string) => readFileSync(join(EXAMPLES, name), 'utf8')

/** The lines of landfall.toml in the comment at the head of an example. */
function settingsOf(name: string): string {
  const lines = textOf(name).split('\n')
  const start = lines.findIndex((line) => line.startsWith('#   [target.'))
  const end = lines.indexOf('#', start)
  assert.ok(start > 0 && end > start, `${name} has no lines of landfall.toml`)
  return lines
    .slice(start, end)
    .map((line) => line.slice(4))
    .join('\n')
}

test('the lines of landfall.toml at the head of each example are a configuration that names it', async () => {
  for (const name of names) {
    const settings = settingsOf(name)
    const { targets } = await read(`${HOOK}${settings}`, { secrets: 'leave' })
    const used = targets.flatMap(({ script, activate }) => [script, activate])
    assert.ok(JSON.stringify(used).includes(`"examples/${name}"`), `${name}: ${settings}`)
    assert.equal(targets[0]?.user, 'deploy', `${name} tells newcomers not to deploy as root`)
  }
})

test('each example can be run as it is, and stops at the first command that fails', () => {
  for (const name of names) {
    assert.ok(statSync(join(EXAMPLES, name)).mode & 0o100, `chmod +x ${name}`)
    assert.match(textOf(name), /^#!\/bin\/sh\n(#.*\n)+set -eu\n/, name)
  }
})

test('the README tells of every example, and of no other', () => {
  const readme = readFileSync(join(EXAMPLES, '../README.md'), 'utf8')
  const told = [...readme.matchAll(/\]\(examples\/([^)]+)\)/g)].map(([, name]) => name)
  assert.deepEqual(new Set(told), new Set(names))
})
