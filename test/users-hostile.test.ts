import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemCode } from '../src/errors.ts'
import type { Daemon } from './support/daemon.ts'
import { git } from './support/git.ts'
import { shellScript, textOf } from './support/scripts.ts'
import { until } from './support/until.ts'
import { type User, WITHOUT_ROOT } from './support/users.ts'
import { usersSite } from './support/users-site.ts'

const asRoot = { skip: WITHOUT_ROOT }

test(
  'whatever a user’s git configuration, release, mirror or repository would have executed never runs as root',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 1)
    const {
      directory,
      users: [user],
      out,
    } = site
    // Each tells who it was run by.
    const spy = shellScript(directory, 'spy', `id -u >> '${out}/ids'`, 'cat')
    writeFileSync(join(out, 'ids'), '')
    chmodSync(join(out, 'ids'), 0o666)
    const hostile = [
      `[core]\nfsmonitor = ${spy}\nhooksPath = ${directory}\nsshCommand = ${spy}\npager = ${spy}\neditor = ${spy}`,
      `[filter "spy"]\nsmudge = ${spy}\nclean = ${spy}\n[diff]\nexternal = ${spy}\n[credential]\nhelper = ${spy}`,
      `[alias]\nreset = !${spy}\nfetch = !${spy}\n[uploadpack]\npackObjectsHook = ${spy}\n[gc]\nrecentObjectsHook = ${spy}`,
    ].join('\n')
    writeFileSync(join(user.home, '.gitconfig'), hostile)
    const spoil =
      'for git in .git "$HOME/../../none" "$ROOMS/mirrors"/*.git; do [ -d "$git" ] || continue; cat "$HOME/.gitconfig" >> "$git/config"; mkdir -p "$git/hooks"; for hook in post-checkout reference-transaction post-index-change; do cp "$OUT/../spy" "$git/hooks/$hook"; done; done'
    site.script('deploy.sh', spoil, 'git -c safe.directory="*" status > /dev/null || true')
    site.script('told.sh', 'true')
    const ofUser = site.target(
      'site',
      user,
      'lane = "1"',
      'script = "deploy.sh"',
      'keep_releases = 1',
      'on_success = "told.sh"',
      `env = { ROOMS = "${site.dataDir}/accounts/${user.name}" }`,
    )
    // Root has a target of the same repository, in releases of its own.
    site.script('as-root.sh', 'id -u > "$OUT/root"')
    site.configure([ofUser, site.target('root', null, 'lane = "2"', 'script = "as-root.sh"')].join('\n'))
    const daemon = await site.start()
    for (const n of [1, 2, 3, 4]) {
      await daemon.accepted({
        after: await site.origin.commit({ a: `${n}`, '.gitattributes': '* filter=spy diff=spy\n' }),
      })
      await daemon.quiet()
    }
    await daemon.kill()
    const again = await site.start()
    await again.accepted({ after: await site.origin.commit({ a: '5' }) })
    await again.quiet()
    assert.equal(site.read('root').trim(), '0')
    const runs = (await again.runs()).map(({ target, state }) => `${target} ${state}`)
    assert.deepEqual(new Set(runs), new Set(['site succeeded', 'root succeeded']))
    const ids = new Set(site.lines('ids').map(Number))
    assert.deepEqual(ids, new Set([user.uid]), 'the filter of its own configuration is the user’s to run')
  },
)

/** What a user does to its own directories, `$VICTIM` being root’s, while landfall goes on working in them. */
const GAMES = {
  'the mirror becomes a link': 'cd "$ROOMS/mirrors"; for one in *; do rm -rf "$one"; ln -s "$VICTIM" "$one"; done',
  'the room of mirrors is gone': 'rm -rf "$ROOMS"/mirrors/* "$ROOMS"/mirrors; ln -s "$VICTIM" "$ROOMS/mirrors" || true',
  'its own checkout becomes a link, and the run succeeds':
    'cd /; rm -rf "$LANDFALL_CHECKOUT"; ln -s "$VICTIM" "$LANDFALL_CHECKOUT"',
  'its own checkout becomes a link, and the run fails':
    'cd /; rm -rf "$LANDFALL_CHECKOUT"; ln -s "$VICTIM" "$LANDFALL_CHECKOUT"; exit 1',
  'every release becomes a link':
    'cd "$LANDFALL_CHECKOUT/.."; for one in *; do [ "$PWD/$one" = "$LANDFALL_CHECKOUT" ] || { rm -rf "$one"; ln -s "$VICTIM" "$one"; }; done',
  'its data leads elsewhere':
    'rm -rf "$LANDFALL_DATA"/*; ln -s "$VICTIM" "$LANDFALL_DATA/link"; rmdir "$LANDFALL_DATA" || true',
  'the logs to come lead elsewhere':
    'for n in 1 2 3 4 5 6 7 8 9; do for of in log report.log; do for end in tail tail-half tail-sealed; do ln -sfn "$VICTIM" "$ROOMS/logs/$((LANDFALL_RUN + n))-$of.$end"; done; done; done',
  'the directories of runs to come lead elsewhere':
    'for n in 1 2 3 4 5 6 7 8 9; do ln -sfn "$VICTIM" "$ROOMS/work/$((LANDFALL_RUN + n))"; done; exit 1',
  'current leads elsewhere': 'ln -sfn "$VICTIM" "$HOME/site"',
}

test(
  'a user that swaps what is in its own directories for links changes nothing outside, and reads nothing back',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 1)
    const {
      directory,
      dataDir,
      users: [user],
    } = site
    const victim = join(directory, 'victim')
    mkdirSync(join(victim, 'objects', 'pack'), { recursive: true })
    for (const name of ['0-0', '500-0', 'config', 'HEAD', 'objects/pack/x', 'file.lock'])
      writeFileSync(join(victim, name), 'TOP SECRET\n')
    chmodSync(victim, 0o700)
    const before = seen(victim)
    site.script(
      'deploy.sh',
      'seq 400',
      `VICTIM='${victim}'`,
      `ROOMS='${dataDir}/accounts/${user.name}'`,
      '[ ! -e game ] || . ./game',
    )
    site.script('told.sh', 'cat "$LANDFALL_LOG"; ls -la')
    site.configure(
      site.target(
        'site',
        user,
        'script = "deploy.sh"',
        'keep_releases = 1',
        'max_log = "1KB"',
        'on_success = "told.sh"',
        'on_failure = "told.sh"',
        `current = "${user.home}/site"`,
      ),
      'keep_runs = 3',
    )
    let daemon = await site.start()
    for (const [round, [game, lines]] of Object.entries(GAMES).entries()) {
      await daemon.accepted({ after: await site.origin.commit({ game: `${lines}\n` }) })
      await settled(daemon)
      // What is done with the outcome: another deployment, one that fails, and a start that puts in order what a crash left.
      for (const next of ['', 'exit 1\n']) {
        await daemon.accepted({ after: await site.origin.commit({ game: next }) })
        await settled(daemon)
      }
      const hung = `hung-${round}`
      const last = await daemon.accepted({
        after: await site.origin.commit({
          game: `[ "$LANDFALL_TRIGGER" = push ] || exit 0; seq 4000; touch "$OUT/${hung}"; sleep 600\n`,
        }),
      })
      const isHung = async () => existsSync(join(site.out, hung)) || (await daemon.run(last)).finishedAt !== null
      await until('a script that hangs, or cannot be fetched', isHung)
      await daemon.kill()
      daemon = await site.start()
      await settled(daemon)
      assert.deepEqual(seen(victim), before, game)
      for (const file of await filesBelow(join(dataDir, 'runs'))) {
        assert.doesNotMatch(textOf(file), /TOP SECRET/, game)
      }
      restore(user, dataDir)
    }
    // And landfall itself is as well as ever.
    await daemon.accepted({ after: await site.origin.commit({ game: '' }) })
    await settled(daemon)
    await until('a success', async () => (await daemon.runs()).at(-1)?.state === 'succeeded')
  },
)

test(
  'a working tree of root’s is refused where another account can swap it, and nothing is run as root there',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 1)
    const {
      directory,
      out,
      users: [user],
    } = site
    const spy = shellScript(directory, 'spy', `id -u >> '${out}/ids'`, 'cat')
    chmodSync(spy, 0o755)
    const theirs = join(directory, 'theirs')
    mkdirSync(theirs)
    const target = site.target('site', null, 'script = "deploy.sh"', `path = "${theirs}/tree"`, 'adopt = true')
    const url = /url = "(.*)"/.exec(target)?.[1] ?? ''
    await git(directory, 'clone', '--quiet', url, join(theirs, 'tree'))
    chownSync(theirs, user.uid, user.gid)
    // A repository of the user's own, of the same origin, in and out of the place of root's.
    user.run(
      `cd '${theirs}'; git init --quiet evil; cd evil; git remote add origin '${url}'; echo '* filter=spy' > .gitattributes`,
    )
    user.run(
      `cd '${theirs}/evil'; printf '[filter "spy"]\n\tclean = ${spy}\n\tsmudge = ${spy}\n' >> .git/config; git -c user.name=x -c user.email=x@x commit --quiet --allow-empty -m x`,
    )
    site.script('deploy.sh', 'true')
    site.configure(target)
    const daemon = await site.start()
    const refused = async (a: string) => {
      const run = await daemon.ended(await daemon.accepted({ after: await site.origin.commit({ a }) }))
      assert.equal(run.state, 'unstartable', run.detail ?? '')
      return run.detail ?? ''
    }
    assert.match(await refused('0'), /cannot be a working tree of root's: \S+theirs is not root's alone/)
    const become = ['--reuid', user.name, '--regid', user.name, '--clear-groups']
    const game = spawn('setpriv', [...become, 'sh', '-c', SWAP, 'sh', theirs])
    t.after(() => game.kill('SIGKILL'))
    for (const a of ['1', '2', '3', '4', '5']) await refused(a)
    assert.equal(game.exitCode, null)
    assert.doesNotMatch(site.read('ids'), /^0$/m)
  },
)

/** Two directories that change places, again and again. */
const SWAP = 'cd "$1"; while :; do mv tree mine; mv evil tree; sleep 0.01; mv tree evil; mv mine tree; sleep 0.01; done'

/** No run is under way, and none is due now. */
async function settled(daemon: Daemon): Promise<void> {
  const isSettled = async () => (await daemon.runs()).every((run) => run.finishedAt !== null || run.notBefore !== null)
  await until('no run that is due', isSettled)
}

/** As the user itself would tidy up behind its games. */
function restore(user: User, dataDir: string): void {
  user.run(
    `cd '${dataDir}/accounts/${user.name}'; rm -rf mirrors/* work/* logs/*; cd '${dataDir}/releases/site'; rm -rf *`,
  )
}

/** Everything below a directory with its text, owner, mode and time of change. */
function seen(directory: string): readonly string[] {
  return execFileSync('find', [directory, '-printf', '%p %u %m %C@ %l\\n'], { encoding: 'utf8' }).split('\n').sort()
}

/** A start prunes beside what else it does, and a directory that goes just now cannot be looked into. */
async function filesBelow(directory: string): Promise<readonly string[]> {
  return await until('a look at all files', () => {
    try {
      return readdirSync(directory, { recursive: true, encoding: 'utf8' }).map((name) => join(directory, name))
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return null
      throw error
    }
  })
}
