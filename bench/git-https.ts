/**
 * A forge as git sees it: `git-https.ts <port> <directory> <certificate> <key>` serves the repositories below the directory
 * through git's own `http-backend`, over TLS. Reading only.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'

const [port, directory = '', certificate = '', key = ''] = process.argv.slice(2)

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, serve)
server.listen(Number(port), '127.0.0.1')

/** CGI: the request's head is its environment, its body its input, and its output begins with a head of its own. */
function serve(request: IncomingMessage, response: ServerResponse): void {
  const { pathname, search } = new URL(request.url ?? '/', 'https://localhost')
  const backend = spawn('git', ['http-backend'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: {
      PATH: process.env['PATH'] ?? '/usr/bin:/bin',
      GIT_PROJECT_ROOT: directory,
      GIT_HTTP_EXPORT_ALL: '1',
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      REQUEST_METHOD: request.method ?? 'GET',
      PATH_INFO: pathname,
      QUERY_STRING: search.slice(1),
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      REMOTE_ADDR: request.socket.remoteAddress ?? '',
    },
  })
  request.pipe(backend.stdin)
  backend.stdin.on('error', () => {}) // it has read enough
  const pieces: Buffer[] = []
  backend.stdout.on('data', (piece: Buffer) => pieces.push(piece))
  backend.once('close', () => answer(Buffer.concat(pieces), response))
}

function answer(output: Buffer, response: ServerResponse): void {
  const end = output.indexOf('\r\n\r\n')
  const head = output.subarray(0, Math.max(0, end)).toString('latin1').split('\r\n')
  const fields = head.map((line) => line.split(': ')).map(([name = '', value = '']) => [name, value] as const)
  const status = fields.find(([name]) => name === 'Status')?.[1] ?? (end < 0 ? '500' : '200')
  response.writeHead(
    Number.parseInt(status, 10),
    Object.fromEntries(fields.filter(([name]) => name !== '' && name !== 'Status')),
  )
  response.end(output.subarray(end + 4))
}
