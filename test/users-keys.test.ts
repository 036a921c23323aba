import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Hook, Target } from '../src/config/config.ts'
import { ownDataDir } from '../src/data-dir.ts'
import { hasCode } from '../src/errors.ts'
import { openRemotes } from '../src/remotes.ts'
import { aConfig, aHook, aTarget } from './support/nouns.ts'
import { textOf } from './support/scripts.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { createUsers, type User, WITHOUT_ROOT } from './support/users.ts'

const asRoot = { skip: WITHOUT_ROOT }

/** A data_dir that users can reach, the targets of two of them, and a key that is root's alone. */
async function keys(t: TestContext) {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  const dataDir = await ownDataDir(join(directory, 'data'))
  t.after(() => dataDir.release())
  const [one, other] = createUsers(t, 2)
  assert.ok(one && other)
  const sshKey = { file: join(directory, 'key') }
  writeFileSync(sshKey.file, 'THE KEY\n', { mode: 0o600 })
  const of = (user: User | null): Target => aTarget({ account: user, user: user?.name ?? 'root' })
  const open = (hook: Partial<Hook>, targets: readonly Target[]) =>
    openRemotes({ dataDir, config: aConfig({ targets, hooks: [aHook({ forgeToken: 'a token', sshKey, ...hook })] }) })
  return { directory, one, other, sshKey, of, open }
}

test(
  'each account gets copies of its hook’s keys that it alone can read, and mirrors of its own',
  asRoot,
  async (t) => {
    const { one, other, of, open, sshKey } = await keys(t)
    const remotes = await open({}, [of(one), of(other)])
    const [theirs, others, ours] = [one, other, null].map((user) => remotes.of(of(user), 'acme/site'))
    assert.ok(theirs && others && ours)
    assert.equal(ours.sshKeyFile, sshKey.file)
    for (const [file, text] of [
      [theirs.sshKeyFile, 'THE KEY\n'],
      [theirs.credentialsFile, 'https://x-access-token:a%20token@github.com\n'],
    ] as const) {
      assert.equal(one.run(`cat '${file}'`), text)
      assert.match(other.run(`cat '${file}'`), /Permission denied/)
      assert.match(one.run(`rm -f '${file}'; ls '${dirname(file ?? '')}'`), /denied[\s\S]*denied/)
      assert.deepEqual([lstatSync(file ?? '').uid, lstatSync(file ?? '').mode & 0o777], [one.uid, 0o600])
    }
    assert.equal(new Set([theirs, others, ours].map(({ mirror }) => dirname(mirror))).size, 3)
  },
)

test(
  'an account that has no target of the hook any more keeps no key of it, and a new key replaces the old one',
  asRoot,
  async (t) => {
    const { one, other, of, open, sshKey } = await keys(t)
    const before = await open({}, [of(one), of(other)])
    const [kept, gone] = [one, other].map((user) => before.of(of(user), 'acme/site').sshKeyFile ?? '')
    writeFileSync(sshKey.file, 'ANOTHER KEY\n')
    await open({}, [of(one)])
    assert.equal(existsSync(gone ?? ''), false)
    assert.equal(textOf(kept ?? ''), 'ANOTHER KEY\n')
  },
)

test(
  'a key in a directory of an account is not copied: it could be swapped for any file of root’s',
  asRoot,
  async (t) => {
    const { directory, one, of, open } = await keys(t)
    const room = join(directory, 'room')
    mkdirSync(room)
    chownSync(room, one.uid, one.gid)
    writeFileSync(join(room, 'key'), 'A KEY\n', { mode: 0o600 })
    await assert.rejects(open({ sshKey: { file: join(room, 'key') } }, [of(one)]), (error) => {
      return hasCode(error, 'start') && error.message.includes(`${room} is not root's alone`)
    })
  },
)
