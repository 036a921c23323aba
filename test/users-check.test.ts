import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
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
