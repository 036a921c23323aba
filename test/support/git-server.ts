/** A forge on loopback: smart HTTP by `git http-backend`, over TLS, with a record of everything that it was asked. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { Sha } from '../../src/model.ts'
import { GIT_ENV, git, type Origin } from './git.ts'

/** A certificate for `localhost` and `127.0.0.1`, which are two hosts to git. */
export interface Authority {
  readonly certificateFile: string
  readonly key: Buffer
  readonly certificate: Buffer
}

export interface Asked {
  readonly method: string
  readonly path: string
  readonly authorization: string | null
}

export interface GitServer {
  readonly port: number
  readonly asked: Asked[]
  url(path: string, host?: string): string
}

export interface GitServerParts {
  readonly authority: Authority
  /** Where the bare repositories are. */
  readonly root: string
  /** Without these (`user:password`) it answers 401. */
  readonly credentials?: string
  /** Answers first, where it answers true. */
  readonly answer?: (request: IncomingMessage, response: ServerResponse, server: GitServer) => boolean
}

/** For `skip`: why a test cannot be, where one of the commands fails. */
export function missing(...commands: readonly (readonly [string, ...string[]])[]): string | false {
  const lacking = commands.filter(([tool, ...args]) => spawnSync(tool, args).status !== 0)
  return lacking.length > 0 && `needs ${lacking.map((command) => command.slice(0, -1).join(' ')).join(' and ')}`
}

export function createAuthority(directory: string): Authority {
  const [key, certificate] = [join(directory, 'tls.key'), join(directory, 'tls.crt')]
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1'
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  execFileSync('openssl', [...args, '-subj', '/CN=test', '-addext', names, '-keyout', key, '-out', certificate], {
    stdio: 'ignore',
  })
  return { certificateFile: certificate, key: readFileSync(key), certificate: readFileSync(certificate) }
}

export async function startGitServer(
  t: TestContext,
  { authority, root, credentials, answer }: GitServerParts,
): Promise<GitServer> {
  const asked: Asked[] = []
  const expected = credentials === undefined ? null : `Basic ${Buffer.from(credentials).toString('base64')}`
  const server = createServer({ key: authority.key, cert: authority.certificate }, (request, response) => {
    const { authorization } = request.headers
    asked.push({ method: request.method ?? '', path: request.url ?? '', authorization: authorization ?? null })
    if (answer?.(request, response, self)) return
    if (request.url?.startsWith('/lfs-object/')) serveObject(request, response, root)
    else if (expected !== null && authorization !== expected) {
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="forge"' }).end()
    } else if (request.url?.endsWith('/info/lfs/objects/batch')) void answerBatch(request, response, self)
    else serveGit(request, response, root)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  const self: GitServer = { port, asked, url: (path, host = 'localhost') => `https://${host}:${port}/${path}` }
  return self
}

/** As CGI, whose answer is a header, an empty line and the body. */
function serveGit(request: IncomingMessage, response: ServerResponse, root: string): void {
  const [path = '', query = ''] = (request.url ?? '').split('?')
  const backend = spawn('git', ['http-backend'], {
    env: {
      ...GIT_ENV,
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: path,
      QUERY_STRING: query,
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers['content-type'],
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'],
      HTTP_GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
    },
  })
  request.pipe(backend.stdin)
  backend.stdin.on('error', () => {}) // it may end before it has read everything
  const chunks: Buffer[] = []
  backend.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  backend.on('close', () => {
    const answer = Buffer.concat(chunks)
    const split = answer.indexOf('\r\n\r\n')
    for (const line of answer.toString('latin1', 0, split).split('\r\n')) {
      const [, name = '', value = ''] = /^([^:]+): (.*)$/.exec(line) ?? []
      if (name === 'Status') response.statusCode = Number.parseInt(value, 10)
      else if (name !== '') response.setHeader(name, value)
    }
    response.end(answer.subarray(split + 4))
  })
}

/** Where LFS objects are to be had: here, without credentials, as at the storage of a forge. */
async function answerBatch(request: IncomingMessage, response: ServerResponse, server: GitServer): Promise<void> {
  const body = JSON.parse(Buffer.concat(await request.toArray()).toString()) as {
    objects: { oid: string; size: number }[]
  }
  const objects = body.objects.map(({ oid, size }) => {
    const download = { href: server.url(`lfs-object/${oid}`), header: {} }
    return { oid, size, authenticated: true, actions: { download } }
  })
  response.setHeader('Content-Type', 'application/vnd.git-lfs+json').end(JSON.stringify({ transfer: 'basic', objects }))
}

/** `root/lfs/<oid>`. */
function serveObject(request: IncomingMessage, response: ServerResponse, root: string): void {
  const file = join(root, 'lfs', (request.url ?? '').split('/').at(-1) ?? '')
  if (existsSync(file)) response.end(readFileSync(file))
  else response.writeHead(404).end()
}

/** A commit with `big.bin` in LFS, and `files`. Whatever filter this machine has, it must not touch the pointer here. */
export async function commitPointer(
  origin: Origin,
  oid: string,
  size: number,
  files: Readonly<Record<string, string>> = {},
): Promise<Sha> {
  for (const key of ['clean', 'process']) await git(origin.work, 'config', `filter.lfs.${key}`, '')
  await git(origin.work, 'config', 'filter.lfs.required', 'false')
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${oid}\nsize ${size}\n`
  const attributes = '*.bin filter=lfs diff=lfs merge=lfs -text\n'
  return await origin.commit({ '.gitattributes': attributes, 'big.bin': pointer, ...files })
}
