import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { redact, withoutCredentials } from '../src/git/git.ts'
import { GIT_ENV, git, sha } from './support/git.ts'
import { type Bench, createBench, originIn, program } from './support/mirrors.ts'
import { until } from './support/until.ts'

const SSH_URL = 'ssh://git@forge.example:2222/acme/site.git'

/** The processes, zombies aside, whose environment holds `entry`. */
function carrying(entry: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && `\0${readFileSync(`/proc/${pid}/environ`, 'latin1')}`.includes(`\0${entry}\0`)
    } catch {
      return false
    }
  })
}

/** An ssh that never answers, ignores TERM, and has a child without any environment. */
function hangingSsh(bench: Bench): string {
  const there = join(bench.directory, 'ssh-hangs')
  program(
    bench.bin,
    'ssh',
    `trap '' TERM\nenv -i sleep 600 & echo $! > '${there}.new'\nmv '${there}.new' '${there}'\nwait\nwait`,
  )
  return there
}

test('once it is aborted git ends together with everything that it started', async (t) => {
  const bench = createBench(t)
  const there = hangingSsh(bench)
  const mark = `landfall-test-${process.pid}-abort`
  const abort = new AbortController()
  const fetching = bench.fetch(bench.remote(SSH_URL), { env: { LANDFALL_RUN: mark } }, abort.signal)
  const rejected = assert.rejects(fetching, (error) => hasCode(error, 'aborted'))
  await until('the hanging ssh', () => existsSync(there))
  assert.ok(carrying(`LANDFALL_RUN=${mark}`).length >= 2, 'the marker reaches what git starts')
  const bare = readFileSync(there, 'utf8').trim()
  abort.abort()
  await rejected
  assert.deepEqual(carrying(`LANDFALL_RUN=${mark}`), [])
  await until('the end of the child without environment', () => isGone(bare))
})

test('past its time limit git ends together with everything that it started', async (t) => {
  const bench = createBench(t)
  const there = hangingSsh(bench)
  // A longer one where it was over before the ssh hung: nothing was seen to end then.
  for (const timeoutMs of [1_500, 6_000, 24_000, 96_000]) {
    const mark = `landfall-test-${process.pid}-${timeoutMs}`
    let isOver = false
    const fetching = bench.fetch(bench.remote(SSH_URL), { env: { LANDFALL_RUN: mark }, timeoutMs })
    const rejected = assert
      .rejects(fetching, (error) => {
        return hasCode(error, 'remote') && error.message.includes(`took longer than ${timeoutMs / 1000} s`)
      })
      .finally(() => {
        isOver = true
      })
    await until('the hanging ssh, or the end', () => existsSync(there) || isOver, 120_000)
    const bare = existsSync(there) ? readFileSync(there, 'utf8').trim() : null
    await rejected
    assert.deepEqual(carrying(`LANDFALL_RUN=${mark}`), [])
    if (bare === null) continue
    await until('the end of the child without environment', () => isGone(bare))
    return
  }
  assert.fail('ssh was never started')
})

function isGone(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.startsWith('Z') === true
  } catch {
    return true
  }
}

test('an operation that was aborted before it began starts no git', async (t) => {
  const bench = createBench(t)
  await assert.rejects(bench.fetch(bench.remote('/x'), {}, AbortSignal.abort()), (error) => hasCode(error, 'aborted'))
  assert.deepEqual(bench.started(), [])
})

test('git gets a small environment, the markers of the run, and what is passed on by name', async (t) => {
  const passed = { SSH_AUTH_SOCK: '/agent', https_proxy: 'http://proxy', GIT_SSL_CAINFO: '/ca' }
  const ambient = { GITHUB_WEBHOOK_SECRET: 's3cret', GIT_SSH_COMMAND: 'evil', GIT_ASKPASS: 'evil', GIT_DIR: '/evil' }
  const bench = createBench(t, { ...passed, ...ambient })
  program(bench.bin, 'ssh', `env > '${bench.directory}/env'; exit 1`)
  const fetching = bench.fetch(bench.remote(SSH_URL), { env: { LANDFALL_RUN: '7', LANDFALL_DATA: '/data' } })
  await assert.rejects(fetching, (error) => hasCode(error, 'remote'))
  const seen = readFileSync(join(bench.directory, 'env'), 'utf8')
  for (const [name, value] of Object.entries({ ...passed, LANDFALL_RUN: '7', LANDFALL_DATA: '/data' })) {
    assert.match(seen, new RegExp(`^${name}=${value}$`, 'm'))
  }
  assert.match(seen, /^GIT_TERMINAL_PROMPT=0$/m)
  assert.match(seen, /^GIT_ALLOW_PROTOCOL=https:http:ssh:git$/m)
  assert.doesNotMatch(seen, /s3cret|evil/)
})

test('ssh asks nothing, trusts no unknown host, and takes key and known hosts from paths with blanks and quotes', async (t) => {
  const bench = createBench(t)
  program(bench.bin, 'ssh', `printf '%s\\n' "$@" > '${bench.directory}/arguments'; exit 1`)
  const remote = bench.remote(SSH_URL, { sshKeyFile: `/k e'y%$(x)`, knownHostsFile: '/known hosts' })
  await assert.rejects(bench.fetch(remote), (error) => hasCode(error, 'remote'))
  const options = readFileSync(join(bench.directory, 'arguments'), 'utf8')
    .split('\n')
    .filter((line) => line.includes('='))
  assert.deepEqual(options, [
    'BatchMode=yes',
    'StrictHostKeyChecking=yes',
    'ConnectTimeout=10',
    'ServerAliveInterval=15',
    'ServerAliveCountMax=3',
    'IdentitiesOnly=yes',
    `IdentityFile="/k e'y%%$(x)"`,
    'UserKnownHostsFile="/known hosts"',
    'SendEnv=GIT_PROTOCOL', // the last is git's own
  ])
})

test('an unknown host key is an error that prints the ssh-keyscan line', async (t) => {
  const bench = createBench(t)
  const refusal = (host: string) =>
    program(
      bench.bin,
      'ssh',
      `echo 'No ED25519 host key is known for ${host} and you have requested strict checking.' >&2\n` +
        'echo "Host key verification failed." >&2; exit 255',
    )
  const rows = [
    [SSH_URL, '[forge.example]:2222', '/etc/known', 'ssh-keyscan -p 2222 forge.example >> /etc/known'],
    ['git@forge.example:a/b', 'forge.example', null, `ssh-keyscan forge.example >> ${bench.home}/.ssh/known_hosts`],
    ['git@forge.example:a/b', 'forge.example', '/my hosts', "ssh-keyscan forge.example >> '/my hosts'"],
  ] as const
  for (const [url, host, knownHostsFile, line] of rows) {
    refusal(host)
    const says = (error: unknown) => hasCode(error, 'remote') && error.message.includes(line)
    await assert.rejects(bench.fetch(bench.remote(url, { knownHostsFile })), says, line)
  }
})

test('a remote that cannot be had is an error of the remote, in git’s own words and without credentials', async (t) => {
  const bench = createBench(t)
  const rows: [url: string, says: RegExp][] = [
    [join(bench.directory, 'none.git'), /does not appear to be a git repository/],
    ['http://ada:s3cret@127.0.0.1:1/a/b.git', /127\.0\.0\.1.*(?:connect|refused)/i],
    ['http://s3cret@127.0.0.1:1/a/b.git', /127\.0\.0\.1/],
    ['git://127.0.0.1:1/a', /unable to connect/],
    [`ext::sh -c 'touch ${bench.directory}/proof'`, /transport 'ext' not allowed/],
  ]
  for (const [url, says] of rows) {
    await assert.rejects(
      bench.fetch(bench.remote(url)),
      (error) => hasCode(error, 'remote') && says.test(error.message) && !/s3cret/.test(error.message),
      url,
    )
  }
  assert.equal(existsSync(join(bench.directory, 'proof')), false)
})

test('a git that cannot be started is said so', async (t) => {
  const bench = createBench(t, { PATH: '/nonexistent' })
  const started = (error: unknown) => hasCode(error, 'git') && /could not be started/.test(error.message)
  await assert.rejects(bench.fetch(bench.remote('/x')), started)
})

test('a git that is killed is no success', async (t) => {
  const bench = createBench(t)
  program(bench.bin, 'git', 'kill -9 $$')
  await assert.rejects(
    bench.fetch(bench.remote('/x')),
    (error) => hasCode(error, 'git') && /signal/.test(error.message),
  )
})

test('credentials in URLs are blotted out, ssh user names are not', () => {
  assert.equal(redact('at https://ada:p@ss@host/x and http://tok@h/'), 'at https://***@host/x and http://***@h/')
  assert.equal(redact('ssh://git@host/x ssh://u:p@host'), 'ssh://git@host/x ssh://***@host')
  assert.equal(withoutCredentials('https://tok@host/x'), 'https://host/x')
  assert.equal(withoutCredentials('git@host:x'), 'git@host:x')
})

interface Served {
  readonly url: string
  /** `Authorization` headers, decoded; null for a request without. */
  readonly authorizations: (string | null)[]
}

/** git's own HTTP server program behind Basic authentication; `redirectTo` answers everything with a redirect instead. */
async function serve(t: TestContext, directory: string, password: string, redirectTo?: string): Promise<Served> {
  const authorizations: (string | null)[] = []
  const server = createServer((request, response) => {
    const [, encoded = ''] = request.headers.authorization?.split(' ') ?? []
    authorizations.push(encoded ? Buffer.from(encoded, 'base64').toString() : null)
    if (redirectTo) return void response.writeHead(302, { location: `${redirectTo}${request.url}` }).end()
    if (authorizations.at(-1) !== `x-token:${password}`) {
      return void response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end()
    }
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://x')
    const backend = spawn('git', ['http-backend'], {
      env: {
        ...GIT_ENV,
        GIT_PROJECT_ROOT: directory,
        GIT_HTTP_EXPORT_ALL: '1',
        PATH_INFO: pathname,
        QUERY_STRING: String(searchParams),
        REQUEST_METHOD: request.method,
        CONTENT_TYPE: request.headers['content-type'],
        HTTP_CONTENT_ENCODING: request.headers['content-encoding'],
        GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      },
    })
    request.pipe(backend.stdin)
    const chunks: Buffer[] = []
    backend.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    backend.on('close', () => {
      const answer = Buffer.concat(chunks)
      const end = answer.indexOf('\r\n\r\n')
      for (const line of answer.subarray(0, end).toString().split('\r\n')) {
        const [name = '', value = ''] = line.split(': ')
        if (name === 'Status') response.statusCode = Number(value.split(' ')[0])
        else response.setHeader(name, value)
      }
      response.end(answer.subarray(end + 4))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close().closeAllConnections())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, authorizations }
}

test('a token comes from the credentials file alone, goes to its own host alone, and is in no argument', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const forge = await serve(t, join(bench.directory, 'forge'), 't0ken')
  const stranger = await serve(t, join(bench.directory, 'forge'), 't0ken')
  const proof = join(bench.directory, 'proof')
  program(bench.bin, 'ask', `touch '${proof}'`)
  mkdirSync(join(bench.directory, "it's here"))
  const credentialsFile = join(bench.directory, "it's here", 'credentials')
  writeFileSync(credentialsFile, `${forge.url.replace('//', '//x-token:t0ken@')}\n`)
  writeFileSync(
    join(bench.home, '.gitconfig'),
    `[credential]\n\thelper = "!touch ${proof};:"\n[core]\n\taskPass = ${join(bench.bin, 'ask')}\n`,
  )

  const remote = bench.remote(`${forge.url}/origin.git`, { credentialsFile })
  bench.started()
  const { tip } = await bench.fetch(remote)
  assert.equal(tip, sha(await git(origin.path, 'rev-parse', 'main')))
  assert.ok(forge.authorizations.includes('x-token:t0ken'))
  assert.ok(bench.started().every((line) => !line.includes('t0ken')))

  const refused = (error: unknown) =>
    hasCode(error, 'remote') && /could not read Username|terminal prompts/.test(error.message)
  await assert.rejects(bench.fetch(bench.remote(`${stranger.url}/origin.git`, { credentialsFile })), refused)
  const redirecting = await serve(t, bench.directory, '', stranger.url)
  writeFileSync(credentialsFile, `${redirecting.url.replace('//', '//x-token:t0ken@')}\n`)
  await assert.rejects(bench.fetch(bench.remote(`${redirecting.url}/origin.git`, { credentialsFile })), refused)
  assert.deepEqual([...new Set([...stranger.authorizations, ...redirecting.authorizations])], [null])
  assert.equal(existsSync(proof), false, 'the user’s own helpers and askPass were not asked')
})

test('a token that is refused stays in the credentials file, for it may be valid again', async (t) => {
  const bench = createBench(t)
  await originIn(bench)
  const forge = await serve(t, join(bench.directory, 'forge'), 'other')
  const credentialsFile = join(bench.directory, 'credentials')
  const line = `${forge.url.replace('//', '//x-token:t0ken@')}\n`
  writeFileSync(credentialsFile, line)
  const fetching = bench.fetch(bench.remote(`${forge.url}/origin.git`, { credentialsFile }))
  await assert.rejects(fetching, (error) => hasCode(error, 'remote') && /Authentication failed/.test(error.message))
  assert.equal(readFileSync(credentialsFile, 'utf8'), line)
})
