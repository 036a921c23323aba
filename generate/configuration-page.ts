/** docs/configuration.md: a template's text, and in it tables of keys from the schema. */
import type { JsonSchema } from '../src/config/json-schema.ts'

export interface Key {
  /** The table that it belongs to, as the template names it: `top`, `server`, `hook` or `target`. */
  readonly table: string
  readonly name: string
  readonly type: string
  readonly byDefault: string
  readonly meaning: string
  /** A line of TOML. */
  readonly example: string
}

/**
 * Replaces each `<!-- keys <table>: <key> … -->` of the template by a table with these keys, and the first line by a notice.
 * Throws where a key is unknown, is told nothing about, or has no place, or more than one.
 */
export function configurationPage(template: string, schema: JsonSchema): string {
  const keys = keysOf(schema)
  const placed: Key[] = []
  const page = template.replaceAll(/<!-- keys ([a-z]+): ([^>]+) -->/g, (_, table: string, names: string) => {
    const rows = names.split(/\s+/).map((name) => {
      const key = keys.find((one) => one.table === table && one.name === name)
      if (key === undefined) throw new Error(`generate/configuration.md: there is no key ${name} in ${table}`)
      if (placed.includes(key)) throw new Error(`generate/configuration.md: ${table}.${name} has more than one place`)
      placed.push(key)
      return rowOf(key)
    })
    return ['| key | type | default | meaning | example |', '|---|---|---|---|---|', ...rows].join('\n')
  })
  const homeless = keys.filter((key) => !placed.includes(key)).map(({ table, name }) => `${table}.${name}`)
  if (homeless.length > 0) throw new Error(`generate/configuration.md: no place for ${homeless.join(', ')}`)
  return `<!-- Made by npm run generate from generate/configuration.md and src/config: change those. -->\n\n${page}`
}

function rowOf({ name, type, byDefault, meaning, example }: Key): string {
  const cells = [`\`${name}\``, type, byDefault, meaning, `\`${example}\``]
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

/** Every key that can be written, table by table in the schema's order. `[defaults]` has those of `[target.*]`. */
export function keysOf(schema: JsonSchema): readonly Key[] {
  const { server, hook, target, defaults: _, ...top } = propertiesOf(schema)
  const tables = {
    top,
    server: propertiesOf(server),
    hook: propertiesOf(named(hook)),
    target: propertiesOf(named(target)),
  }
  return Object.entries(tables).flatMap(([table, properties]) =>
    Object.entries(properties).map(([name, node]) => keyOf(table, name, node)),
  )
}

function propertiesOf(node: JsonSchema | undefined): Readonly<Record<string, JsonSchema>> {
  const entries = Object.entries(node?.properties ?? {})
  return Object.fromEntries(entries.flatMap(([name, inner]) => (typeof inner === 'object' ? [[name, inner]] : [])))
}

/** What `[hook.<name>]` and the like hold. */
function named(node: JsonSchema | undefined): JsonSchema | undefined {
  return typeof node?.additionalProperties === 'object' ? node.additionalProperties : undefined
}

function keyOf(table: string, name: string, node: JsonSchema): Key {
  const { description, example, default: constant } = node
  const byDefault = inWords(node, 'byDefault') ?? (constant === undefined ? null : `\`${toml(constant)}\``)
  if (description === undefined || example === undefined || byDefault === null)
    throw new Error(`src/config: ${table}.${name} needs a description, an example, and a default or byDefault`)
  return {
    table,
    name,
    type: typeOf(node),
    byDefault,
    meaning: description,
    example: `${name} = ${toml(example)}`,
  }
}

function typeOf(node: JsonSchema): string {
  const kind = inWords(node, 'kind')
  if (kind !== null) return kind
  if (node.const !== undefined) return `\`${toml(node.const)}\``
  if (node.enum !== undefined) return node.enum.map((word) => `\`${toml(word)}\``).join(', ')
  if (node.anyOf !== undefined) {
    // The exception after the rule.
    const [rule, exceptions] = [node.anyOf.filter(isOpen), node.anyOf.filter((one) => !isOpen(one))]
    return [...rule, ...exceptions].map(typeOf).join(' or ')
  }
  const known: Readonly<Record<string, string>> = { string: 'text', integer: 'whole number', boolean: 'true or false' }
  const word = known[String(node.type)]
  if (word === undefined) throw new Error(`src/config: ${JSON.stringify(node)} needs a kind`)
  return word
}

function inWords(node: JsonSchema, word: 'byDefault' | 'kind'): string | null {
  const told = node[word]
  return typeof told === 'string' ? told : null
}

function isOpen(node: JsonSchema): boolean {
  return node.const === undefined
}

/** A value as TOML writes it in one line. */
export function toml(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(toml).join(', ')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const entries = Object.entries(value).map(([key, inner]) => `${key} = ${toml(inner)}`)
  return entries.length === 0 ? '{}' : `{ ${entries.join(', ')} }`
}
