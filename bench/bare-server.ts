/**
 * What node alone can do: `bare-server.ts <port> <directory>` checks the HMAC, parses, and inserts the rows that landfall
 * inserts, by group commit. Without a directory it checks the HMAC only. There is no routing, no lane and no log in it.
 */
import { createHmac, hash, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { CODEC, packPayload } from '../src/payload-codec.ts'
import { migrate } from '../src/stores/schema.ts'
import { SECRET } from './requests.ts'

const [port, directory] = process.argv.slice(2)
const store = directory === undefined ? null : openStore(join(directory, 'bare.db'))

const server = createServer((request, response) => {
  const pieces: Buffer[] = []
  request.on('data', (piece: Buffer) => pieces.push(piece))
  request.on('end', () => {
    const body = Buffer.concat(pieces)
    if (!isSigned(request, body)) {
      response.writeHead(401).end()
      return
    }
    if (store === null) {
      response.writeHead(202, { 'content-type': 'application/json' }).end('{}')
      return
    }
    store.record(String(request.headers['x-github-delivery']), body, (delivery, run) => {
      const text = JSON.stringify({ delivery, verdict: 'accepted', targets: [{ target: 'site', run }] })
      response.writeHead(202, { 'content-type': 'application/json' }).end(text)
    })
  })
})
server.listen(Number(port), '127.0.0.1')

function isSigned({ headers }: IncomingMessage, body: Buffer): boolean {
  const given = Buffer.from(String(headers['x-hub-signature-256']))
  const expected = Buffer.from(`sha256=${createHmac('sha256', SECRET).update(body).digest('hex')}`)
  return given.length === expected.length && timingSafeEqual(given, expected)
}

interface PushPayload {
  readonly ref: string
  readonly before: string
  readonly after: string
  readonly repository: { readonly full_name: string }
}

function openStore(file: string) {
  const db = new DatabaseSync(file, { enableForeignKeyConstraints: true })
  db.exec('pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 5000')
  migrate(db, file)
  const begin = db.prepare('begin immediate')
  const commit = db.prepare('commit')
  const see = db.prepare(
    'insert into instances (name, target, repo, first_seen_at) values (?, ?, ?, ?) on conflict do nothing',
  )
  const wanted = db.prepare('update instances set wanted_commit = ?, wanted_at = ? where name = ?')
  const insertDelivery = db.prepare(
    `insert into deliveries (id, hook, forge, guid, event, forge_event, verdict, repo, changes, targets, body_hash, received_at)
     values (?, 'github', 'github', ?, 'push', 'push', 'accepted', ?, ?, ?, ?, ?)`,
  )
  const insertPayload = db.prepare('insert into payloads (delivery, bytes, codec, data) values (?, ?, ?, ?)')
  const insertRun = db.prepare(
    `insert into runs (id, target, repo, ref, announced, before, trigger, event, delivery, state, attempt, soft_attempts,
       interruptions, polls_agree, place, queued_at)
     values (?, ?, ?, ?, ?, ?, 'push', 'push', ?, 'queued', 1, 0, 0, 0, ?, ?)`,
  )
  const supersede = db.prepare("update runs set state = 'superseded', superseded_by = ?, finished_at = ? where id = ?")
  const waiting = new Map<string, number>()
  let answers: (() => void)[] = []
  let id = 0

  function settle(): void {
    const group = answers
    answers = []
    commit.run()
    for (const answer of group) answer()
  }

  return {
    record(guid: string, body: Buffer, recorded: (delivery: number, run: number) => void): void {
      const { ref, before, after, repository } = JSON.parse(body.toString()) as PushPayload
      const repo = repository.full_name
      const at = Date.now()
      id += 1
      const own = id
      if (answers.length === 0) {
        begin.run()
        setImmediate(settle)
      }
      see.run(repo, repo, repo, at)
      wanted.run(after, at, repo)
      const targets = JSON.stringify([{ target: repo, run: own }])
      const changes = JSON.stringify([{ ref, before, after }])
      insertDelivery.run(own, guid, repo, changes, targets, hash('sha256', body, 'buffer'), at)
      const { compressed, bytes } = packPayload(body)
      insertPayload.run(own, bytes, CODEC, compressed)
      insertRun.run(own, repo, repo, ref, after, before, own, own, at)
      const old = waiting.get(repo)
      if (old !== undefined) supersede.run(own, at, old)
      waiting.set(repo, own)
      answers.push(() => recorded(own, own))
    },
  }
}
