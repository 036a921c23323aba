import assert from 'node:assert/strict'
import { chmod, mkdir, readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import * as z from 'zod'
import { readConfig } from '../src/config/read.ts'
import { landfallToml } from '../src/config/schema.ts'
import {
  directory,
  HOOK,
  hooked,
  mistakes,
  read,
  served,
  TARGET,
  targeted,
  topped,
  USER,
  written,
} from './support/configs.ts'

const LATER = 'known, but not available in this version'

describe("the contract's example, each line alone", () => {
  const lines: Readonly<Record<string, readonly [wrap: (line: string) => string, lines: readonly string[]]>> = {
    'top level': [
      topped,
      [
        'data_dir    = "/var/lib/landfall"',
        'scripts_dir = "per-repo-scripts"',
        'max_jobs    = 4',
        'drain       = "30s"',
        'drain       = "wait"',
        'keep_deliveries = "30d"',
        'keep_payloads   = "7d"',
        'keep_runs   = 100',
      ],
    ],
    server: [
      served,
      [
        'listen  = "127.0.0.1:8787"',
        'listen  = "[::]:8787"',
        'listen  = "unix:/run/landfall/hooks.sock"',
        'listen  = "systemd:hooks"',
        'admin   = "127.0.0.1:8788"',
        'admin   = "off"',
        'socket_mode = "0600"',
        'socket_group = "root"',
        'public_url  = "https://hooks.example.com"',
        'max_body = "25MB"',
        'trusted_proxies = ["127.0.0.1/32"]',
      ],
    ],
    hook: [
      hooked,
      [
        'forge   = "github"',
        'repos   = ["acme/*"]',
        'clone   = "https://github.com/{repo}.git"',
        'known_hosts = "/etc/ssh/ssh_known_hosts"',
        'missed_after = "60s"',
      ],
    ],
    target: [
      targeted,
      [
        'hook    = "github"',
        'url     = "git@github.com:acme/site.git"',
        'branches = "main"',
        'events  = ["push"]',
        'script  = "deploy.sh"',
        'run = ["./deploy", "--fast"]',
        'checkout = "release"',
        'checkout = "none"',
        'current = "/srv/site"',
        'activate = ["systemctl", "reload", "site"]',
        'activate = "reload.sh"',
        'keep_releases = 5',
        'queue   = "sequential"',
        'queue   = "evict"',
        'lane    = "web"',
        'user    = "keeper"',
        'env     = { NODE_ENV = "production" }',
        'pass_env = ["LANG"]',
        'timeout = "1h"',
        'fetch_timeout = "10m"',
        'kill_grace = "10s"',
        'retries = 0',
        'rerun_interrupted = true',
        'poll    = "5m"',
        'poll    = "off"',
        'on_failure = "notify.sh"',
        'on_success = "notify.sh"',
        'on_recovery = "notify.sh"',
        'max_log = "10MB"',
      ],
    ],
  }
  for (const [where, [wrap, each]] of Object.entries(lines)) {
    for (const line of each) {
      test(`is accepted: ${where}: ${line}`, async () => assert.deepEqual(await mistakes(wrap(line)), []))
    }
  }
  for (const line of lines['target']?.[1] ?? []) {
    test(`is accepted: [defaults]: ${line}`, async () => {
      assert.deepEqual(await mistakes(`${HOOK}[defaults]\n${line}\n${TARGET}`), [])
    })
  }

  const later: readonly [wrap: (line: string) => string, line: string][] = [
    [served, 'admin_url = "https://deploy.example.com"'],
    [hooked, 'allow_ips = []'],
    [topped, '[api_token.ci]\nrole = "read"'],
    [topped, '[notify.chat]\nurl = "https://chat.example"'],
    ...['secrets = [{ exec = ["pass", "x"] }]'].map((line): [typeof topped, string] => [
      (inner) => `[hook.github]\n${inner}\n${TARGET}`,
      line,
    ]),
    ...[
      'tags = "v*"',
      'events = ["push", "release"]',
      'paths = ["site/**", "!**/*.md"]',
      'path = "/srv/site"',
      'clean = false',
      'adopt = false',
      'checkout = "inplace"',
      'queue = "parallel"',
      'branches = ["a", "b"]',
      'branches = "*"',
      'branches = "feature/*"',
      'branches = "{a,b}"',
      'health = "x"',
      'approve = true',
      'rollback_on_failure = true',
      'when = "x"',
      'deploy_on = "x"',
      'on_delete = "x"',
      'tag_order = "newest"',
      'aliases = ["x"]',
      'restore_on_failure = true',
      'release_mode = "x"',
      'submodules = true',
      'lfs = true',
      'sparse = ["x"]',
      'files = ["x"]',
      'current = "/srv/{branch}"',
      'lane = "{branch}"',
      'user = "daemon"',
      'env = { A = "{branch}" }',
      'env = { A = { exec = ["pass"] } }',
    ].map((line): [typeof topped, string] => [targeted, line]),
    ...[
      'gitea',
      'forgejo',
      'gogs',
      'bitbucket',
      'bitbucket-server',
      'azure',
      'sourcehut',
      'standard-webhooks',
      'generic',
    ]
      .map((forge) => `forge = "${forge}"`)
      .map((line): [typeof topped, string] => [hooked, line]),
    [(name) => `[hook.${name}]\nsecrets = ["x"]\n${TARGET}`, 'gitea'],
  ]
  for (const [wrap, line] of later) {
    test(`is of a later version: ${line.replace('\n', ' ')}`, async () => {
      const found = await mistakes(wrap(line))
      assert.equal(found.length, 1, found.join('\n'))
      assert.ok(found[0]?.includes(LATER), found[0])
    })
  }
})

describe('a right file', () => {
  test('that says least amounts to the defaults of the contract', async () => {
    const at = await directory()
    const file = await written(`${HOOK}${TARGET}`, at)
    const config = await readConfig({ file, env: {}, secrets: 'resolve', user: USER })
    assert.deepEqual(config, {
      file,
      dataDir: join(at, '.landfall'),
      scriptsDir: join(at, 'per-repo-scripts'),
      maxJobs: Math.max(4, availableParallelism()),
      drainMs: 30_000,
      keepDeliveriesMs: 30 * 86_400_000,
      keepPayloadsMs: 7 * 86_400_000,
      keepRuns: 100,
      server: {
        listen: { kind: 'tcp', host: '127.0.0.1', port: 8787 },
        admin: { kind: 'tcp', host: '127.0.0.1', port: 8788 },
        socketMode: 0o600,
        socketGroup: null,
        publicUrl: null,
        maxBodyBytes: 25 * 2 ** 20,
        trustedProxies: ['127.0.0.0/8', '::1/128'],
      },
      hooks: [
        {
          name: 'github',
          forge: 'github',
          secrets: ['a secret'],
          repos: null,
          clone: 'https://github.com/{repo}.git',
          forgeToken: null,
          sshKey: null,
          knownHosts: null,
          missedAfterMs: 60_000,
        },
      ],
      targets: [
        {
          name: 'site',
          repo: 'acme/site',
          repoIsGlob: false,
          hook: 'github',
          url: null,
          branch: null,
          events: ['push'],
          script: null,
          run: null,
          checkout: 'release',
          current: null,
          activate: null,
          keepReleases: 5,
          queue: 'sequential',
          lane: null,
          user: 'keeper',
          env: {},
          masked: [],
          passEnv: [],
          timeoutMs: 3_600_000,
          fetchTimeoutMs: 600_000,
          killGraceMs: 10_000,
          retries: 0,
          rerunInterrupted: true,
          pollMs: 300_000,
          onFailure: null,
          onSuccess: null,
          onRecovery: null,
          maxLogBytes: 10 * 2 ** 20,
        },
      ],
    })
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.targets[0]?.env))
  })

  test('keeps the order of its targets, which [defaults] only fill up', async () => {
    const config = await read(
      `[target.zz]\nrepo = "a/z"\nretries = 1\n[target.aa]\nrepo = "a/a"\n[defaults]\nretries = 3\ntimeout = "1m"\n${HOOK}`,
    )
    assert.deepEqual(
      config.targets.map(({ name, retries, timeoutMs }) => [name, retries, timeoutMs]),
      [
        ['zz', 1, 60_000],
        ['aa', 3, 60_000],
      ],
    )
  })

  test('has polling off for checkout none, unless it is asked for', async () => {
    assert.equal((await read(targeted('checkout = "none"'))).targets[0]?.pollMs, null)
    assert.equal((await read(targeted('checkout = "none"\npoll = "1m"'))).targets[0]?.pollMs, 60_000)
    assert.equal((await read(targeted('poll = "off"'))).targets[0]?.pollMs, null)
  })

  test('has its relative paths beside it', async () => {
    const at = await directory()
    const text = `data_dir = "d"\n[hook.github]\nsecrets = ["x"]\nclone = "../git/{repo}.git"\n${TARGET}url = "./up.git"\ncurrent = "live"\n`
    const config = await readConfig({ file: await written(text, at), env: {}, secrets: 'resolve', user: USER })
    const [target, hook] = [config.targets[0], config.hooks[0]]
    assert.deepEqual(
      [config.dataDir, target?.url, target?.current],
      [join(at, 'd'), join(at, 'up.git'), join(at, 'live')],
    )
    assert.equal(hook?.clone, join(at, '../git/{repo}.git'))
  })

  test('may be written with dotted keys, inline tables and a byte order mark', async () => {
    const config = await read('\uFEFFhook.github = { secrets = ["x"] }\ntarget.site.repo = "acme/site"\n')
    assert.equal(config.targets[0]?.hook, 'github')
  })
})

test('a missing file and a directory are named', async () => {
  const file = join(await directory(), 'landfall.toml')
  await assert.rejects(readConfig({ file, env: {}, secrets: 'leave' }), /no such file; "landfall init" makes one/)
  await mkdir(file)
  await chmod(file, 0o755)
  await assert.rejects(readConfig({ file, env: {}, secrets: 'leave' }), /cannot be read: it is a directory/)
})

test('a file with the line ends of Windows is read alike', async () => {
  const file = await written(`${HOOK}${TARGET}`.replaceAll('\n', '\r\n'))
  assert.equal((await readConfig({ file, env: {}, secrets: 'resolve', user: USER })).targets[0]?.repo, 'acme/site')
})

test('every key has a description, and the schema can become a JSON Schema', () => {
  const schema = z.toJSONSchema(landfallToml, { io: 'input' })
  const missing: string[] = []
  const visit = (node: z.core.JSONSchema.JSONSchema, path: string): void => {
    for (const [key, value] of Object.entries(node.properties ?? {})) {
      if (typeof value === 'boolean') continue
      if (value.description === undefined) missing.push(`${path}.${key}`)
      visit(value, `${path}.${key}`)
    }
    if (typeof node.additionalProperties === 'object') visit(node.additionalProperties, `${path}.*`)
  }
  visit(schema, '')
  assert.deepEqual(missing, [])
  assert.ok(Object.keys(schema.properties ?? {}).length > 10)
})

test('docs/configuration.md has every key with its default', async () => {
  const page = await readFile(new URL('../docs/configuration.md', import.meta.url), 'utf8')
  const missing: string[] = []
  const visit = ({ properties = {} }: z.core.JSONSchema.JSONSchema): void => {
    for (const [key, value] of Object.entries(properties)) {
      if (typeof value === 'boolean') continue
      const table =
        value.properties ?? (typeof value.additionalProperties === 'object' && value.additionalProperties.properties)
      if (table) visit({ properties: table })
      else {
        const end = value.default === undefined ? '' : `\`${JSON.stringify(value.default)}\``
        if (!page.split('\n').some((line) => line.startsWith(`| \`${key}\` |`) && line.endsWith(`| ${end} |`)))
          missing.push(key)
      }
    }
  }
  visit(z.toJSONSchema(landfallToml, { io: 'input' }))
  assert.deepEqual(missing, [])
})
