import assert from 'node:assert/strict'
import { chmod, chown, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { accountNamed, groupExists, nameOfGroup, nameOfUser, ownAccount } from '../src/config/accounts.ts'
import { findConfig } from '../src/config/find.ts'
import { unsafe } from '../src/config/ownership.ts'
import { readConfig } from '../src/config/read.ts'

const scratch = await mkdtemp(join(tmpdir(), 'landfall-ownership-'))
after(() => rm(scratch, { recursive: true, force: true }))

const own = ownAccount()
const isRoot = own.uid === 0
/** Ids that no machine gives to an account of its own accord. */
const STRANGER = 61_234
const TEXT = '[defaults]\nuser = "OWN"\n[hook.github]\nsecrets = ["x"]\n[target.site]\nrepo = "acme/site"\n'

async function directory(): Promise<string> {
  const made = await mkdtemp(join(scratch, 'case-'))
  await chmod(made, 0o755)
  return made
}

async function fileWith(mode: number, text = TEXT.replace('OWN', own.name), name = 'landfall.toml'): Promise<string> {
  const file = join(await directory(), name)
  await writeFile(file, text)
  await chmod(file, mode)
  return file
}

const reading = (file: string) => readConfig({ file, env: {}, secrets: 'resolve' })

describe('a file that landfall trusts', () => {
  test('may be read by everybody', async () => {
    assert.equal(await unsafe(await fileWith(0o644), { uid: own.uid }), null)
  })

  test('is refused where everybody may write it, with the line that mends it', async () => {
    const file = await fileWith(0o646)
    const why = await unsafe(file, { uid: own.uid })
    assert.equal(why, `${file} can be written by everybody; mend it with: chmod o-w ${file}`)
    await chmod(file, (await stat(file)).mode & ~0o002)
    assert.equal(await unsafe(file, { uid: own.uid }), null)
  })

  test('is refused where a group may write it, unless the group is named like the owner', async () => {
    const file = await fileWith(0o664)
    const { uid, gid } = await stat(file)
    const isNamedAlike = (await nameOfUser(uid)) === (await nameOfGroup(gid))
    assert.equal((await unsafe(file, { uid: own.uid })) === null, isNamedAlike)
    if (!isRoot) return
    await chown(file, 0, STRANGER)
    const why = await unsafe(file, { uid: 0 })
    assert.equal(why, `${file} can be written by the group ${STRANGER}; mend it with: chmod g-w ${file}`)
    await chmod(file, 0o666)
    assert.match((await unsafe(file, { uid: 0 })) ?? '', /everybody; mend it with: chmod go-w /)
  })

  test('is refused where a stranger owns it, with the line that mends it', async () => {
    const file = await fileWith(0o600)
    if (isRoot) await chown(file, STRANGER, STRANGER)
    const uid = isRoot ? 0 : STRANGER
    const [owner, wanted] = [await nameOfUser((await stat(file)).uid), await nameOfUser(uid)]
    const why = `${file} belongs to ${owner}, a stranger to landfall; mend it with: chown ${wanted} ${file}`
    // Root's own files are nobody's stranger, so an ordinary account sees the same from the other side.
    assert.equal(await unsafe(file, { uid }), why)
    assert.equal(await unsafe(file, { uid, alsoUid: (await stat(file)).uid }), null)
    assert.equal(await unsafe(file, 'any-owner'), null)
  })

  test('may belong to root whoever asks', async () => {
    assert.equal(await unsafe('/', { uid: STRANGER }), null)
  })

  test('has its name quoted in the line that mends it', async () => {
    const file = await fileWith(0o602, 'x', "it's here")
    assert.ok((await unsafe(file, { uid: own.uid }))?.endsWith(String.raw`it'\''s here'`))
  })
})

describe('reading', () => {
  test('a configuration that others may write is refused before a line of it is believed', async () => {
    const file = await fileWith(0o666, 'this is not even TOML')
    await assert.rejects(reading(file), (error: Error) => {
      assert.equal(
        error.message.startsWith(`${file}:1:1: file: ${file} can be written by everybody`),
        true,
        error.message,
      )
      return true
    })
    await chmod(file, 0o644)
    await assert.rejects(reading(file), /syntax/)
  })

  test('an .env that others may write is refused', async () => {
    const file = await fileWith(0o600)
    const env = join(file, '..', '.env')
    await writeFile(env, 'A=1')
    await chmod(env, 0o606)
    await assert.rejects(reading(file), /\.env:1:1: file: .*chmod o-w /)
    await chmod(env, 0o600)
    assert.equal((await reading(file)).targets.length, 1)
  })

  test('a secret in a file that others may write is refused at its key', async () => {
    const secret = await fileWith(0o602, 'sesame', 'secret')
    const text = TEXT.replace('OWN', own.name).replace('"x"', `{ file = "${secret}" }`)
    const file = await fileWith(0o600, text)
    await assert.rejects(reading(file), /:4:12: hook\.github\.secrets\[0\]: .*chmod o-w /)
    await chmod(secret, 0o644)
    assert.deepEqual((await reading(file)).hooks[0]?.secrets, ['sesame'])
  })

  test('the owner of a configuration is no matter to a process that only looks, its writers are', async () => {
    const file = await fileWith(0o600)
    if (isRoot) await chown(file, STRANGER, STRANGER)
    const user = isRoot ? own : { uid: STRANGER, name: 'stranger' }
    const look = () => readConfig({ file, env: {}, secrets: 'leave', user })
    assert.equal((await look()).targets.length, 1)
    await assert.rejects(readConfig({ file, env: {}, secrets: 'resolve', user }), /a stranger to landfall/)
    await chmod(file, 0o602)
    await assert.rejects(look(), /everybody/)
  })
})

describe('finding', () => {
  const nowhere = '/no/such/landfall.toml'

  test('takes -c, then $LANDFALL_CONFIG, then ./landfall.toml, then the one of the system', async () => {
    const [flag, named, local, system] = [
      await fileWith(0o600),
      await fileWith(0o600),
      await fileWith(0o600),
      await fileWith(0o600),
    ]
    const where = { flag, env: { LANDFALL_CONFIG: named }, cwd: join(local, '..'), systemFile: system }
    assert.equal(await findConfig(where), flag)
    assert.equal(await findConfig({ ...where, flag: undefined }), named)
    assert.equal(await findConfig({ ...where, flag: undefined, env: { LANDFALL_CONFIG: '' } }), local)
    const elsewhere = await directory()
    assert.equal(await findConfig({ ...where, flag: undefined, env: {}, cwd: elsewhere }), system)
  })

  test('says where it looked in vain, and what to do', async () => {
    const cwd = await directory()
    const message = new RegExp(
      `there is no ${cwd}/landfall.toml, and there is no ${nowhere}; "landfall init" makes one`,
    )
    await assert.rejects(findConfig({ env: {}, cwd, systemFile: nowhere }), message)
    await assert.rejects(
      findConfig({ flag: nowhere, env: {}, cwd }),
      /no configuration: there is no .*, which -c names; "landfall init"/,
    )
    await assert.rejects(findConfig({ env: { LANDFALL_CONFIG: nowhere }, cwd }), /which \$LANDFALL_CONFIG names/)
  })

  test('passes over what lies where root stands, if others could have put it there', async () => {
    const [local, system] = [await fileWith(0o600), await fileWith(0o600)]
    const cwd = join(local, '..')
    const reasons: string[] = []
    const asRoot = { env: {}, cwd, uid: 0, systemFile: system, passedOver: (why: string) => reasons.push(why) }
    if (!isRoot) {
      assert.equal(await findConfig(asRoot), system)
      return
    }
    assert.equal(await findConfig(asRoot), local)
    assert.deepEqual(reasons, [])
    const spoilt: readonly [spoil: () => Promise<void>, mend: () => Promise<void>][] = [
      [() => chmod(cwd, 0o777), () => chmod(cwd, 0o755)],
      [() => chmod(local, 0o602), () => chmod(local, 0o600)],
      [() => chown(cwd, STRANGER, 0), () => chown(cwd, 0, 0)],
      [() => chown(local, STRANGER, 0), () => chown(local, 0, 0)],
    ]
    for (const [index, [spoil, mend]] of spoilt.entries()) {
      await spoil()
      assert.equal(await findConfig(asRoot), system)
      assert.equal(reasons.length, index + 1)
      assert.match(reasons[index] ?? '', /root does not read .*mend it with: ch(?:mod|own) /)
      await assert.rejects(findConfig({ ...asRoot, systemFile: nowhere }), /root does not read/)
      await mend()
    }
    assert.equal(await findConfig(asRoot), local)
  })

  test('takes ./landfall.toml from an ordinary account, whatever its directory', async () => {
    const local = await fileWith(0o600)
    await chmod(join(local, '..'), 0o777)
    assert.equal(await findConfig({ env: {}, cwd: join(local, '..'), uid: STRANGER, systemFile: nowhere }), local)
  })

  test('takes a directory of that name for a file, so that the reader can say what is wrong with it', async () => {
    const cwd = await directory()
    await mkdir(join(cwd, 'landfall.toml'))
    assert.equal(await findConfig({ env: {}, cwd, uid: STRANGER, systemFile: nowhere }), join(cwd, 'landfall.toml'))
  })
})

test('accounts and groups are known by name and by number', async () => {
  const [, , , gid, , home, shell] = /^root:.*$/m.exec(await readFile('/etc/passwd', 'utf8'))?.[0].split(':') ?? []
  assert.deepEqual(await accountNamed('root'), { uid: 0, name: 'root', gid: Number(gid), home, shell })
  assert.equal(await accountNamed('no-such-account'), null)
  assert.equal(await nameOfUser(0), 'root')
  assert.equal(await nameOfUser(STRANGER), String(STRANGER))
  assert.equal(await groupExists('no-such-group'), false)
  assert.equal(await groupExists(await nameOfGroup(0)), true)
})
