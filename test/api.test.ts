/** The API on the socket as HTTP has it: methods, problems, and streams that go on where they were. */
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

test('a wrong method on a known path is 405 with what is allowed, and what is unknown is 404, each a problem', async (t) => {
  const site = createSite(t)
  site.configure('[target.site]\nrepo = "acme/site"\ncheckout = "none"')
  await site.start()
  for (const [method, path, allow] of [
    ['POST', 'targets', 'GET, HEAD'],
    ['DELETE', 'targets/site', 'GET, HEAD'],
    ['PUT', 'runs/1', 'GET, HEAD'],
    ['POST', 'runs/1/log', 'GET, HEAD'],
    ['OPTIONS', 'deliveries', 'GET, HEAD'],
    ['GET', 'once', 'POST'],
  ] as const) {
    const { status, headers, text } = await ask(site, method, path)
    assert.deepEqual([status, headers.allow, headers['content-type']], [405, allow, 'application/problem+json'], path)
    assert.equal(JSON.parse(text).status, 405)
  }
  for (const [method, path] of [
    ['GET', 'nowhere'],
    ['POST', 'targets/site/deploy'],
    ['GET', 'runs/1'],
  ] as const) {
    const { status, headers } = await ask(site, method, path)
    assert.deepEqual([status, headers['content-type']], [404, 'application/problem+json'], path)
  }
  assert.equal((await ask(site, 'HEAD', 'targets')).status, 200)
})

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
