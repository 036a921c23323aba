/** The verbs' side of the API. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { clientOf } from '../src/commands/client.ts'
import { temporaryDirectory } from './support/temporary.ts'

test('no question goes over a connection that the daemon may have closed while this process was stopped', async (t) => {
  const directory = temporaryDirectory(t)
  let connections = 0
  const server = createServer((_, answer) => answer.setHeader('Content-Type', 'application/json').end('{"id":1}'))
  server.on('connection', () => {
    connections += 1
  })
  t.after(() => server.close())
  server.listen(join(directory, 'landfall.sock'))
  await once(server, 'listening')
  const client = clientOf(directory)
  for (const asked of [1, 2, 3]) {
    assert.deepEqual(await client.get('runs/1'), { id: 1 })
    assert.equal(connections, asked)
  }
})
