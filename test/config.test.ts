import assert from 'node:assert/strict'
import { chmod, mkdir } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { readConfig } from '../src/config/read.ts'
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
import { CONTRACT_LINES } from './support/contract-lines.ts'

const LATER = 'known, but not available in this version'

describe("the contract's example, each line alone", () => {
  for (const [where, [wrap, each]] of Object.entries(CONTRACT_LINES)) {
    for (const line of each) {
      test(`is accepted: ${where}: ${line}`, async () => assert.deepEqual(await mistakes(wrap(line)), []))
    }
  }
  for (const line of CONTRACT_LINES['target']?.[1] ?? []) {
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
      'events = ["push", "release"]',
      'health = "x"',
      'approve = true',
      'rollback_on_failure = true',
      'when = "x"',
      'deploy_on = "x"',
      'release_mode = "x"',
      'sparse = ["x"]',
      'files = ["x"]',
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
          aliases: [],
          follows: { kind: 'default' },
          events: ['push'],
          paths: null,
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
          user: 'keeper',
          account: null,
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
          onDelete: null,
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
