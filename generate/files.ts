/** The files that are made from the configuration's schema. */
import { readFile } from 'node:fs/promises'
import { jsonSchema, toldSchema } from '../src/config/json-schema.ts'
import { configurationPage } from './configuration-page.ts'

export interface GeneratedFile {
  /** From the top of the repository. */
  readonly name: string
  readonly url: URL
  readonly text: string
}

export async function generatedFiles(): Promise<readonly GeneratedFile[]> {
  const template = await readFile(new URL('configuration.md', import.meta.url), 'utf8')
  const file = (name: string, text: string) => ({ name, url: new URL(`../${name}`, import.meta.url), text })
  return [
    file('landfall.schema.json', `${JSON.stringify(jsonSchema(), null, 2)}\n`),
    file('docs/configuration.md', configurationPage(template, toldSchema())),
  ]
}
