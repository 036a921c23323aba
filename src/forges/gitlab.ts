/** GitLab: https://docs.gitlab.com/user/project/integrations/webhooks/ and https://www.standardwebhooks.com for signing. */
import { createHash, createHmac } from 'node:crypto'
import {
  eventWord,
  field,
  isProblem,
  mediaType,
  type Payload,
  type Problem,
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

export const gitlab: Forge = {
  name: 'gitlab',
  clone: 'https://gitlab.com/{repo}.git',
  tokenUser: 'oauth2',
  accept,
  compose,
  form(url, secret) {
    return [
      { field: 'URL', value: url },
      { field: isSigning(secret) ? 'Signing token' : 'Secret token', value: secret },
      { field: 'Trigger', value: 'Push events' },
      { field: 'SSL verification', value: 'Enable SSL verification' },
    ]
  },
}

async function accept(request: ForgeRequest, secrets: readonly string[], now: number): Promise<Accepted> {
  const signing = secrets.filter(isSigning)
  // A signature that is there must be right: falling back to the token would let an attacker choose the weaker scheme.
  const isSigned = request.headers['webhook-signature'] !== undefined || signing.length > 0
  const isAuthentic = isSigned ? isSignedBySome(signing, request, now) : hasSomeToken(secrets, request.headers)
  if (!isAuthentic) return UNAUTHENTIC
  const type = mediaType(request.headers)
  return type === null ? UNSUPPORTED_TYPE : read(request, type)
}

const SIGNING_PREFIX = 'whsec_'

function isSigning(secret: string): boolean {
  return secret.startsWith(SIGNING_PREFIX)
}

/** How far the sender's clock may be off: the tolerance of the Standard Webhooks reference libraries. */
const TOLERANCE_SECONDS = 5 * 60

/**
 * By node:crypto over the bytes as they came, since the standardwebhooks package hashes in JavaScript, slowly for big
 * bodies, and decodes them before. That package judges this function in the tests.
 */
function isSignedBySome(secrets: readonly string[], { headers, body }: ForgeRequest, now: number): boolean {
  const id = headers['webhook-id']
  const timestamp = headers['webhook-timestamp']
  if (!id || timestamp === undefined || !/^\d{1,12}$/.test(timestamp)) return false
  if (Math.abs(Math.floor(now / 1000) - Number(timestamp)) > TOLERANCE_SECONDS) return false
  const given = (headers['webhook-signature'] ?? '')
    .split(' ')
    .filter((signature) => signature.startsWith('v1,'))
    .map((signature) => Buffer.from(signature))
  return secrets.some((secret) => {
    const expected = sign(secret, id, timestamp, body)
    return expected !== null && given.some((signature) => sameBytes(signature, Buffer.from(expected)))
  })
}

/** One signature, `v1,…`; null where the secret has no key in it: nothing shall verify with an empty key. */
function sign(secret: string, id: string, timestamp: string, body: Uint8Array | string): string | null {
  const key = Buffer.from(secret.slice(SIGNING_PREFIX.length), 'base64')
  if (key.byteLength === 0) return null
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64')}`
}

function hasSomeToken(secrets: readonly string[], headers: ForgeRequest['headers']): boolean {
  const token = headers['x-gitlab-token']
  if (!token) return false
  // node:http reads header bytes as Latin-1, while a secret was UTF-8. Digests, so that lengths do not show in the time.
  const given = createHash('sha256').update(token, 'latin1').digest()
  return secrets.some((secret) => sameBytes(given, createHash('sha256').update(secret).digest()))
}

function read({ headers, body }: ForgeRequest, type: 'json' | 'form'): Accepted {
  const guid = readGuid(headers['webhook-id']) ?? readGuid(headers['idempotency-key'])
  const forgeEvent = headers['x-gitlab-event'] || null
  const invalid = (detail: string): Accepted => ({ kind: 'invalid', guid, forgeEvent, detail })

  if (forgeEvent === null) return invalid('The header X-Gitlab-Event is missing.')
  if (type === 'form') return invalid('The payload is a form; GitLab sends JSON.')
  const text = textOf(body)
  if (text === null) return invalid('The payload is not UTF-8.')
  const payload: Payload = parsePayload(text)
  if (isProblem(payload)) return invalid(payload.problem)
  const event = eventOf(forgeEvent, payload)
  if (isProblem(event)) return invalid(event.problem)
  const repo = readRepository(payload, 'project', 'path_with_namespace')
  if (isProblem(repo)) return invalid(repo.problem)

  const announcement = {
    guid,
    event,
    forgeEvent,
    repo,
    repoId: readRepositoryId(payload, 'project', 'id') ?? readRepositoryId(payload, 'project_id'),
    changes: [],
    defaultBranch: readDefaultBranch(payload, 'project', 'default_branch'),
    payload: null,
  }
  if (event !== 'push') return { kind: 'event', announcement }
  if (repo === null) return invalid('The field `project.path_with_namespace` is missing.')
  const change = readChange(payload)
  if (isProblem(change)) return invalid(change.problem)
  return { kind: 'event', announcement: { ...announcement, changes: [change] } }
}

/** `Push Hook`, `Tag Push Hook` and the same two as system hooks are pushes; `Merge Request Hook` is `merge-request`. */
function eventOf(forgeEvent: string, payload: Payload): string | Problem {
  let name = forgeEvent.replace(/ Hook$/, '')
  const own = field(payload, 'event_name')
  if (name === 'System' && typeof own === 'string') name = own
  const event = eventWord(name)
  return event === 'tag-push' ? 'push' : event
}

function compose(
  delivery: OutgoingDelivery,
  secret: string,
  now: number,
): { headers: Record<string, string>; body: string } {
  const body = delivery.payload ?? JSON.stringify(payloadOf(delivery))
  return {
    headers: {
      'content-type': 'application/json',
      'user-agent': 'GitLab/landfall',
      'x-gitlab-event': hookOf(delivery),
      'idempotency-key': delivery.guid,
      ...(isSigning(secret)
        ? signatureOf(delivery.guid, secret, body, now)
        : { 'x-gitlab-token': tokenHeader(secret) }),
    },
    body,
  }
}

function signatureOf(id: string, secret: string, body: string, now: number): Record<string, string> {
  const timestamp = String(Math.floor(now / 1000))
  return {
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': sign(secret, id, timestamp, body) ?? '',
  }
}

/** Header values travel as Latin-1: each byte of the UTF-8 secret becomes one character. */
function tokenHeader(secret: string): string {
  return Buffer.from(secret).toString('latin1')
}

function isTag(ref: string): boolean {
  return ref.startsWith('refs/tags/')
}

/** `push` → `Push Hook`, `merge-request` → `Merge Request Hook`. */
function hookOf({ event, ref }: OutgoingDelivery): string {
  if (event.endsWith(' Hook')) return event
  const words = event === 'push' && isTag(ref) ? ['tag', 'push'] : event.split(/[-_ ]+/)
  return [...words, 'hook'].map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join(' ')
}

function payloadOf(delivery: OutgoingDelivery): Payload {
  const project = projectOf(delivery)
  if (delivery.event !== 'push') return { object_kind: delivery.event.replaceAll('-', '_'), project }
  const { ref, before, after } = delivery
  const kind = isTag(ref) ? 'tag_push' : 'push'
  return {
    object_kind: kind,
    event_name: kind,
    before: before ?? ZERO_SHA,
    after: after ?? ZERO_SHA,
    ref,
    checkout_sha: after,
    user_username: 'landfall',
    project,
    commits: after === null ? [] : [{ id: after, message: 'Sent by landfall', added: [], modified: [], removed: [] }],
    total_commits_count: after === null ? 0 : 1,
  }
}

function projectOf({ repo, repoId, cloneUrl, defaultBranch }: OutgoingDelivery): Payload {
  const slash = repo.lastIndexOf('/')
  return {
    ...(repoId === undefined ? {} : { id: repoId }),
    name: repo.slice(slash + 1),
    namespace: repo.slice(0, slash),
    path_with_namespace: repo,
    git_http_url: cloneUrl ?? `https://gitlab.com/${repo}.git`,
    git_ssh_url: `git@gitlab.com:${repo}.git`,
    default_branch: defaultBranch ?? 'main',
  }
}
