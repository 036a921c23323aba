/** What the keys of one target, and of two, say against each other; and what is meant without being said. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { targetOf } from '../src/instances.ts'
import { directory, HOOK, mistakes, oneMistake, read, TARGET, targeted, USER, written } from './support/configs.ts'

/** The first target of a right file. */
async function target(text: string) {
  const { targets } = await read(text)
  return targets[0] ?? assert.fail('no target')
}

describe('which refs', () => {
  test('a name is one branch; a pattern or a list is an instance a branch; nothing is the default branch', async () => {
    const follows = async (line: string) => (await target(targeted(line))).follows
    assert.deepEqual(await follows(''), { kind: 'default' })
    assert.deepEqual(await follows('branches = "main"'), { kind: 'branch', branch: 'main' })
    assert.deepEqual(await follows('branches = ["main"]'), { kind: 'branches', patterns: ['main'] })
    assert.deepEqual(await follows('branches = "*"'), { kind: 'branches', patterns: ['*'] })
    assert.deepEqual(await follows('tags = "v1"'), { kind: 'tags', patterns: ['v1'], order: 'version' })
    const both = { kind: 'tags', patterns: ['v*', '!*-rc'], order: 'newest' }
    assert.deepEqual(await follows('tags = ["v*", "!*-rc"]\ntag_order = "newest"'), both)
  })

  test('tags beside branches', async () => {
    await oneMistake(targeted('branches = "main"\ntags = "v*"'), '6:1: target.site.tags', /keep one of them/)
    const byDefault = `[defaults]\nbranches = "main"\ntags = "v*"\n${HOOK}${TARGET}`
    await oneMistake(byDefault, '3:1: defaults.tags', /keep one of them/)
  })

  test("a target's own tags take the place of the branches in [defaults], and the reverse, with the order", async () => {
    const tags = await target(`[defaults]\nbranches = "main"\n${targeted('tags = "v*"')}`)
    assert.equal(tags.follows.kind, 'tags')
    const branch = await target(`[defaults]\ntags = "v*"\ntag_order = "newest"\n${targeted('branches = "main"')}`)
    assert.equal(branch.follows.kind, 'branch')
  })

  test('tag_order without tags, unless it is only a default', async () => {
    await oneMistake(targeted('tag_order = "newest"'), '5:1: target.site.tag_order', /is for tags/)
    const besideBranch = `[defaults]\ntags = "v*"\n${targeted('branches = "main"\ntag_order = "newest"')}`
    await oneMistake(besideBranch, '8:1: target.site.tag_order', /is for tags/)
    assert.deepEqual(await mistakes(`[defaults]\ntag_order = "newest"\n${HOOK}${TARGET}`), [])
    const { follows } = await target(`[defaults]\ntag_order = "newest"\n${targeted('tags = "v*"')}`)
    assert.deepEqual(follows, { kind: 'tags', patterns: ['v*'], order: 'newest' })
  })
})

describe('which checkout', () => {
  test('path alone means inplace, also from [defaults]', async () => {
    const own = await target(targeted('path = "/srv/site"'))
    assert.deepEqual([own.checkout, own.path], ['inplace', '/srv/site'])
    const byDefault = await target(`[defaults]\npath = "/srv/site"\n${HOOK}${TARGET}`)
    assert.deepEqual([byDefault.checkout, byDefault.path], ['inplace', '/srv/site'])
    const otherwise = await target(`[defaults]\npath = "/srv/site"\n${targeted('checkout = "release"')}`)
    assert.deepEqual([otherwise.checkout, otherwise.path], ['release', null])
  })

  test('inplace without a path', async () => {
    await oneMistake(targeted('checkout = "inplace"'), '3:9: target.site', /no path: write path = /)
    assert.equal((await mistakes(targeted('checkout = "inplace"\npath = 1'))).length, 1)
  })

  const words: readonly [line: string, of: string, notFor: readonly string[]][] = [
    ['current = "/srv/x"', '"release"', ['none', 'inplace']],
    ['activate = "x"', '"release"', ['none', 'inplace']],
    ['keep_releases = 5', '"release"', ['none', 'inplace']],
    ['path = "/srv/x"', '"inplace"', ['none', 'release']],
    ['clean = false', '"inplace"', ['none', 'release']],
    ['adopt = true', '"inplace"', ['none', 'release']],
    ['restore_on_failure = true', '"inplace"', ['none', 'release']],
    ['paths = ["x"]', '"release" or "inplace"', ['none']],
    ['submodules = false', '"release" or "inplace"', ['none']],
    ['lfs = true', '"release" or "inplace"', ['none']],
  ]
  for (const [line, owners, others] of words) {
    for (const checkout of others) {
      test(`${line} is not for ${checkout}, unless it is only a default`, async () => {
        const [key] = line.split(' ')
        const says = `checkout = "${checkout}"`
        const place = checkout === 'inplace' ? '\npath = "/srv/site"' : ''
        const what = new RegExp(`^is for checkout = ${owners}, but checkout is "${checkout}"$`)
        await oneMistake(targeted(`${says}${place}\n${line}`), `${place === '' ? 6 : 7}:1: target.site.${key}`, what)
        assert.deepEqual(await mistakes(`[defaults]\n${line}\n${targeted(`${says}${place}`)}`), [])
        const contradictory = `[defaults]\n${line}\n${says}\n${targeted(place)}`
        await oneMistake(contradictory, `2:1: defaults.${key}`, what)
      })
    }
  }

  test('a misspelt checkout is one mistake, whatever stands beside it', async () => {
    await oneMistake(
      targeted('checkout = "inplase"\nclean = true'),
      '5:1: target.site.checkout',
      /did you mean `inplace`/,
    )
  })
})

describe('one place, one owner', () => {
  test('a path inside data_dir, around it, or shared', async () => {
    await oneMistake(targeted('path = "./.landfall/tree"'), '5:1: target.site.path', /inside data_dir/)
    await oneMistake(targeted('path = "./.landfall"'), '5:1: target.site.path', /inside data_dir/)
    await oneMistake(targeted('path = "/"'), '5:1: target.site.path', /has data_dir .* inside it/)
    const other = (line: string) => `[target.docs]\nrepo = "acme/docs"\n${line}\n`
    const path = targeted(`path = "/srv/site"\n${other('path = "/srv/x/../site"')}`)
    await oneMistake(path, '8:1: target.docs.path', /is also the path of the target "site"/)
    const current = targeted(`path = "/srv/site"\n${other('current = "/srv/site/"')}`)
    await oneMistake(current, '8:1: target.docs.current', /is also the path of the target "site"/)
  })

  test('a place that two targets come to by branches which the file names', async () => {
    const two = (one: string, other: string) => targeted(`${one}\n[target.docs]\nrepo = "acme/docs"\n${other}\n`)
    const clash = (one: string, other: string, what: RegExp) =>
      oneMistake(two(one, other), '10:1: target.docs.current', what)
    const glob = 'branches = ["main", "x-*"]\ncurrent = "/srv/{branch}-x"'
    await clash(
      glob,
      'branches = "main-x"\ncurrent = "/srv/main-x"',
      /is also the current of the target "site" for the branch "main"$/,
    )
    await clash(
      glob,
      'branches = "main-x"\ncurrent = "/srv/{branch}"',
      /is for the branch "main-x" also the .*"site" for the branch "main"$/,
    )
    await clash(
      'branches = "y"\ncurrent = "/srv/y"',
      'branches = ["*", "y"]\ncurrent = "/srv/{branch}"',
      /is for the branch "y" also the current of the target "site"$/,
    )
    assert.deepEqual(
      await mistakes(two(glob, 'branches = "*"\ncurrent = "/srv/{branch}"')),
      [],
      'known when it is pushed',
    )
    assert.deepEqual(await mistakes(two(glob, 'branches = ["main", "!*-x"]\ncurrent = "/srv/{branch}-y"')), [])
  })

  test('a place that a branch of the right name would put into data_dir, or around it', async () => {
    const at = (line: string) => `data_dir = "/srv/landfall/data"\n${targeted(`branches = "*"\n${line}`)}`
    for (const line of [
      'current = "/srv/{branch}"',
      'path = "/srv/land{branch}"',
      'path = "/srv/{branch}all/data/x"',
      'current = "/{branch}/{branch}/{branch}/x"',
      'current = "/srv/landfall/data/{branch}"',
    ])
      await oneMistake(at(line), `7:1: target.site.${line.split(' ')[0]}`, /data_dir .*, for a branch of that name/)
    for (const line of [
      'current = "/srv/www/{branch}"',
      'path = "/srv/x{branch}"',
      'path = "/srv/landfall{branch}"',
      'path = "/srv/landfall/{branch}-preview"',
    ])
      assert.deepEqual(await mistakes(at(line)), [], line)
    // The name of a branch never begins with a dot, so the default data_dir is beside them.
    assert.deepEqual(await mistakes(targeted('branches = "*"\ncurrent = "./{branch}"')), [])
  })

  test('one place for many repositories, or for many branches', async () => {
    const many = `${HOOK}[target.site]\nrepo = "acme/*"\n`
    await oneMistake(`${many}path = "/srv/x"\n`, '5:1: target.site.path', /pattern of many repositories/)
    for (const word of ['current', 'path']) {
      const text = (branches: string) => targeted(`branches = ${branches}\n${word} = "/srv/x"`)
      await oneMistake(text('"feature/*"'), `6:1: target.site.${word}`, /put \{branch\} into it/)
      await oneMistake(text('["a", "b"]'), `6:1: target.site.${word}`, /put \{branch\} into it/)
      assert.deepEqual(await mistakes(text('"main"')), [])
      assert.deepEqual(await mistakes(targeted(`branches = "feature/*"\n${word} = "/srv/{branch}"`)), [])
    }
  })
})

describe('{branch}', () => {
  const lines = [
    'current = "/srv/{branch}"',
    'path = "/srv/{branch}"',
    'lane = "x/{branch}"',
    'env = { A = "{branch}" }',
  ]

  test('needs a branch whose name the file tells', async () => {
    for (const line of lines) {
      const key = line.startsWith('env') ? 'env.A' : line.split(' ')[0]
      const column = line.startsWith('env') ? 9 : 1
      const wrong =
        /^has \{branch\} in it, but the target follows (tags|the remote's default branch).*: say branches = /
      await oneMistake(targeted(line), `5:${column}: target.site.${key}`, wrong)
      await oneMistake(targeted(`tags = "v*"\n${line}`), `6:${column}: target.site.${key}`, wrong)
      assert.deepEqual(await mistakes(targeted(`branches = "main"\n${line}`)), [])
    }
  })

  test('is the branch in lane and env, and one safe component in current', async () => {
    const text = targeted(`branches = "*"\n${lines[0]}\n${lines[2]}\n${lines[3]}`)
    const config = await read(text)
    const main = targetOf(config, 'site@main') ?? assert.fail('no instance')
    assert.deepEqual([main.current, main.lane, main.env], ['/srv/main', 'x/main', { A: 'main' }])
    const feature = targetOf(config, 'site@feature/x') ?? assert.fail('no instance')
    assert.match(feature.current ?? '', /^\/srv\/feature-x--[0-9a-f]{12}$/)
    assert.deepEqual([feature.lane, feature.env], ['x/feature/x', { A: 'feature/x' }])
  })

  test('stays as it is in a value that came from a secret source', async () => {
    const file = await written(targeted('branches = "main"\nenv = { A = { env = "S" }, B = "{branch}" }'))
    const config = await read('', { file, env: { S: 'pa{branch}ss' } })
    assert.deepEqual(targetOf(config, 'site')?.env, { A: 'pa{branch}ss', B: 'main' })
  })
})

describe('runs at the same time', () => {
  const queue = 'queue = "parallel"'

  test('share no working tree, no current, no lane', async () => {
    await oneMistake(targeted(`${queue}\npath = "/srv/x"`), '5:1: target.site.queue', /share the working tree/)
    await oneMistake(targeted(`${queue}\ncurrent = "/srv/x"`), '5:1: target.site.queue', /fight over current/)
    await oneMistake(targeted(`${queue}\nlane = "x"`), '6:1: target.site.lane', /wait for each other/)
    await oneMistake(`[defaults]\n${queue}\nlane = "x"\n${HOOK}${TARGET}`, '3:1: defaults.lane', /wait for each other/)
  })

  test('are for releases without current, and for none; a lane in [defaults] is not theirs', async () => {
    for (const line of ['', 'checkout = "none"']) assert.deepEqual(await mistakes(targeted(`${queue}\n${line}`)), [])
    assert.equal((await target(`[defaults]\nlane = "x"\n${targeted(queue)}`)).lane, null)
  })
})

describe('another account', () => {
  const isRoot = process.geteuid?.() === 0

  test('is refused where landfall is not root', async () => {
    const why = /is another account than "keeper", which runs landfall: only root can switch users/
    await oneMistake(targeted('user = "daemon"'), '5:1: target.site.user', why)
    assert.deepEqual(await mistakes(targeted('user = "keeper"')), [])
  })

  test('is looked up where landfall is root, and must be there', { skip: !isRoot && 'needs root' }, async () => {
    const root = { user: { uid: 0, name: 'root' } }
    const { targets } = await read(targeted('user = "daemon"'), root)
    const { user, account } = targets[0] ?? assert.fail('no target')
    assert.deepEqual([user, account?.name, Number.isInteger(account?.gid)], ['daemon', 'daemon', true])
    assert.notEqual(account?.uid, 0)
    assert.equal((await read(targeted('user = "root"'), root)).targets[0]?.account, null)
    await oneMistake(targeted('user = "no-such-account"'), '5:1: target.site.user', /there is no account/, root)
  })

  test('is not asked for by a look at a running daemon', async () => {
    assert.deepEqual(await mistakes(targeted('user = "no-such-account"'), { secrets: 'leave' }), [])
  })
})

test('a path that is relative lies beside the file', async () => {
  const at = await directory()
  const config = await read('', { file: await written(targeted('path = "tree"'), at), user: USER })
  assert.equal(config.targets[0]?.path, join(at, 'tree'))
})

test('a link in a tree that is cleaned would be removed, and is refused', async () => {
  const both = (more: string) =>
    `${HOOK}${TARGET}path = "/srv/tree"\n${more}\n[target.docs]\nrepo = "acme/docs"\ncurrent = "/srv/tree/live"\n`
  await oneMistake(
    both('clean = true'),
    '9:1: target.docs.current',
    /inside the path of the target "site", whose clean/,
  )
  assert.deepEqual(await mistakes(both('')), [])
})

test('a key of the top that stands below a table is told where it belongs', async () => {
  await oneMistake(`${HOOK}keep_runs = 7\n${TARGET}`, '3:1: hook.github.keep_runs', /put it above the first \[table\]/)
})
