/** What somebody has edited in the submodules of a working tree in place. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import type { Sha } from '../src/model.ts'
import { createSite } from './support/daemon.ts'
import { createOrigin, git, type Origin } from './support/git.ts'

const FROM_A_PATH = ['-c', 'protocol.file.allow=always']

/** Two submodules one within the other, in a clone that somebody has made, with an edit in each. */
async function edited(t: TestContext) {
  const site = createSite(t)
  const forge = join(site.directory, 'forge')
  // Beside each other: of a remote that is a directory, no other submodules are taken.
  const inForge = async (name: string) => {
    const origin = await createOrigin(join(forge, 'parts', name))
    symlinkSync(origin.path, join(forge, `${name}.git`))
    return origin
  }
  const [origin, lib, deep] = [await inForge('site'), await inForge('lib'), await inForge('deep')]
  const add = async ({ work }: Origin, name: string, path: string) => {
    await git(work, ...FROM_A_PATH, 'submodule', '--quiet', 'add', join(forge, `${name}.git`), path)
    await git(work, 'config', '-f', '.gitmodules', `submodule.${path}.url`, `../${name}.git`)
    await git(work, 'commit', '--quiet', '-am', `with ${name}`)
    await git(work, 'push', '--quiet', 'origin', 'HEAD')
  }
  await deep.commit({ file: 'of deep\n' })
  await lib.commit({ file: 'of lib\n' })
  await add(lib, 'deep', 'in/deep')
  await add(origin, 'lib', 'a lib')
  const tree = join(site.directory, 'tree')
  const url = join(forge, 'site.git')
  await git(site.directory, ...FROM_A_PATH, 'clone', '--quiet', '--recurse-submodules', url, tree)
  const files = ['a lib/file', 'a lib/in/deep/file'].map((name) => join(tree, name))
  const edit = () => {
    for (const [index, file] of files.entries()) writeFileSync(file, `mine ${index}\n`)
  }
  edit()
  site.script('deploy.sh', 'true')
  const lines = [
    'repo = "acme/site"',
    `url = "${url}"`,
    'branches = "main"',
    'script = "deploy.sh"',
    `path = "${tree}"`,
  ]
  return {
    site,
    origin,
    tree,
    edit,
    contents: () => files.map((file) => readFileSync(file, 'utf8')),
    configure: (more: string) => site.configure(['[target.site]', ...lines, 'submodules = true', more].join('\n')),
  }
}

const MINE = ['mine 0\n', 'mine 1\n']

test('edits in a submodule are somebody’s work: saved with adopt, and with each run after', async (t) => {
  const { site, origin, tree, edit, contents, configure } = await edited(t)
  configure('')
  const daemon = await site.start()
  const perform = async (after: Sha) => await daemon.ended(await daemon.accepted({ after }))
  const refused = await perform(await origin.commit({ a: '1' }))
  assert.equal(refused.state, 'unstartable')
  for (const name of ['a lib', 'a lib/in/deep']) {
    assert.match(refused.detail ?? '', new RegExp(`edits of 1 file in the submodule ${name}[,.]`))
  }
  assert.deepEqual(contents(), MINE)

  configure('adopt = true')
  await daemon.stop()
  const next = await site.start()
  for (const a of ['2', '3']) {
    const run = await next.ended(await next.accepted({ after: await origin.commit({ a }) }))
    assert.equal(run.state, 'succeeded', JSON.stringify(run))
    assert.match(run.detail ?? '', /saved as a patch .* edits of 1 file in the submodule a lib and /)
    assert.deepEqual(contents(), ['of lib\n', 'of deep\n'])
    const saved = join(site.dataDir, 'runs', String(run.id))
    const patch = readdirSync(saved).find((name) => name.startsWith('edits')) ?? ''
    await git(tree, 'apply', join(saved, patch))
    assert.deepEqual(contents(), MINE)
    edit()
  }
})
