/** landfall.schema.json: what the validation accepts it accepts, and what people often get wrong it refuses too. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { keysOf } from '../generate/configuration-page.ts'
import { parseDocument } from '../src/config/document.ts'
import { type JsonSchema, jsonSchema, toldSchema } from '../src/config/json-schema.ts'
import { landfallToml } from '../src/config/schema.ts'
import { HOOK, hooked, mistakes, served, TARGET, targeted, topped } from './support/configs.ts'
import { CONTRACT_LINES } from './support/contract-lines.ts'
import { fits } from './support/json-schema.ts'
import { temporaryDirectory } from './support/temporary.ts'

const root = new URL('..', import.meta.url)
const schema = jsonSchema()

/** Whether an editor with the schema marks nothing in this text. */
function isUnmarked(text: string): boolean {
  return fits(schema, parseDocument(text, 'landfall.toml').value)
}

/** Every schema within the schema, with the way to it. */
function* nodes(node: JsonSchema, way: string): Generator<readonly [way: string, node: JsonSchema]> {
  yield [way, node]
  const { properties = {}, items, additionalProperties, propertyNames, not, anyOf = [] } = node
  const inside = { ...properties, items, additionalProperties, propertyNames, not }
  for (const [word, inner] of [...Object.entries(inside), ...anyOf.map((one) => ['anyOf', one] as const)])
    if (typeof inner === 'object' && !Array.isArray(inner)) yield* nodes(inner, `${way}.${word}`)
}

describe('accepts what the validation accepts', () => {
  for (const [where, [wrap, lines]] of Object.entries(CONTRACT_LINES)) {
    test(`the contract's example: ${where}`, async () => {
      for (const line of lines) {
        assert.deepEqual(await mistakes(wrap(line)), [], line)
        assert.ok(isUnmarked(wrap(line)), line)
      }
    })
  }

  test('any text, for any key that takes one', () => {
    for (const [table, { node, around }] of Object.entries(TABLES)) {
      for (const key of Object.keys(node.properties ?? {})) {
        const patterns = [...nodes(inner(node, key), '')].flatMap(([, { pattern }]) => pattern ?? [])
        const shown = textsIn(inner(node, key).examples)
        let accepted = 0
        fc.assert(
          fc.property(textsLike(patterns), (text) => {
            for (const value of [text, [text], ['x', text], { [text]: 'x' }, { env: text }, { A: text }]) {
              const raw = around({ [key]: value })
              if (!landfallToml.safeParse(raw).success) continue
              accepted++
              assert.ok(fits(schema, raw), `${table}: ${JSON.stringify({ [key]: value })}`)
            }
          }),
          { numRuns: 60, examples: [...SEEDS, ...shown].map((text) => [text]) },
        )
        assert.ok(accepted > 0 || shown.length === 0, `no text was right for ${table}.${key}`)
      }
    }
  })
})

/** The tables that have keys, and a configuration around each. `[defaults]` is as a target. */
const TABLES: Readonly<Record<string, { readonly node: JsonSchema; readonly around: (table: object) => object }>> = {
  top: { node: schema, around: (table) => table },
  server: { node: inner(schema, 'server'), around: (server) => ({ server }) },
  hook: { node: named(inner(schema, 'hook')), around: (hook) => ({ hook: { github: hook } }) },
  target: { node: named(inner(schema, 'target')), around: (target) => ({ target: { site: target } }) },
}

function textsIn(value: unknown): readonly string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : []
}

function inner(node: JsonSchema, key: string): JsonSchema {
  const found = node.properties?.[key]
  return typeof found === 'object' ? found : assert.fail(`no ${key}`)
}

function named({ additionalProperties }: JsonSchema): JsonSchema {
  return typeof additionalProperties === 'object' ? additionalProperties : assert.fail('no names')
}

const SEEDS = [
  '',
  '10.0.0.0/8',
  'fe80::1%eth0',
  '::1',
  'HTTPS://a@b',
  'https://:@h/x',
  'https://h/{repo}',
  'a:{repo}/x',
]
const WORDS = [
  ...SEEDS,
  '!',
  '..',
  '.',
  '/',
  '//',
  '\\',
  '{branch}',
  '{repo}',
  '**',
  '\0',
  '\n',
  ' ',
  '@',
  ':',
  '-',
  'é',
  '🛬',
]

/** Texts that fit a pattern, and texts that nearly do. */
function textsLike(patterns: readonly string[]): fc.Arbitrary<string> {
  const like = patterns.map((pattern) => fc.stringMatching(new RegExp(pattern), { size: 'small' }))
  const whole = fc.oneof(fc.constantFrom(...SEEDS), fc.string(), ...like, ...like)
  const changed = fc
    .tuple(whole, fc.constantFrom(...WORDS), fc.nat(20))
    .map(([text, word, at]) => `${text.slice(0, at)}${word}${text.slice(at)}`)
  // A key of this name comes no further than the parser.
  return fc.oneof(whole, changed).filter((text) => text !== '__proto__')
}

test('what people often get wrong is refused by both', async () => {
  const wrong = [
    topped('max_job = 2'),
    topped('max_jobs = 0'),
    topped('max_jobs = "4"'),
    topped('keep_payloads = 7'),
    topped('drain = "30"'),
    topped('drain = "later"'),
    topped('[api_token.ci]\nrole = "read"'),
    served('listen = "8787"'),
    served('listen = 8787'),
    served('admin = false'),
    served('socket_mode = 0o600'),
    served('socket_mode = "rw"'),
    served('public_url = "hooks.example.com"'),
    served('public_url = "ftp://x"'),
    served('max_body = "25"'),
    served('trusted_proxies = "10.0.0.0/8"'),
    served('trusted_proxies = ["localhost"]'),
    hooked('forge = "gitea"'),
    hooked('repos = ["acme"]'),
    hooked('repos = []'),
    hooked('clone = "https://github.com/acme/site.git"'),
    hooked('clone = "https://user:password@github.com/{repo}.git"'),
    hooked('ssh_key = {}'),
    hooked('ssh_key = { env = "A", file = "b" }'),
    hooked('ssh_key = { path = "b" }'),
    `[hook.github]\nsecrets = "x"\n${TARGET}`,
    `[hook.github]\nsecrets = [{ evn = "A" }]\n${TARGET}`,
    `[hook.Hub]\nforge = "github"\nsecrets = ["x"]\n${TARGET}`,
    `${HOOK}[target."my site"]\nrepo = "acme/site"\n`,
    `${HOOK}[tagret.site]\nrepo = "acme/site"\n`,
    `${HOOK}[target.site]\nrepo = "https://github.com/acme/site"\n`,
    `${HOOK}[target.site]\nrepo = "site"\n`,
    targeted('url = "https://token@github.com/acme/site.git"'),
    targeted('url = "--upload-pack=id"'),
    targeted('branch = "main"'),
    targeted('branches = "refs/heads/main"'),
    targeted('branches = []'),
    targeted('tags = true'),
    targeted('tag_order = "semver"'),
    targeted('events = ["release"]'),
    targeted('paths = "docs/**"'),
    targeted('paths = ["docs/"]'),
    targeted('paths = ["/docs/**"]'),
    targeted('script = "./deploy.sh"'),
    targeted('script = "/usr/local/bin/deploy"'),
    targeted('run = "make"'),
    targeted('run = []'),
    targeted('checkout = "in-place"'),
    targeted('queue = "evicted"'),
    targeted('submodules = "yes"'),
    targeted('lane = "a b"'),
    targeted('user = 1000'),
    targeted('env = { LANDFALL_RUN = "1" }'),
    targeted('env = { "A-B" = "1" }'),
    targeted('env = { PORT = 3000 }'),
    targeted('pass_env = "LANG"'),
    targeted('pass_env = ["LANDFALL_RUN"]'),
    targeted('timeout = 60'),
    targeted('timeout = "1 h"'),
    targeted('retries = -1'),
    targeted('retries = 1.5'),
    targeted('poll = false'),
    targeted('clean = "yes"'),
    targeted('max_log = "10 MB"'),
  ]
  for (const text of wrong) {
    assert.notDeepEqual(await mistakes(text), [], text)
    assert.equal(isUnmarked(text), false, text)
  }
})

describe('is made for editors', () => {
  test('every key has a description that ends with its default where no constant says it, and an example', () => {
    for (const { table, name } of keysOf(toldSchema())) {
      const { description = '', default: constant, examples } = inner(TABLES[table]?.node ?? assert.fail(table), name)
      assert.match(description, /^[A-Z].*\.$/s, name)
      assert.equal(/ Default: .+\.$/.test(description), constant === undefined, name)
      assert.equal(examples?.length, 1, name)
    }
    assert.equal(inner(inner(schema, 'server'), 'max_body').default, '25MB')
    // What holds without `checkout` depends on `path`: an editor must not fill in "release".
    assert.equal(inner(named(inner(schema, 'target')), 'checkout').default, undefined)
    assert.deepEqual(inner(schema, 'defaults').properties, named(inner(schema, 'target')).properties)
  })

  test('every table but those with names of their own refuses other keys', () => {
    for (const [way, { properties, additionalProperties }] of nodes(schema, ''))
      if (properties !== undefined) assert.equal(additionalProperties, false, way)
  })

  test('every text has a shape, save those that may be anything', () => {
    const shapeless = [...nodes(schema, '')].filter(
      ([, { type, pattern, minLength, enum: words, const: only }]) =>
        type === 'string' && [pattern, minLength, words, only].every((rule) => rule === undefined),
    )
    const free =
      /\.(?:secrets\.items|forge_token|ssh_key|env\.additionalProperties)\.anyOf$|\.(?:run|activate\.anyOf)\.items$|\.hook$/
    assert.deepEqual(
      shapeless.map(([way]) => way).filter((way) => !free.test(way)),
      [],
    )
  })

  test('its patterns have nothing that regular expressions of other languages do not know', () => {
    for (const [way, { pattern = '' }] of nodes(schema, '')) {
      // Looking ahead or behind, back references, classes by name, and in a class a bracket that would begin another.
      assert.doesNotMatch(pattern, /\(\?(?!:)|\\[1-9kpPbB]/, way)
      assert.doesNotMatch(pattern.replaceAll(/\\./g, ''), /\[[^\]]*\[/, way)
      assert.doesNotThrow(() => new RegExp(pattern, 'u'), way)
    }
  })
})

test('the first line of what init writes leads to the schema, wherever landfall is installed', (t) => {
  const directory = temporaryDirectory(t)
  const installed = join(directory, 'my programs #1 (50%)', 'landfall')
  mkdirSync(installed, { recursive: true })
  for (const name of ['src', 'package.json', 'landfall.schema.json'])
    cpSync(fileURLToPath(new URL(name, root)), join(installed, name), { recursive: true })
  symlinkSync(fileURLToPath(new URL('node_modules', root)), join(installed, 'node_modules'))
  execFileSync(process.execPath, [join(installed, 'src/main.ts'), '-c', join(directory, 'landfall.toml'), 'init'])
  const text = readFileSync(join(directory, 'landfall.toml'), 'utf8')
  const [, url = ''] = /^#:schema (file:\/\/\/\S+)\n/.exec(text) ?? []
  assert.equal(fileURLToPath(url), join(installed, 'landfall.schema.json'))
  assert.deepEqual(JSON.parse(readFileSync(new URL(url), 'utf8')), schema)
  assert.ok(isUnmarked(text))
})

test('the schema goes with the package', () => {
  const { files } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { files: readonly string[] }
  assert.ok(files.includes('landfall.schema.json'))
})
