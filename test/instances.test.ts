import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { pathName } from '../src/config/at-branch.ts'
import type { Hook, Target } from '../src/config/config.ts'
import { matchesRepository } from '../src/globs.ts'
import { afterRun, instanceKey, laneOf, type RunEnding, routeDelivery, targetOf } from '../src/instances.ts'
import type { Instance, Received, RunEnd } from '../src/model.ts'
import type { Routing } from '../src/stores/store.ts'
import { aConfig, aHook, aPush, aRun, aTarget, commit } from './support/nouns.ts'

const INSTANCE: Instance = {
  name: 'site',
  target: 'site',
  repo: 'acme/site',
  branch: null,
  state: 'ok',
  deployed: { commit: commit(1), run: 1, at: 1 },
  deployedBefore: commit(0),
  wanted: null,
  considered: commit(1),
  rejected: [],
  doubt: null,
  defaultBranch: null,
  livesAt: null,
  filesAt: null,
  activating: null,
  goneSince: null,
  retiredAt: null,
  firstSeenAt: 0,
}

interface Routed {
  readonly hook?: Partial<Hook>
  readonly targets?: readonly Target[]
  readonly push?: Partial<Received>
  readonly defaultBranch?: string | null
  /** Names of instances that were seen before. */
  readonly seen?: readonly string[]
  readonly knownAs?: string | null
  readonly isTaken?: boolean
}

function route({ hook = {}, targets = [aTarget()], push = {}, defaultBranch = null, ...known }: Routed): Routing {
  const config = aConfig({ hooks: [aHook(hook)], targets })
  const { seen = ['site'], knownAs = null, isTaken = false } = known
  const instance = (name: string) => (seen.includes(name) ? { ...INSTANCE, name, defaultBranch } : null)
  return routeDelivery(config, aHook(hook), aPush(push), { instance, knownAs, isTaken })
}

/** `target: run` or `target: reason` for each route, or the reason of the whole. */
function told(routing: Routing): readonly string[] {
  if (routing.kind === 'nowhere') return [routing.reason]
  return routing.routes.map((one) =>
    one.kind === 'run' ? `${one.order.instance.name}: run` : `${one.instance.name}: ${one.reason}`,
  )
}

const onRef = (ref: string, after: ReturnType<typeof commit> | null = commit(1)): Partial<Received> => ({
  changes: [{ ref, before: commit(9), after }],
})
const SEVERAL = { kind: 'branches', patterns: ['main', 'feature/*'] } as const
const TAGS = { kind: 'tags', patterns: ['v*'], order: 'version' } as const
const DEFAULT_BRANCH = [aTarget({ follows: { kind: 'default' } })]

const ROWS: readonly (readonly [string, Routed, readonly string[]])[] = [
  ['a push to the branch of a target makes a run', {}, ['site: run']],
  ['a repository that no target follows is no-target', { push: { repo: 'acme/other' } }, ['no-target']],
  ['an event without a repository is no-target', { push: { repo: null } }, ['no-target']],
  ['a target of another hook is no target of this one', { targets: [aTarget({ hook: 'gitlab' })] }, ['no-target']],
  ['a target without a hook is none for a delivery', { targets: [aTarget({ hook: null })] }, ['no-target']],
  [
    'a repository that the hook may not speak for is repository-not-allowed, though a target follows it',
    { hook: { repos: ['other/*'] } },
    ['repository-not-allowed'],
  ],
  ['a repository that the hook may speak for is routed', { hook: { repos: ['x/y', 'acme/*'] } }, ['site: run']],
  ['the hook’s repositories are compared without case', { hook: { repos: ['ACME/*'] } }, ['site: run']],
  ['a repository is compared without case', { push: { repo: 'Acme/SITE' } }, ['site: run']],
  ['an event that the target does not run on is `event`', { push: { event: 'release' } }, ['site: event']],
  ['another branch is `ref`', { push: onRef('refs/heads/dev') }, ['site: ref']],
  ['a branch is compared with case', { push: onRef('refs/heads/Main') }, ['site: ref']],
  ['a tag of the branch’s name is `ref`', { push: onRef('refs/tags/main') }, ['site: ref']],
  ['a deleted branch is `ref-deleted`', { push: onRef('refs/heads/main', null) }, ['site: ref-deleted']],
  ['another branch that was deleted is `ref`', { push: onRef('refs/heads/dev', null) }, ['site: ref']],
  ['the known default branch is followed', { targets: DEFAULT_BRANCH, defaultBranch: 'main' }, ['site: run']],
  ['the default branch of the payload is followed before a fetch', { targets: DEFAULT_BRANCH }, ['site: run']],
  [
    'another branch than the default one is `ref`',
    { targets: DEFAULT_BRANCH, defaultBranch: 'main', push: onRef('refs/heads/dev') },
    ['site: ref'],
  ],
  [
    'a new default branch is followed as soon as the payload names it',
    { targets: DEFAULT_BRANCH, defaultBranch: 'master' },
    ['site: run'],
  ],
  [
    'any branch may be the default one where neither a fetch nor the payload has said',
    { targets: DEFAULT_BRANCH, push: { ...onRef('refs/heads/trunk'), defaultBranch: null } },
    ['site: run'],
  ],
  [
    'a tag is not the default branch, also where that is unknown',
    { targets: DEFAULT_BRANCH, push: { ...onRef('refs/tags/v1'), defaultBranch: null } },
    ['site: ref'],
  ],
  [
    'every target of a repository is told, in file order',
    {
      targets: [
        aTarget({ name: 'b' }),
        aTarget({ name: 'a', follows: { kind: 'branch', branch: 'dev' } }),
        aTarget({ name: 'c' }),
      ],
    },
    ['b: run', 'a: ref', 'c: run'],
  ],
  [
    'each of several branches has an instance of its own, and one that no pattern fits has none',
    {
      targets: [aTarget({ follows: SEVERAL })],
      push: {
        changes: ['main', 'feature/x', 'feature/x/y', 'wip'].map((branch) => ({
          ref: `refs/heads/${branch}`,
          before: null,
          after: commit(1),
        })),
      },
    },
    ['site@main: run', 'site@feature/x: run', 'site: ref', 'site: ref'],
  ],
  [
    'the deletion of a branch is a run where the branch has an instance, and else a reason',
    {
      targets: [aTarget({ follows: SEVERAL }), aTarget({ name: 'one', follows: SEVERAL })],
      push: onRef('refs/heads/feature/x', null),
      seen: ['site@feature/x'],
    },
    ['site@feature/x: run', 'one@feature/x: ref-deleted'],
  ],
  [
    'a bare * means every branch, also one with a slash',
    { targets: [aTarget({ follows: { kind: 'branches', patterns: ['*'] } })], push: onRef('refs/heads/a/b') },
    ['site@a/b: run'],
  ],
  [
    'a branch that is excluded is none, wherever the exclusion stands',
    {
      targets: [aTarget({ follows: { kind: 'branches', patterns: ['!wip/**', '*'] } })],
      push: onRef('refs/heads/wip/x'),
    },
    ['site: ref'],
  ],
  [
    'a tag that fits is followed, a branch of the same name is not, and a deleted tag moves nothing',
    {
      targets: [aTarget({ follows: TAGS })],
      push: {
        changes: [
          { ref: 'refs/tags/v1.0', before: null, after: commit(1) },
          { ref: 'refs/heads/v1.0', before: null, after: commit(1) },
          { ref: 'refs/tags/x1', before: null, after: commit(1) },
          { ref: 'refs/tags/v1.0', before: commit(1), after: null },
        ],
      },
    },
    ['site: run', 'site: ref', 'site: ref', 'site: ref-deleted'],
  ],
  [
    'a repository whose number is known under another name is renamed, for targets of either name',
    {
      targets: [
        aTarget(),
        aTarget({ name: 'all', repo: 'acme/*', repoIsGlob: true }),
        aTarget({ name: 'x', repo: 'x/y' }),
      ],
      push: { repo: 'acme/new', repoId: 7 },
      knownAs: 'acme/site',
    },
    ['site: renamed', 'all: renamed'],
  ],
  [
    'an alias that names the new name, or the old one, says that the renamed repository is meant',
    {
      targets: [
        aTarget({ aliases: ['acme/new'] }),
        aTarget({ name: 'new', repo: 'acme/new', aliases: ['Acme/Site'] }),
        aTarget({ name: 'all', repo: 'acme/*', repoIsGlob: true, aliases: ['acme/site'] }),
      ],
      push: { repo: 'acme/new', repoId: 7 },
      knownAs: 'acme/site',
    },
    ['site: run', 'new: run', 'all:acme/new: run'],
  ],
  [
    'a new name that the file has is meant, and then nobody need be told of the old one',
    {
      targets: [aTarget(), aTarget({ name: 'new', repo: 'acme/new' })],
      push: { repo: 'acme/new', repoId: 7 },
      knownAs: 'acme/site',
    },
    ['new: run'],
  ],
  [
    'a name that another repository had last is not taken over by a renamed one',
    {
      targets: [aTarget(), aTarget({ name: 'new', repo: 'acme/new' })],
      push: { repo: 'acme/new', repoId: 7 },
      knownAs: 'acme/evil',
      isTaken: true,
    },
    ['new: renamed'],
  ],
  [
    'an alias is a name like the repository’s own',
    { targets: [aTarget({ repo: 'acme/new', aliases: ['acme/site'] })] },
    ['site: run'],
  ],
  [
    'another case of the known name is no new one',
    { push: { repo: 'ACME/Site' }, knownAs: 'acme/site' },
    ['site: run'],
  ],
  [
    'a glob makes an instance named after the repository in lower case',
    { targets: [aTarget({ repo: 'acme/*', repoIsGlob: true })], push: { repo: 'Acme/Blog' } },
    ['site:acme/blog: run'],
  ],
]

describe('what a delivery means', () => {
  for (const [title, given, expected] of ROWS) test(title, () => assert.deepEqual(told(route(given)), expected))

  test('every reason comes with a sentence', () => {
    for (const [, given] of ROWS) {
      const routing = route(given)
      const details = routing.kind === 'nowhere' ? [routing] : routing.routes.filter((one) => one.kind === 'reason')
      for (const { detail } of details) assert.match(detail, /\w+ \w+ \w+/)
    }
  })

  test('the name of a repository is learnt where it is news, and only then', () => {
    const learns = (known: Routed) => {
      const routing = route({ push: { repoId: 7 }, ...known })
      return routing.kind === 'routes' ? routing.learns : routing.reason
    }
    assert.deepEqual(learns({ knownAs: null }), { id: 7, repo: 'acme/site' })
    assert.equal(learns({ knownAs: 'acme/site' }), null)
    assert.deepEqual(learns({ knownAs: 'Acme/Site' }), { id: 7, repo: 'acme/site' })
  })

  test('a run carries what the delivery said', () => {
    const routing = route({ push: { changes: [{ ref: 'refs/heads/main', before: commit(1), after: commit(2) }] } })
    assert.deepEqual(routing.kind === 'routes' && routing.routes[0], {
      kind: 'run',
      order: {
        instance: { name: 'site', target: 'site', repo: 'acme/site', branch: null },
        policy: 'sequential',
        ref: 'refs/heads/main',
        announced: commit(2),
        before: commit(1),
        trigger: 'push',
        event: 'push',
        pollsAgree: false,
      },
    })
  })
})

test('in a glob `*` stops at `/` and `**` does not', () => {
  const rows: readonly (readonly [string, string, boolean])[] = [
    ['acme/*', 'acme/site', true],
    ['acme/*', 'acme/.github', true],
    ['acme/*', 'acme/group/site', false],
    ['*', 'acme/site', false],
    ['acme/**', 'acme/group/site', true],
    ['acme/**', 'acmeother/site', false],
    ['**', 'acme/group/site', true],
    ['acme/si?e', 'acme/site', true],
    ['acme/{site,blog}', 'acme/blog', true],
    ['acme/[ab]*', 'acme/blog', true],
    ['!acme/site', 'acme/blog', false],
    ['acme/!(site)', 'acme/blog', false],
    ['acme/si.e', 'acme/site', false],
    ['acme/site', 'acme/site-two', false],
  ]
  for (const [pattern, repo, matches] of rows) {
    assert.equal(matchesRepository(pattern, repo), matches, `${pattern} against ${repo}`)
  }
})

test('an instance of an exact repository is shown as configured', () => {
  const target = aTarget({ repo: 'Acme/Site' })
  assert.deepEqual(instanceKey(target, 'acme/SITE', null), {
    name: 'site',
    target: 'site',
    repo: 'Acme/Site',
    branch: null,
  })
})

test('{branch} becomes the branch, and in paths a name that no other branch has', () => {
  const text = 'x-{branch}'
  const template = { current: '/srv/{branch}', path: '/srv/{branch}/tree', lane: text, env: { A: text, B: 'plain' } }
  const several = aTarget({ ...template, follows: SEVERAL })
  const at = (target: Target, name: string) => targetOf(aConfig({ targets: [target] }), name)
  const slashed = at(several, 'site@feature/x')
  assert.equal(slashed?.current, `/srv/${pathName('feature/x')}`)
  assert.equal(slashed?.path, `/srv/${pathName('feature/x')}/tree`)
  assert.deepEqual([slashed?.lane, slashed?.env], ['x-feature/x', { A: 'x-feature/x', B: 'plain' }])
  const everywhere = aTarget({ ...several, repo: 'acme/*', repoIsGlob: true })
  assert.equal(at(everywhere, 'site:acme/a@feature/x')?.lane, 'x-feature/x')
  assert.equal(at(aTarget(template), 'site')?.current, '/srv/main')
  assert.equal(at(several, 'site'), undefined, 'an instance of a time when the target followed one branch')
  assert.equal(at(aTarget(template), 'site@main'), undefined)
  assert.equal(at(several, 'site@feature/$&')?.lane, 'x-feature/$&')
})

test('the name of a branch in paths is itself where it can be, and never leads out or meets another', () => {
  for (const plain of ['main', 'JIRA-12', 'v1.0_x']) assert.equal(pathName(plain), plain)
  const tricky = [
    'feature/x',
    'feature-x',
    'feature--x',
    'a/../b',
    '..',
    '.git',
    '-rf',
    'x'.repeat(300),
    'ü',
    'a b',
    'X/',
    'x/',
  ]
  const names = tricky.map(pathName)
  assert.equal(new Set(names).size, tricky.length)
  for (const name of names) assert.match(name, /^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$/)
  assert.notEqual(pathName(pathName('feature/x')), pathName('feature/x'), 'nobody can name a branch like that')
})

test('runs of a parallel target share no lane, not even with each other', () => {
  const config = aConfig({ targets: [aTarget({ queue: 'parallel' })] })
  assert.equal(laneOf(config, aRun()), null)
})

test('the targets of a repository share a lane, however it is spelled, unless they name one', () => {
  const targets = [
    aTarget(),
    aTarget({ name: 'docs' }),
    aTarget({ name: 'mirror', hook: 'gitlab' }),
    aTarget({ name: 'web', lane: 'web' }),
    aTarget({ name: 'all', repo: 'acme/*', repoIsGlob: true }),
  ]
  const config = aConfig({ targets })
  const lane = (target: string, repo = 'acme/site') => laneOf(config, aRun({ target, repo }))
  assert.equal(lane('site', 'Acme/Site'), lane('docs'))
  assert.equal(lane('all:acme/site'), lane('docs'))
  assert.notEqual(lane('mirror'), lane('docs'))
  assert.equal(lane('web'), 'web')
})

test('a run whose target is gone from the configuration has a lane of its own', () => {
  assert.equal(laneOf(aConfig({ targets: [] }), aRun({ target: 'gone', repo: 'acme/site' })), 'gone')
})

// --- After a run ----------------------------------------------------------------------------------------------------

function patchAfter(end: RunEnd, change: Partial<RunEnding> = {}) {
  const outcome = { end, reason: null, detail: null, exitCode: null, signal: null }
  const run = aRun({ id: 7, announced: commit(2), commit: commit(2) })
  return afterRun({
    instance: INSTANCE,
    run,
    outcome,
    considered: commit(2),
    at: 5,
    goesOn: false,
    isFirst: false,
    ...change,
  })
}

describe('what the end of a run changes', () => {
  test('success deploys, and what was deployed is what was deployed before', () => {
    assert.deepEqual(patchAfter('succeeded'), {
      state: 'ok',
      deployed: { commit: commit(2), run: 7, at: 5 },
      deployedBefore: commit(1),
      considered: commit(2),
      doubt: null,
    })
  })

  test('a second success at the deployed commit keeps what was deployed before', () => {
    const run = aRun({ id: 8, commit: commit(1) })
    assert.ok(!('deployedBefore' in patchAfter('succeeded', { run, considered: commit(1) })))
  })

  test('a failure breaks the instance and leaves what is deployed', () => {
    for (const end of ['failed', 'timed-out', 'unstartable', 'interrupted'] as const) {
      assert.deepEqual(patchAfter(end), { state: 'broken', considered: commit(2), doubt: null }, end)
    }
  })

  test('nothing is broken while a retry or a recovery follows', () => {
    for (const end of ['failed', 'timed-out', 'interrupted', 'fetch-failed'] as const) {
      assert.ok(!('state' in patchAfter(end, { goesOn: true })), end)
    }
  })

  test('a run that ended before it had decided has attempted what its trigger named', () => {
    for (const end of ['unstartable', 'interrupted'] as const) {
      assert.equal(patchAfter(end, { considered: null }).considered, commit(2), end)
    }
  })

  test('a failed fetch considers nothing, so that the next poll takes the commit up again', () => {
    assert.deepEqual(patchAfter('fetch-failed', { considered: null }), { state: 'broken' })
  })

  test('a skipped commit is considered, and the state stays', () => {
    assert.deepEqual(patchAfter('skipped'), { considered: commit(2) })
  })

  test('a run that was taken away changes nothing', () => {
    for (const end of ['cancelled', 'superseded'] as const) assert.deepEqual(patchAfter(end), {})
  })
})
