/** GitHub and GitHub Enterprise Server: https://docs.github.com/en/webhooks */
import { createHmac } from 'node:crypto'
import { Webhooks } from '@octokit/webhooks'
import {
  eventWord,
  isProblem,
  mediaType,
  type Payload,
  parsePayload,
  readChange,
  readDefaultBranch,
  readGuid,
  readRepository,
  readRepositoryId,
  sameBytes,
  textOf,
  UNAUTHENTIC,
  UNSUPPORTED_TYPE,
  ZERO_SHA,
} from './body.ts'
import type { Accepted, Forge, ForgeRequest, OutgoingDelivery } from './forge.ts'

export const github: Forge = {
  name: 'github',
  clone: 'https://github.com/{repo}.git',
  tokenUser: 'x-access-token',
  accept,
  compose,
  form(url, secret) {
    return [
      { field: 'Payload URL', value: url },
      { field: 'Content type', value: 'application/json' },
      { field: 'Secret', value: secret },
      { field: 'SSL verification', value: 'Enable SSL verification' },
      { field: 'Which events would you like to trigger this webhook?', value: 'Just the push event.' },
      { field: 'Active', value: 'checked' },
    ]
  },
}

async function accept({ headers, body }: ForgeRequest, secrets: readonly string[]): Promise<Accepted> {
  const signature = headers['x-hub-signature-256']
  if (signature === undefined || !/^sha256=[0-9a-f]{64}$/.test(signature)) return UNAUTHENTIC
  const text = textOf(body)
  const isAuthentic = text ? await isSignedBySome(secrets, text, signature) : isOddButSigned(secrets, body, signature)
  if (!isAuthentic) return UNAUTHENTIC
  const type = mediaType(headers)
  if (type === null) return UNSUPPORTED_TYPE
  return read(headers, text, type)
}

/** A verifier a secret, made once for each list of secrets: the library's `verify` looks at one secret only. */
const verifiers = new WeakMap<readonly string[], readonly Webhooks[]>()

async function isSignedBySome(secrets: readonly string[], text: string, signature: string): Promise<boolean> {
  let known = verifiers.get(secrets)
  if (known === undefined) {
    known = secrets.map((secret) => new Webhooks({ secret }))
    verifiers.set(secrets, known)
  }
  for (const verifier of known) {
    if (await verifier.verify(text, signature)) return true
  }
  return false
}

/** The library takes text only, and none that is empty. Whoever knows the secret is told what is wrong with the rest. */
function isOddButSigned(secrets: readonly string[], body: Uint8Array, signature: string): boolean {
  return secrets.some((secret) => sameBytes(Buffer.from(signature), Buffer.from(sign(secret, body))))
}

function sign(secret: string, body: string | Uint8Array): string {
  return `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`
}

function read(headers: ForgeRequest['headers'], body: string | null, type: 'json' | 'form'): Accepted {
  const guid = readGuid(headers['x-github-delivery'])
  const forgeEvent = headers['x-github-event'] || null
  const invalid = (detail: string): Accepted => ({ kind: 'invalid', guid, forgeEvent, detail })

  if (forgeEvent === null) return invalid('The header X-GitHub-Event is missing.')
  const event = eventWord(forgeEvent)
  if (isProblem(event)) return invalid(event.problem)
  if (body === null) return invalid('The payload is not UTF-8.')
  const text = type === 'json' ? body : new URLSearchParams(body).get('payload')
  if (text === null) return invalid('The form has no field `payload`.')
  const payload: Payload = parsePayload(text)
  if (isProblem(payload)) return invalid(payload.problem)
  const repo = readRepository(payload, 'repository', 'full_name')
  if (isProblem(repo)) return invalid(repo.problem)

  const announcement = {
    guid,
    event,
    forgeEvent,
    repo,
    repoId: readRepositoryId(payload, 'repository', 'id'),
    changes: [],
    defaultBranch: readDefaultBranch(payload, 'repository', 'default_branch'),
    payload: type === 'form' ? text : null,
  }
  if (event === 'ping') return { kind: 'ping', announcement }
  if (event !== 'push') return { kind: 'event', announcement }
  if (repo === null) return invalid('The field `repository.full_name` is missing.')
  const change = readChange(payload)
  if (isProblem(change)) return invalid(change.problem)
  return { kind: 'event', announcement: { ...announcement, changes: [change] } }
}

function compose(delivery: OutgoingDelivery, secret: string): { headers: Record<string, string>; body: string } {
  const body = delivery.payload ?? JSON.stringify(payloadOf(delivery))
  return {
    headers: {
      'content-type': 'application/json',
      'user-agent': 'GitHub-Hookshot/landfall',
      'x-github-event': delivery.event.replaceAll('-', '_'),
      'x-github-delivery': delivery.guid,
      'x-hub-signature-256': sign(secret, body),
    },
    body,
  }
}

function payloadOf(delivery: OutgoingDelivery): Payload {
  const repository = repositoryOf(delivery)
  const sender = { login: repository.owner.login, type: 'User' }
  if (delivery.event === 'ping') {
    return { zen: 'Keep it logically awesome.', hook: { type: 'Repository', active: true }, repository, sender }
  }
  if (delivery.event !== 'push') return { repository, sender }

  const { ref, before, after } = delivery
  const head = after && {
    id: after,
    message: 'Sent by landfall',
    author: { name: sender.login },
    added: [],
    removed: [],
    modified: [],
  }
  return {
    ref,
    before: before ?? ZERO_SHA,
    after: after ?? ZERO_SHA,
    created: before === null,
    deleted: after === null,
    forced: false,
    base_ref: null,
    commits: head === null ? [] : [head],
    head_commit: head,
    repository,
    pusher: { name: sender.login },
    sender,
  }
}

function repositoryOf({ repo, repoId, cloneUrl, defaultBranch }: OutgoingDelivery) {
  const slash = repo.lastIndexOf('/')
  return {
    ...(repoId === undefined ? {} : { id: repoId }),
    name: repo.slice(slash + 1),
    full_name: repo,
    owner: { login: repo.slice(0, slash), name: repo.slice(0, slash) },
    clone_url: cloneUrl ?? `https://github.com/${repo}.git`,
    ssh_url: `git@github.com:${repo}.git`,
    default_branch: defaultBranch ?? 'main',
  }
}
