/** Which secrets are looked for in the logs of whose scripts: a script can watch its log being written. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { SECRET } from './support/daemon.ts'
import { WITHOUT_ROOT } from './support/users.ts'
import { usersSite } from './support/users-site.ts'

const asRoot = { skip: WITHOUT_ROOT }

test(
  'a log holds back nothing of a secret that its account was not given, and blots out what it can read',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 1)
    const [user] = site.users
    const [own, another] = ['token-of-the-own-hook', 'token-of-another-hook']
    const said = [SECRET, own, another]
    site.script('say.sh', ...said.map((secret) => `echo '${secret}'`))
    const start = SECRET.slice(0, -2)
    site.script(
      'watch.sh',
      `printf '%s' '${start}'`,
      'log="$(dirname "$LANDFALL_PAYLOAD")/log"',
      `for n in $(seq 100); do grep -q '${start}$' "$log" && exit 0; sleep 0.1; done`,
      'exit 1',
    )
    const targets = [
      site.target('root', null, 'hook = "github"', 'script = "say.sh"'),
      site.target('user', user, 'hook = "github"', 'script = "say.sh"'),
      site.target('watcher', user, 'hook = "github"', 'script = "watch.sh"'),
      `[hook.other]\nforge = "github"\nsecrets = ["another secret"]\nforge_token = "${another}"`,
    ]
    site.configure(targets.join('\n'))
    const file = join(site.directory, 'landfall.toml')
    writeFileSync(file, readFileSync(file, 'utf8').replace('[hook.github]', `[hook.github]\nforge_token = "${own}"`))
    const daemon = await site.start()
    await daemon.post({ after: await site.origin.commit({ a: '1' }) })
    await daemon.quiet()
    const runs = new Map((await daemon.runs()).map((run) => [run.target, run]))
    const logOf = async (target: string) => (await daemon.log(runs.get(target)?.id ?? 0)).split('\n').slice(0, 3)
    assert.deepEqual(await logOf('root'), ['***', '***', '***'])
    assert.deepEqual(await logOf('user'), [SECRET, '***', another])
    assert.equal(runs.get('watcher')?.state, 'succeeded', 'what begins like a secret is shown at once')
  },
)
