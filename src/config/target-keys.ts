/** `[target.*]` and `[defaults]`: every key of a target. What needs more than one key to judge is in `targets.ts`. */
import * as z from 'zod'
import { isRef, isRepository, REPOSITORY } from '../model.ts'
import { quoted, REMOTE, WITH_CREDENTIALS, wrongPattern, wrongRemote } from './grammar.ts'
import {
  A_DURATION,
  argv,
  count,
  LATER,
  looksLike,
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

const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/
const RESERVED = /^LANDFALL_/
const variableLooks = { ...looksLike(VARIABLE), not: looksLike(RESERVED) }

function wrongVariable(name: string): string | null {
  if (!VARIABLE.test(name)) return `${quoted(name)} is not the name of an environment variable`
  return RESERVED.test(name) ? `${quoted(name)} is reserved: landfall sets every LANDFALL_ variable itself` : null
}

const FULL_REF = /^refs\//
/** What every branch, tag and pattern of them looks like; git refuses more. */
const REF_OR_PATTERN = /^[^- ~^:\\\t\r\n][^ ~^:\\\t\r\n]*$/

/** A short name, or a pattern of names; in a list a `!` in front excludes. */
function wrongRefPattern(what: 'branch' | 'tag', example: string) {
  return (text: string): string | null => {
    if (FULL_REF.test(text)) return `must be a short name such as ${quoted(example)}, not ${quoted(text)}`
    const sample = text.replace(/^!/, '').replace(/[*?[\]{}!,]/g, 'x')
    return isRef(`refs/heads/${sample}`) ? wrongPattern(text) : `${quoted(text)} is not a ${what} that git accepts`
  }
}

function refs(what: 'branch' | 'tag', example: string) {
  const one = proven(wrongRefPattern(what, example)).meta({ ...looksLike(REF_OR_PATTERN), not: looksLike(FULL_REF) })
  const several = z.array(one).min(1, `must name at least one ${what} or pattern`)
  return z
    .union([one, several], { error: 'must be a string, or a list of strings' })
    .meta({ kind: `${what} or pattern, or a list of them` })
}

/** What every path and pattern of paths looks like; not all that looks like it is one. */
const PATH_OR_PATTERN = /^(?:[^/!]|![^/])(?:[\s\S]*[^/])?$/

function wrongPath(text: string): string | null {
  const plain = text.replace(/^!/, '')
  if (plain === '') return 'must be a path or a pattern of paths'
  if (plain.startsWith('/'))
    return `${quoted(text)} must be relative to the top of the repository, without a leading "/"`
  if (plain.endsWith('/')) return `${quoted(text)} fits no file; write ${quoted(`${text}**`)}`
  return /(?:^|\/)\.\.?(?:\/|$)/.test(plain) ? `${quoted(text)} must have no "." or ".." in it` : wrongPattern(text)
}

const HOST = /^(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/
function wrongHost(text: string): string | null {
  return HOST.test(text) ? null : `${quoted(text)} is not a host such as "github.com" or "*.example.com"`
}

const LANE = /^(?:\{branch\}|[A-Za-z0-9_])(?:\{branch\}|[A-Za-z0-9._/-]){0,199}$/
function wrongLane(text: string): string | null {
  return LANE.test(text) ? null : 'must have letters, digits and . _ - / only'
}

const ACCOUNT = /^[A-Za-z_][A-Za-z0-9_.-]*\$?$/
function wrongAccount(text: string): string | null {
  return ACCOUNT.test(text) ? null : `${quoted(text)} is not an account's name`
}

function wrongAlias(text: string): string | null {
  return isRepository(text) ? null : `${quoted(text)} is not a repository's full name (owner/name)`
}

export const target = table(
  {
    repo: repository.optional().meta({
      description: 'The full name of the repository, or a pattern; with a pattern each repository is an instance.',
      byDefault: 'none, so it must be given',
      example: 'acme/site',
    }),
    hook: z.string().optional().meta({
      description: 'The hook that announces its pushes.',
      kind: "hook's name",
      byDefault: 'the only hook; among several none, and then `url` must be given and it only polls',
      example: 'github',
    }),
    url: proven(wrongRemote)
      .meta({ ...looksLike(REMOTE), not: looksLike(WITH_CREDENTIALS), kind: 'remote' })
      .optional()
      .meta({
        description: 'Where it is fetched from: https, ssh, `git@host:path`, file or a path.',
        byDefault: "the hook's `clone`",
        example: 'git@github.com:acme/site.git',
      }),
    aliases: z
      .array(proven(wrongAlias).meta(looksLike(REPOSITORY)))
      .default([])
      .meta({
        description: 'Other names that the repository has, or had before it was renamed.',
        kind: 'list of repositories',
        example: ['acme/website'],
      }),
    branches: refs('branch', 'main')
      .optional()
      .meta({
        description: 'The branch to follow. With a pattern, or a list, each branch is an instance.',
        byDefault: "the remote's default branch",
        example: ['main', 'preview/*'],
      }),
    tags: refs('tag', 'v1.0').optional().meta({
      description: 'The tags to follow, in the place of branches; `tag_order` says which of them is deployed.',
      byDefault: 'branches are followed',
      example: 'v*',
    }),
    tag_order: oneOf(['version', 'newest']).default('version').meta({
      description: 'Which tag is deployed: the one with the highest version, or the newest.',
      example: 'newest',
    }),
    events: z
      .array(
        z
          .string()
          .refine((event) => event === 'push', `an event other than "push" is ${LATER}`)
          .meta({ enum: ['push'] }),
      )
      .min(1, 'must name at least one event')
      .default(['push'])
      .meta({ description: 'The events that cause runs.', kind: 'list of events', example: ['push'] }),
    paths: z
      .array(proven(wrongPath).meta(looksLike(PATH_OR_PATTERN)))
      .min(1, 'must name at least one path or pattern')
      .optional()
      .meta({
        description:
          'A run is made only where one of these files differs from the deployed commit; a `!` in front excludes.',
        kind: 'list of paths and patterns',
        byDefault: 'any file',
        example: ['site/**', '!**/*.md'],
      }),
    script: script().optional().meta({
      description: 'The script that deploys: a file in `scripts_dir`.',
      byDefault: 'the one that is named like the repository',
      example: 'deploy.sh',
    }),
    run: argv()
      .optional()
      .meta({
        description: 'A program and its arguments, in the checkout, in the place of a script.',
        byDefault: 'the script',
        example: ['./deploy', '--fast'],
      }),
    checkout: oneOf(['release', 'inplace', 'none']).default('release').meta({
      description:
        'What the script finds on disk: a fresh directory that is kept as a release, the one tree at `path`, or nothing.',
      byDefault: '"inplace" where `path` is given, else "release"',
      example: 'none',
    }),
    current: path().optional().meta({
      description:
        'A symlink to the live release, switched once the script has succeeded. The directory that it lies in must be there. May hold `{branch}`.',
      byDefault: 'none',
      example: '/srv/site',
    }),
    activate: z
      .union([argv(), script()], { error: 'must be a list of strings, or a name in scripts_dir' })
      .optional()
      .meta({
        description: 'Runs after `current` was switched; if it fails, `current` is switched back.',
        byDefault: 'nothing',
        example: ['systemctl', 'reload', 'site'],
      }),
    keep_releases: count(1).default(5).meta({
      description: 'How many releases of each instance stay on disk; the live one and the one before it always do.',
      example: 2,
    }),
    path: path().optional().meta({
      description:
        'The working tree that is brought to the commit, in place. It is made where it is missing, the directory that it lies in is not. May hold `{branch}`.',
      byDefault: 'none',
      example: '/srv/site',
    }),
    clean: z.boolean().default(false).meta({
      description: 'Whether untracked files in `path` are removed; ignored ones stay in any case.',
      example: true,
    }),
    adopt: z.boolean().default(false).meta({
      description: 'Whether a tree at `path` is taken over that has edits, or commits that the remote does not know.',
      example: true,
    }),
    restore_on_failure: z.boolean().default(false).meta({
      description: 'Whether `path` goes back to the commit that it was at where the script fails.',
      example: true,
    }),
    submodules: z
      .union([z.boolean(), z.array(proven(wrongHost).meta(looksLike(HOST))).min(1, 'must name at least one host')], {
        error: 'must be true, false, or a list of hosts',
      })
      .default(false)
      .meta({
        description:
          "Whether submodules are checked out: those on the repository's own host, or on these hosts as well.",
        kind: 'true, false, or a list of hosts',
        example: ['github.com'],
      }),
    lfs: z.boolean().default(false).meta({
      description: 'Whether files that are kept in Git LFS are fetched; needs `git-lfs`.',
      example: true,
    }),
    queue: oneOf(['sequential', 'evict', 'parallel']).default('sequential').meta({
      description:
        'What pushes that wait do: all of them run in order, only the newest runs, or none waits for another.',
      example: 'evict',
    }),
    lane: proven(wrongLane).meta(looksLike(LANE)).optional().meta({
      description:
        'The queue in which its runs wait for each other; targets that name the same share it. May hold `{branch}`.',
      byDefault: '`<hook>/<repository>`',
      example: 'web',
    }),
    user: proven(wrongAccount)
      .meta({ ...looksLike(ACCOUNT), kind: 'account' })
      .optional()
      .meta({
        description: "The account that everything of this target runs as; another than landfall's own needs root.",
        byDefault: 'the account that runs landfall, save root, which must be written out',
        example: 'deploy',
      }),
    env: z
      .record(z.string().meta(variableLooks), source().superRefine(checkEnvValue))
      .superRefine((values, context) => {
        for (const name of Object.keys(values)) {
          const message = wrongVariable(name)
          if (message !== null) context.addIssue({ code: 'custom', message, path: [name] })
        }
      })
      .default({})
      .meta({
        description:
          'Variables for the script. A value may hold `{branch}`, or come from a secret source: then logs mask it.',
        kind: 'table of texts and secrets',
        example: { NODE_ENV: 'production', TOKEN: { env: 'SITE_TOKEN' } },
      }),
    pass_env: z
      .array(proven(wrongVariable).meta(variableLooks))
      .default([])
      .meta({
        description: "Variables that the script gets from landfall's own environment.",
        kind: 'list of variables',
        example: ['LANG', 'https_proxy'],
      }),
    timeout: timer(1, '1ms').prefault('1h').meta({ description: 'How long the script may take.', example: '10m' }),
    fetch_timeout: timer(1, '1ms').prefault('10m').meta({ description: 'How long a fetch may take.', example: '2m' }),
    kill_grace: timer().prefault('10s').meta({
      description: 'How long a script that is ended by TERM has until it is ended by KILL.',
      example: '1m',
    }),
    retries: count(0).default(0).meta({
      description: 'How often a run that failed or timed out is tried again, after 10 s and then ever later.',
      example: 2,
    }),
    rerun_interrupted: z.boolean().default(true).meta({
      description: 'Whether a run that a crash interrupted is run again.',
      example: false,
    }),
    poll: z
      .union([z.literal('off'), timer(1000, '1s')], { error: `must be ${A_DURATION}, or "off"` })
      .optional()
      .meta({
        description: 'How often the remote is asked, whether or not hooks come; at least "1s".',
        byDefault: '"5m"; with checkout = "none" "off"',
        example: '1m',
      }),
    on_failure: script().optional().meta({
      description: 'A script for after the last attempt has failed.',
      byDefault: 'nothing',
      example: 'notify.sh',
    }),
    on_success: script().optional().meta({
      description: 'A script for after a success.',
      byDefault: 'nothing',
      example: 'notify.sh',
    }),
    on_recovery: script().optional().meta({
      description: 'A script for after the first success that follows a failure.',
      byDefault: 'nothing',
      example: 'notify.sh',
    }),
    on_delete: script().optional().meta({
      description: 'A script for when the branch of an instance was deleted, before the instance is retired.',
      byDefault: 'nothing',
      example: 'remove-preview.sh',
    }),
    max_log: size().prefault('10MB').meta({
      description: 'The most that is kept of the log of a run: its beginning and its end.',
      example: '50MB',
    }),
  },
  ['health', 'rollback_on_failure', 'approve', 'when', 'deploy_on', 'release_mode', 'sparse', 'files'],
)
export type TargetSettings = z.output<typeof target>

function checkEnvValue(value: Source, context: z.RefinementCtx): void {
  if (typeof value === 'string' && value.includes('\0'))
    context.addIssue({ code: 'custom', message: 'must not contain a NUL' })
}
