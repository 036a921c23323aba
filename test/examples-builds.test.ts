/** The examples that build what goes live from the commit: a site, and services in three languages. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { assertEnd, SYSTEM_PATH, type Trial, tryExample, without } from './support/examples.ts'

const WITH_CURRENT = ['current = "$CURRENT"']

test('the static site goes live once it is built, and a build without a page changes nothing', async (t) => {
  const trial = await tryExample(t, { script: 'static-site.sh', settings: WITH_CURRENT })
  const page = () => readFileSync(join(trial.current, 'public/index.html'), 'utf8')
  const makefile = 'all:\n\tmkdir -p public\n\techo "<h1>built</h1>" > public/index.html\n'
  await assertEnd(trial, await trial.push({ Makefile: makefile }), 'succeeded')
  assert.equal(page(), '<h1>built</h1>\n')
  await assertEnd(trial, await trial.again(), 'succeeded')

  const bad = await trial.push({ Makefile: 'all:\n\ttrue\n' })
  await assertEnd(trial, bad, 'failed')
  assert.match(await trial.log(bad), /nothing goes live/)
  assert.equal(page(), '<h1>built</h1>\n')
})

test('the Node service is built in its release, restarted, and brought back when the restart fails', async (t) => {
  const trial = await tryExample(t, {
    script: 'node-service.sh',
    settings: [...WITH_CURRENT, 'activate = ["sudo", "-n", "systemctl", "restart", "api"]'],
    // In the place of systemctl: a service that comes up only if its release says so.
    programs: { sudo: ['cat dist.txt >> "$OUT/restarts"', 'grep -q up dist.txt'] },
  })
  const service = (state: string) => ({
    'package.json': JSON.stringify({ name: 'api', version: '1.0.0', scripts: { build: `echo ${state} > dist.txt` } }),
    'package-lock.json': JSON.stringify({
      name: 'api',
      version: '1.0.0',
      lockfileVersion: 3,
      packages: { '': { name: 'api', version: '1.0.0' } },
    }),
  })
  await assertEnd(trial, await trial.push(service('up')), 'succeeded')
  await assertEnd(trial, await trial.push(service('down')), 'failed', 'activate')
  assert.deepEqual(trial.site.lines('restarts'), ['up', 'down', 'up'])
  assert.equal(readFileSync(join(trial.current, 'dist.txt'), 'utf8'), 'up\n')

  const unlocked = await trial.push({ ...service('up'), 'package-lock.json': null })
  await assertEnd(trial, unlocked, 'failed')
  assert.match(await trial.log(unlocked), /no package-lock\.json/)
})

// --- PHP ----------------------------------------------------------------------------------------------------------

const SHOP = {
  'composer.json': JSON.stringify({
    name: 'acme/shop',
    description: 'A shop.',
    license: 'MIT',
    repositories: [{ 'packagist.org': false }, { type: 'path', url: 'greeting' }],
    require: { 'acme/greeting': '1.0.0' },
  }),
  'greeting/composer.json': JSON.stringify({
    name: 'acme/greeting',
    version: '1.0.0',
    autoload: { files: ['greeting.php'] },
  }),
  'greeting/greeting.php': '<?php function greeting() { return "hello"; }\n',
  'public/index.php': '<?php require __DIR__ . "/../vendor/autoload.php"; echo greeting();\n',
}

/** What a developer commits: the files, and the lock file that `composer update` makes of them. */
async function developed(trial: Trial): Promise<Record<string, string>> {
  const home = join(trial.site.directory, 'composer')
  const env = { PATH: SYSTEM_PATH, COMPOSER_HOME: home, COMPOSER_ALLOW_SUPERUSER: '1', COMPOSER_DISABLE_NETWORK: '1' }
  for (const [name, text] of Object.entries(SHOP)) await put(join(trial.origin.work, name), text)
  execFileSync('composer', ['update', '--no-install', '--no-interaction'], {
    cwd: trial.origin.work,
    env,
    stdio: 'pipe',
  })
  return { ...SHOP, 'composer.lock': readFileSync(join(trial.origin.work, 'composer.lock'), 'utf8') }
}

test('the PHP application runs with its packages, and a syntax error or a missing network keeps it as it is', {
  skip: without('php-cli', 'composer'),
}, async (t) => {
  const trial = await tryExample(t, { script: 'php-composer.sh', settings: WITH_CURRENT })
  const answer = () => execFileSync('php', ['public/index.php'], { cwd: trial.current, env: { PATH: SYSTEM_PATH } })
  const shop = await developed(trial)
  await assertEnd(trial, await trial.push(shop), 'succeeded')
  assert.equal(String(answer()), 'hello')
  await assertEnd(trial, await trial.again(), 'succeeded')
  assert.equal(String(answer()), 'hello')

  const misspelt = await trial.push({ 'public/index.php': '<?php ech("oh");\n$x = ;\n' })
  await assertEnd(trial, misspelt, 'failed')
  assert.match(await trial.log(misspelt), /syntax error.*public\/index\.php/)
  assert.equal(String(answer()), 'hello')

  const lock = JSON.parse(shop['composer.lock'] ?? '') as { packages: Record<string, unknown>[] }
  const [greeting = {}] = lock.packages
  // Nobody listens there.
  greeting['dist'] = { type: 'zip', url: 'https://127.0.0.1:1/greeting.zip', reference: 'main' }
  delete greeting['transport-options']
  await assertEnd(trial, await trial.push({ 'composer.lock': JSON.stringify(lock) }), 'failed', 'tempfail')
  assert.equal(String(answer()), 'hello')
})

// --- Python -------------------------------------------------------------------------------------------------------

/** A wheel is a zip file with these names in it. */
const WHEEL = {
  'greeting.py': 'def main():\n    print("hello")\n',
  'greeting-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n',
  'greeting-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
  'greeting-1.0.dist-info/entry_points.txt': '[console_scripts]\ngreet = greeting:main\n',
  'greeting-1.0.dist-info/RECORD': '',
}

async function makeWheel(directory: string): Promise<void> {
  const parts = join(directory, 'parts')
  for (const [name, text] of Object.entries(WHEEL)) await put(join(parts, name), text)
  const file = join(directory, 'greeting-1.0-py3-none-any.whl')
  const args = ['-m', 'zipfile', '-c', file, 'greeting.py', 'greeting-1.0.dist-info']
  execFileSync('python3', args, { cwd: parts, env: { PATH: SYSTEM_PATH } })
}

test('the Python service has its packages in its release, and one that cannot be had keeps it as it is', {
  skip: without('python3-venv'),
}, async (t) => {
  const wheels = mkdtempSync(join(tmpdir(), 'landfall-wheels-'))
  t.after(() => rmSync(wheels, { recursive: true, force: true }))
  await makeWheel(wheels)
  const trial = await tryExample(t, {
    script: 'python-venv.sh',
    settings: WITH_CURRENT,
    env: { PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels },
  })
  const answer = () => String(execFileSync(join(trial.current, '.venv/bin/greet')))
  await assertEnd(trial, await trial.push({ 'requirements.txt': 'greeting==1.0\n', 'app.py': 'x = 1\n' }), 'succeeded')
  assert.equal(answer(), 'hello\n')
  await assertEnd(trial, await trial.again(), 'succeeded')
  assert.equal(answer(), 'hello\n')

  const misspelt = await trial.push({ 'app.py': 'x = = 1\n' })
  await assertEnd(trial, misspelt, 'failed')
  assert.match(await trial.log(misspelt), /SyntaxError/)
  const unknown = await trial.push({ 'app.py': 'x = 2\n', 'requirements.txt': 'greeting==2.0\n' })
  await assertEnd(trial, unknown, 'failed')
  assert.match(await trial.log(unknown), /greeting==2\.0/)
  assert.equal(answer(), 'hello\n')
})

async function put(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, text)
}
