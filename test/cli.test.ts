/** The command line itself: help, exit codes, and the first minutes with init, check, serve and send. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { freePort, landfall, landfallEach, onTerminal, start, startServe } from './support/cli.ts'
import { createOrigin } from './support/git.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'

const VERBS = ['init', 'check', 'serve', 'once', 'send', 'status', 'runs', 'deliveries', 'show', 'logs']
const COMMIT = '1'.repeat(40)

/** What `init` makes in an empty directory, but on a port of its own, and with a repository that is there. */
async function initialised(t: TestContext) {
  const directory = temporaryDirectory(t)
  const { code, stdout } = await landfall(['init', '--public-url', 'https://hooks.example.org'], { cwd: directory })
  assert.equal(code, 0)
  const port = await freePort()
  const origin = await createOrigin(join(directory, 'forge'))
  const file = join(directory, 'landfall.toml')
  const edited = readFileSync(file, 'utf8')
    .replace('8787', String(port))
    .replace('"acme/site"', `"acme/site"\nurl = "${origin.path}"`)
  writeFileSync(file, edited)
  const secret = /SECRET=(\w+)/.exec(readFileSync(join(directory, '.env'), 'utf8'))?.[1] ?? ''
  return { directory, port, origin, file, secret, stdout }
}

test('the help of the program and of each verb fits 80 columns and shows what can be typed', async (t) => {
  const cwd = temporaryDirectory(t)
  const calls = [[], ['--help'], ['help'], ['help', 'runs'], ...VERBS.map((verb) => [verb, '--help'])]
  const helps = await landfallEach(calls, { cwd })
  const [bare = assert.fail()] = helps
  for (const { code, stdout, stderr } of helps) {
    assert.deepEqual([code, stderr], [0, ''])
    assert.match(stdout, /^Usage: landfall /)
    assert.deepEqual(
      stdout.split('\n').filter((line) => line.length > 80),
      [],
    )
  }
  for (const verb of VERBS) assert.match(bare.stdout, new RegExp(`^  ${verb} .*\\w`, 'm'))
  assert.doesNotMatch(bare.stdout, /rollback/)
})

test('--version prints the version of the package', async (t) => {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  const { code, stdout } = await landfall(['--version'], { cwd: temporaryDirectory(t) })
  assert.deepEqual([code, stdout], [0, `${version}\n`])
})

test('a misspelt verb, a missing argument or an impossible value is exit code 2, with a sentence and nothing else', async (t) => {
  const cwd = temporaryDirectory(t)
  const mistakes: readonly (readonly [args: readonly string[], says: RegExp])[] = [
    [['stauts'], /did you mean status/i],
    [['--bogus'], /unknown option '--bogus'/],
    [['show'], /missing required argument 'run'/],
    [['show', 'abc'], /whole number from 1/],
    [['logs', '0'], /whole number from 1/],
    [['runs', 'extra'], /too many arguments/],
    [['runs', '--state', 'done'], /queued, running, succeeded/],
    [['runs', '--limit', '501'], /at most 500/],
    [['deliveries', '--verdict', 'lost'], /accepted, ping/],
    [['send'], /missing required argument 'hook'/],
    [['init', '--forge', 'svn'], /github, gitlab/],
    [['init', '--forge', 'gitea'], /known, but not available in this version/],
    [['init', '--repo', 'site'], /--repo: "site" .*acme\/site/],
    [
      ['init', '--public-url', 'hooks.example.com'],
      /--public-url: "hooks\.example\.com" .*https:\/\/hooks\.example\.com/,
    ],
    [['once', '--url', '/srv/site.git'], /-- COMMAND/],
    [['once', '--branch', 'main'], /--branch goes with --url/],
    [['once', 'make'], /COMMAND goes with --url/],
    [['once', '--url', '/srv/site.git', '--timeout', 'soon', '--', 'true'], /--timeout: "soon"/],
    [['once', '--url', 'ext::sh', '--', 'true'], /--url: /],
    [['-c', 'nowhere.toml', 'status'], /there is no nowhere\.toml/],
    [['status', '-c', 'nowhere.toml'], /there is no nowhere\.toml/],
  ]
  const ends = await landfallEach(
    mistakes.map(([args]) => args),
    { cwd },
  )
  for (const [index, [args, says]] of mistakes.entries()) {
    const { code, stdout, stderr } = ends[index] ?? assert.fail()
    assert.deepEqual([code, stdout], [2, ''], args.join(' '))
    assert.match(stderr, says)
    assert.doesNotMatch(stderr, /\n {4}at /, 'no stack')
  }
})

test('a verb of a later version is known, but not available', async (t) => {
  const cwd = temporaryDirectory(t)
  const later =
    'why explain doctor deploy rollback freeze unfreeze cancel retry approve redeliver import prune completion'
  const own = [
    ['hook', 'add'],
    ['notify', 'test'],
    ['backup'],
    ['deploy', 'site', '--commit', COMMIT],
    ['rollback', '--help'],
  ]
  const calls = [...later.split(' ').map((verb) => [verb]), ...own]
  const ends = await landfallEach(calls, { cwd })
  for (const [index, { code, stdout, stderr }] of ends.entries()) {
    assert.deepEqual([code, stdout], [2, ''])
    assert.equal(stderr, `landfall ${calls[index]?.[0]}: known, but not available in this version\n`)
  }
})

test('where no daemon runs, every verb that needs one is exit code 3 and says how to start it', async (t) => {
  const { directory } = await initialised(t)
  const calls = [
    ['status'],
    ['status', 'site'],
    ['runs'],
    ['deliveries'],
    ['show', '1'],
    ['logs', '1'],
    ['runs', '--json'],
  ]
  for (const { code, stdout, stderr } of await landfallEach(calls, { cwd: directory })) {
    assert.deepEqual([code, stdout], [3, ''])
    assert.match(stderr, /landfall\.sock: landfall does not run there\.\nStart it with: landfall serve\n/)
  }
  const sent = await landfall(['send', 'github', '--event', 'ping'], { cwd: directory })
  assert.deepEqual([sent.code, sent.stdout], [3, ''])
  assert.match(sent.stderr, /nobody answers on 127\.0\.0\.1:\d+ .*\nStart it with: landfall serve/)
})

test('a socket that may not be used says which settings let a person in', {
  skip: process.getuid?.() !== 0 && 'needs root, to become somebody else',
}, async (t) => {
  const { directory } = await initialised(t)
  await startServe(t, [], { cwd: directory })
  chmodSync(directory, 0o755)
  const { execFile } = await import('node:child_process')
  const asNobody = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    const main = new URL('../src/main.ts', import.meta.url).pathname
    const options = { cwd: directory, uid: 65534, gid: 65534, env: { PATH: process.env['PATH'], HOME: directory } }
    execFile(process.execPath, [main, 'status'], options, (error, _, stderr) =>
      resolve({ code: error?.code ?? 0, stderr }),
    )
  })
  assert.equal(asNobody.code, 3, asNobody.stderr)
  assert.match(asNobody.stderr, /permission denied.*socket_mode = "0660" and socket_group/s)
})

test('what init writes is a working receiver: a signed push is accepted, and its script runs', async (t) => {
  const { directory, stdout } = await initialised(t)
  const { stdout: log } = await startServe(t, [], { cwd: directory })
  assert.match(log(), /"url":"https:\/\/hooks\.example\.org\/hooks\/github","msg":"hook"/)
  assert.match(log(), /"target":"site".*"msg":"target"/)

  const ping = await landfall(['send', 'github', '--event', 'ping'], { cwd: directory })
  assert.deepEqual([ping.code, ping.stdout], [0, '200 ping: delivery 1\n'])
  const push = await landfall(['send', 'github'], { cwd: directory })
  assert.equal(push.code, 0, push.stderr)
  assert.match(push.stdout, /^202 accepted: delivery 2\n {2}site {2}run \d+ .*landfall logs \d+ -f\n$/)
  // Run 1 is this push's, or that of the poll at the start.
  const logs = await landfall(['logs', '1', '-f'], { cwd: directory })
  assert.match(logs.stdout, /^acme\/site: main is at [0-9a-f]{40}\nbefore: nothing\nchanged:\n {2}file\.txt\n$/)
  assert.match(stdout, /Payload URL +https:\/\/hooks\.example\.org\/hooks\/github/)
})

test('send tells what became of a delivery, target by target, and is exit code 0 for every 2xx', async (t) => {
  const { directory, file } = await initialised(t)
  await startServe(t, [], { cwd: directory })
  const send = (...args: string[]) => landfall(['send', 'github', ...args], { cwd: directory })

  const other = await send('--ref', 'other', '--commit', COMMIT)
  assert.equal(other.code, 0)
  assert.match(other.stdout, /^200 ignored: delivery 1\n {2}site {2}ref: .+\n$/)
  const stranger = await send('--repo', 'acme/other', '--commit', COMMIT)
  assert.match(stranger.stdout, /^200 ignored: delivery 2\n {2}no-target: .+\n$/)

  writeFileSync(
    join(directory, 'payload.json'),
    JSON.stringify({
      ref: 'refs/heads/main',
      before: '0'.repeat(40),
      after: COMMIT,
      repository: { full_name: 'acme/site' },
    }),
  )
  const own = await send('payload.json')
  assert.deepEqual([own.code, own.stdout.split('\n')[0]], [0, '202 accepted: delivery 3'])
  writeFileSync(join(directory, 'payload.json'), '{"ref":')
  const broken = await send('payload.json')
  assert.equal(broken.code, 1)
  assert.match(broken.stdout, /^400 invalid: delivery 4\n/)

  writeFileSync(join(directory, '.env'), 'GITHUB_WEBHOOK_SECRET=another\n', { mode: 0o600 })
  const forged = await send('--commit', COMMIT)
  assert.equal(forged.code, 1)
  assert.match(forged.stdout, /^401 .*\nThe daemon has another secret/)
  writeFileSync(file, `${readFileSync(file, 'utf8')}\n[hook.gitlab]\nsecrets = ["a secret"]\n`)
  writeFileSync(file, readFileSync(file, 'utf8').replace('[target.site]', '[target.site]\nhook = "github"'))
  const unknown = await landfall(['send', 'gitlab', '--repo', 'acme/site', '--commit', COMMIT], { cwd: directory })
  assert.equal(unknown.code, 1)
  assert.match(unknown.stdout, /^404 .*\nThe daemon does not know this hook/)
})

test('send asks for --commit where the remote does not tell it, and names the hook that was meant', async (t) => {
  const { directory, origin } = await initialised(t)
  const gone = await landfall(['send', 'github', '--ref', 'nope'], { cwd: directory })
  assert.deepEqual(
    [gone.code, gone.stderr],
    [1, 'acme/site has no branch nope on the remote: say which commit to announce, with --commit\n'],
  )
  const misspelt = await landfall(['send', 'githb'], { cwd: directory })
  assert.deepEqual([misspelt.code, misspelt.stderr], [2, 'there is no hook githb; did you mean `github`?\n'])
  const wrong = await landfall(['send', 'github', '--commit', 'abc'], { cwd: directory })
  assert.equal(wrong.code, 2)
  assert.ok(!existsSync(join(directory, '.landfall')), 'data_dir is the daemon’s alone')
  assert.ok(origin.path.startsWith(directory))
})

test('init writes files that serve accepts whatever the umask, and only they hold the secret', async (t) => {
  const directory = temporaryDirectory(t)
  const umask = process.umask(0o002)
  const ended = landfall(['init', '--forge', 'gitlab', '--repo', 'Group/Sub/Site'], { cwd: directory })
  process.umask(umask)
  const { code, stdout, stderr } = await ended
  assert.deepEqual([code, stderr], [0, ''])
  const mode = (name: string) => (statSync(join(directory, name)).mode & 0o777).toString(8)
  assert.deepEqual(['.env', 'landfall.toml', 'per-repo-scripts/group/sub/site', 'per-repo-scripts/group'].map(mode), [
    '600',
    '644',
    '755',
    '755',
  ])
  const secret = /^GITLAB_WEBHOOK_SECRET=([0-9a-f]{64})$/m.exec(readFileSync(join(directory, '.env'), 'utf8'))?.[1]
  assert.ok(secret)
  assert.equal(stdout.split(secret).length, 2, 'printed once')
  assert.ok(!readFileSync(join(directory, 'landfall.toml'), 'utf8').includes(secret))
  assert.match(stdout, /public_url = "https:\/\/hooks\.example\.com"/, 'a placeholder is named')
  assert.doesNotMatch(stdout, /repo = "/, 'what was said is none')

  const checked = await landfall(['check'], { cwd: directory })
  assert.equal(checked.code, 0, checked.stderr)
  assert.match(checked.stdout, /publicly +https:\/\/hooks\.example\.com\/hooks\/gitlab/)
  assert.ok(!checked.stdout.includes(secret))
})

test('init overwrites nothing, says what stands in the way, and leaves no half of its work', async (t) => {
  for (const name of ['landfall.toml', '.env', 'per-repo-scripts/acme/site']) {
    const directory = temporaryDirectory(t)
    mkdirSync(join(directory, 'per-repo-scripts/acme'), { recursive: true })
    writeFileSync(join(directory, name), 'mine')
    const { code, stdout, stderr } = await landfall(['init'], { cwd: directory })
    assert.deepEqual([code, stdout], [1, ''])
    assert.ok(stderr.startsWith(`${join(directory, name)} is there already`), stderr)
    assert.equal(readFileSync(join(directory, name), 'utf8'), 'mine')
    const others = ['landfall.toml', '.env', 'per-repo-scripts/acme/site'].filter((other) => other !== name)
    assert.deepEqual(
      others.filter((other) => existsSync(join(directory, other))),
      [],
    )
  }
})

test('on a terminal init asks, asks again after nonsense, and makes a deploy key', async (t) => {
  const directory = temporaryDirectory(t)
  const { code, stdout } = await onTerminal(['init'], { cwd: directory }, [
    ['Forge (', 'gitbuh\r'],
    ['One of github, gitlab.', '\r'],
    ['Repository [', 'acme/Blog\r'],
    ['URL at which', 'https://hooks.example.org/\r'],
    ['deploy key', 'y\r'],
  ])
  assert.equal(code, 0, stdout)
  assert.match(stdout, /ssh-ed25519 AAAA\S+ landfall acme\/Blog/)
  assert.match(stdout, /https:\/\/github\.com\/acme\/Blog\/settings\/keys\/new/)
  assert.match(stdout, /ssh-keyscan -t ed25519 github\.com/)
  assert.match(stdout, /https:\/\/hooks\.example\.org\/hooks\/github/)
  assert.doesNotMatch(stdout, /PRIVATE KEY/)
  assert.equal(statSync(join(directory, 'deploy_key')).mode & 0o777, 0o600)
  assert.equal((await landfall(['check'], { cwd: directory })).code, 0)
})

test('on a terminal init writes nothing when the person leaves', async (t) => {
  const directory = temporaryDirectory(t)
  const { code, stdout } = await onTerminal(['init'], { cwd: directory }, [['Forge (', '\u0003']])
  assert.equal(code, 1)
  assert.match(stdout, /Nothing was written\./)
  assert.ok(!existsSync(join(directory, 'landfall.toml')))
})

test('check prints every mistake with its place, and is exit code 2', async (t) => {
  const { directory, file } = await initialised(t)
  writeFileSync(file, `${readFileSync(file, 'utf8')}brnches = "main"\npoll = "often"\n`)
  const { code, stdout, stderr } = await landfall(['check'], { cwd: directory })
  assert.deepEqual([code, stdout], [2, ''])
  assert.match(stderr, /^\S+landfall\.toml:\d+:1: target\.site\.brnches: unknown key; did you mean `branches`\?$/m)
  assert.match(stderr, /^\S+landfall\.toml:\d+:\d+: target\.site\.poll: .*"often"/m)
})

test('check says aloud what runs with which rights, what is not checked, and what would not start', async (t) => {
  const { directory, file } = await initialised(t)
  const user = `user = "${userInfo().username}"`
  const more = [
    `[target.own]\nrepo = "acme/own"\nrun = ["./deploy"]\n${user}`,
    `[target.blind]\nrepo = "acme/blind"\nscript = "missing.sh"\ncheckout = "none"\n${user}`,
    `[target.lost]\nrepo = "other/lost"\n${user}`,
  ]
  writeFileSync(file, `${readFileSync(file, 'utf8').replace(/public_url.*/, '')}${more.join('\n')}\n`)
  const { code, stdout, stderr } = await landfall(['check'], { cwd: directory })
  assert.deepEqual([code, stderr], [0, ''])
  for (const warning of [
    ...(process.getuid?.() === 0 ? [/site: user = "root"/] : []),
    /own: run: .* has landfall's own rights/,
    /blind: checkout = "none": /,
    /blind: .*missing\.sh does not exist/,
    /lost: no script for other\/lost: looked for/,
    /public_url is not set/,
  ]) {
    assert.match(stdout, new RegExp(`^warning: .*${warning.source}`, 'm'))
  }
  assert.match(stdout, /poll +off/, 'the default of checkout = "none"')
})

test('check warns of a hook that may not speak for a repository whose target names it', async (t) => {
  const { directory, file } = await initialised(t)
  const target = (name: string, repo: string, more = '') =>
    `[target.${name}]\nrepo = "${repo}"\nhook = "github"\nuser = "${userInfo().username}"\n${more}\n`
  const more = [
    target('other', 'other/site'),
    target('fitting', 'Acme/Docs'),
    target('pattern', 'other/*'),
    target('renamed', 'other/new', 'aliases = ["acme/new"]'),
  ]
  const text = readFileSync(file, 'utf8').replace(/^secrets = /m, `repos = ["acme/*"]\n$&`)
  writeFileSync(file, `${text}${more.join('\n')}`)
  const { code, stdout, stderr } = await landfall(['check'], { cwd: directory })
  assert.deepEqual([code, stderr], [0, ''])
  assert.match(
    stdout,
    /^warning: other: hook github may not speak for other\/site, so .*: repository-not-allowed; add it to its repos/m,
  )
  assert.equal(stdout.match(/may not speak for/g)?.length, 1, stdout)
})

test('check says which directories of links and trees are not there, and that only what runs need is missed', async (t) => {
  const { directory, file } = await initialised(t)
  const target = (name: string, ...lines: string[]) =>
    [`[target.${name}]`, 'repo = "acme/site"', `user = "${userInfo().username}"`, ...lines].join('\n')
  mkdirSync(join(directory, 'live'))
  const more = [
    target('link', 'current = "srv/link"'),
    target('tree', 'path = "srv/deep/tree"'),
    target('there', 'current = "live/link"'),
    target('made', 'path = "live/tree"'),
    target('many', 'branches = "*"', 'current = "previews/{branch}"'),
    target('deep', 'branches = ["main", "x-*"]', 'current = "deep/{branch}/link"'),
  ]
  writeFileSync(file, `${readFileSync(file, 'utf8')}${more.join('\n')}\n`)
  const { code, stdout, stderr } = await landfall(['check'], { cwd: directory })
  assert.deepEqual([code, stderr], [0, ''])
  const missing = (path: string) =>
    `${join(directory, path)} is not there, and landfall does not make it: its runs would end`
  for (const warning of [
    `link: current: ${missing('srv')} unstartable; run: mkdir -p ${join(directory, 'srv')}`,
    `tree: path: ${missing('srv/deep')}`,
    `many: current: ${missing('previews')}`,
    `deep: current: ${missing('deep/main')}`,
    `deep: current: landfall does not make ${join(directory, 'deep/{branch}')}: runs of a branch`,
  ]) {
    assert.ok(stdout.includes(`warning: ${warning}`), `${warning}\n${stdout}`)
  }
  assert.doesNotMatch(stdout, /there: current|made: path/)
})

test('check without a hook says that pushes are found by polling alone', async (t) => {
  const directory = temporaryDirectory(t)
  writeFileSync(
    join(directory, 'landfall.toml'),
    `[target.site]\nrepo = "acme/site"\nurl = "/srv/site.git"\nuser = "${userInfo().username}"\n`,
  )
  const { code, stdout } = await landfall(['check'], { cwd: directory })
  assert.equal(code, 0)
  assert.match(stdout, /warning: there is no hook: pushes are found by polling alone/)
})

test('serve on a port in use, or with a data_dir that is no directory, is one clear line and exit code 1', async (t) => {
  const { directory, port, file } = await initialised(t)
  const server = createServer().listen(port, '127.0.0.1')
  await until('the port', () => server.listening)
  const taken = await landfall(['serve'], { cwd: directory })
  assert.deepEqual(
    [taken.code, taken.stderr],
    [1, `Cannot listen on 127.0.0.1:${port}: another process listens there. Stop it, or change \`listen\`.\n`],
  )
  server.close()
  writeFileSync(file, `data_dir = "landfall.toml"\n${readFileSync(file, 'utf8')}`)
  const blocked = await landfall(['serve'], { cwd: directory })
  assert.equal(blocked.code, 1)
  assert.match(blocked.stderr, /^data_dir \S+ cannot be used: .*\n$/)
})

test('serve ends with 0 on SIGINT as on SIGTERM, and a second one ends it at once', async (t) => {
  const { directory, file } = await initialised(t)
  const written = readFileSync(file, 'utf8')
  // What the first one deployed, if it came so far, the second one would not run.
  writeFileSync(file, `${written}poll = "off"\n`)
  const polite = await startServe(t, [], { cwd: directory })
  polite.child.kill('SIGINT')
  assert.equal((await polite.ended).code, 0)

  writeFileSync(file, `drain = "wait"\n${written}`)
  const script = join(directory, 'per-repo-scripts/acme/site')
  writeFileSync(script, '#!/bin/sh\necho here; sleep 600\n')
  const stubborn = await startServe(t, [], { cwd: directory })
  const run = await until(
    'the run',
    async () => /^(\d+)\tsite\t.*\trunning\t/m.exec((await landfall(['runs'], { cwd: directory })).stdout)?.[1],
  )
  await until('its script', async () => (await landfall(['logs', run], { cwd: directory })).stdout === 'here\n')
  stubborn.child.kill('SIGINT')
  await until('the stop', () => stubborn.stdout().includes('"stopping"'))
  stubborn.child.kill('SIGINT')
  assert.equal((await stubborn.ended).code, 1)
  writeFileSync(script, '#!/bin/sh\n')
  assert.equal((await landfall(['once'], { cwd: directory })).code, 0, 'the next one finds and ends what was left')
})

test('no verb prints the secret, with LANDFALL_LOG_LEVEL=trace or without', async (t) => {
  const { directory, secret } = await initialised(t)
  const called = { cwd: directory, env: { LANDFALL_LOG_LEVEL: 'trace' } }
  const daemon = start(['serve'], called)
  t.after(() => daemon.child.kill('SIGKILL'))
  await until('a daemon that listens', () => daemon.stdout().includes('"listening"'))
  const calls = [
    ['check'],
    ['send', 'github'],
    ['once', '-v'],
    ['status'],
    ['status', 'site', '--json'],
    ['deliveries', '--json'],
  ]
  const ends = await Promise.all(calls.map((args) => landfall(args, called)))
  daemon.child.kill('SIGTERM')
  for (const { stdout, stderr } of [...ends, await daemon.ended]) assert.ok(!`${stdout}${stderr}`.includes(secret))
})
