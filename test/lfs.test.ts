import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import type { Sha } from '../src/model.ts'
import { git, type Origin } from './support/git.ts'
import { commitPointer, createAuthority, type GitServer, missing, startGitServer } from './support/git-server.ts'
import { type Bench, createBench, originIn, program } from './support/mirrors.ts'

const skip = missing(['openssl', 'version'], ['git', 'lfs', 'version'])
const TOKEN = 'oauth2:s3cret-token'
/** As `git lfs install` writes it, which Debian's package does for the whole system. */
const USERS_FILTER =
  '[filter "lfs"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\tprocess = git-lfs filter-process\n\trequired = true\n'

interface LfsForge {
  readonly bench: Bench
  readonly origin: Origin
  readonly server: GitServer
  /** The credentials file of the token, for the server by the name that `remote` has it under. */
  readonly credentialsFile: string
  /** A commit with `big.bin` in LFS, and `files`. */
  commit(content: Buffer, files?: Readonly<Record<string, string>>): Promise<Sha>
}

async function createLfsForge(t: TestContext): Promise<LfsForge> {
  const directory = createBench(t).directory
  const authority = createAuthority(directory)
  const bench = createBench(t, { GIT_SSL_CAINFO: authority.certificateFile })
  const origin = await originIn(bench)
  const root = join(bench.directory, 'forge')
  const server = await startGitServer(t, { authority, root, credentials: TOKEN })
  const credentialsFile = join(bench.directory, 'credentials')
  writeFileSync(credentialsFile, `https://${TOKEN}@localhost:${server.port}\n`)
  mkdirSync(join(root, 'lfs'))
  return {
    bench,
    origin,
    server,
    credentialsFile,
    async commit(content, files = {}) {
      const oid = createHash('sha256').update(content).digest('hex')
      writeFileSync(join(root, 'lfs', oid), content)
      return await commitPointer(origin, oid, content.length, files)
    },
  }
}

test('a file in LFS is fetched from the remote’s own server, once for all releases', { skip }, async (t) => {
  const { bench, server, credentialsFile, commit } = await createLfsForge(t)
  const content = randomBytes(50_000)
  const first = await commit(content)
  const remote = bench.remote(server.url('origin.git'), { credentialsFile })
  await bench.fetch(remote)
  const release = await bench.checkOut(remote, first, { lfs: true })
  assert.ok(readFileSync(join(release, 'big.bin')).equals(content))
  assert.equal(await git(release, 'status', '--porcelain'), '', 'whoever runs git there sees no change')
  assert.ok(server.asked.some(({ path }) => path === '/origin.git/info/lfs/objects/batch'))

  const second = await commit(content, { 'other.txt': 'x' })
  await bench.fetch(remote)
  const before = server.asked.length
  const next = await bench.checkOut(remote, second, { lfs: true })
  assert.ok(readFileSync(join(next, 'big.bin')).equals(content))
  assert.deepEqual(
    server.asked.slice(before).filter(({ path }) => path.startsWith('/lfs-object/')),
    [],
  )
})

test('without lfs a pointer stays a pointer, and nobody is asked, whatever the user’s git and the repository say', {
  skip,
}, async (t) => {
  const { bench, server, credentialsFile, commit } = await createLfsForge(t)
  writeFileSync(join(bench.home, '.gitconfig'), USERS_FILTER)
  const lfsconfig = `[lfs]\n\turl = ${server.url('elsewhere')}\n`
  const tip = await commit(randomBytes(1000), { '.lfsconfig': lfsconfig })
  const remote = bench.remote(server.url('origin.git'), { credentialsFile })
  await bench.fetch(remote)
  const before = server.asked.length
  const release = await bench.checkOut(remote, tip)
  assert.match(readFileSync(join(release, 'big.bin'), 'utf8'), /^version https:\/\/git-lfs/)
  assert.deepEqual(server.asked.slice(before), [])
})

test('what .lfsconfig names is never asked, nor may it turn errors into pointers', { skip }, async (t) => {
  const { bench, server, credentialsFile, commit } = await createLfsForge(t)
  const elsewhere = server.url('elsewhere', '127.0.0.1')
  const lfsconfig = [
    `[lfs]\n\turl = ${elsewhere}\n\tpushurl = ${elsewhere}\n\tskipdownloaderrors = true`,
    `\tstorage = ${bench.directory}/proof\n\tstandalonetransferagent = evil\n\tgitprotocol = http`,
    `[lfs "customtransfer.evil"]\n\tpath = touch\n\targs = ${bench.directory}/proof`,
    `[remote "origin"]\n\tlfsurl = ${elsewhere}\n\turl = ${elsewhere}\n`,
  ].join('\n')
  const content = randomBytes(1000)
  const tip = await commit(content, { '.lfsconfig': lfsconfig })
  const remote = bench.remote(server.url('origin.git'), { credentialsFile })
  await bench.fetch(remote)
  const release = await bench.checkOut(remote, tip, { lfs: true })
  assert.ok(readFileSync(join(release, 'big.bin')).equals(content))
  assert.deepEqual(
    server.asked.filter(({ path }) => path.includes('elsewhere')),
    [],
  )
  assert.equal(existsSync(join(bench.directory, 'proof')), false)

  const lost = randomBytes(1000)
  const second = await commit(lost, { '.lfsconfig': lfsconfig })
  rmSync(join(bench.directory, 'forge/lfs', createHash('sha256').update(lost).digest('hex')))
  await bench.fetch(remote)
  await assert.rejects(
    bench.checkOut(remote, second, { lfs: true }),
    (error) => hasCode(error, 'remote') && /git lfs/.test(error.message) && !/s3cret/.test(error.message),
  )
})

test('LFS of a remote that is a directory is copied from there', { skip }, async (t) => {
  const { bench, origin, commit } = await createLfsForge(t)
  const content = randomBytes(1000)
  const tip = await commit(content)
  const oid = createHash('sha256').update(content).digest('hex')
  const objects = join(origin.path, 'lfs/objects', oid.slice(0, 2), oid.slice(2, 4))
  cpSync(join(bench.directory, 'forge/lfs', oid), join(objects, oid))
  const remote = bench.remote(origin.path)
  await bench.fetch(remote)
  const release = await bench.checkOut(remote, tip, { lfs: true })
  assert.ok(readFileSync(join(release, 'big.bin')).equals(content))
})

test('over ssh the server says where its files are, and .lfsconfig does not', { skip }, async (t) => {
  const { bench, origin, server, commit } = await createLfsForge(t)
  const content = randomBytes(1000)
  const tip = await commit(content, { '.lfsconfig': `[lfs]\n\turl = ${server.url('elsewhere', '127.0.0.1')}\n` })
  const authorization = `Basic ${Buffer.from(TOKEN).toString('base64')}`
  const told = JSON.stringify({ href: server.url('origin.git/info/lfs'), header: { Authorization: authorization } })
  const cases = [
    `*"git-lfs-authenticate "*acme/site.git*download*) echo '${told}';;`,
    `*git-upload-pack*) exec git-upload-pack '${origin.path}';;`,
  ]
  program(bench.bin, 'ssh', `case "$*" in ${cases.join('\n')}\n*) exit 255;; esac`)
  for (const url of ['git@forge.example:acme/site.git', 'ssh://git@forge.example:2222/acme/site.git']) {
    const remote = bench.remote(url, { mirror: join(bench.directory, 'mirrors', url.slice(0, 3)) })
    await bench.fetch(remote)
    const directory = join(bench.directory, 'releases', url.slice(0, 3))
    await bench.checkOut(remote, tip, { lfs: true, directory })
    assert.ok(readFileSync(join(directory, 'big.bin')).equals(content))
  }
  assert.deepEqual(
    server.asked.filter(({ path }) => path.includes('elsewhere')),
    [],
  )
})

test('lfs without git-lfs installed names the package', async (t) => {
  const bench = createBench(t)
  const origin = await originIn(bench)
  const remote = bench.remote(origin.path)
  const { tip } = await bench.fetch(remote)
  assert.ok(tip)
  const real = execFileSync('sh', ['-c', 'command -v git'], { encoding: 'utf8' }).trim()
  const refusal = `echo "git: 'lfs' is not a git command. See 'git --help'." >&2; exit 1`
  program(bench.bin, 'git', `case " $* " in *" lfs "*) ${refusal};; esac\nexec '${real}' "$@"`)
  await assert.rejects(
    bench.checkOut(remote, tip, { lfs: true }),
    (error) => hasCode(error, 'unstartable') && /Install the package git-lfs/.test(error.message),
  )
})
