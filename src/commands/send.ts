import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import type { RequestOptions } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { urlToHttpOptions } from 'node:url'
import type { TargetView } from '../admin/views.ts'
import type { Config, Hook, Listen, Target } from '../config/config.ts'
import { findConfig } from '../config/find.ts'
import { quoted } from '../config/grammar.ts'
import { readConfig } from '../config/read.ts'
import { didYouMean } from '../config/words.ts'
import { LandfallError, messageOf, systemCode } from '../errors.ts'
import type { OutgoingDelivery } from '../forges/forge.ts'
import { FORGE } from '../forges/index.ts'
import { createGit } from '../git/git.ts'
import { createMirrors } from '../git/mirror.ts'
import { branchOf, instanceKey, tagOf } from '../instances.ts'
import { type Effect, isRef, isRepository, isZeroSha, parseSha, type Sha } from '../model.ts'
import { openRemotes } from '../remotes.ts'
import { clientOf, exchange, type Listed } from './client.ts'
import { addressOf, openScreen, type Screen } from './print.ts'

export interface SendOptions {
  readonly configFlag: string | undefined
  readonly hook: string
  readonly event: string
  readonly repo: string | undefined
  readonly ref: string | undefined
  readonly commit: string | undefined
  /** A payload to send as it is. */
  readonly file: string | undefined
}

/** Makes a delivery as the forge would, signs it, posts it to the daemon, and says what it answered. */
export async function send(options: SendOptions): Promise<number> {
  const screen = openScreen()
  const file = await findConfig({ flag: options.configFlag, passedOver: (why) => console.error(why) })
  const config = await readConfig({ file, secrets: 'resolve' })
  const hook = hookNamed(options.hook, config)
  const [secret = ''] = hook.secrets
  const delivery = await deliveryFor(options, hook, config)
  const { headers, body } = FORGE[hook.forge].compose(delivery, secret, Date.now())
  const { where, name } = listenerOf(config.server)
  const path = `${(where.path ?? '').replace(/\/$/, '')}/hooks/${hook.name}`
  const answer = await exchange(
    { ...where, path, method: 'POST', headers: { ...headers, 'content-length': Buffer.byteLength(body) } },
    body,
  ).catch((cause: unknown) => {
    throw new LandfallError(
      'unreachable',
      `nobody answers on ${name} (${systemCode(cause) ?? messageOf(cause)}).\nStart it with: landfall serve`,
      { cause },
    )
  })
  const text = Buffer.concat(await answer.toArray()).toString()
  const status = answer.statusCode ?? 0
  sayAnswer(screen, status, text)
  return status >= 200 && status < 300 ? 0 : 1
}

function hookNamed(name: string, { hooks }: Config): Hook {
  const hook = hooks.find((one) => one.name === name)
  if (hook !== undefined) return hook
  const names = hooks.map((one) => one.name)
  const hint =
    didYouMean(name, names) || (names.length === 0 ? '; the configuration has none' : `; there is ${names.join(', ')}`)
  throw new LandfallError('usage', `there is no hook ${name}${hint}`)
}

// --- What to say ------------------------------------------------------------------------------------------------------

async function deliveryFor(options: SendOptions, hook: Hook, config: Config): Promise<OutgoingDelivery> {
  const payload = options.file === undefined ? null : await readPayload(options.file)
  const target = targetFor(options.repo, hook, config)
  const repo = options.repo ?? (target?.repoIsGlob === false ? target.repo : undefined)
  if (repo === undefined && payload === null) {
    throw new LandfallError(
      'usage',
      `hook ${hook.name} has no target with one repository: say which, with --repo owner/name`,
    )
  }
  if (options.repo !== undefined && !isRepository(options.repo)) {
    throw new LandfallError('usage', `--repo: ${quoted(options.repo)} is no owner/name`)
  }
  const isAnnouncing = payload === null && options.event === 'push'
  const tip = isAnnouncing && repo !== undefined ? await tipFor(options, repo, target, config) : NO_TIP
  return {
    event: options.event,
    repo: repo ?? 'owner/name',
    ref: tip.ref,
    before: tip.before,
    after: tip.commit,
    guid: randomUUID(),
    ...(payload === null ? {} : { payload }),
    ...(repo === undefined ? {} : { cloneUrl: hook.clone.replaceAll('{repo}', repo) }),
  }
}

async function readPayload(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new LandfallError('usage', `the payload cannot be read: ${messageOf(cause)}`, { cause })
  }
}

/** The target that the delivery is about: the one of this repository, or without one the first of the hook. */
function targetFor(repo: string | undefined, hook: Hook, { targets }: Config): Target | undefined {
  const own = targets.filter((target) => target.hook === hook.name)
  const exact = own.filter(({ repoIsGlob }) => !repoIsGlob)
  if (repo === undefined) return exact[0] ?? own[0]
  return (
    exact.find((target) => target.repo.toLowerCase() === repo.toLowerCase()) ?? own.find(({ repoIsGlob }) => repoIsGlob)
  )
}

interface Tip {
  readonly ref: string
  /** Null: the ref was deleted. */
  readonly commit: Sha | null
  readonly before: Sha | null
}
const NO_TIP: Tip = { ref: 'refs/heads/main', commit: null, before: null }

/** The branch that a target names outright; null where it follows the default one, several, or tags. */
function branchNamedBy(target: Target | undefined): string | null {
  return target?.follows.kind === 'branch' ? target.follows.branch : null
}

async function tipFor(options: SendOptions, repo: string, target: Target | undefined, config: Config): Promise<Tip> {
  const ref = options.ref === undefined ? null : fullRef(options.ref, target?.follows.kind === 'tags')
  if (options.commit !== undefined) {
    if (isZeroSha(options.commit)) return await deletionOf(ref, repo, target, config)
    const commit = parseSha(options.commit)
    if (commit === null)
      throw new LandfallError('usage', `--commit: "${options.commit}" is no full commit id (40 or 64 hex digits)`)
    return { ref: ref ?? `refs/heads/${branchNamedBy(target) ?? 'main'}`, commit, before: null }
  }
  const mend = 'say which commit to announce, with --commit'
  if (target === undefined) throw new LandfallError('usage', `no target of the hook follows ${repo}: ${mend}`)
  const branch = ref === null ? branchNamedBy(target) : branchOf(ref)
  const tag = tagOf(ref)
  if (ref !== null && branch === null && tag === null) throw new LandfallError('usage', `${ref} is no branch: ${mend}`)
  if (target.follows.kind === 'tags' && ref === null)
    throw new LandfallError('usage', `${target.name} follows tags: say which one, with --ref`)
  const refs = await askRemote(target, repo, branch, config).catch((cause: unknown) => {
    throw new LandfallError('remote', `${messageOf(cause)}\nThe tip of ${repo} is not known, so ${mend}`, { cause })
  })
  if (ref !== null && tag !== null) {
    const found = refs.tags[tag]
    if (found === undefined) throw new LandfallError('remote', `${repo} has no tag ${tag} on the remote: ${mend}`)
    return { ref, commit: found.object, before: null }
  }
  const name = branch ?? refs.head?.branch
  const commit =
    name === undefined ? undefined : (refs.branches[name] ?? (branch === null ? refs.head?.tip : undefined))
  if (name === undefined || commit === undefined) {
    throw new LandfallError('remote', `${repo} has no branch ${name ?? 'at all'} on the remote: ${mend}`)
  }
  return { ref: `refs/heads/${name}`, commit, before: null }
}

/** A forge tells what a deleted ref was at: what landfall has last heard of it, else what is still on the remote. */
async function deletionOf(
  given: string | null,
  repo: string,
  target: Target | undefined,
  config: Config,
): Promise<Tip> {
  const named = branchNamedBy(target)
  const ref = given ?? (named === null ? null : `refs/heads/${named}`)
  if (ref === null)
    throw new LandfallError('usage', '--commit: all zeros say that a ref is gone: say which, with --ref')
  const before = target === undefined ? null : await lastCommitOf(ref, repo, target, config)
  return { ref, commit: null, before }
}

async function lastCommitOf(ref: string, repo: string, target: Target, config: Config): Promise<Sha | null> {
  const [branch, tag] = [branchOf(ref), tagOf(ref)]
  const { name } = instanceKey(target, repo, branch)
  const isFollowed = branch !== null && (target.follows.kind === 'branches' || branch === branchNamedBy(target))
  const told = isFollowed
    ? await clientOf(config.dataDir)
        .get<Listed<TargetView>>('targets')
        .catch(() => null)
    : null
  const view = told?.items.find((one) => one.name === name)
  const heard = view?.wanted ?? view?.deployed ?? null
  if (heard !== null) return heard.commit
  const refs = await askRemote(target, repo, branch, config).catch(() => null)
  return (branch === null ? refs?.tags[tag ?? '']?.object : refs?.branches[branch]) ?? null
}

function fullRef(given: string, isTag: boolean): string {
  const ref = given.startsWith('refs/') ? given : `refs/${isTag ? 'tags' : 'heads'}/${given}`
  if (!isRef(ref)) throw new LandfallError('usage', `--ref: "${given}" is no branch or ref`)
  return ref
}

const ASK_MS = 30_000

/** The remote's branches. Keys lie in a directory of their own meanwhile: data_dir is the daemon's. */
async function askRemote(target: Target, repo: string, branch: string | null, config: Config) {
  const directory = await mkdtemp(join(tmpdir(), 'landfall-send-'))
  try {
    await mkdir(join(directory, 'keys'))
    const room = (name: string, ...below: readonly string[]) => join(directory, name, ...below)
    const dataDir = { path: directory, socket: join(directory, 'landfall.sock'), room, release: () => {} }
    const remotes = await openRemotes({ config, dataDir })
    const mirrors = createMirrors({ openGit: createGit({ environment: process.env }), log: { warn: () => {} } })
    const branches = branch === null ? [] : [branch]
    return await mirrors.listRefs({
      remote: remotes.of(target, repo),
      branches,
      tags: true,
      timeoutMs: Math.min(ASK_MS, target.fetchTimeoutMs),
    })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

// --- Where to --------------------------------------------------------------------------------------------------------

/** How to reach the daemon's listener from this machine. Throws `config` where that cannot be known. */
function listenerOf({ listen, publicUrl }: Config['server']): {
  readonly where: RequestOptions
  readonly name: string
} {
  const name = addressOf(listen)
  if (listen.kind === 'unix') return { where: { socketPath: listen.path }, name }
  if (listen.kind === 'tcp' && listen.port !== 0) return { where: { host: reachable(listen), port: listen.port }, name }
  // A socket that systemd opened, or any free port: only the way that the forge takes is known.
  if (publicUrl !== null) return { where: urlToHttpOptions(new URL(publicUrl)), name: publicUrl }
  throw new LandfallError(
    'config',
    `listen = "${name}" does not say where landfall can be reached, and there is no public_url`,
  )
}

function reachable({ host }: Extract<Listen, { kind: 'tcp' }>): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  return host === '::' ? '::1' : host
}

// --- What it answered --------------------------------------------------------------------------------------------------

interface Answer {
  readonly delivery?: number
  readonly verdict?: string
  readonly reason?: string
  readonly detail?: string
  readonly targets?: readonly Effect[]
}

const HINTS: Readonly<Record<number, string>> = {
  401: 'The daemon has another secret than this configuration. Restart it, if the secret has changed.',
  404: 'The daemon does not know this hook. Restart it, if the configuration has changed.',
  503: 'The daemon is stopping, or its disk is full: its log says which.',
}

function sayAnswer(screen: Screen, status: number, text: string): void {
  const answer = parseAnswer(text)
  const color = status < 300 ? 'green' : 'red'
  const about = answer.delivery === undefined ? '' : `: delivery ${answer.delivery}`
  screen.line(`${screen.paint(color, String(status))} ${answer.verdict ?? text.trim()}${about}`)
  if (answer.reason !== undefined || answer.detail !== undefined) {
    screen.line(`  ${[answer.reason, answer.detail].filter((part) => part !== undefined).join(': ')}`)
  }
  for (const effect of answer.targets ?? []) {
    if ('run' in effect)
      screen.line(`  ${effect.target}  run ${effect.run}    follow it with: landfall logs ${effect.run} -f`)
    else screen.line(`  ${effect.target}  ${effect.reason}: ${effect.detail}`)
  }
  const hint = HINTS[status]
  if (hint !== undefined) screen.line(hint)
}

function parseAnswer(text: string): Answer {
  try {
    return JSON.parse(text)
  } catch {
    return {} // a proxy's page, say
  }
}
