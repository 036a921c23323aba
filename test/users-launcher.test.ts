import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { accountRoom, giveDirectory, strangerOnWay } from '../src/belongings.ts'
import { type DataDir, ownDataDir } from '../src/data-dir.ts'
import { hasCode } from '../src/errors.ts'
import { createLauncher } from '../src/launcher/launcher.ts'
import { createLaunchers } from '../src/launcher/launchers.ts'
import type { ScriptEnd, Work } from '../src/work.ts'
import { createOrigin, sha } from './support/git.ts'
import { serveGit } from './support/git-http.ts'
import { keptLog } from './support/log.ts'
import { lives, pidIn, scriptOrder, shellScript, textOf } from './support/scripts.ts'
import { temporaryDirectory } from './support/temporary.ts'
import { until } from './support/until.ts'
import { createUsers, processesOf, type User, WITHOUT_ROOT } from './support/users.ts'

const PROGRAM = fileURLToPath(new URL('..', import.meta.url))
const asRoot = { skip: WITHOUT_ROOT }
const ignore = (): void => {}

interface Someone {
  readonly user: User
  readonly work: Work
  /** A directory of the user's own. */
  readonly room: string
  /** Runs a shell script in the room. Its output is in the room's file `log`. */
  run(...lines: string[]): Promise<ScriptEnd>
}

/** Two users with a launcher each. */
async function launched(t: TestContext, createAll = createLaunchers) {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  const dataDir = await ownDataDir(join(directory, 'data'))
  const { log, entries } = keptLog()
  const launchers = createAll({ log, dataDir })
  t.after(async () => {
    await launchers.close()
    dataDir.release()
  })
  const [first, second] = createUsers(t, 2).map((user) => someone(directory, user, launchers.as(user)))
  assert.ok(first && second)
  return { directory, dataDir, entries, launchers, first, second }
}

function someone(directory: string, user: User, work: Work): Someone {
  const room = join(directory, user.name)
  mkdirSync(room)
  chownSync(room, user.uid, user.gid)
  const run = (...lines: string[]) => work.runScript(scriptOrder(room, [shellScript(room, 'script', ...lines)]), ignore)
  return { user, work, room, run }
}

async function printed({ run, room }: Someone, ...lines: string[]): Promise<string> {
  assert.deepEqual(await run(...lines), { kind: 'exited', code: 0 }, textOf(join(room, 'log')))
  return textOf(join(room, 'log')).trimEnd()
}

test(
  'a script of another account has its ids, all its groups, no capability, and the usual umask',
  asRoot,
  async (t) => {
    const { first } = await launched(t)
    const said = await printed(first, 'id -u; id -g; id -G; umask; grep -E "^Cap(Prm|Eff)" /proc/$$/status')
    const [uid, gid, groups, umask, ...caps] = said.split('\n')
    assert.deepEqual([Number(uid), Number(gid)], [first.user.uid, first.user.gid])
    assert.deepEqual(new Set(groups?.split(' ').map(Number)), new Set([first.user.gid, first.user.group.gid]))
    assert.equal(umask, '0022')
    assert.equal(caps.length, 2)
    for (const line of caps) assert.match(line, /\t0+$/)
  },
)

test(
  'a script can neither look into its launcher, nor open it to a debugger, nor end it by what is meant for the daemon',
  asRoot,
  async (t) => {
    const { first } = await launched(t)
    const attack =
      'cat /proc/$PPID/environ; ls /proc/$PPID/fd; for one in USR1 INT TERM HUP; do kill -$one $PPID; done; kill $0'
    const said = await printed(first, 'echo $PPID > launcher', attack.replace('$0', String(process.pid)), 'true')
    assert.match(said, /environ: Permission denied/)
    assert.match(said, /fd'?: Permission denied/)
    assert.match(said, /not permitted|No permission/i)
    const launcher = Number(textOf(join(first.room, 'launcher')))
    const environment = textOf(`/proc/${launcher}/environ`).split('\0')
    assert.ok(environment.includes(`HOME=${first.user.home}`) && environment.includes('TMPDIR=/tmp'))
    assert.equal(await printed(first, 'echo $PPID').then((text) => text.split('\n').at(-1)), String(launcher))
    // Fields of a socket: its state, where 0A is LISTEN, and the uid that made it.
    const sockets = textOf('/proc/net/tcp')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
    assert.deepEqual(
      sockets.filter((fields) => fields[3] === '0A' && fields[7] === String(first.user.uid)),
      [],
    )
  },
)

test('a script that kills its launcher ends its own account’s calls, and nobody else’s', asRoot, async (t) => {
  const { first, second } = await launched(t)
  const goesOn = second.run('echo $$ > pid; while [ ! -e go ]; do sleep 0.05; done')
  await pidIn(join(second.room, 'pid'))
  await assert.rejects(first.run('kill -9 $PPID; sleep 600'), (error) => hasCode(error, 'lost'))
  assert.equal(await printed(first, 'echo again'), 'again')
  writeFileSync(join(second.room, 'go'), '')
  assert.deepEqual(await goesOn, { kind: 'exited', code: 0 })
})

test('a launcher that a script has stopped is ended, so that no run lasts for ever', asRoot, async (t) => {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  const { log } = keptLog()
  const users = createUsers(t, 1)
  const [user] = users
  assert.ok(user)
  const launcher = createLauncher({ log, becomes: { account: user, rooms: [] }, silenceMs: 2000 })
  t.after(() => launcher.close())
  const { run } = someone(directory, user, launcher.work)
  await assert.rejects(run('kill -STOP $PPID; sleep 600'), (error) => hasCode(error, 'lost'))
})

test('the launcher of an account is not taken for silent by a landfall that was stopped itself', asRoot, async (t) => {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  const { log } = keptLog()
  const [user] = createUsers(t, 1)
  assert.ok(user)
  const launcher = createLauncher({ log, becomes: { account: user, rooms: [] }, silenceMs: 2000 })
  t.after(() => launcher.close())
  const { run, room } = someone(directory, user, launcher.work)
  const running = run('echo $$ > pid; until [ -e go ]; do sleep 0.05; done')
  await pidIn(join(room, 'pid'))
  // As Ctrl-Z does to `once`: whatever the launcher says meanwhile lies unread.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4000)
  writeFileSync(join(room, 'go'), '')
  assert.deepEqual(await running, { kind: 'exited', code: 0 })
})

test('a call that waits for ever in the account’s own files ends with its launcher', asRoot, async (t) => {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  const { log } = keptLog()
  const [user] = createUsers(t, 1)
  assert.ok(user)
  const becomes = { account: user, rooms: [] }
  const launcher = createLauncher({ log, becomes, silenceMs: 2000, stuckMs: 1000 })
  t.after(() => launcher.close())
  const tree = join(directory, 'tree')
  mkdirSync(join(tree, '.git'), { recursive: true })
  execFileSync('mkfifo', [join(tree, '.git/landfall')])
  execFileSync('chown', ['-R', user.name, tree])
  const remote = { url: '/nowhere', mirror: join(directory, 'mirror'), sshKeyFile: null, knownHostsFile: null }
  const order = { path: tree, branch: 'main', commit: sha('1'.repeat(40)), env: {}, timeoutMs: 100 }
  const extras = { submodules: null, lfs: false }
  const stuck = launcher.work.restore({ ...order, ...extras, remote: { ...remote, credentialsFile: null } })
  await assert.rejects(stuck, (error) => hasCode(error, 'lost'))
})

test('with the daemon gone, or closing, the launcher of an account leaves no process of it', asRoot, async (t) => {
  const { first, launchers } = await launched(t)
  const lost = assert.rejects(first.run("trap '' TERM; sleep 600 & echo $$ > pid; wait; sleep 600"), (error) =>
    hasCode(error, 'lost'),
  )
  await pidIn(join(first.room, 'pid'))
  await launchers.close()
  await lost
  await until('no process of the user', () => processesOf(first.user.uid).length === 0)
})

test(
  'a program in a directory that is closed to the account serves it all the same: git, scripts and logs',
  asRoot,
  async (t) => {
    const closed = join(temporaryDirectory(t), 'program')
    mkdirSync(closed, { mode: 0o700 })
    for (const name of ['src', 'package.json']) cpSync(join(PROGRAM, name), join(closed, name), { recursive: true })
    symlinkSync(join(PROGRAM, 'node_modules'), join(closed, 'node_modules'))
    const { createLaunchers: fromThere } = await import(pathToFileURL(join(closed, 'src/launcher/launchers.ts')).href)
    const { first, directory, dataDir } = await launched(t, fromThere)
    assert.equal(await printed(first, 'echo hello'), 'hello')
    const origin = await createOrigin(join(directory, 'forge'))
    const url = `${await serveGit(t, join(directory, 'forge'))}/origin.git`
    const remote = {
      url,
      mirror: accountRoom(dataDir, first.user, 'mirrors', 'one.git'),
      sshKeyFile: null,
      knownHostsFile: null,
      credentialsFile: null,
    }
    const order = {
      remote,
      wanted: { kind: 'branch', branch: 'main' },
      dueAt: Date.now(),
      announced: null,
      deployed: null,
    } as const
    const { tip } = await first.work.fetch({
      ...order,
      compareAnnounced: false,
      pinnedAs: 'site',
      env: {},
      timeoutMs: 120_000,
    })
    assert.ok(tip)
    const release = join(first.room, 'release')
    const changed = { lines: join(first.room, 'changed'), nul: join(first.room, 'changed-z') }
    await first.work.checkOut({
      remote,
      commit: tip,
      previous: null,
      directory: release,
      changed,
      env: {},
      timeoutMs: 120_000,
      submodules: null,
      lfs: false,
    })
    assert.equal(await first.work.wrongLink(join(first.room, 'current')), null)
    await first.work.emptyDirectory(release)
    const log = { file: join(first.room, 'long'), maxBytes: 1000, masked: [] }
    const loud = shellScript(first.room, 'loud', 'seq 100000')
    await first.work.runScript(scriptOrder(first.room, [loud], { log }), ignore)
    assert.match(textOf(log.file), /bytes left out/)
    await first.work.remove([release])
    assert.equal(existsSync(release), false)
    assert.ok(origin)
  },
)

test(
  'an account that cannot be switched to, or cannot reach data_dir, is told so, and disturbs no other',
  asRoot,
  async (t) => {
    const { launchers, first, dataDir, directory } = await launched(t)
    const stranger = { ...first.user, name: 'nobody-has-this-name' }
    await assert.rejects(launchers.as(stranger).remove([]), (error) => {
      return hasCode(error, 'unstartable') && error.message.includes('nobody-has-this-name')
    })
    chmodSync(directory, 0o700)
    await assert.rejects(first.work.remove([]), (error) => {
      return (
        hasCode(error, 'unstartable') &&
        error.message.includes(`cannot reach data_dir: ${directory} is closed to ${first.user.name}`)
      )
    })
    chmodSync(directory, 0o755)
    assert.equal(await printed(first, 'echo mended'), 'mended')
    assert.equal(await launchers.as(null).wrongLink(join(dataDir.path, 'none')), null)
  },
)

test(
  'an account’s own directory that is another’s is refused with the line that mends it, and stays as it is',
  asRoot,
  async (t) => {
    const { dataDir, first, second } = await launched(t)
    const path = dataDir.room('data', 'site')
    await giveDirectory(first.user, path, 0o700)
    writeFileSync(join(path, 'kept'), '')
    for (const other of [second.user, null]) {
      await assert.rejects(giveDirectory(other, path, 0o700), (error) => {
        return (
          hasCode(error, 'unstartable') &&
          error.message.includes(`belongs to ${first.user.name}`) &&
          /chown -R \S+: /.test(error.message)
        )
      })
    }
    await giveDirectory(first.user, path, 0o700)
    assert.ok(existsSync(join(path, 'kept')))
  },
)

test('what the account may not switch is told before anything is run', asRoot, async (t) => {
  const { directory, first, second } = await launched(t)
  const why = async (link: string) => (await first.work.wrongLink(link)) ?? ''
  assert.equal(await why(join(first.room, 'current')), '')
  assert.match(await why(join(directory, 'current')), new RegExp(`${first.user.name} may not write in ${directory};`))
  assert.match(await why(join(first.room, 'a', 'current')), /mkdir -p/)
  writeFileSync(join(first.room, 'file'), '')
  assert.match(await why(join(first.room, 'file')), /is no symlink/)
  const shared = join(directory, 'shared')
  mkdirSync(shared)
  chmodSync(shared, 0o1777)
  assert.equal(await why(join(shared, 'new')), '')
  await second.work.switchLink({ link: join(shared, 'theirs'), to: '/nowhere' })
  assert.match(await why(join(shared, 'theirs')), /another account’s|another account's/)
  await assert.rejects(first.work.switchLink({ link: join(shared, 'theirs'), to: '/else' }))
  assert.equal(readlinkSync(join(shared, 'theirs')), '/nowhere')
})

test(
  'a directory in one of landfall’s is emptied by its account, read-only parts included, and no link in it is followed',
  asRoot,
  async (t) => {
    const { directory, dataDir, first } = await launched(t)
    const [path, victim] = [dataDir.room('data', 'site'), join(directory, 'victim')]
    mkdirSync(victim)
    writeFileSync(join(victim, 'file'), 'kept')
    await giveDirectory(first.user, path, 0o755)
    await printed(first, `cd ${path}`, 'mkdir -p a/b', 'touch a/b/c', `ln -s ${victim} a/link`, 'chmod 500 a a/b')
    await first.work.remove([path])
    await printed(first, `[ -z "$(ls -A ${path})" ]`)
    assert.equal(textOf(join(victim, 'file')), 'kept')
  },
)

test('what root copies for an account is nothing that somebody else could have put there', asRoot, async (t) => {
  const { directory, first } = await launched(t)
  const [key, theirs] = [join(directory, 'key'), join(first.room, 'key')]
  for (const file of [key, theirs]) writeFileSync(file, '')
  assert.equal(await strangerOnWay(key), null)
  assert.equal(await strangerOnWay(theirs), first.room)
  symlinkSync(key, join(directory, 'link'))
  assert.equal(await strangerOnWay(join(directory, 'link')), null)
  symlinkSync(theirs, join(directory, 'lure'))
  assert.equal(await strangerOnWay(join(directory, 'lure')), first.room)
  const open = join(directory, 'open')
  mkdirSync(open)
  chmodSync(open, 0o777)
  writeFileSync(join(open, 'key'), '')
  assert.equal(await strangerOnWay(join(open, 'key')), open)
})

test('a data_dir that another account owns is refused by root', asRoot, async (t) => {
  const directory = temporaryDirectory(t)
  const [user] = createUsers(t, 1)
  assert.ok(user)
  const first: DataDir = await ownDataDir(directory)
  first.release()
  for (const path of [directory, join(directory, 'runs')]) {
    chownSync(path, user.uid, user.gid)
    await assert.rejects(
      ownDataDir(directory),
      (error) => hasCode(error, 'start') && /chown -R root: /.test(error.message),
    )
    chownSync(path, 0, 0)
  }
  const second = await ownDataDir(directory)
  second.release()
  assert.equal(lives(process.pid), true)
})
