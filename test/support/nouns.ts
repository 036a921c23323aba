/** Nouns with everything usual filled in, for tests of parts that take them as they are. */
import { createHash } from 'node:crypto'
import type { Config, Hook, Target } from '../../src/config/config.ts'
import type { Received, Run } from '../../src/model.ts'
import { packPayload } from '../../src/payload-codec.ts'
import type { RunOrder } from '../../src/stores/store.ts'
import { sha } from './git.ts'

/** A commit id that differs for different `n`. */
export const commit = (n: number) => sha(createHash('sha1').update(`commit ${n}`).digest('hex'))

export function aTarget(change: Partial<Target> = {}): Target {
  return {
    name: 'site',
    repo: 'acme/site',
    repoIsGlob: false,
    hook: 'github',
    url: null,
    aliases: [],
    follows: { kind: 'branch', branch: 'main' },
    paths: null,
    events: ['push'],
    script: null,
    run: null,
    checkout: 'release',
    current: null,
    activate: null,
    keepReleases: 5,
    path: null,
    clean: false,
    adopt: false,
    restoreOnFailure: false,
    submodules: null,
    lfs: false,
    queue: 'sequential',
    lane: null,
    user: 'deploy',
    account: null,
    env: {},
    masked: [],
    passEnv: [],
    timeoutMs: 60_000,
    fetchTimeoutMs: 60_000,
    killGraceMs: 10_000,
    retries: 0,
    rerunInterrupted: true,
    pollMs: 300_000,
    onFailure: null,
    onSuccess: null,
    onRecovery: null,
    onDelete: null,
    maxLogBytes: 1_000_000,
    ...change,
  }
}

export function aHook(change: Partial<Hook> = {}): Hook {
  return {
    name: 'github',
    forge: 'github',
    secrets: ['a secret'],
    repos: null,
    clone: 'https://github.com/{repo}.git',
    forgeToken: null,
    sshKey: null,
    knownHosts: null,
    missedAfterMs: 60_000,
    ...change,
  }
}

export function aConfig(change: Partial<Config> = {}): Config {
  return {
    file: null,
    dataDir: '/nonexistent',
    scriptsDir: '/nonexistent',
    maxJobs: 4,
    drainMs: 30_000,
    keepDeliveriesMs: 30 * 86_400_000,
    keepPayloadsMs: 7 * 86_400_000,
    keepRuns: 100,
    server: {
      listen: { kind: 'tcp', host: '127.0.0.1', port: 0 },
      admin: null,
      socketMode: 0o600,
      socketGroup: null,
      publicUrl: null,
      maxBodyBytes: 1_000_000,
      trustedProxies: [],
    },
    hooks: [aHook()],
    targets: [aTarget()],
    ...change,
  }
}

export function aRun(change: Partial<Run> = {}): Run {
  return {
    id: 1,
    target: 'site',
    repo: 'acme/site',
    ref: 'refs/heads/main',
    announced: commit(1),
    before: null,
    commit: null,
    previous: null,
    trigger: 'push',
    event: 'push',
    delivery: null,
    state: 'queued',
    reason: null,
    detail: null,
    attempt: 1,
    softAttempts: 0,
    interruptions: 0,
    pollsAgree: false,
    exitCode: null,
    signal: null,
    phases: [],
    place: change.id ?? 1,
    notBefore: null,
    queuedAt: 0,
    startedAt: null,
    finishedAt: null,
    supersededBy: null,
    ...change,
  }
}

export function anOrder(change: Partial<RunOrder> = {}): RunOrder {
  return {
    instance: { name: 'site', target: 'site', repo: 'acme/site', branch: null },
    policy: 'sequential',
    ref: 'refs/heads/main',
    announced: commit(1),
    before: null,
    trigger: 'push',
    event: 'push',
    pollsAgree: false,
    ...change,
  }
}

/** A push that differs by its `body`; `text` is the payload for scripts. */
export function aPush(change: Partial<Received> & { readonly body?: string; readonly text?: string } = {}): Received {
  const { body = 'a body', text = '{"a":"payload"}', ...rest } = change
  return {
    hook: 'github',
    forge: 'github',
    kind: 'event',
    guid: null,
    event: 'push',
    forgeEvent: 'push',
    repo: 'acme/site',
    repoId: null,
    changes: [{ ref: 'refs/heads/main', before: null, after: commit(1) }],
    defaultBranch: 'main',
    detail: null,
    bodyHash: createHash('sha256').update(body).digest(),
    payload: packPayload(text),
    receivedAt: 1_000_000,
    ...rest,
  }
}
