/** As much of JSON Schema, draft 7, as landfall.schema.json uses. Any other keyword is an error, so that none goes unheeded. */
import type { JsonSchema } from '../../src/config/json-schema.ts'

type Rule = (value: unknown, argument: never, schema: JsonSchema) => boolean

const nothing: Rule = () => true
const RULES: Readonly<Record<string, Rule>> = {
  $schema: nothing,
  title: nothing,
  description: nothing,
  default: nothing,
  examples: nothing,
  type: (value, type: string) =>
    ({
      string: typeof value === 'string',
      integer: Number.isInteger(value),
      boolean: typeof value === 'boolean',
      array: Array.isArray(value),
      object: isTable(value),
    })[type] ?? false,
  const: (value, only: unknown) => value === only,
  enum: (value, words: readonly unknown[]) => words.includes(value),
  pattern: (value, source: string) => typeof value !== 'string' || new RegExp(source).test(value),
  minLength: (value, least: number) => typeof value !== 'string' || value.length >= least,
  minimum: (value, least: number) => typeof value !== 'number' || value >= least,
  minItems: (value, least: number) => !Array.isArray(value) || value.length >= least,
  items: (value, schema: JsonSchema) => !Array.isArray(value) || value.every((item) => fits(schema, item)),
  anyOf: (value, schemas: readonly JsonSchema[]) => schemas.some((schema) => fits(schema, value)),
  not: (value, schema: JsonSchema) => !fits(schema, value),
  properties: (value, schemas: Record<string, JsonSchema>) =>
    !isTable(value) ||
    Object.entries(schemas).every(([key, schema]) => !Object.hasOwn(value, key) || fits(schema, value[key])),
  additionalProperties: (value, schema: JsonSchema | false, { properties = {} }) =>
    !isTable(value) ||
    Object.keys(value)
      .filter((key) => !Object.hasOwn(properties, key))
      .every((key) => schema !== false && fits(schema, value[key])),
  propertyNames: (value, schema: JsonSchema) => !isTable(value) || Object.keys(value).every((key) => fits(schema, key)),
  minProperties: (value, least: number) => !isTable(value) || Object.keys(value).length >= least,
  maxProperties: (value, most: number) => !isTable(value) || Object.keys(value).length <= most,
}

export function fits(schema: JsonSchema, value: unknown): boolean {
  return Object.entries(schema).every(([keyword, argument]) => {
    const rule = RULES[keyword]
    if (rule === undefined) throw new Error(`no rule for the keyword ${keyword}`)
    return rule(value, argument as never, schema)
  })
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
