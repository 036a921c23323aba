/** The API on the socket as HTTP has it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { createSite, type Site } from './support/daemon.ts'
import { sha } from './support/git.ts'

async function ask(site: Site, method: string, path: string, headers: Readonly<Record<string, string>> = {}) {
  const socketPath = join(site.dataDir, 'landfall.sock')
  const asked = request({ socketPath, path: `/api/v1/${path}`, method, headers, agent: false }).end()
  const [answer] = (await once(asked, 'response')) as [IncomingMessage]
  const text = (await answer.setEncoding('utf8').toArray()).join('')
  return { status: answer.statusCode, headers: answer.headers, text }
}

test('the events of a log go on after Last-Event-ID, at a whole character, and a from beside it is of no account', async (t) => {
  const site = createSite(t)
  const head = 'x'.repeat(65_535)
  // The euro sign lies across the end of what is read at once.
  writeFileSync(join(site.out, 'text'), `${head}€ and on\n`)
  site.script('print.sh', 'cat $OUT/text')
  site.configure('[target.site]\nrepo = "acme/site"\nscript = "print.sh"\ncheckout = "none"')
  const daemon = await site.start()
  const run = await daemon.accepted({ after: sha('a'.repeat(40)) })
  await daemon.ended(run)
  const events = async (query: string, headers: Readonly<Record<string, string>> = {}) => {
    const { text } = await ask(site, 'GET', `runs/${run}/log${query}`, { accept: 'text/event-stream', ...headers })
    return [...text.matchAll(/^event: log\ndata: (.*)\n(?:data: \n)?id: (\d+)$/gm)].map(([, data, id]) => ({
      data,
      id,
    }))
  }
  const all = await events('')
  assert.equal(all.map(({ data }) => data).join(''), `${head}€ and on`)
  assert.deepEqual(all[0], { data: head, id: '65535' })
  const rest = [{ data: '€ and on', id: String(65_535 + 3 + 8) }]
  assert.deepEqual(await events('', { 'last-event-id': '65535' }), rest)
  assert.deepEqual(await events('?from=7', { 'last-event-id': '65535' }), rest)
  assert.deepEqual(await events('?from=65535'), rest)
  assert.deepEqual(await events('?from=65535', { 'last-event-id': 'no offset' }), rest)
})
