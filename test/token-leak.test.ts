/** The forge's token goes to the forge's own host and port: real servers write down what they were sent. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Remote } from '../src/work.ts'
import { createOrigin, git, type Origin } from './support/git.ts'
import {
  type Asked,
  commitPointer,
  createAuthority,
  type GitServer,
  type GitServerParts,
  missing,
  startGitServer,
} from './support/git-server.ts'
import { type Bench, createBench, originIn } from './support/mirrors.ts'

const TOKEN = 'oauth2:s3cret-token'
const skip = missing(['openssl', 'version'])
const skipLfs = missing(['openssl', 'version'], ['git', 'lfs', 'version'])

interface World {
  readonly bench: Bench
  readonly origin: Origin
  /** Asks everybody for credentials, also those who send some. */
  readonly stranger: GitServer
  /** Serves `origin.git` to who has the token, at `localhost`. */
  forge(answer?: GitServerParts['answer']): Promise<{ server: GitServer; remote: Remote }>
  /** Serves everybody. */
  open(root: string): Promise<GitServer>
}

async function createWorld(t: TestContext): Promise<World> {
  const authority = createAuthority(createBench(t).directory)
  const bench = createBench(t, { GIT_SSL_CAINFO: authority.certificateFile })
  const root = join(bench.directory, 'forge')
  const origin = await originIn(bench)
  const credentials = 'nobody:has-it'
  return {
    bench,
    origin,
    stranger: await startGitServer(t, { authority, root, credentials }),
    async forge(answer) {
      const server = await startGitServer(t, { authority, root, credentials: TOKEN, ...(answer ? { answer } : {}) })
      const credentialsFile = join(bench.directory, 'credentials')
      writeFileSync(credentialsFile, `https://${TOKEN}@localhost:${server.port}\n`)
      return { server, remote: bench.remote(server.url('origin.git'), { credentialsFile }) }
    },
    open: (elsewhere) => startGitServer(t, { authority, root: elsewhere }),
  }
}

const sentCredentials = (asked: readonly Asked[]) => asked.filter(({ authorization }) => authorization !== null)

test('the forge itself gets the token, when it asks for it', { skip }, async (t) => {
  const { bench, forge } = await createWorld(t)
  const { server, remote } = await forge()
  const { tip } = await bench.fetch(remote)
  assert.ok(tip)
  assert.equal(server.asked[0]?.authorization, null)
  const sent = sentCredentials(server.asked)
  assert.ok(sent.length > 0)
  assert.ok(sent.every(({ authorization }) => authorization === `Basic ${Buffer.from(TOKEN).toString('base64')}`))
})

for (const when of ['at once', 'after the token was sent'] as const) {
  for (const host of ['localhost', '127.0.0.1']) {
    test(`a redirect to ${host === 'localhost' ? 'another port' : 'another host'}, ${when}, takes no token along`, {
      skip,
    }, async (t) => {
      const { bench, forge, stranger } = await createWorld(t)
      const { server, remote } = await forge((request, response) => {
        if (when !== 'at once' && request.headers.authorization === undefined) return false
        response.writeHead(302, { Location: stranger.url((request.url ?? '').slice(1), host) }).end()
        return true
      })
      await assert.rejects(bench.fetch(remote), (error) => error instanceof Error && !/s3cret/.test(error.message))
      assert.ok(stranger.asked.length > 0, 'it was asked')
      assert.equal(sentCredentials(server.asked).length > 0, when !== 'at once')
      assert.deepEqual(sentCredentials(stranger.asked), [])
    })
  }
}

test('a submodule on another host gets no token, neither where it asks for one nor where it does not', {
  skip,
}, async (t) => {
  const { bench, forge, stranger, origin, open } = await createWorld(t)
  const { server, remote } = await forge()
  const lib = await createOrigin(join(bench.directory, 'elsewhere'))
  const commit = await git(lib.work, 'rev-parse', 'HEAD')
  const library = await open(join(bench.directory, 'elsewhere'))
  const withSubmodule = async (url: string) => {
    writeFileSync(join(origin.work, '.gitmodules'), `[submodule "lib"]\n\tpath = lib\n\turl = ${url}\n`)
    await git(origin.work, 'update-index', '--add', '--cacheinfo', `160000,${commit},lib`)
    await git(origin.work, 'add', '.gitmodules')
    await git(origin.work, 'commit', '--quiet', '-m', 'a submodule')
    await git(origin.work, 'push', '--quiet', 'origin', 'HEAD')
    const { tip } = await bench.fetch(remote)
    assert.ok(tip)
    return await bench.checkOut(remote, tip, { submodules: { hosts: ['127.0.0.1'] } })
  }

  const release = await withSubmodule(library.url('origin.git', '127.0.0.1'))
  assert.match(readFileSync(join(release, 'lib/file.txt'), 'utf8'), /at 0/)
  await assert.rejects(withSubmodule(stranger.url('origin.git', '127.0.0.1')))
  assert.ok(stranger.asked.length > 0)
  assert.ok(sentCredentials(server.asked).length > 0)
  assert.deepEqual(sentCredentials([...library.asked, ...stranger.asked]), [])
})

test('LFS objects on another host are asked for with the header that the forge dictates, and never with the token', {
  skip: skipLfs,
}, async (t) => {
  const { bench, forge, stranger, origin, open } = await createWorld(t)
  const content = Buffer.from('a large file')
  const oid = createHash('sha256').update(content).digest('hex')
  const elsewhere = join(bench.directory, 'storage')
  mkdirSync(join(elsewhere, 'lfs'), { recursive: true })
  writeFileSync(join(elsewhere, 'lfs', oid), content)
  const storage = await open(elsewhere)
  const places = [storage.url(`lfs-object/${oid}`, '127.0.0.1'), stranger.url(`object/${oid}`, '127.0.0.1')]
  const { server, remote } = await forge((request, response) => {
    const [path, has] = [request.url ?? '', request.headers.authorization !== undefined]
    if (!has || !path.endsWith('/info/lfs/objects/batch')) return false
    const download = { href: places[0], header: { Authorization: 'Bearer for-the-storage' } }
    const objects = [{ oid, size: content.length, actions: { download } }]
    response
      .setHeader('Content-Type', 'application/vnd.git-lfs+json')
      .end(JSON.stringify({ transfer: 'basic', objects }))
    return true
  })
  const tip = await commitPointer(origin, oid, content.length)
  await bench.fetch(remote)

  const release = await bench.checkOut(remote, tip, { lfs: true })
  assert.ok(readFileSync(join(release, 'big.bin')).equals(content))
  assert.deepEqual(
    storage.asked.map(({ authorization }) => authorization),
    ['Bearer for-the-storage'],
  )
  assert.ok(server.asked.some(({ path, authorization }) => path.endsWith('/batch') && authorization !== null))

  places.shift()
  const other = { ...remote, mirror: `${remote.mirror}-2` }
  await bench.fetch(other)
  await assert.rejects(bench.checkOut(other, tip, { lfs: true, directory: join(bench.directory, 'second') }))
  assert.ok(stranger.asked.length > 0)
  const token = Buffer.from(TOKEN).toString('base64')
  assert.deepEqual(
    stranger.asked.filter(({ authorization }) => authorization?.includes(token)),
    [],
  )
})

for (const when of ['at once', 'after the token was sent'] as const) {
  test(`an LFS server that redirects elsewhere, ${when}, takes no token along`, { skip: skipLfs }, async (t) => {
    const { bench, forge, stranger, origin } = await createWorld(t)
    const { remote } = await forge((request, response) => {
      const path = request.url ?? ''
      if (!path.includes('/info/lfs')) return false
      if (when !== 'at once' && request.headers.authorization === undefined) return false
      response.writeHead(307, { Location: stranger.url(path.slice(1), '127.0.0.1') }).end()
      return true
    })
    const tip = await commitPointer(origin, '1'.repeat(64), 5)
    await bench.fetch(remote)
    await assert.rejects(
      bench.checkOut(remote, tip, { lfs: true }),
      (error) => error instanceof Error && error.message.includes(stranger.url('', '127.0.0.1')),
    )
    // Once it asks with credentials, git-lfs wants some for the other host too before it goes there.
    assert.equal(stranger.asked.length > 0, when === 'at once')
    assert.deepEqual(sentCredentials(stranger.asked), [])
  })
}
