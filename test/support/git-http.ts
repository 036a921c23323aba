/** Repositories over HTTP, for accounts that may not use another's over the file system. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import { GIT_ENV } from './git.ts'

/** Serves every repository below `directory`. Resolves to the URL that stands for it, without a slash at its end. */
export async function serveGit(t: Pick<TestContext, 'after'>, directory: string): Promise<string> {
  const server = createServer((asked, answer) => void serve(directory, asked, answer)).listen(0, '127.0.0.1')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** CGI, as git's own manual has it for web servers. */
async function serve(directory: string, asked: IncomingMessage, answer: ServerResponse): Promise<void> {
  const { pathname, search } = new URL(asked.url ?? '/', 'http://127.0.0.1')
  const backend = spawn('git', ['http-backend'], {
    env: {
      ...GIT_ENV,
      GIT_PROJECT_ROOT: directory,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: pathname,
      QUERY_STRING: search.slice(1),
      REQUEST_METHOD: asked.method ?? 'GET',
      CONTENT_TYPE: asked.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: asked.headers['content-encoding'] ?? '',
      GIT_PROTOCOL: String(asked.headers['git-protocol'] ?? ''),
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  backend.stdin.on('error', () => {})
  asked.pipe(backend.stdin)
  const bytes = Buffer.concat(await backend.stdout.toArray())
  const end = bytes.indexOf('\r\n\r\n')
  const headers = bytes
    .subarray(0, end)
    .toString()
    .split('\r\n')
    .map((line) => line.split(': ', 2) as [string, string])
  const status = Number(headers.find(([name]) => name === 'Status')?.[1].slice(0, 3) ?? 200)
  answer.writeHead(status, Object.fromEntries(headers)).end(bytes.subarray(end + 4))
}
