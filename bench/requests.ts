/** Signed pushes as GitHub would send them: a real payload with our repository, commit and ids in it. */
import { hash, randomUUID } from 'node:crypto'
import { open } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { FORGE } from '../src/forges/index.ts'

export const SECRET = 'a secret that only the benchmark knows'
/** Where both landfall and adnanh/webhook serve the hook `github`. */
export const HOOK_PATH = '/hooks/github'

export interface Push {
  readonly repo: string
  readonly after: string
  readonly before?: string
}

export interface Signed {
  readonly headers: Record<string, string>
  readonly body: string
}

const MARK = { guid: '@guid@', repo: '@repo@', after: '@after@', before: '@before@', id: '"@id@"' }

interface Example {
  readonly name: string
  readonly examples: readonly Record<string, unknown>[]
}

/** The usual push example with marks where deliveries differ, cut at the marks. */
function cutTemplate(): readonly string[] {
  // createRequire: a JSON module of this size as an import would be parsed by the type checker too.
  const events = createRequire(import.meta.url)('@octokit/webhooks-examples') as readonly Example[]
  const push = events
    .find(({ name }) => name === 'push')
    ?.examples.find(({ ref, deleted }) => deleted === false && String(ref).startsWith('refs/heads/'))
  if (push === undefined) throw new Error('the examples have no push to a branch')
  const commit = { ...(push['head_commit'] as object), id: MARK.after, message: `delivery ${MARK.guid}` }
  const repository = { ...(push['repository'] as object), id: '@id@', full_name: MARK.repo, default_branch: 'main' }
  const payload = {
    ...push,
    ref: 'refs/heads/main',
    before: MARK.before,
    after: MARK.after,
    created: false,
    repository,
    commits: [commit],
    head_commit: commit,
  }
  return JSON.stringify(payload).split(/(@guid@|@repo@|@after@|@before@|"@id@")/)
}

const TEMPLATE = cutTemplate()
const ZEROS = '0'.repeat(40)

export function sign(
  { repo, after, before = ZEROS }: Push,
  payload: (text: string) => string = (text) => text,
): Signed {
  const guid = randomUUID()
  const values: Record<string, string> = {
    [MARK.guid]: guid,
    [MARK.repo]: repo,
    [MARK.after]: after,
    [MARK.before]: before,
    [MARK.id]: String(idOf(repo)),
  }
  const text = payload(TEMPLATE.map((piece) => values[piece] ?? piece).join(''))
  const order = { event: 'push', repo, ref: 'refs/heads/main', before: null, after: null, guid, payload: text }
  return FORGE.github.compose(order, SECRET, Date.now())
}

/** A number of nine digits: under one number, every repository but the first would be that one renamed. */
function idOf(repo: string): number {
  return 1e8 + (hash('sha256', repo, 'buffer').readUInt32BE() % 9e8)
}

export interface RequestFile {
  readonly file: string
  readonly count: number
  /** Of each request: they are all of the same length, so that a load tool finds the next one without looking. */
  readonly bytes: number
  readonly bodyBytes: number
}

/** Whole HTTP requests, one after the other. */
export async function writeRequests(file: string, pushes: Iterable<Push>): Promise<RequestFile> {
  const out = await open(file, 'w')
  let waiting: string[] = []
  let count = 0
  let bytes = 0
  let bodyBytes = 0
  for (const push of pushes) {
    const { headers, body } = sign(push)
    const head = Object.entries({ host: 'hooks.example.com', 'content-length': Buffer.byteLength(body), ...headers })
    const text = `POST ${HOOK_PATH} HTTP/1.1\r\n${head.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`
    const length = Buffer.byteLength(text)
    if (count > 0 && length !== bytes)
      throw new Error('requests differ in length: give their repositories names of one length')
    bytes = length
    bodyBytes = Buffer.byteLength(body)
    count += 1
    waiting.push(text)
    if (waiting.length < 1000) continue
    await out.write(waiting.join(''))
    waiting = []
  }
  await out.write(waiting.join(''))
  // Or the disk would still be busy with it while those are measured who sync.
  await out.sync()
  await out.close()
  return { file, count, bytes, bodyBytes }
}

/** One delivery. Resolves to status and answer. */
export async function post(url: string, push: Push): Promise<{ readonly status: number; readonly text: string }> {
  return send(url, sign(push))
}

export async function send(url: string, { headers, body }: Signed) {
  const answer = await fetch(`${url}${HOOK_PATH}`, { method: 'POST', headers, body })
  return { status: answer.status, text: await answer.text() }
}
