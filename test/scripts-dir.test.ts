import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Found, findByConvention, findNamed } from '../src/runs/scripts-dir.ts'
import { temporaryDirectory } from './support/temporary.ts'

const ROOT_ONLY = process.geteuid?.() === 0 ? false : 'only root can give files away'

interface Place {
  readonly root: string
  put(name: string, mode?: number): string
  find(repo?: string, event?: string): Promise<Found>
  named(name: string): Promise<Found>
}

function place(t: TestContext): Place {
  const root = join(temporaryDirectory(t), 'scripts')
  mkdirSync(root)
  const where = { scriptsDir: root, uid: process.geteuid?.() ?? 0 }
  return {
    root,
    put(name, mode = 0o755) {
      const file = join(root, name)
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, '#!/bin/sh\n')
      chmodSync(file, mode)
      return file
    },
    find: (repo = 'acme/site', event = 'push') => findByConvention(where, { hook: 'github', repo, event }),
    named: (name) => findNamed(where, name),
  }
}

async function isUnstartable(found: Promise<Found>, why: RegExp): Promise<void> {
  const { kind, ...rest } = await found
  assert.equal(kind, 'unstartable')
  assert.match('detail' in rest ? rest.detail : '', why)
}

test('the places of the convention are looked at in order, most special first', async (t) => {
  const { put, find } = place(t)
  assert.equal((await find()).kind, 'none')
  for (const name of ['_default', 'acme/_default', 'acme/site', 'github/acme/site']) {
    const file = put(name)
    assert.deepEqual(await find(), { kind: 'found', file })
  }
})

test('an event other than push has scripts of its own', async (t) => {
  const { put, find } = place(t)
  put('acme/site')
  put('_default')
  assert.equal((await find('acme/site', 'release')).kind, 'none')
  for (const name of ['_default', 'acme/_default', 'acme/site', 'github/acme/site']) {
    const file = put(`${name}.on-release`)
    assert.deepEqual(await find('acme/site', 'release'), { kind: 'found', file })
  }
})

test('names are looked for in lower case, and an owner is all before the last slash', async (t) => {
  const { put, find } = place(t)
  const file = put('group/sub/_default')
  assert.deepEqual(await find('Group/SUB/Name'), { kind: 'found', file })
  assert.equal((await find('group/name')).kind, 'none')
})

test('a target without a hook looks everywhere but in a hook’s folder', async (t) => {
  const { root, put } = place(t)
  const file = put('acme/site')
  const where = { scriptsDir: root, uid: process.geteuid?.() ?? 0 }
  assert.deepEqual(await findByConvention(where, { hook: null, repo: 'acme/site', event: 'push' }), {
    kind: 'found',
    file,
  })
})

test('what is no regular executable file is passed over, and that is said', async (t) => {
  const { root, put, find } = place(t)
  const passedOver = put('acme/site', 0o644)
  mkdirSync(join(root, 'acme', '_default'))
  const none = await find()
  assert.equal(none.kind, 'none')
  assert.match(
    none.kind === 'none' ? none.detail : '',
    new RegExp(`acme/site, acme/_default, _default.*${passedOver}.*chmod \\+x`),
  )
  const file = put('_default')
  assert.deepEqual(await find(), { kind: 'found', file })
})

test('a named script that is missing or not executable is unstartable, and the line that mends it is told', async (t) => {
  const { root, put, named } = place(t)
  const file = put('deploy.sh', 0o644)
  mkdirSync(join(root, 'folder'))
  await isUnstartable(named('deploy.sh'), new RegExp(`chmod \\+x ${file}`))
  await isUnstartable(named('other.sh'), /does not exist/)
  await isUnstartable(named('folder'), /no regular file/)
  chmodSync(file, 0o755)
  assert.deepEqual(await named('deploy.sh'), { kind: 'found', file })
})

test('a symlink out of scripts_dir is unstartable, one inside is not', async (t) => {
  const { root, put, named, find } = place(t)
  const outside = join(dirname(root), 'outside')
  writeFileSync(outside, '#!/bin/sh\n', { mode: 0o755 })
  put('deploy.sh')
  symlinkSync(outside, join(root, 'out'))
  symlinkSync('deploy.sh', join(root, 'in'))
  symlinkSync(dirname(root), join(root, 'acme'))
  writeFileSync(join(dirname(root), 'site'), '#!/bin/sh\n', { mode: 0o755 })
  await isUnstartable(named('out'), /link out of/)
  assert.deepEqual(await named('in'), { kind: 'found', file: join(root, 'in') })
  await isUnstartable(find('acme/site'), /link out of/)
})

test('scripts_dir may be a symlink itself', async (t) => {
  const { root, put } = place(t)
  put('deploy.sh')
  const link = join(dirname(root), 'link')
  symlinkSync(root, link)
  const found = await findNamed({ scriptsDir: link, uid: process.geteuid?.() ?? 0 }, 'deploy.sh')
  assert.deepEqual(found, { kind: 'found', file: join(link, 'deploy.sh') })
})

test('a script, or a directory up to scripts_dir, that others may write is unstartable', async (t) => {
  const { root, put, find } = place(t)
  const file = put('github/acme/site')
  for (const path of [file, join(root, 'github', 'acme'), join(root, 'github'), root]) {
    chmodSync(path, 0o777)
    await isUnstartable(find(), new RegExp(`chmod \\w+-w ${path}`))
    chmodSync(path, 0o755)
  }
  assert.equal((await find()).kind, 'found')
})

test('a link to a safe script is unstartable where others may replace the link', async (t) => {
  const { root, put, named } = place(t)
  put('deploy.sh')
  mkdirSync(join(root, 'open'))
  symlinkSync('../deploy.sh', join(root, 'open', 'site'))
  assert.equal((await named('open/site')).kind, 'found')
  chmodSync(join(root, 'open'), 0o777)
  await isUnstartable(named('open/site'), new RegExp(`chmod \\w+-w ${join(root, 'open')}`))
})

test('a script of a stranger is unstartable', { skip: ROOT_ONLY }, async (t) => {
  const { put, find } = place(t)
  chownSync(put('acme/site'), 4242, 4242)
  await isUnstartable(find(), /chown/)
})

test('no name leads out of scripts_dir to be run', async (t) => {
  const { root, find, named } = place(t)
  writeFileSync(join(dirname(root), 'evil'), '#!/bin/sh\n', { mode: 0o755 })
  mkdirSync(join(root, 'acme'))
  for (const name of ['../evil', 'acme/../../evil', './../evil', '../scripts/../evil']) {
    assert.notEqual((await named(name)).kind, 'found', name)
    assert.notEqual((await find(name)).kind, 'found', name)
  }
  writeFileSync(join(dirname(root), 'site.on-x'), '', { mode: 0o755 })
  assert.notEqual((await find('acme/site', 'x/../../../evil')).kind, 'found')
})
