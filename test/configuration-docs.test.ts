/** docs/configuration.md and landfall.schema.json are what the schema in src/config gives, and what they show is right. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { configurationPage, keysOf, toml } from '../generate/configuration-page.ts'
import { generatedFiles } from '../generate/files.ts'
import { parseDocument } from '../src/config/document.ts'
import { jsonSchema, toldSchema } from '../src/config/json-schema.ts'
import { HOOK, mistakes, served, TARGET, topped } from './support/configs.ts'
import { fits } from './support/json-schema.ts'

const keys = keysOf(toldSchema())
const page = readFileSync(new URL('../docs/configuration.md', import.meta.url), 'utf8')

test('the committed files are what the source gives', async () => {
  for (const { name, url, text } of await generatedFiles())
    assert.ok(readFileSync(url, 'utf8') === text, `${name} is not what src/config says: run npm run generate`)
})

describe('every key', () => {
  test('has its line with type, default, meaning and example', () => {
    assert.ok(keys.length > 50)
    for (const { table, name, ...told } of keys) {
      const lines = page.split('\n').filter((line) => line.startsWith(`| \`${name}\` |`))
      const line = lines.find((one) => Object.values(told).every((cell) => one.includes(cell)))
      assert.ok(line, `${table}.${name}`)
    }
    const drain = '| `drain` | duration or `"wait"` | `"30s"` | How long'
    assert.ok(page.includes(drain), 'the default of drain')
  })

  /** What an example needs beside it to make sense. */
  const beside: Readonly<Record<string, string>> = {
    tag_order: 'tags = "v*"',
    clean: 'path = "/srv/site"',
    adopt: 'path = "/srv/site"',
    restore_on_failure: 'path = "/srv/site"',
    on_delete: 'branches = "preview/*"',
  }
  const without = (table: string, line: string) => table.replace(new RegExp(`^${line.split(' ')[0]} = .*\n`, 'm'), '')
  const around: Readonly<Record<string, (line: string) => string>> = {
    top: topped,
    server: served,
    hook: (line) => `[hook.gitlab]\n${without('forge = "gitlab"\nsecrets = ["x"]\n', line)}${line}\n${TARGET}`,
    target: (line) => `${HOOK}${without(TARGET, line)}${line}\n`,
  }
  for (const { table, name, example } of keys) {
    test(`has an example that is right: ${table}: ${example}`, async () => {
      const wrap = around[table] ?? assert.fail(`no ${table}`)
      const text = wrap([beside[name] ?? [], example].flat().join('\n'))
      assert.deepEqual(await mistakes(text, { secrets: 'leave' }), [])
      assert.ok(fits(jsonSchema(), parseDocument(text, 'landfall.toml').value))
    })
  }
})

test('every configuration that the documents show is right', async () => {
  const documents = ['README.md', 'docs/configuration.md', 'docs/operations.md', 'docs/how-it-works.md']
  let count = 0
  for (const name of documents) {
    const text = readFileSync(new URL(`../${name}`, import.meta.url), 'utf8')
    for (const [, block = ''] of text.matchAll(/^```toml\n(.*?)^```/gms)) {
      count++
      assert.deepEqual(await mistakes(block, { secrets: 'leave' }), [], `${name}:\n${block}`)
      assert.ok(fits(jsonSchema(), parseDocument(block, name).value), `${name}:\n${block}`)
    }
  }
  assert.ok(count >= 3, `only ${count} blocks`)
})

describe('the page is not made', () => {
  const told = {
    properties: {
      drain: { description: 'How long.', default: '30s', example: 'wait', kind: 'duration' },
      jobs: { description: 'How many.', byDefault: 'as many as CPUs', example: 2, type: 'integer' },
    },
  } as const

  test('with a key that has no place, has two, or is not there', () => {
    const made = (template: string) => () => configurationPage(template, told)
    assert.match(
      made('<!-- keys top: drain jobs -->')(),
      /\| `jobs` \| whole number \| as many as CPUs \| How many. \| `jobs = 2` \|/,
    )
    assert.throws(made('<!-- keys top: drain -->'), /no place for top\.jobs/)
    assert.throws(made('<!-- keys top: drain jobs drain -->'), /top\.drain has more than one place/)
    assert.throws(made('<!-- keys top: drain jobs drian -->'), /there is no key drian in top/)
  })

  test('with a key about which too little is told', () => {
    for (const word of ['description', 'default', 'example', 'kind']) {
      const { [word]: _, ...drain } = told.properties.drain as Record<string, unknown>
      assert.throws(() => keysOf({ properties: { drain } }), /src\/config: .* needs a/, word)
    }
  })
})

test('values are written as TOML reads them', () => {
  for (const value of ['a "quoted"\\ text\n', true, 3, ['a', { env: 'X' }], {}, [], { A: 'x', B: { file: '/y' } }])
    assert.deepEqual(parseDocument(`x = ${toml(value)}`, 'x').value, { x: value })
})
