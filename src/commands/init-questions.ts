/** What `init` must know: from the command line, from the person, or placeholders. */
import { createInterface, type Interface } from 'node:readline/promises'
import { LandfallError } from '../errors.ts'
import { FORGES, type ForgeName, isRepository } from '../model.ts'

export interface Answers {
  readonly forge: ForgeName
  readonly repo: string
  /** Without a slash at its end. */
  readonly publicUrl: string
  readonly deployKey: boolean
}

export const PLACEHOLDERS: Answers = {
  forge: 'github',
  repo: 'acme/site',
  publicUrl: 'https://hooks.example.com',
  deployKey: false,
}

type Flags = Readonly<Record<'forge' | 'repo' | 'publicUrl', string | undefined>>

/** What the command line says. Throws `usage` for what cannot be. */
export function answersGiven({ forge, repo, publicUrl }: Flags): Partial<Answers> {
  const wrong = (flag: string, given: string, hint: string): never => {
    throw new LandfallError('usage', `${flag}: "${given}" cannot be. ${hint}`)
  }
  return {
    ...(forge === undefined ? {} : { forge: readForge(forge) ?? wrong('--forge', forge, NO_FORGE) }),
    ...(repo === undefined ? {} : { repo: readRepo(repo) ?? wrong('--repo', repo, NO_REPO) }),
    ...(publicUrl === undefined ? {} : { publicUrl: readUrl(publicUrl) ?? wrong('--public-url', publicUrl, NO_URL) }),
  }
}

/** Asks for what the command line left open. Throws `aborted` where the person has had enough. */
export async function askPerson(given: Partial<Answers>): Promise<Answers> {
  const aborted = new AbortController()
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  terminal.once('close', () => aborted.abort())
  const ask = <T>(question: string, placeholder: string, read: (text: string) => T | null, hint: string) =>
    askUntil(terminal, aborted.signal, { question, placeholder, read, hint })
  try {
    const forge = given.forge ?? (await ask(`Forge (${FORGES.join(', ')})`, PLACEHOLDERS.forge, readForge, NO_FORGE))
    const repo = given.repo ?? (await ask('Repository', PLACEHOLDERS.repo, readRepo, NO_REPO))
    const publicUrl =
      given.publicUrl ??
      (await ask('URL at which the forge reaches this machine', PLACEHOLDERS.publicUrl, readUrl, NO_URL))
    const deployKey = await ask('Is it private, so that a deploy key is needed? (y, n)', 'n', readYes, 'Answer y or n.')
    process.stdout.write('\n')
    return { forge, repo, publicUrl, deployKey }
  } catch (cause) {
    if (!aborted.signal.aborted) throw cause
    throw new LandfallError('aborted', '\nNothing was written.', { cause })
  } finally {
    terminal.close()
  }
}

interface Question<T> {
  readonly question: string
  readonly placeholder: string
  /** Null for an answer that is none. */
  readonly read: (text: string) => T | null
  readonly hint: string
}

async function askUntil<T>(terminal: Interface, signal: AbortSignal, asked: Question<T>): Promise<T> {
  for (;;) {
    const text = await terminal.question(`${asked.question} [${asked.placeholder}]: `, { signal })
    const answer = asked.read(text.trim() || asked.placeholder)
    if (answer !== null) return answer
    process.stdout.write(`  ${asked.hint}\n`)
  }
}

const NO_FORGE = `One of ${FORGES.join(', ')}.`
const NO_REPO = 'A full name such as acme/site.'
const NO_URL = 'A URL such as https://hooks.example.com, without a query.'

function readForge(text: string): ForgeName | null {
  return FORGES.find((name) => name === text.toLowerCase()) ?? null
}

function readRepo(text: string): string | null {
  return isRepository(text) ? text : null
}

function readUrl(text: string): string | null {
  const url = URL.parse(text)
  const isPlain = url !== null && /^https?:$/.test(url.protocol) && `${url.search}${url.hash}${url.username}` === ''
  return isPlain ? text.replace(/\/+$/, '') : null
}

function readYes(text: string): boolean | null {
  return /^(?:y|yes)$/i.test(text) ? true : /^(?:n|no)$/i.test(text) ? false : null
}
