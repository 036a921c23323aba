import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { lives, pidIn, textOf } from './support/scripts.ts'
import { until } from './support/until.ts'
import { processesOf, WITHOUT_ROOT } from './support/users.ts'
import { usersSite } from './support/users-site.ts'

const asRoot = { skip: WITHOUT_ROOT }
const DOCS = readFileSync(new URL('../docs/operations.md', import.meta.url), 'utf8')
/** `CAP_SETUID …`, as a unit file would grant them. */
const TOLD = /`(CAP_\w+(?: CAP_\w+)*)`/.exec(DOCS)?.[1]?.toLowerCase().split(' ') ?? []
const NO_MORE = ['setpriv', '--bounding-set', ['-all', ...TOLD.map((name) => name.replace('cap_', '+'))].join(',')]

test(
  'with the capabilities that the docs name, and no others, landfall serves another account over a crash',
  asRoot,
  async (t) => {
    const site = await usersSite(t, 1, { under: NO_MORE })
    const [user] = site.users
    site.script(
      'deploy.sh',
      '[ "$LANDFALL_TRIGGER" = push ] || exit 0',
      'setsid sleep 600 & echo $! > "$OUT/left"',
      'echo $$ > "$OUT/pid"; sleep 600',
    )
    site.configure(site.target('site', user, 'script = "deploy.sh"', `current = "${user.home}/site"`))
    const first = await site.start()
    const capabilities = Number.parseInt(/CapEff:\t(\w+)/.exec(textOf(`/proc/${first.pid}/status`))?.[1] ?? '', 16)
    assert.equal(capabilities.toString(2).replaceAll('0', '').length, TOLD.length)
    const run = await first.accepted({ after: await site.origin.commit({ a: '1' }) })
    const [script, left] = [await pidIn(join(site.out, 'pid')), await pidIn(join(site.out, 'left'))]
    await first.kill()
    const second = await site.start()
    const recovery = await until('the recovery', async () =>
      (await second.runs()).find(({ trigger }) => trigger === 'recovery'),
    )
    assert.equal((await second.ended(recovery.id)).state, 'succeeded')
    assert.equal((await second.run(run)).state, 'interrupted')
    for (const pid of [script, left]) assert.equal(lives(pid), false, 'it is known by its environment')
    assert.equal(await second.stop(), 0)
    await until('no process of the user', () => processesOf(user.uid).length === 0)
  },
)
