/** Deliveries as they reach the store: verified, hashed and packed by the program's own code. */
import { hash, randomBytes } from 'node:crypto'
import { parseSha, type Received } from '../src/model.ts'
import { packPayload } from '../src/payload-codec.ts'
import type { Routing } from '../src/stores/store.ts'
import { sign } from './requests.ts'

export function makeReceived(repo: string): Received {
  const after = randomBytes(20).toString('hex')
  const { headers, body } = sign({ repo, after })
  return {
    hook: 'github',
    forge: 'github',
    kind: 'event',
    guid: headers['x-github-delivery'] ?? null,
    event: 'push',
    forgeEvent: 'push',
    repo,
    repoId: null,
    changes: [{ ref: 'refs/heads/main', before: null, after: parseSha(after) }],
    defaultBranch: 'main',
    detail: null,
    bodyHash: hash('sha256', body, 'buffer'),
    payload: packPayload(body),
    receivedAt: Date.now(),
  }
}

/** To the target of that name, run after run; or to a branch that none follows. */
export function makeRouting({ repo, changes }: Received, target: string | null): Routing {
  if (target === null || repo === null) return { kind: 'nowhere', reason: 'no-target', detail: 'No target has it.' }
  const order = {
    instance: { name: target, target, repo, branch: null },
    policy: 'sequential',
    lane: `github/${repo}`,
    ref: 'refs/heads/main',
    announced: changes[0]?.after ?? null,
    before: null,
    trigger: 'push',
    event: 'push',
    pollsAgree: false,
  } as const
  return { kind: 'routes', learns: null, routes: [{ kind: 'run', order }] }
}
