/** The examples that need a server: nginx in front of `current`, and another host to copy to. Both are real. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { freePort } from './support/cli.ts'
import { assertEnd, SYSTEM_PATH, type Trial, tryExample, without } from './support/examples.ts'
import { until } from './support/until.ts'

// --- nginx --------------------------------------------------------------------------------------------------------

const makefile = (page: string) => `all:\n\tmkdir -p public\n\techo '${page}' > public/index.html\n`

test('a push is what nginx serves next, and not one request fails on the way', {
  skip: without('nginx'),
}, async (t) => {
  const { trial, url } = await tryNginx(t)
  const redirect = (to: string) => `location = /old { return 302 http://127.0.0.1/${to}; }\n`
  await assertEnd(trial, await trial.push({ Makefile: makefile('one'), 'nginx.conf': redirect('one') }), 'succeeded')
  assert.deepEqual(await visit(url), { status: 200, body: 'one\n', location: undefined })

  const visitor = keepVisiting(t, url)
  await until('the first visit', () => visitor.seen.length > 0)
  await assertEnd(trial, await trial.push({ Makefile: makefile('two'), 'nginx.conf': redirect('two') }), 'succeeded')
  assert.equal((await visit(url)).body, 'two\n')
  await until('the configuration of the new commit', async () => {
    return (await visit(`${url}old`)).location === 'http://127.0.0.1/two'
  })
  await assertEnd(trial, await trial.again(), 'succeeded')
  await until('a visit of the new page', () => visitor.seen.at(-1) === '200 two\n')
  const visits = await visitor.stop()
  assert.deepEqual([...new Set(visits)], ['200 one\n', '200 two\n'])
})

test('a commit that nginx cannot be configured with does not stay: the page before is served again', {
  skip: without('nginx'),
}, async (t) => {
  const { trial, url } = await tryNginx(t)
  await assertEnd(trial, await trial.push({ Makefile: makefile('one') }), 'succeeded')
  const visitor = keepVisiting(t, url)
  const broken = await trial.push({ Makefile: makefile('two'), 'nginx.conf': 'no_such_directive on;\n' })
  await assertEnd(trial, broken, 'failed', 'activate')
  assert.match(await trial.log(broken), /unknown directive "no_such_directive"/)
  assert.equal((await visit(url)).body, 'one\n')
  assert.ok((await visitor.stop()).every((seen) => seen.startsWith('200 ')))
})

/** A real nginx whose workers are another account than ours where we are root, as on a server. */
async function tryNginx(t: TestContext): Promise<{ readonly trial: Trial; readonly url: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'landfall-nginx-'))
  const conf = join(directory, 'nginx.conf')
  const nginx = ['nginx', '-p', directory, '-c', conf, '-e', join(directory, 'error.log')]
  const trial = await tryExample(t, {
    script: 'static-site.sh',
    settings: ['current = "$CURRENT"', 'activate = "examples/nginx-reload.sh"'],
    // Debian's nginx with our configuration in the place of the machine's; and where we are not root, it needs no root.
    programs: { nginx: [`PATH='${SYSTEM_PATH}' exec ${nginx.join(' ')} "$@"`], sudo: ['shift; exec "$@"'] },
  })
  const port = await freePort()
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(
    conf,
    `${process.geteuid?.() === 0 ? 'user www-data;' : ''}
worker_processes 2;
pid ${directory}/nginx.pid;
events {}
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${directory}/${name};`).join('\n  ')}
  server {
    listen 127.0.0.1:${port};
    root ${trial.current}/public;
    include ${trial.current}/nginx.conf*;
  }
}
`,
  )
  const [program = '', ...args] = nginx
  const child = spawn(program, [...args, '-g', 'daemon off;'], { env: { PATH: SYSTEM_PATH }, stdio: 'ignore' })
  t.after(async () => {
    await ended(child)
    rmSync(directory, { recursive: true, force: true })
  })
  await listening(child, port, () => readFileSync(join(directory, 'error.log'), 'utf8'))
  return { trial, url: `http://127.0.0.1:${port}/` }
}

interface Visit {
  readonly status: number | undefined
  readonly body: string
  readonly location: string | undefined
}

/** One request over a connection of its own. */
async function visit(url: string): Promise<Visit> {
  const [answer] = (await once(get(url, { agent: false }), 'response')) as [IncomingMessage]
  const body = (await answer.setEncoding('utf8').toArray()).join('')
  return { status: answer.statusCode, body, location: answer.headers.location }
}

/** One request after the other until it is stopped; resolves to what each of them saw. */
function keepVisiting(
  t: TestContext,
  url: string,
): { readonly seen: readonly string[]; stop(): Promise<readonly string[]> } {
  const seen: string[] = []
  let goesOn = true
  t.after(() => {
    goesOn = false
  })
  const visits = (async () => {
    while (goesOn) {
      const { status, body } = await visit(url).catch((error: Error) => ({ status: error.message, body: '' }))
      seen.push(`${status} ${body}`)
    }
  })()
  return {
    seen,
    async stop() {
      goesOn = false
      await visits
      return seen
    },
  }
}

// --- rsync over ssh -----------------------------------------------------------------------------------------------

test('another host has what the commit has, and nothing that it no longer has', {
  skip: without('rsync', 'openssh-server'),
}, async (t) => {
  const { trial, there, filesThere } = await tryRsync(t)
  writeFileSync(join(there, 'stray.html'), 'from another time\n')
  const pages = { 'public/a.html': 'one\n', 'public/b.html': 'bee\n', 'public/same.html': 'the same\n' }
  await assertEnd(trial, await trial.push(pages), 'succeeded')
  assert.deepEqual(filesThere(), { 'a.html': 'one\n', 'b.html': 'bee\n', 'same.html': 'the same\n' })
  const second = await trial.push({ 'public/a.html': 'two\n', 'public/b.html': null })
  await assertEnd(trial, second, 'succeeded')
  assert.deepEqual(filesThere(), { 'a.html': 'two\n', 'same.html': 'the same\n' })
  const sent = [...(await trial.log(second)).matchAll(/^<f\S* (.*)/gm)].map(([, name]) => name)
  assert.deepEqual(sent, ['a.html'], 'what has not changed is not sent, although its checkout is new')
  await assertEnd(trial, await trial.again(), 'succeeded')

  const empty = await trial.push({ 'public/a.html': null, 'public/same.html': null, 'public/.gitkeep': '' })
  await assertEnd(trial, empty, 'failed')
  assert.match(await trial.log(empty), /is empty/)
  assert.deepEqual(filesThere(), { 'a.html': 'two\n', 'same.html': 'the same\n' })
})

test('a host that is down gets the commit later, and one with another key gets nothing', {
  skip: without('rsync', 'openssh-server'),
}, async (t) => {
  const { trial, filesThere, host } = await tryRsync(t)
  await assertEnd(trial, await trial.push({ 'public/a.html': 'one\n' }), 'succeeded')
  await host.down()
  const missed = await trial.push({ 'public/a.html': 'two\n' })
  await assertEnd(trial, missed, 'failed', 'tempfail')
  assert.match(await trial.log(missed), /Connection refused.*trying again later/s)
  assert.deepEqual(filesThere(), { 'a.html': 'one\n' })

  await host.up('another')
  const distrusted = await trial.push({ 'public/a.html': 'three\n' })
  await assertEnd(trial, distrusted, 'failed', 'tempfail')
  assert.match(await trial.log(distrusted), /Host key verification failed/)
  await host.down()

  await host.up('own')
  await assertEnd(trial, await trial.push({ 'public/a.html': 'four\n' }), 'succeeded')
  assert.deepEqual(filesThere(), { 'a.html': 'four\n' })
})

async function tryRsync(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'landfall-sshd-'))
  const host = await createHost(t, directory)
  await host.up('own')
  const there = join(directory, 'site')
  mkdirSync(there)
  const trial = await tryExample(t, {
    script: 'rsync.sh',
    env: {
      RSYNC_FROM: 'public/',
      RSYNC_TO: `${userInfo().username}@127.0.0.1:${there}/`,
      RSYNC_RSH: `ssh -F none -p ${host.port} -i ${directory}/client -o IdentitiesOnly=yes -o UserKnownHostsFile=${directory}/known_hosts`,
    },
  })
  const filesThere = () =>
    Object.fromEntries(readdirSync(there).map((name) => [name, readFileSync(join(there, name), 'utf8')]))
  return { trial, there, filesThere, host }
}

/** A real sshd on loopback, which lets the account in that runs the test, with a key of its own. */
async function createHost(t: TestContext, directory: string) {
  for (const key of ['client', 'own', 'another']) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', join(directory, key)])
  }
  const port = await freePort()
  const publicKey = (name: string) => readFileSync(join(directory, `${name}.pub`), 'utf8')
  writeFileSync(join(directory, 'authorized_keys'), publicKey('client'), { mode: 0o600 })
  writeFileSync(join(directory, 'known_hosts'), `[127.0.0.1]:${port} ${publicKey('own')}`)
  separatePrivileges()
  let sshd: ChildProcess | null = null
  t.after(async () => {
    if (sshd !== null) await ended(sshd)
    rmSync(directory, { recursive: true, force: true })
  })
  return {
    port,
    async up(key: 'own' | 'another') {
      const options = {
        ListenAddress: `127.0.0.1:${port}`,
        HostKey: join(directory, key),
        AuthorizedKeysFile: join(directory, 'authorized_keys'),
        PidFile: 'none',
        // The directories above the temporary one are everybody's.
        StrictModes: 'no',
        UsePAM: 'no',
        PasswordAuthentication: 'no',
        PermitRootLogin: 'prohibit-password',
      }
      const words = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`])
      // An absolute path: sshd starts itself anew for each connection.
      const file = execFileSync('sh', ['-c', 'command -v sshd'], {
        env: { PATH: SYSTEM_PATH },
        encoding: 'utf8',
      }).trim()
      const log = join(directory, 'sshd.log')
      sshd = spawn(file, ['-D', '-f', '/dev/null', '-E', log, ...words], { stdio: 'ignore' })
      await listening(sshd, port, () => readFileSync(log, 'utf8'))
    },
    async down() {
      if (sshd !== null) await ended(sshd)
    },
  }
}

/** As Debian's service does before the start: sshd of root wants an empty directory there. */
function separatePrivileges(): void {
  if (process.geteuid?.() !== 0 || existsSync('/run/sshd')) return
  mkdirSync('/run/sshd')
  chmodSync('/run/sshd', 0o755)
}

// --- Any server ---------------------------------------------------------------------------------------------------

async function listening(child: ChildProcess, port: number, log: () => string): Promise<void> {
  await until(`a server on port ${port}`, async () => {
    if (child.exitCode !== null) throw new Error(`it ended:\n${log()}`)
    const socket = connect(port, '127.0.0.1')
    const isThere = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'close').then(() => false),
    ]).catch(() => false)
    socket.destroy()
    return isThere
  })
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}
