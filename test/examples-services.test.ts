/** The examples that change something beside the release: containers, a database, somebody's mailbox. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { assertEnd, SYSTEM_PATH, tryExample, without } from './support/examples.ts'

test('containers are brought to the commit, and back to the commit before where they do not become healthy', async (t) => {
  const trial = await tryExample(t, {
    script: 'docker-compose.sh',
    settings: ['activate = ["docker", "compose", "up", "--detach", "--wait", "--remove-orphans"]'],
    env: { COMPOSE_PROJECT_NAME: 'shop' },
    // In the place of docker: it tells what it was asked, where, and fails as docker would.
    programs: {
      docker: [
        'echo "$COMPOSE_PROJECT_NAME $LANDFALL_COMMIT $*" >> "$OUT/docker"',
        'test -f compose.yaml || { echo "no configuration file provided: not found" >&2; exit 14; }',
        'case "$*" in',
        '  *" pull "*) test ! -e "$OUT/registry-is-down" ;;',
        '  *" up "*) grep -q healthy compose.yaml ;;',
        'esac',
      ],
    },
  })
  const asked = () => trial.site.lines('docker').filter((line) => !line.includes(' image prune '))
  const [good, bad] = [
    await trial.push({ 'compose.yaml': '# healthy\nservices: {}\n' }),
    await trial.push({ 'compose.yaml': '# it hangs\nservices: {}\n' }),
  ]
  await assertEnd(trial, good, 'succeeded')
  await assertEnd(trial, bad, 'failed', 'activate')
  const preparing = (commit: string | null) => [
    `shop ${commit} compose config --quiet`,
    `shop ${commit} compose pull --quiet --ignore-buildable`,
    `shop ${commit} compose build`,
  ]
  const up = (commit: string | null) => `shop ${commit} compose up --detach --wait --remove-orphans`
  assert.deepEqual(asked(), [
    ...preparing(good.commit),
    up(good.commit),
    ...preparing(bad.commit),
    up(bad.commit),
    up(good.commit),
  ])

  writeFileSync(join(trial.site.out, 'registry-is-down'), '')
  const later = await trial.push({ 'compose.yaml': '# healthy, with a new image\nservices: {}\n' })
  await assertEnd(trial, later, 'failed', 'tempfail')
  // It is tried again in a while, and then asks the same.
  const forLater = new Set(asked().filter((line) => line.includes(` ${later.commit} `)))
  assert.deepEqual([...forLater], preparing(later.commit).slice(0, 2), 'nothing is built or started without its images')
})

// --- A database ---------------------------------------------------------------------------------------------------

const GOODS = {
  'migrations/0001_goods.sql': 'CREATE TABLE goods (name TEXT NOT NULL);\n',
  'migrations/0002_tea.sql': "INSERT INTO goods VALUES ('tea')",
}

test('what is live and its database change together, each migration once, with a copy of what was before', {
  skip: without('sqlite3'),
}, async (t) => {
  const trial = await tryDatabase(t)
  const first = await trial.push(GOODS)
  await assertEnd(trial, first, 'succeeded')
  assert.deepEqual(trial.goods(), ['tea'])
  const again = await trial.again()
  await assertEnd(trial, again, 'succeeded')
  assert.match(await trial.log(again), /needs no migration/)

  const more = await trial.push({ 'migrations/0003_more.sql': "INSERT INTO goods VALUES ('salt');\n" })
  await assertEnd(trial, more, 'succeeded')
  assert.deepEqual(trial.goods(), ['tea', 'salt'])
  const backup = /in (\/.*\.db)\./.exec(await trial.log(more))?.[1] ?? ''
  assert.equal(trial.sql('SELECT name FROM goods', backup), 'tea')
})

test('a migration that fails leaves the database, the migrations beside it and what is live as they were', {
  skip: without('sqlite3'),
}, async (t) => {
  const trial = await tryDatabase(t)
  await assertEnd(trial, await trial.push(GOODS), 'succeeded')
  const live = realpathSync(trial.current)
  const broken = await trial.push({
    'migrations/0003_more.sql': "INSERT INTO goods VALUES ('salt');\n",
    'migrations/0004_broken.sql': "INSERT INTO godos VALUES ('pepper');\n",
  })
  await assertEnd(trial, broken, 'failed')
  assert.match(await trial.log(broken), /no such table: godos.*is as it was/s)
  assert.deepEqual(trial.goods(), ['tea'])
  assert.equal(realpathSync(trial.current), live)

  const mended = await trial.push({ 'migrations/0004_broken.sql': "INSERT INTO goods VALUES ('pepper');\n" })
  await assertEnd(trial, mended, 'succeeded')
  assert.deepEqual(trial.goods(), ['tea', 'salt', 'pepper'])
})

test('a database that another program has locked is migrated later', { skip: without('sqlite3') }, async (t) => {
  const trial = await tryDatabase(t)
  await assertEnd(trial, await trial.push(GOODS), 'succeeded')
  const holder = spawn('sqlite3', ['-batch', trial.database], { env: { PATH: SYSTEM_PATH }, stdio: 'pipe' })
  holder.stdin.write("BEGIN IMMEDIATE; SELECT 'locked';\n")
  await once(holder.stdout, 'data')
  const busy = await trial.push({ 'migrations/0003_more.sql': "INSERT INTO goods VALUES ('salt');\n" })
  holder.stdin.end()
  await once(holder, 'exit')
  await assertEnd(trial, busy, 'failed', 'tempfail')
  assert.deepEqual(trial.goods(), ['tea'])
})

async function tryDatabase(t: Parameters<typeof tryExample>[0]) {
  const directory = mkdtempSync(join(tmpdir(), 'landfall-database-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const database = join(directory, 'shop.db')
  const trial = await tryExample(t, {
    script: 'migrate-database.sh',
    settings: ['current = "$CURRENT"'],
    env: { DATABASE: database },
  })
  const sql = (statement: string, file = database) =>
    execFileSync('sqlite3', [file, statement], { env: { PATH: SYSTEM_PATH }, encoding: 'utf8' }).trim()
  return { ...trial, database, sql, goods: () => sql('SELECT name FROM goods ORDER BY rowid').split('\n') }
}

// --- Mail ---------------------------------------------------------------------------------------------------------

test('a push is mailed once with all its diffs, and later where the mail server asks for that', async (t) => {
  const trial = await tryExample(t, {
    script: 'mail-the-diffs.sh',
    settings: ['keep_releases = 1'],
    env: { MAIL_TO: 'team@example.com', MAIL_FROM: 'landfall@example.com' },
    // In the place of a mail server's: it keeps what it takes, and asks for patience as sendmail does (EX_TEMPFAIL).
    programs: {
      sendmail: [
        // Said by the commit, so that a retry that comes early finds it as busy.
        'test ! -e busy || exit 75',
        'n=$(($(cat "$OUT/count" 2>/dev/null || echo 0) + 1))',
        'echo "$n" > "$OUT/count"',
        'echo "$*" > "$OUT/arguments"',
        'cat > "$OUT/mail-$n"',
      ],
    },
  })
  const sent = () => trial.site.lines('count')[0] ?? '0'
  await assertEnd(trial, await trial.push({ 'a.txt': 'one\n' }, 'The first'), 'succeeded')
  await assertEnd(trial, await trial.again(), 'succeeded')
  assert.equal(sent(), '1', 'a redelivery brings nothing new')

  await trial.origin.commit({ 'a.txt': 'two\n' }, 'The second')
  const long = 'x'.repeat(2000)
  await assertEnd(trial, await trial.push({ 'b.txt': `${long}\n`, 'c.txt': 'ä ünicode\n' }, 'The third'), 'succeeded')
  assert.equal(sent(), '2')
  assert.equal(trial.site.read('arguments'), '-oi -t\n')
  const { headers, body, text } = mail(trial.site.read('mail-2'))
  assert.match(
    headers,
    /^From: landfall@example\.com\nTo: team@example\.com\nSubject: \[acme\/site\] main: 2 new commit/,
  )
  assert.ok(body.split('\n').every((line) => line.length <= 76))
  assert.ok(text.indexOf('The second') > 0 && text.indexOf('The second') < text.indexOf('The third'))
  assert.ok(!text.includes('The first'))
  for (const line of ['-one', '+two', `+${long}`, '+ä ünicode']) assert.ok(text.includes(`\n${line}\n`), line)

  await assertEnd(trial, await trial.push({ 'a.txt': 'four\n', busy: '' }, 'The fourth'), 'failed', 'tempfail')
  await assertEnd(trial, await trial.push({ 'a.txt': 'five\n', busy: null }, 'The fifth'), 'succeeded')
  assert.equal(sent(), '3')
  assert.match(mail(trial.site.read('mail-3')).text, /The fourth.*The fifth/s, 'what could not be sent is not lost')
})

test('a run that fails after its mail was sent does not send it again when it is repeated', async (t) => {
  const trial = await tryExample(t, {
    script: 'mail-the-diffs.sh',
    settings: ['activate = ["afterwards"]'],
    env: { MAIL_TO: 'team@example.com', MAIL_FROM: 'landfall@example.com' },
    programs: { sendmail: ['echo sent >> "$OUT/sent"'], afterwards: ['test ! -e "$OUT/trouble"'] },
  })
  writeFileSync(join(trial.site.out, 'trouble'), '')
  await assertEnd(trial, await trial.push({ 'a.txt': 'one\n' }), 'failed', 'activate')
  rmSync(join(trial.site.out, 'trouble'))
  await assertEnd(trial, await trial.again(), 'succeeded')
  assert.deepEqual(trial.site.lines('sent'), ['sent'])
})

test('diffs that are too long for a mail are listed, with the command that shows them', async (t) => {
  const trial = await tryExample(t, {
    script: 'mail-the-diffs.sh',
    env: { MAIL_TO: 'team@example.com', MAIL_FROM: 'landfall@example.com' },
    programs: { sendmail: ['cat > "$OUT/mail"'] },
  })
  await assertEnd(trial, await trial.push({ 'a.txt': 'one\n' }), 'succeeded')
  const big = await trial.push({ 'big.txt': 'a line that is there many times\n'.repeat(50_000) }, 'A big one')
  await assertEnd(trial, big, 'succeeded')
  const { text } = mail(trial.site.read('mail'))
  assert.ok(text.length < 10_000)
  assert.match(text, new RegExp(`A big one.*big\\.txt \\|.*git log --patch \\w+\\.\\.${big.commit}`, 's'))
})

function mail(raw: string): { readonly headers: string; readonly body: string; readonly text: string } {
  const end = raw.indexOf('\n\n')
  const body = raw.slice(end + 2)
  return { headers: raw.slice(0, end), body, text: Buffer.from(body, 'base64').toString('utf8') }
}
