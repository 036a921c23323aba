/** Deliveries as they reach the store: verified, hashed and packed by the program's own code. */
import { hash, randomBytes } from 'node:crypto'
import { deflateRawSync } from 'node:zlib'
import { parseSha, type Received } from '../src/model.ts'
import type { Routing } from '../src/stores/store.ts'
import { sign } from './requests.ts'

export function makeReceived(repo: string): Received {
  const after = randomBytes(20).toString('hex')
  const { headers, body } = sign({ repo, after })
  const bytes = Buffer.byteLength(body)
  return {
    hook: 'github',
    forge: 'github',
    kind: 'event',
    guid: headers['x-github-delivery'] ?? null,
    event: 'push',
    forgeEvent: 'push',
    repo,
    changes: [{ ref: 'refs/heads/main', before: null, after: parseSha(after) }],
    defaultBranch: 'main',
    detail: null,
    bodyHash: hash('sha256', body, 'buffer'),
    payload: { compressed: deflateRawSync(body, { level: 1, chunkSize: bytes >> 1 }), bytes },
    receivedAt: Date.now(),
  }
}

/** To the target of that name, run after run; or to a branch that none follows. */
export function makeRouting({ repo, changes }: Received, target: string | null): Routing {
  if (target === null || repo === null) return { kind: 'nowhere', reason: 'no-target', detail: 'No target has it.' }
  const order = {
    instance: { name: target, target, repo },
    policy: 'sequential',
    lane: `github/${repo}`,
    ref: 'refs/heads/main',
    announced: changes[0]?.after ?? null,
    before: null,
    trigger: 'push',
    event: 'push',
    pollsAgree: false,
  } as const
  return { kind: 'routes', routes: [{ kind: 'run', order }] }
}
