import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HOOK, hooked, mistakes, oneMistake, read, served, TARGET, targeted, topped } from './support/configs.ts'

describe('mistakes', () => {
  test('are all listed at once, in the order of the file, each with its line and column', async () => {
    const found = await mistakes(`max_job = 2
keep_runs = 0
[server]
  listen = "8787"
[hook.github]
secrets = [{ evn = "A" }]
clone = "https://github.com/x.git"
[target.site]
repo = "acme"
hook = "githb"
script = "a.sh"
run = ["./a"]
env = { LANDFALL_RUN = "1", PORT = 3000 }
timeout = "soon"
queue = "evicted"
[tagret.x]
`)
    assert.deepEqual(found, [
      '1:1: max_job: unknown key; did you mean `max_jobs`?',
      '2:1: keep_runs: must be at least 1',
      '4:3: server.listen: "8787" is not "host:port", "[::]:port", "unix:/path" or "systemd:<fd name>"',
      '6:14: hook.github.secrets[0].evn: unknown key; did you mean `env`?',
      '7:1: hook.github.clone: must contain {repo}, where the repository\'s "owner/name" belongs',
      '9:1: target.site.repo: "acme" is not a repository\'s full name (owner/name)',
      '10:1: target.site.hook: there is no hook "githb"; did you mean `github`?',
      '12:1: target.site.run: says what to run, and so does script: keep one of them',
      '13:9: target.site.env.LANDFALL_RUN: "LANDFALL_RUN" is reserved: landfall sets every LANDFALL_ variable itself',
      '13:29: target.site.env.PORT: must be a string, or one of { env = … }, { file = … }, { credential = … }',
      '14:1: target.site.timeout: "soon" is not a duration such as "90s", "5m", "1h30m" or "7d"',
      '15:1: target.site.queue: must be one of "sequential", "evict", "parallel", not "evicted"; did you mean `evict`?',
      '16:2: tagret: unknown key; did you mean `target`?',
    ])
  })

  test('of syntax name line and column, and do not repeat the line, which may hold a secret', async () => {
    const found = await mistakes('[hook.github]\nsecrets = [ sesame ]\n')
    assert.equal(found.length, 1)
    assert.match(found[0] ?? '', /^2:13: syntax: this is not TOML from here on: /)
    assert.doesNotMatch(found[0] ?? '', /sesame/)
  })

  test('of syntax count columns as people do: a key written twice', async () => {
    assert.match((await mistakes('max_jobs = 1\n  max_jobs = 2\n'))[0] ?? '', /^2:3: syntax: .*multiple times/)
  })

  test('in [defaults] are said once, where they stand, however many targets there are', async () => {
    const text = `${HOOK}[defaults]\npoll = "10"\nhook = "website"\n${TARGET}[target.docs]\nrepo = "acme/docs"\n`
    assert.deepEqual(await mistakes(text), [
      '4:1: defaults.poll: "10" is not a duration such as "90s", "5m", "1h30m" or "7d"',
      '5:1: defaults.hook: there is no hook "website"; there is "github"',
    ])
  })

  test('suggest only what is close for its length, and two letters swapped are close', async () => {
    const near = {
      max_job: 'max_jobs',
      drian: 'drain',
      sever: 'server',
      hoko: 'hook',
      taget: 'target',
      defalts: 'defaults',
    }
    for (const [key, meant] of Object.entries(near))
      assert.deepEqual(await mistakes(topped(`${key} = 1`)), [`1:1: ${key}: unknown key; did you mean \`${meant}\`?`])
    for (const key of ['foo', 'hot', 'x', 'look_up'])
      assert.deepEqual(await mistakes(topped(`${key} = 1`)), [`1:1: ${key}: unknown key`])
    await oneMistake(targeted('foo = 1'), '5:1: target.site.foo', /^unknown key$/)
    await oneMistake(targeted('pol = "5m"'), '5:1: target.site.pol', /did you mean `poll`/)
    await oneMistake(targeted('branch = "x"'), '5:1: target.site.branch', /did you mean `branches`/)
  })

  test('of keys that every object has are mistakes like any other', async () => {
    for (const key of ['constructor', 'toString', 'hasOwnProperty'])
      await oneMistake(targeted(`${key} = 1`), `5:1: target.site.${key}`, /^unknown key/)
    await oneMistake(topped('constructor = 1'), '1:1: constructor', /^unknown key/)
    await oneMistake(topped('[constructor]\nx = 1'), '1:2: constructor', /^unknown key/)
    for (const text of ['[target.__proto__]\npolluted = 1', 'x.__proto__ = 1', 'x = [{ "__proto__" = 1 }]'])
      assert.match((await mistakes(text))[0] ?? '', /^1:\d+: \S+: unknown key/, text)
    assert.equal(Reflect.get({}, 'polluted'), undefined)
  })

  test('of type say what is wanted and what is there, never the value', async () => {
    const text = `${HOOK}[target.site]\nrepo = 5\nretries = "3"\nrerun_interrupted = 1\npass_env = "LANG"\nenv = []\nretries2 = 1\n`
    assert.deepEqual(await mistakes(text), [
      '4:1: target.site.repo: must be a string, not a number',
      '5:1: target.site.retries: must be a whole number, not a string',
      '6:1: target.site.rerun_interrupted: must be true or false, not a number',
      '7:1: target.site.pass_env: must be a list, not a string',
      '8:1: target.site.env: must be a table, not a list',
      '9:1: target.site.retries2: unknown key; did you mean `retries`?',
    ])
  })

  test('of a value that is not understood', async () => {
    const wrong: readonly [text: string, place: string, what: RegExp][] = [
      [topped('drain = "later"'), '1:1: drain', /not a duration/],
      [topped('max_jobs = 1.5'), '1:1: max_jobs', /whole number, not a fraction/],
      [topped('keep_payloads = 7'), '1:1: keep_payloads', /must be a string/],
      [served('max_body = "25"'), '6:1: server.max_body', /not a size/],
      [served('max_body = "0MB"'), '6:1: server.max_body', /must not be 0/],
      [served('socket_mode = "rw"'), '6:1: server.socket_mode', /octal/],
      [served('socket_mode = 600'), '6:1: server.socket_mode', /must be a string/],
      [served('socket_group = "no-such-group"'), '6:1: server.socket_group', /no group "no-such-group"/],
      [served('public_url = "ftp://x"'), '6:1: server.public_url', /http/],
      [served('trusted_proxies = ["::1", "10.0.0.0/33"]'), '6:27: server.trusted_proxies[1]', /network/],
      [served('admin = "of"'), '6:1: server.admin', /host:port/],
      [targeted('poll = "500ms"'), '5:1: target.site.poll', /at least "1s"/],
      [targeted('poll = "25d"'), '5:1: target.site.poll', /at most "24d"/],
      [targeted('timeout = "0s"'), '5:1: target.site.timeout', /at least/],
      [targeted('retries = -1'), '5:1: target.site.retries', /at least 0/],
      [targeted('keep_releases = 0'), '5:1: target.site.keep_releases', /at least 1/],
      [targeted('branches = "a..b"'), '5:1: target.site.branches', /git accepts/],
      [targeted('branches = ["main", "!a..b"]'), '5:21: target.site.branches[1]', /git accepts/],
      [
        targeted('branches = "{a,b"'),
        '5:1: target.site.branches',
        /"\{a,b" has a "\{" that nothing closes.*write "\[\{\]"/,
      ],
      [targeted('branches = "[a-"'), '5:1: target.site.branches', /has a "\[" that nothing closes/],
      [targeted('branches = ["main", "!x/[]"]'), '5:21: target.site.branches[1]', /has a "\[" that nothing closes/],
      [targeted('tags = "v{1,{2,3}"'), '5:1: target.site.tags', /nothing closes/],
      [targeted('paths = ["a", "b/{c,d"]'), '5:15: target.site.paths[1]', /nothing closes/],
      [targeted('paths = ["{a,[}]"]'), '5:10: target.site.paths[0]', /has a "\{" that nothing closes/],
      ['[target.site]\nrepo = "acme/{a,b"\nurl = "/a"\n', '2:1: target.site.repo', /nothing closes/],
      [hooked('repos = ["acme/[ab"]'), '3:10: hook.github.repos[0]', /nothing closes/],
      [targeted('branches = []'), '5:1: target.site.branches', /at least one/],
      [targeted('branches = 1'), '5:1: target.site.branches', /a string, or a list/],
      [targeted('tags = "refs/tags/v1"'), '5:1: target.site.tags', /short name such as "v1.0"/],
      [targeted('tags = "v1"\ntag_order = "semver"'), '6:1: target.site.tag_order', /"version", "newest"/],
      [targeted('aliases = ["website"]'), '5:12: target.site.aliases[0]', /full name/],
      [targeted('paths = []'), '5:1: target.site.paths', /at least one/],
      [targeted('paths = ["/docs"]'), '5:10: target.site.paths[0]', /relative/],
      [targeted('paths = ["!docs/"]'), '5:10: target.site.paths[0]', /write "!docs\/\*\*"/],
      [targeted('paths = ["a/../b"]'), '5:10: target.site.paths[0]', /"\."/],
      [targeted('submodules = ["https://x"]'), '5:15: target.site.submodules[0]', /not a host/],
      [targeted('submodules = "x"'), '5:1: target.site.submodules', /true, false, or a list/],
      [targeted('lfs = "yes"'), '5:1: target.site.lfs', /true or false/],
      [targeted('on_delete = "/x"'), '5:1: target.site.on_delete', /scripts_dir/],
      [targeted('branches = "-x"'), '5:1: target.site.branches', /git accepts/],
      [targeted('branches = "refs/heads/main"'), '5:1: target.site.branches', /short name/],
      [targeted('events = []'), '5:1: target.site.events', /at least one/],
      [targeted('run = []'), '5:1: target.site.run', /program/],
      [targeted('script = "../x"'), '5:1: target.site.script', /scripts_dir/],
      [targeted('on_failure = "/x"'), '5:1: target.site.on_failure', /scripts_dir/],
      [targeted('lane = "a b"'), '5:1: target.site.lane', /letters/],
      [targeted('user = "no-such-account"'), '5:1: target.site.user', /no account "no-such-account"/],
      [targeted('env = { "A-B" = "x" }'), '5:9: target.site.env.A-B', /not the name/],
      [targeted('pass_env = ["LANDFALL_RUN"]'), '5:13: target.site.pass_env[0]', /reserved/],
      [targeted('url = "ext::sh -c id"'), '5:1: target.site.url', /space/],
      [targeted('url = "--upload-pack=id"'), '5:1: target.site.url', /option/],
      [hooked('repos = []'), '3:1: hook.github.repos', /at least one/],
      [hooked('repos = ["*"]'), '3:10: hook.github.repos[0]', /fits no repository/],
      [hooked('forge_token = "a b"'), '3:1: hook.github.forge_token', /space/],
      [hooked('ssh_key = "/etc/landfall/deploy_key"'), '3:1: hook.github.ssh_key', /\{ file = "…" \}/],
      [hooked('ssh_key = {}'), '3:1: hook.github.ssh_key', /exactly one/],
      [`${HOOK}[target.Site]\nrepo = "a/b"\n`, '3:9: target.Site', /"Site" cannot be a name/],
      [`[hook.Hub]\nforge = "github"\nsecrets = ["x"]\n${TARGET}`, '1:7: hook.Hub', /"Hub" cannot be a name/],
    ]
    for (const [text, place, what] of wrong) await oneMistake(text, place, what)
  })
})

describe('contradictions', () => {
  test('a file without targets has nothing to do', async () => {
    await oneMistake('', '1:1: target', /nothing to do/)
    await oneMistake(HOOK, '1:1: target', /nothing to do/)
  })

  test('a target without a repository', async () => {
    await oneMistake(`${HOOK}[target.site]\n`, '3:9: target.site', /names no repository/)
  })

  test('a hook without a secret', async () => {
    await oneMistake(`[hook.github]\n${TARGET}`, '1:7: hook.github', /^no secret, no start/)
    await oneMistake(`[hook.github]\nsecrets = []\n${TARGET}`, '2:1: hook.github.secrets', /^no secret, no start/)
    await oneMistake(`[hook.github]\nsecrets = ["ok", " "]\n${TARGET}`, '2:18: hook.github.secrets[1]', /is empty/)
  })

  test('a hook whose name is no forge must say which forge it is', async () => {
    await oneMistake(
      `[hook.githab]\nsecrets = ["x"]\n${TARGET}`,
      '1:7: hook.githab',
      /say which.*did you mean `github`/,
    )
  })

  test('several hooks, and a target that names none and has no url', async () => {
    const two = `${HOOK}[hook.gitlab]\nsecrets = ["x"]\n`
    await oneMistake(`${two}${TARGET}`, '5:9: target.site', /several hooks \("github", "gitlab"\)/)
    const config = await read(`${two}${TARGET}url = "https://x.example/a.git"\n`)
    assert.equal(config.targets[0]?.hook, null)
  })

  test('no hook and no url', async () => {
    await oneMistake(TARGET, '1:9: target.site', /there is no hook/)
  })

  test('a pattern of repositories with one url, or one current', async () => {
    const many = `${HOOK}[target.site]\nrepo = "acme/*"\n`
    await oneMistake(`${many}url = "https://x.example/a.git"\n`, '5:1: target.site.url', /pattern/)
    await oneMistake(`${many}current = "/srv/x"\n`, '5:1: target.site.current', /pattern/)
  })

  test('current inside data_dir, around it, or shared', async () => {
    await oneMistake(targeted('current = "./.landfall/live"'), '5:1: target.site.current', /inside data_dir/)
    await oneMistake(targeted('current = "."'), '5:1: target.site.current', /has data_dir .* inside it/)
    const other = '[target.docs]\nrepo = "acme/docs"\ncurrent = "/srv/./site"\n'
    await oneMistake(targeted(`current = "/srv/site"\n${other}`), '8:1: target.docs.current', /also.*"site"/)
  })

  test('what belongs to releases with checkout none, unless it is only a default', async () => {
    for (const line of ['current = "/srv/x"', 'activate = "x"', 'keep_releases = 5']) {
      const key = line.split(' ')[0]
      const text = targeted(`checkout = "none"\n${line}`)
      await oneMistake(text, `6:1: target.site.${key}`, /checkout = "release"/)
      assert.deepEqual(await mistakes(`[defaults]\n${line}\n${targeted('checkout = "none"')}`), [])
      const inDefaults = `[defaults]\n${line}\ncheckout = "none"\n${HOOK}${TARGET}`
      await oneMistake(inDefaults, `2:1: defaults.${key}`, /checkout = "release"/)
    }
  })

  test("a target's own run or script takes the place of the other in [defaults]", async () => {
    const config = await read(`[defaults]\nscript = "a.sh"\n${targeted('run = ["make"]')}`)
    assert.deepEqual([config.targets[0]?.script, config.targets[0]?.run], [null, ['make']])
  })

  test('listen and admin at one address, or in the place of the socket', async () => {
    await oneMistake(served('listen = "127.0.0.1:8788"'), '6:1: server.listen', /same address/)
    await oneMistake(served('listen = "[::1]:80"\nadmin = "[::1]:80"'), '7:1: server.admin', /same address/)
    await oneMistake(served('listen = "unix:.landfall/landfall.sock"'), '6:1: server.listen', /own socket/)
    assert.deepEqual(await mistakes(served('listen = "127.0.0.1:0"\nadmin = "127.0.0.1:0"')), [])
  })

  test('a whsec_ secret that is not the base64 of 24 to 64 bytes', async () => {
    const secret = (bytes: number) => `whsec_${Buffer.alloc(bytes, 7).toString('base64')}`
    const withSecret = (text: string) => `[hook.gitlab]\nsecrets = ["${text}"]\n${TARGET}`
    for (const good of [secret(24), secret(32), secret(64)]) assert.deepEqual(await mistakes(withSecret(good)), [])
    for (const bad of [secret(23), secret(65), 'whsec_', 'whsec_not base64!', `${secret(24)}=`])
      await oneMistake(withSecret(bad), '2:12: hook.gitlab.secrets[0]', /base64 of 24 to 64 bytes/)
  })
})

describe('as root', () => {
  const root = { user: { uid: 0, name: 'root' } }
  const isRoot = process.geteuid?.() === 0

  test('every target must say its user, itself or in [defaults]', async () => {
    // Whoever is not root owns the file, and is a stranger to root.
    const place = isRoot ? '3:9: target.site' : '1:1: file'
    await oneMistake(`${HOOK}${TARGET}`, place, isRoot ? /user = "root"/ : /belongs to/, root)
    if (!isRoot) return
    assert.deepEqual(await mistakes(targeted('user = "root"'), root), [])
    assert.deepEqual(await mistakes(`[defaults]\nuser = "root"\n${HOOK}${TARGET}`, root), [])
  })

  test('a look at a running daemon does not ask for it', async () => {
    assert.deepEqual(await mistakes(`${HOOK}${TARGET}`, { ...root, secrets: 'leave' }), [])
  })
})
