import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { readConfig } from '../src/config/read.ts'
import { directory, hooked, mistakes, oneMistake, read, TARGET, targeted, USER, written } from './support/configs.ts'

describe('secrets', () => {
  const from = (source: string) => `[hook.github]\nsecrets = [${source}]\n${TARGET}`

  test('come from the environment, from .env beside the file, and the environment wins', async () => {
    const at = await directory()
    const file = await written(from('{ env = "A" }, { env = "B" }'), at)
    await writeFile(join(at, '.env'), 'A="from .env"\nB=from .env\n')
    const config = await readConfig({ file, env: { B: 'from the process' }, secrets: 'resolve', user: USER })
    assert.deepEqual(config.hooks[0]?.secrets, ['from .env', 'from the process'])
    assert.equal(process.env['A'], undefined)
  })

  test('come from a file beside the configuration, without its last newline', async () => {
    const at = await directory()
    await writeFile(join(at, 'secret'), 'open sesame\n')
    const config = await readConfig({
      file: await written(from('{ file = "secret" }'), at),
      env: {},
      secrets: 'resolve',
      user: USER,
    })
    assert.deepEqual(config.hooks[0]?.secrets, ['open sesame'])
  })

  test("come from systemd's credentials", async () => {
    const at = await directory()
    await writeFile(join(at, 'github'), 'sesame')
    const config = await read(from('{ credential = "github" }'), { env: { CREDENTIALS_DIRECTORY: at } })
    assert.deepEqual(config.hooks[0]?.secrets, ['sesame'])
    await oneMistake(from('{ credential = "github" }'), '2:12: hook.github.secrets[0]', /LoadCredential=github/)
    await oneMistake(from('{ credential = "../x" }'), '2:14: hook.github.secrets[0].credential', /not the name/)
  })

  test('that are missing, empty or unreadable are named with their source', async () => {
    const empty = join(await directory(), 'empty')
    await writeFile(empty, '\n')
    const text = from(
      `{ env = "UNSET" }, { env = "EMPTY" }, { file = "${empty}" }, { file = "/no/such" }, { file = "/" }`,
    )
    const found = await mistakes(text, { env: { EMPTY: '' } })
    assert.equal(found.length, 5, found.join('\n'))
    assert.match(found[0] ?? '', /secrets\[0\]: the environment variable UNSET is not set/)
    assert.match(found[1] ?? '', /secrets\[1\]: the environment variable EMPTY is empty/)
    assert.match(found[2] ?? '', /secrets\[2\]: .*empty is empty/)
    assert.match(found[3] ?? '', /secrets\[3\]: \/no\/such cannot be read: there is no such file/)
    assert.match(found[4] ?? '', /secrets\[4\]: \//)
  })

  test('do not hide each other: one that is misspelt, one that is not set, one that is no secret', async () => {
    assert.deepEqual(await mistakes(from('{ evn = "A" }, { env = "UNSET" }, 5')), [
      '2:14: hook.github.secrets[0].evn: unknown key; did you mean `env`?',
      '2:27: hook.github.secrets[1]: the environment variable UNSET is not set, nor is it in .env',
      '2:46: hook.github.secrets[2]: must be a string, or one of { env = … }, { file = … }, { credential = … }',
    ])
  })

  test('that are wrong are never repeated', async () => {
    const text = `[hook.github]
secrets = [{ env = "W" }]
forge_token = { env = "T" }
clone = "https://me:hunter2@github.com/{repo}"
ssh_key = "hunter2"
${TARGET}url = "https://hunter2@example.com/x"\nenv = { LANDFALL_X = "hunter2" }\n`
    const found = await mistakes(text, { env: { W: 'whsec_hunter2', T: 'hunter2 hunter2' } })
    assert.equal(found.length, 6, found.join('\n'))
    assert.doesNotMatch(found.join('\n'), /hunter2/)
  })

  test('stay where they are for a process that only looks', async () => {
    const text = `[hook.github]\nsecrets = [{ env = "UNSET" }, "x"]\nforge_token = { env = "UNSET" }\nssh_key = { file = "k" }\n`
    const config = await read(`${text}${TARGET}env = { A = { env = "UNSET" }, B = "b" }\n`, { secrets: 'leave' })
    assert.deepEqual(config.hooks[0]?.secrets, [])
    assert.equal(config.hooks[0]?.forgeToken, null)
    assert.deepEqual(config.targets[0]?.env, { B: 'b' })
  })

  test('an ssh key in a file stays a file, one from elsewhere is text that ends in a newline', async () => {
    const at = await directory()
    await writeFile(join(at, 'key'), '-----BEGIN OPENSSH PRIVATE KEY-----\n')
    const file = await written(hooked('ssh_key = { file = "key" }\nknown_hosts = "hosts"'), at)
    const config = await readConfig({ file, env: {}, secrets: 'resolve', user: USER })
    assert.deepEqual(config.hooks[0]?.sshKey, { file: join(at, 'key') })
    assert.equal(config.hooks[0]?.knownHosts, join(at, 'hosts'))
    const inline = await read(hooked('ssh_key = { env = "K" }'), { env: { K: 'PRIVATE KEY' } })
    assert.deepEqual(inline.hooks[0]?.sshKey, { text: 'PRIVATE KEY\n' })
  })

  test("a target's variable from a source is to be masked, a written one is not", async () => {
    const config = await read(targeted('env = { A = "plain", B = { env = "X" } }'), { env: { X: 'hidden' } })
    assert.deepEqual(config.targets[0]?.env, { A: 'plain', B: 'hidden' })
    assert.deepEqual(config.targets[0]?.masked, ['hidden'])
  })
})
