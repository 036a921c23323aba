import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { landfall } from './support/cli.ts'
import { textOf } from './support/scripts.ts'
import { WITHOUT_ROOT } from './support/users.ts'
import { usersSite } from './support/users-site.ts'

const asRoot = { skip: WITHOUT_ROOT }

test('a user that may use the socket, or read the configuration, is warned about', asRoot, async (t) => {
  const site = await usersSite(t, 1)
  const {
    users: [user],
    directory,
  } = site
  mkdirSync(join(directory, 'scripts', 'acme'))
  const file = join(directory, 'landfall.toml')
  const check = async () => (await landfall(['check', '-c', file], { cwd: directory })).stdout
  site.configure(site.target('site', user))
  assert.doesNotMatch(await check(), /socket_group \(|can be read by/)
  const text = textOf(file).replace('[server]', `[server]\nsocket_group = "${user.group.name}"\nsocket_mode = "0660"`)
  writeFileSync(file, text)
  chmodSync(file, 0o644)
  assert.match(await check(), new RegExp(`user ${user.name} is in socket_group \\(${user.group.name}\\)`))
  assert.match(await check(), new RegExp(`landfall.toml can be read by the user ${user.name}, .*chmod 600`))
})

test(
  'a link or a tree that its user cannot make is warned about, and then the run ends as was said',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 1)
    const {
      users: [user],
      directory,
    } = site
    for (const name of ['roots', 'theirs']) mkdirSync(join(directory, name))
    chownSync(join(directory, 'theirs'), user.uid, user.gid)
    mkdirSync(join(directory, 'roots/tree'))
    const places = {
      link: 'current = "roots/link"',
      new: 'path = "roots/new"',
      tree: 'path = "roots/tree"',
      own: 'current = "theirs/link"',
      made: 'path = "theirs/made"',
    }
    site.script('acme/site', 'true')
    site.configure(
      Object.entries(places)
        .map(([name, line]) => site.target(name, user, 'hook = "github"', line))
        .join('\n'),
    )
    const { code, stdout } = await landfall(['check', '-c', join(directory, 'landfall.toml')], { cwd: directory })
    assert.equal(code, 0)
    const warned = [...stdout.matchAll(/^warning: (\w+): (?:current|path): (.*)$/gm)]
    const why = `${user.name} may not write in ${join(directory, 'roots')}: its runs would end unstartable`
    assert.deepEqual(
      warned.map(([, name, text]) => [name, text]),
      [
        ['link', why],
        ['new', why],
      ],
    )
    const daemon = await site.start()
    await daemon.post({ after: await site.origin.commit({ 'file.txt': '1' }) })
    await daemon.quiet()
    const ends = (await daemon.runs()).map(({ target, state }) => [target, state])
    // An empty directory of root's is refused for whose it is.
    assert.deepEqual(
      ends,
      Object.keys(places).map((name) => [name, ['own', 'made'].includes(name) ? 'succeeded' : 'unstartable']),
    )
  },
)
