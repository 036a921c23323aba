/** An account that stops its launcher (SIGSTOP) again and again, and what that costs everybody else. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hasCode } from '../src/errors.ts'
import { FORGE } from '../src/forges/index.ts'
import { createLauncher } from '../src/launcher/launcher.ts'
import type { Sha } from '../src/model.ts'
import { freePort } from './support/cli.ts'
import { SECRET } from './support/daemon.ts'
import { keptLog } from './support/log.ts'
import { pidIn } from './support/scripts.ts'
import { until } from './support/until.ts'
import { createUsers, processesOf, type User, WITHOUT_ROOT } from './support/users.ts'
import { usersSite } from './support/users-site.ts'

const asRoot = { skip: WITHOUT_ROOT }

/** Whoever may be signalled is of the account. */
const STOP_ALL =
  '$| = 1; print "on\\n"; while (1) { for (glob "/proc/[0-9]*") { /(\\d+)$/; kill "STOP", $1 if $1 != $$ } }'

async function stopper(t: TestContext, { name }: User): Promise<ChildProcess> {
  const become = ['--reuid', name, '--regid', name, '--clear-groups']
  const child = spawn('setpriv', [...become, 'perl', '-e', STOP_ALL], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  return child
}

test(
  'a launcher that its account stops before it takes orders is ended like one that is stopped later',
  asRoot,
  async (t) => {
    const [user] = createUsers(t, 1)
    assert.ok(user)
    await stopper(t, user)
    const launcher = createLauncher({ log: keptLog().log, becomes: { account: user, rooms: [] }, silenceMs: 2000 })
    t.after(() => launcher.close())
    // One that was quick enough has answered before it was stopped.
    await until('a launcher that is lost', () =>
      launcher.work.wrongLink('/nowhere/link').then(
        () => false,
        (error: unknown) => hasCode(error, 'lost'),
      ),
    )
  },
)

test(
  'while a start waits for the launcher of one account deliveries are acknowledged, and then all is performed',
  asRoot,
  async (t) => {
    // A launcher that is quick enough has done its part of the start before it is stopped: once more.
    for (let held = false, tries = 0; !held; tries += 1) {
      assert.ok(tries < 5, 'no start has waited')
      held = await startsHeld(t)
    }
  },
)

/** Whether a start after a crash had to wait for the account that stops its launcher, when a delivery was acknowledged. */
async function startsHeld(t: TestContext): Promise<boolean> {
  const { site, hostile } = await twoAccounts(t)
  const port = await freePort()
  const file = join(site.directory, 'landfall.toml')
  writeFileSync(file, readFileSync(file, 'utf8').replace('127.0.0.1:0', `127.0.0.1:${port}`))
  const first = await site.start()
  await first.post({ after: await site.origin.commit({ a: '1' }) })
  await pidIn(join(site.out, 'pid'))
  await until('the other one', async () => (await first.target('other')).state === 'ok')
  await first.kill()
  const after = await site.origin.commit({ a: '2' })

  const game = await stopper(t, hostile)
  let isUp = false
  const starting = site.start().then((daemon) => {
    isUp = true
    return daemon
  })
  assert.equal(await until('an answer', () => answerTo(port, after)), 202)
  const isHeld = !isUp
  game.kill('SIGKILL')
  await until('the start', () => {
    for (const pid of processesOf(hostile.uid)) goOn(pid)
    return isUp
  })
  const second = await starting
  await second.quiet()
  for (const name of ['hostile', 'other']) assert.equal((await second.target(name)).deployed?.commit, after)
  return isHeld
}

test('while an account stops its launcher again and again, the runs of others go on', asRoot, async (t) => {
  const { site, hostile } = await twoAccounts(t)
  const daemon = await site.start()
  const game = await stopper(t, hostile)
  for (const a of ['1', '2', '3']) {
    const after = await site.origin.commit({ a })
    await daemon.post({ after })
    await until('the other one', async () => (await daemon.target('other')).deployed?.commit === after)
  }
  assert.equal(game.exitCode, null)
})

/** The script of one account hangs at its first push, that of another is done at once. */
async function twoAccounts(t: TestContext) {
  const site = await usersSite(t, 2)
  const [hostile, other] = site.users
  site.script('hang.sh', '[ -e "$OUT/pid" ] || { echo $$ > "$OUT/pid"; sleep 600; }')
  site.script('deploy.sh', 'true')
  const targets = [
    site.target('hostile', hostile, 'hook = "github"', 'lane = "1"', 'script = "hang.sh"'),
    site.target('other', other, 'hook = "github"', 'lane = "2"', 'script = "deploy.sh"'),
  ]
  site.configure(targets.join('\n'))
  return { site, hostile }
}

function goOn(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT')
  } catch {
    // It has ended meanwhile.
  }
}

/** Null where nobody listens yet. */
async function answerTo(port: number, after: Sha): Promise<number | null> {
  const delivery = {
    event: 'push',
    repo: 'acme/site',
    ref: 'refs/heads/main',
    before: null,
    after,
    guid: 'during-a-start',
  }
  const { headers, body } = FORGE.github.compose(delivery, SECRET, Date.now())
  const answer = await fetch(`http://127.0.0.1:${port}/hooks/github`, { method: 'POST', headers, body }).catch(
    () => null,
  )
  return answer?.status ?? null
}
