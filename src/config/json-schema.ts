/** The JSON Schema of `landfall.toml`, for editors: the validation's own schema, in the words of draft 7, which all of them read. */
import * as z from 'zod'
import { landfallToml } from './schema.ts'

export type JsonSchema = z.core.JSONSchema.JSONSchema

/**
 * What the validation accepts, this accepts. The reverse does not hold: what takes two keys to judge, or the machine, is for
 * `landfall check`.
 */
export function jsonSchema(): JsonSchema {
  const schema = toldSchema()
  forEditors(schema)
  return { ...schema, title: 'landfall.toml', description: 'The configuration of landfall.' }
}

/**
 * The same before it is made for editors. Beside each key's `description` and `default` it has the `kind` of value in words,
 * an `example`, and in `byDefault`, in words, what holds without the key where no constant says it.
 */
export function toldSchema(): JsonSchema {
  return z.toJSONSchema(landfallToml, { target: 'draft-7', io: 'input' })
}

/** What an editor shows is the description, so what has no keyword of its own in JSON Schema goes in there. */
function forEditors(node: JsonSchema): void {
  const { byDefault } = node
  if (typeof byDefault === 'string') {
    node.description = `${node.description} Default: ${byDefault}.`
    delete node.default
  }
  if (node['example'] !== undefined) node.examples = [node['example']]
  for (const word of ['byDefault', 'example', 'kind']) delete node[word]
  // zod's own bound of whole numbers.
  if (node.maximum === Number.MAX_SAFE_INTEGER) delete node.maximum
  for (const inner of schemasIn(node)) forEditors(inner)
}

/** The schemas directly in a schema, as far as zod writes them. */
function schemasIn(node: JsonSchema): readonly JsonSchema[] {
  const { properties = {}, items, additionalProperties, anyOf = [] } = node
  return [...Object.values(properties), items, additionalProperties, ...anyOf]
    .flat()
    .filter((inner) => typeof inner === 'object')
}
