import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, readdirSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { landfall } from './support/cli.ts'
import { lives, pidIn, textOf } from './support/scripts.ts'
import { until } from './support/until.ts'
import { processesOf, WITHOUT_ROOT } from './support/users.ts'
import { usersSite } from './support/users-site.ts'

const asRoot = { skip: WITHOUT_ROOT }
const modeOf = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8)

test('everything of a target runs as its user, and what it makes is that user’s', asRoot, async (t) => {
  const site = await usersSite(t, 1)
  const {
    dataDir,
    users: [user],
    out,
  } = site
  const current = join(user.home, 'site')
  site.script(
    'deploy.sh',
    'id -u > "$OUT/uid"; id -G > "$OUT/groups"; umask > "$OUT/umask"; env > "$OUT/env"',
    'touch built "$LANDFALL_DATA/kept"',
  )
  site.script('live.sh', 'id -u > "$OUT/activate"')
  site.script('told.sh', 'id -u > "$OUT/told"; cat "$LANDFALL_LOG" > "$OUT/told-log"; pwd > "$OUT/told-in"')
  site.configure(
    site.target(
      'site',
      user,
      'script = "deploy.sh"',
      `current = "${current}"`,
      'activate = "live.sh"',
      'on_success = "told.sh"',
      'on_failure = "told.sh"',
    ),
  )
  const daemon = await site.start()
  const commit = await site.origin.commit({ a: '1' })
  const run = await daemon.ended(await daemon.accepted({ after: commit }))
  assert.equal(run.state, 'succeeded', JSON.stringify(run))
  await until('the report', () => site.read('told-in') !== '')

  for (const name of ['uid', 'activate', 'told']) assert.equal(Number(site.read(name)), user.uid, name)
  assert.deepEqual(new Set(site.read('groups').trim().split(' ').map(Number)), new Set([user.gid, user.group.gid]))
  assert.equal(site.read('umask').trim(), '0022')
  const env = new Map(
    site.lines('env').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  )
  const expected = { HOME: user.home, USER: user.name, LOGNAME: user.name, SHELL: user.shell, TMPDIR: '/tmp' }
  for (const [name, value] of Object.entries(expected)) assert.equal(env.get(name), value)

  const runs = join(dataDir, 'runs', String(run.id))
  const release = join(dataDir, 'releases', 'site', commit)
  const theirs = ['log', 'report.log', 'payload.json', 'changed', 'changed-z'].map((name) => join(runs, name))
  assert.deepEqual(
    readdirSync(runs)
      .map((name) => join(runs, name))
      .toSorted(),
    theirs.toSorted(),
  )
  for (const file of theirs) assert.equal(modeOf(file), '600', file)
  const own = [
    release,
    join(release, 'built'),
    join(release, '.git'),
    join(dataDir, 'releases', 'site'),
    join(dataDir, 'data', 'site'),
    join(dataDir, 'data', 'site', 'kept'),
    current,
  ]
  const rooms = ['mirrors', 'work', 'logs'].map((room) => join(dataDir, 'accounts', user.name, room))
  for (const path of [...theirs, ...own, ...rooms, ...filesBelow(rooms[0] ?? '')])
    assert.equal(lstatSync(path).uid, user.uid, path)
  for (const path of [runs, join(dataDir, 'accounts', user.name)]) {
    assert.deepEqual([lstatSync(path).uid, modeOf(path)], [0, '711'], path)
  }
  assert.deepEqual(
    [modeOf(join(dataDir, 'releases', 'site')), modeOf(release), modeOf(join(dataDir, 'data', 'site'))],
    ['755', '755', '700'],
  )
  assert.deepEqual(
    filesBelow(out).filter((file) => lstatSync(file).uid === 0),
    [],
  )

  // A failure, too: its report runs in an empty directory that goes again.
  site.script('deploy.sh', 'id -u; exit 1')
  const failed = await daemon.ended(await daemon.accepted({ after: await site.origin.commit({ a: '2' }) }))
  await until('the report', () => site.read('told-in').includes('/work/'))
  assert.equal(site.read('told-in').trim(), join(dataDir, 'accounts', user.name, 'work', String(failed.id)))
  assert.match(site.read('told-log'), new RegExp(`^${user.uid}\\n\\[landfall: failed`))
  await until('an empty room', () => readdirSync(join(dataDir, 'accounts', user.name, 'work')).length === 0)
  assert.equal(readlinkSync(current), release)
})

test(
  'two users of one repository have a mirror each, and neither can reach what is the other’s or landfall’s',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 2)
    const {
      dataDir,
      directory,
      users: [one, other],
    } = site
    writeFileSync(join(directory, '.env'), 'TOKEN=of the env\n', { mode: 0o600 })
    site.script(
      'deploy.sh',
      'echo "of the log"; echo "of the data" > "$LANDFALL_DATA/secret"',
      // The run's number last: it is what the test waits for.
      'echo $PPID > "$OUT/$LANDFALL_TARGET-launcher"; echo "$LANDFALL_RUN" > "$OUT/$LANDFALL_TARGET-run"',
      '[ "$LANDFALL_TARGET" = one ] || while [ ! -e "$OUT/go" ]; do sleep 0.1; done',
    )
    site.configure(
      [
        site.target('one', one, 'lane = "one"', 'script = "deploy.sh"'),
        site.target('other', other, 'lane = "other"', 'script = "deploy.sh"'),
      ].join('\n'),
    )
    const daemon = await site.start()
    await daemon.accepted({ after: await site.origin.commit({ a: '1' }) })
    const [run, launcher] = [await pidIn(join(site.out, 'other-run')), await pidIn(join(site.out, 'other-launcher'))]
    await daemon.ended(await pidIn(join(site.out, 'one-run')))

    for (const user of [one, other])
      assert.equal(readdirSync(join(dataDir, 'accounts', user.name, 'mirrors')).length, 1)
    const [release] = readdirSync(join(dataDir, 'releases', 'other'))
    const files = [
      ...['landfall.db', 'landfall.db-wal', 'lock.db'].map((name) => join(dataDir, name)),
      ...['log', 'payload.json', 'changed'].map((name) => join(dataDir, 'runs', String(run), name)),
      join(dataDir, 'releases', 'other', release ?? '', '.git', 'config'),
      join(dataDir, 'data', 'other', 'secret'),
      join(directory, 'landfall.toml'),
      join(directory, '.env'),
      ...[daemon.pid, launcher].map((pid) => `/proc/${pid}/environ`),
    ]
    for (const file of files) {
      assert.ok(existsSync(file), file)
      assert.match(one.run(`cat '${file}'`), /Permission denied/, file)
      assert.match(one.run(`echo x >> '${file}'`), /Permission denied|cannot create/i, file)
    }
    const closed = [
      'payloads',
      'keys',
      'mirrors',
      'runs',
      'releases',
      'data',
      'accounts',
      `accounts/${other.name}/mirrors`,
      `accounts/${other.name}/work`,
    ]
    for (const name of closed) assert.match(one.run(`ls '${join(dataDir, name)}'`), /Permission denied/, name)
    for (const name of [
      'runs',
      `runs/${run}`,
      'releases',
      'releases/other',
      'data',
      'data/other',
      `accounts/${one.name}`,
      `runs/${await pidIn(join(site.out, 'one-run'))}`,
    ]) {
      assert.match(one.run(`touch '${join(dataDir, name, 'mine')}'`), /Permission denied/, name)
    }
    const connect = `require('net').connect('${dataDir}/landfall.sock').on('error', (e) => console.log(e.code)).on('connect', () => console.log('in'))`
    assert.equal(one.run(`'${process.execPath}' -e "${connect}"`).trim(), 'EACCES')
    for (const pid of [daemon.pid, launcher]) assert.match(one.run(`kill -9 ${pid}`), /not permitted/i)
    writeFileSync(join(site.out, 'go'), '')
    assert.equal((await daemon.ended(run)).state, 'succeeded')
    // What a web server needs of a release, it can read.
    assert.match(one.run(`cat '${join(dataDir, 'releases', 'other', release ?? '', 'a')}'`), /^1/)
  },
)

test('a script that kills its launcher costs its own run, and the other account’s goes on', asRoot, async (t) => {
  const site = await usersSite(t, 2)
  const {
    users: [one, other],
  } = site
  site.script('kills.sh', 'if [ "$LANDFALL_TRIGGER" = push ]; then kill -9 $PPID; sleep 600; fi')
  site.script('waits.sh', 'echo $$ > "$OUT/waits"; while [ ! -e "$OUT/go" ]; do sleep 0.1; done')
  site.configure(
    [
      site.target('other', other, 'lane = "other"', 'script = "waits.sh"'),
      site.target('one', one, 'lane = "one"', 'script = "kills.sh"'),
    ].join('\n'),
  )
  const daemon = await site.start()
  const waits = await daemon.accepted({ after: await site.origin.commit({ a: '1' }) })
  const pid = await pidIn(join(site.out, 'waits'))
  const recovery = await until('the recovery', async () =>
    (await daemon.runs()).find((run) => run.trigger === 'recovery' && run.finishedAt !== null),
  )
  assert.deepEqual([recovery.target, recovery.state], ['one', 'succeeded'])
  assert.equal(lives(pid), true)
  writeFileSync(join(site.out, 'go'), '')
  assert.equal((await daemon.ended(waits)).state, 'succeeded')
})

test(
  'after kill -9 of the daemon the user’s processes are ended, its log is made whole, and the run is recovered',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 1)
    const {
      dataDir,
      users: [user],
    } = site
    site.script(
      'deploy.sh',
      '[ "$LANDFALL_TRIGGER" = push ] || exit 0',
      'seq 20000',
      'setsid sleep 600 & echo $! > "$OUT/left"',
      'echo $$ > "$OUT/pid"; sleep 600',
    )
    site.configure(site.target('site', user, 'script = "deploy.sh"', 'max_log = "4KB"'))
    const first = await site.start()
    const run = await first.accepted({ after: await site.origin.commit({ a: '1' }) })
    const [script, left] = [await pidIn(join(site.out, 'pid')), await pidIn(join(site.out, 'left'))]
    const tail = join(dataDir, 'accounts', user.name, 'logs', `${run}-log.tail`)
    await until('the end of the log on disk', () => {
      const segments = existsSync(tail) ? readdirSync(tail) : []
      return segments.some((name) => textOf(join(tail, name)).endsWith('\n20000\n'))
    })
    assert.equal(statSync(tail).uid, user.uid)
    await first.kill()
    const second = await site.start()
    const recovery = await until('the recovery', async () =>
      (await second.runs()).find((one) => one.trigger === 'recovery'),
    )
    assert.equal((await second.ended(recovery.id)).state, 'succeeded')
    for (const pid of [script, left]) assert.equal(lives(pid), false)
    assert.equal((await second.run(run)).state, 'interrupted')
    assert.match(await second.log(run), /^1\n2\n[\s\S]*bytes left out[\s\S]*\n20000\n\[landfall: interrupted/)
    assert.equal(existsSync(tail), false)
    await second.stop()
    await until('no process of the user', () => processesOf(user.uid).length === 0)
  },
)

test(
  'a target whose user was changed ends unstartable with the chown lines that mend it, and loses nothing',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 2)
    const {
      dataDir,
      users: [one, other],
    } = site
    site.script('deploy.sh', 'touch "$LANDFALL_DATA/kept"')
    site.configure(site.target('site', one, 'script = "deploy.sh"'))
    const first = await site.start()
    await first.ended(await first.accepted({ after: await site.origin.commit({ a: '1' }) }))
    await first.stop()
    for (const [user, owner] of [
      [other, other.name],
      [null, 'root'],
    ] as const) {
      site.configure(site.target('site', user, 'script = "deploy.sh"'))
      const daemon = await site.start()
      const after = await site.origin.commit({ a: owner })
      for (const room of ['data', 'releases']) {
        const refused = await daemon.ended(await daemon.accepted({ after }))
        assert.equal(refused.state, 'unstartable')
        const line = new RegExp(`belongs to .*mend it with: (chown -R ${owner}: ${join(dataDir, room, 'site')})$`).exec(
          refused.detail ?? '',
        )?.[1]
        assert.ok(line, refused.detail ?? '')
        assert.ok(existsSync(join(dataDir, 'data', 'site', 'kept')))
        const [command = '', ...args] = line.split(' ')
        execFileSync(command, args)
      }
      const mended = await daemon.ended(await daemon.accepted({ after }))
      assert.equal(mended.state, 'succeeded', JSON.stringify(mended))
      await daemon.stop()
    }
  },
)

test('what the user may not enter, execute or switch is told before its script runs', asRoot, async (t) => {
  const site = await usersSite(t, 1)
  const {
    users: [user],
    directory,
  } = site
  site.script('deploy.sh', 'touch "$OUT/ran"')
  site.configure(
    [
      site.target('switch', user, 'lane = "1"', 'script = "deploy.sh"', `current = "${directory}/current"`),
      site.target('enter', user, 'lane = "2"', 'script = "closed/deploy.sh"'),
    ].join('\n'),
  )
  site.script('closed/deploy.sh', 'touch "$OUT/ran"')
  chmodSync(join(directory, 'scripts', 'closed'), 0o700)
  const checked = await landfall(['check', '-c', join(directory, 'landfall.toml')], { cwd: directory })
  assert.match(
    checked.stdout,
    new RegExp(`user +${user.name} \\(uid ${user.uid}, groups ${user.name} ${user.group.name}\\)`),
  )
  assert.match(checked.stdout, /enter: .*closed\/deploy.sh is not in reach of/)
  const daemon = await site.start()
  await daemon.accepted({ after: await site.origin.commit({ a: '1' }) })
  await daemon.quiet()
  const ended = new Map((await daemon.runs()).map((run) => [run.target, run]))
  assert.equal(ended.get('switch')?.state, 'unstartable')
  assert.match(ended.get('switch')?.detail ?? '', new RegExp(`${user.name} may not write in ${directory};`))
  assert.equal(ended.get('enter')?.state, 'unstartable')
  assert.match(ended.get('enter')?.detail ?? '', new RegExp(`scripts/closed is closed to ${user.name}; .*chmod o\\+x`))
  assert.equal(existsSync(join(site.out, 'ran')), false)
})

test('edits in a tree of another account are saved in a file of its own', asRoot, async (t) => {
  const site = await usersSite(t, 1)
  const [user] = site.users
  const path = join(user.home, 'tree')
  site.script('deploy.sh', 'true')
  site.configure(site.target('site', user, 'script = "deploy.sh"', `path = "${path}"`))
  const daemon = await site.start()
  await daemon.ended(await daemon.accepted({ after: await site.origin.commit({ 'page.txt': 'theirs' }) }))
  writeFileSync(join(path, 'page.txt'), 'my edit\n')
  const { id, state, detail } = await daemon.ended(
    await daemon.accepted({ after: await site.origin.commit({ a: '1' }) }),
  )
  assert.equal(state, 'succeeded', detail ?? '')
  const patch = join(site.dataDir, 'runs', String(id), 'edits.patch')
  assert.match(textOf(patch), /^\+my edit$/m)
  assert.deepEqual([lstatSync(patch).uid, modeOf(patch)], [user.uid, '600'])
})

test('a target without a checkout works in a directory of its user’s that goes with the run', asRoot, async (t) => {
  const site = await usersSite(t, 1)
  const {
    dataDir,
    users: [user],
  } = site
  site.script(
    'deploy.sh',
    'pwd > "$OUT/pwd"; stat -c "%u %a" . > "$OUT/stat"; cat "$LANDFALL_PAYLOAD" > "$OUT/payload"; touch file',
  )
  site.configure(site.target('site', user, 'script = "deploy.sh"', 'checkout = "none"'))
  const daemon = await site.start()
  const run = await daemon.ended(await daemon.accepted({ after: await site.origin.commit({ a: '1' }) }))
  assert.equal(run.state, 'succeeded', JSON.stringify(run))
  assert.equal(site.read('pwd').trim(), join(dataDir, 'accounts', user.name, 'work', String(run.id)))
  assert.equal(site.read('stat').trim(), `${user.uid} 700`)
  assert.match(site.read('payload'), /"ref":/)
  await until('an empty room', () => readdirSync(join(dataDir, 'accounts', user.name, 'work')).length === 0)
})

function filesBelow(directory: string): readonly string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).map((name) => join(directory, name))
}
