/** `[target.*]` and `[defaults]`: every key of a target. What needs more than one key to judge is in `targets.ts`. */
import * as z from 'zod'
import { isRef, isRepository } from '../model.ts'
import { quoted, wrongRemote } from './grammar.ts'
import {
  A_DURATION,
  argv,
  count,
  LATER,
  oneOf,
  path,
  proven,
  repository,
  type Source,
  script,
  size,
  source,
  table,
  timer,
} from './words.ts'

const variable = proven((name) => {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return `${quoted(name)} is not the name of an environment variable`
  return name.startsWith('LANDFALL_')
    ? `${quoted(name)} is reserved: landfall sets every LANDFALL_ variable itself`
    : null
})

/** A short name, or a pattern of names; in a list a `!` in front excludes. */
function wrongRefPattern(what: 'branch' | 'tag', example: string) {
  return (text: string): string | null => {
    if (text.startsWith('refs/')) return `must be a short name such as ${quoted(example)}, not ${quoted(text)}`
    const sample = text.replace(/^!/, '').replace(/[*?[\]{}!,]/g, 'x')
    return isRef(`refs/heads/${sample}`) ? null : `${quoted(text)} is not a ${what} that git accepts`
  }
}

function refs(what: 'branch' | 'tag', example: string) {
  const one = proven(wrongRefPattern(what, example))
  const several = z.array(one).min(1, `must name at least one ${what} or pattern`)
  return z.union([one, several], { error: 'must be a string, or a list of strings' })
}

function wrongPath(text: string): string | null {
  const plain = text.replace(/^!/, '')
  if (plain === '') return 'must be a path or a pattern of paths'
  if (plain.startsWith('/'))
    return `${quoted(text)} must be relative to the top of the repository, without a leading "/"`
  if (plain.endsWith('/')) return `${quoted(text)} fits no file; write ${quoted(`${text}**`)}`
  return /(?:^|\/)\.\.?(?:\/|$)/.test(plain) ? `${quoted(text)} must have no "." or ".." in it` : null
}

function wrongHost(text: string): string | null {
  return /^(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text)
    ? null
    : `${quoted(text)} is not a host such as "github.com" or "*.example.com"`
}

const places = (what: string) => path().optional().describe(what)

export const target = table(
  {
    repo: repository.optional().describe('Full name of the repository, or a pattern: one instance a repository.'),
    hook: z.string().optional().describe('The hook that announces it; default: the only hook, if there is one.'),
    url: proven(wrongRemote).optional().describe("Where it is fetched; default: from the hook's `clone`."),
    aliases: z
      .array(
        proven((text) => (isRepository(text) ? null : `${quoted(text)} is not a repository's full name (owner/name)`)),
      )
      .default([])
      .describe('Other names that the repository has, or had before it was renamed.'),
    branches: refs('branch', 'main')
      .optional()
      .describe(
        "The branch to follow; default: the remote's default branch. A list or a pattern makes one instance a branch.",
      ),
    tags: refs('tag', 'v1.0').optional().describe('The tags to follow, instead of branches: a pattern, or several.'),
    tag_order: oneOf(['version', 'newest'])
      .default('version')
      .describe('Which of the tags is deployed: the one with the highest version, or the newest.'),
    events: z
      .array(z.string().refine((event) => event === 'push', `an event other than "push" is ${LATER}`))
      .min(1, 'must name at least one event')
      .default(['push'])
      .describe('The events that cause runs.'),
    paths: z
      .array(proven(wrongPath))
      .min(1, 'must name at least one path or pattern')
      .optional()
      .describe('Run only if one of these files changed since the deployed commit; a "!" in front excludes.'),
    script: script().optional().describe('A script in scripts_dir; default: looked for by convention.'),
    run: argv().optional().describe('A program and its arguments, from the checkout, instead of a script.'),
    checkout: oneOf(['release', 'inplace', 'none'])
      .default('release')
      .describe('What the script finds on disk; default: "inplace" where `path` is given, else "release".'),
    current: places('Symlink to the live release.'),
    activate: z
      .union([argv(), script()], { error: 'must be a list of strings, or a name in scripts_dir' })
      .optional()
      .describe('Runs after `current` was switched: a program and its arguments, or a script of scripts_dir.'),
    keep_releases: count(1).default(5).describe('Releases to keep.'),
    path: places('The working tree that is brought to the commit, for checkout = "inplace".'),
    clean: z.boolean().default(false).describe('Whether untracked files in `path` are removed; ignored ones stay.'),
    adopt: z
      .boolean()
      .default(false)
      .describe('Whether a tree at `path` may be taken over that has edits, or commits that the remote does not know.'),
    restore_on_failure: z
      .boolean()
      .default(false)
      .describe('Whether `path` goes back to the commit that it was at when the script has failed.'),
    submodules: z
      .union([z.boolean(), z.array(proven(wrongHost)).min(1, 'must name at least one host')], {
        error: 'must be true, false, or a list of hosts',
      })
      .default(false)
      .describe("Whether submodules are checked out: true for those on the repository's own host, or a list of hosts."),
    lfs: z.boolean().default(false).describe('Whether files kept in Git LFS are fetched; needs git-lfs.'),
    queue: oneOf(['sequential', 'evict', 'parallel'])
      .default('sequential')
      .describe('What waiting runs do to each other.'),
    lane: proven((text) =>
      /^[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}$/.test(text.replaceAll('{branch}', 'x'))
        ? null
        : 'must have letters, digits and . _ - / only',
    )
      .optional()
      .describe('The serial queue that its runs share; default: "<hook>/<repository>".'),
    user: proven((text) =>
      /^[A-Za-z_][A-Za-z0-9_.-]*\$?$/.test(text) ? null : `${quoted(text)} is not an account's name`,
    )
      .optional()
      .describe('The account that everything of this target runs as.'),
    env: z
      .record(z.string(), source().superRefine(checkEnvValue))
      .superRefine((values, context) => {
        for (const name of Object.keys(values)) {
          const wrong = variable.safeParse(name).error?.issues[0]
          if (wrong !== undefined) context.addIssue({ code: 'custom', message: wrong.message, path: [name] })
        }
      })
      .default({})
      .describe("Variables of the script's environment; a value from a source is masked in logs."),
    pass_env: z.array(variable).default([]).describe("Variables that the script gets from landfall's own environment."),
    timeout: timer(1, '1ms').prefault('1h').describe('How long the script may take.'),
    fetch_timeout: timer(1, '1ms').prefault('10m').describe('How long a fetch may take.'),
    kill_grace: timer().prefault('10s').describe('From TERM to KILL.'),
    retries: count(0).default(0).describe('Further attempts after `failed` or `timed-out`.'),
    rerun_interrupted: z.boolean().default(true).describe('Whether a run that a crash interrupted is run again.'),
    poll: z
      .union([z.literal('off'), timer(1000, '1s')], { error: `must be ${A_DURATION}, or "off"` })
      .optional()
      .describe('How often the remote is asked; default "5m", and "off" for checkout = "none".'),
    on_failure: script().optional().describe('Script after the last attempt failed.'),
    on_success: script().optional().describe('Script after success.'),
    on_recovery: script().optional().describe('Script after the first success that follows a failure.'),
    on_delete: script()
      .optional()
      .describe('Script after the branch of an instance was deleted, before the instance is retired.'),
    max_log: size().prefault('10MB').describe('Of a log, head and tail are kept.'),
  },
  ['health', 'rollback_on_failure', 'approve', 'when', 'deploy_on', 'release_mode', 'sparse', 'files'],
)
export type TargetSettings = z.output<typeof target>

function checkEnvValue(value: Source, context: z.RefinementCtx): void {
  if (typeof value === 'string' && value.includes('\0'))
    context.addIssue({ code: 'custom', message: 'must not contain a NUL' })
}
