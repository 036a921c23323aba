import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onceConfig, repositoryOf } from '../src/config/once.ts'
import { hasCode } from '../src/errors.ts'
import { isRepository } from '../src/model.ts'
import { directory, USER } from './support/configs.ts'

describe('once without a file', () => {
  const once = { url: 'https://example.com/acme/site.git', branch: null, timeoutMs: null, argv: ['make'], user: USER }

  test('has one target that only polls and runs the command in a release', async () => {
    const dataDir = await directory()
    const config = await onceConfig({ ...once, dataDir, timeoutMs: 5000, branch: 'main' })
    const [target] = config.targets
    assert.equal(config.targets.length, 1)
    assert.deepEqual([config.file, config.dataDir, config.hooks], [null, dataDir, []])
    assert.match(target?.name ?? '', /^once-[0-9a-f]{12}$/)
    assert.deepEqual([target?.hook, target?.url, target?.repo], [null, once.url, 'acme/site'])
    assert.deepEqual(
      [target?.run, target?.checkout, target?.follows],
      [['make'], 'release', { kind: 'branch', branch: 'main' }],
    )
    assert.deepEqual([target?.timeoutMs, target?.user, target?.onFailure], [5000, 'keeper', null])
  })

  test('keeps the histories of two remotes, or two branches, apart', async () => {
    const dataDir = await directory()
    const name = async (change: object) => (await onceConfig({ ...once, dataDir, ...change })).targets[0]?.name
    assert.equal(await name({}), await name({ argv: ['true'] }))
    assert.notEqual(await name({}), await name({ branch: 'main' }))
    assert.notEqual(await name({}), await name({ url: 'https://example.org/acme/site.git' }))
  })

  test('is a mistake of usage where the arguments are wrong, in the words of the command line', async () => {
    const wrong = { ...once, dataDir: await directory(), url: '-x', branch: 'a..b', argv: [] }
    await assert.rejects(
      onceConfig(wrong),
      (error) =>
        hasCode(error, 'usage') &&
        /--url: begins/.test(error.message) &&
        /--branch: /.test(error.message) &&
        /the command after --: /.test(error.message),
    )
  })

  test('follows one branch: a pattern is a mistake', async () => {
    const dataDir = await directory()
    const isRefused = (error: unknown) => hasCode(error, 'usage') && /--branch: "v\*" is a pattern/.test(error.message)
    await assert.rejects(onceConfig({ ...once, dataDir, branch: 'v*' }), isRefused)
  })

  test('always finds a repository in the URL', () => {
    const names = {
      'https://github.com/acme/site.git': 'acme/site',
      'git@github.com:acme/site.git': 'acme/site',
      'https://gitlab.com/group/sub/name': 'sub/name',
      '/srv/git/my site.git': 'git/my-site',
      'site.git': 'local/site',
      '/': 'local/repository',
      '../-.git': 'local/repository',
    }
    for (const [url, repo] of Object.entries(names)) {
      assert.equal(repositoryOf(url), repo, url)
      assert.ok(isRepository(repo), repo)
    }
  })
})
