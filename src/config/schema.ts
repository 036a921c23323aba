/**
 * Every key of `landfall.toml`: its type, default and meaning. The validation, the JSON Schema for editors and the pages
 * about the configuration have this one source. What needs more than one key to judge is in `meaning.ts`.
 */
import { closest, distance } from 'fastest-levenshtein'
import * as z from 'zod'
import { FORGES, isRef } from '../model.ts'
import {
  isGlob,
  parseCidr,
  parseDuration,
  parseListen,
  parseSize,
  quoted,
  wrongClone,
  wrongRemote,
  wrongRepository,
} from './grammar.ts'

/** What the contract reserves for a later issue is refused in these words, wherever it stands. */
export const LATER = 'known, but not available in this version'

// --- Words that may be misspelt -----------------------------------------------------------------------------------

/** ` (did you mean "x"?)`, or nothing where no word is near. */
export function didYouMean(word: string, known: readonly string[]): string {
  if (known.length === 0) return ''
  const near = closest(word.toLowerCase(), known)
  const far = distance(word.toLowerCase(), near)
  // Two letters swapped are two steps.
  return far <= Math.max(2, Math.floor(near.length / 3)) && far < near.length ? `; did you mean \`${near}\`?` : ''
}

/** A table that takes no other keys. Its message has a line for each unknown key, in the order of the issue's `keys`. */
function table<Shape extends z.core.$ZodLooseShape>(shape: Shape, later: readonly string[] = []) {
  const known = Object.keys(shape)
  const unknown = (key: string) => (later.includes(key) ? LATER : `unknown key${didYouMean(key, known)}`)
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? issue.keys.map(unknown).join('\n') : undefined),
  })
}

/** One of `words`; the words of `later` belong to later issues. */
function oneOf<const Words extends readonly [string, ...string[]]>(words: Words, later: readonly string[] = []) {
  return z.enum(words, {
    error: ({ input }) => {
      if (typeof input !== 'string') return undefined
      if (later.includes(input)) return `${quoted(input)} is ${LATER}`
      return `must be one of ${words.map(quoted).join(', ')}, not ${quoted(input)}${didYouMean(input, words)}`
    },
  })
}

/** A string that `parse` turns into something; null from it means that the text is not `what`. */
function written<Value>(parse: (text: string) => Value | null, what: string) {
  return z.string().transform((text, context) => {
    const value = parse(text)
    if (value !== null) return value
    context.issues.push({ code: 'custom', message: `${quoted(text)} is not ${what}`, input: text })
    return z.NEVER
  })
}

/** A string that is as it should be where `wrong` gives null, and otherwise the sentence that follows the key. */
function proven(wrong: (text: string) => string | null) {
  return z.string().superRefine((text, context) => {
    const message = wrong(text)
    if (message !== null) context.addIssue({ code: 'custom', message })
  })
}

const DAY_MS = 86_400_000
/** Node's timers hold 2^31 - 1 ms; a longer one would fire at once. */
const MAX_TIMER_MS = 24 * DAY_MS
const A_DURATION = 'a duration such as "90s", "5m", "1h30m" or "7d"'

const duration = () => written(parseDuration, A_DURATION)
const timer = (least = 0, leastText = '') =>
  duration()
    .refine((ms) => ms <= MAX_TIMER_MS, 'must be at most "24d"')
    .refine((ms) => ms >= least, `must be at least ${quoted(leastText)}`)
const size = () => written(parseSize, 'a size such as "25MB", "512KB" or "1GB"').refine((n) => n > 0, 'must not be 0')
const listen = () => written(parseListen, '"host:port", "[::]:port", "unix:/path" or "systemd:<fd name>"')
const count = (least: number) => z.int().min(least)
const path = () => proven((text) => (text === '' || text.includes('\0') ? 'must be a path' : null))
const argument = proven((text) => (text.includes('\0') ? 'must not contain a NUL' : null))
const argv = () =>
  z
    .array(argument)
    .refine(([program = '']) => program !== '' && !program.startsWith('-'), 'must begin with the program')
const script = () => proven(wrongScript)
const repository = proven(wrongRepository)

function wrongScript(text: string): string | null {
  if (text.startsWith('/')) return 'must be a name in scripts_dir, not an absolute path'
  const parts = text.split('/')
  const unsafe = parts.some((part) => part === '' || part === '.' || part === '..')
  return unsafe || /^-|\p{Cc}/u.test(text) ? `${quoted(text)} is not a name in scripts_dir` : null
}

// --- Secrets ------------------------------------------------------------------------------------------------------

const sourceTable = table(
  {
    env: z
      .string()
      .min(1, 'must not be empty')
      .optional()
      .describe('The name of an environment variable, of the process or of `.env`.'),
    file: path().optional().describe('A file; a newline at its end does not count.'),
    credential: proven((text) =>
      /^[\w.@-]+$/.test(text) && !/^\.+$/.test(text) ? null : 'is not the name of a credential',
    )
      .optional()
      .describe('The name of a systemd credential (LoadCredential=), a file in $CREDENTIALS_DIRECTORY.'),
  },
  ['exec'],
).refine((source) => Object.keys(source).length === 1, {
  error: 'must have exactly one of env, file and credential',
  when: ({ issues }) => issues.length === 0,
})

/** A string is the value itself. */
const source = () =>
  z.union([z.string(), sourceTable], {
    error: 'must be a string, or one of { env = … }, { file = … }, { credential = … }',
  })
export type Source = z.output<ReturnType<typeof source>>

// --- Tables -------------------------------------------------------------------------------------------------------

const server = table(
  {
    listen: listen().prefault('127.0.0.1:8787').describe('Where hooks and /healthz are served.'),
    admin: z
      .union([z.literal('off'), listen()], {
        error: 'must be "host:port", "[::]:port", "unix:/path", "systemd:<fd name>" or "off"',
      })
      .prefault('127.0.0.1:8788')
      .describe('Where the dashboard, the API and the metrics are served, or "off".'),
    socket_mode: z
      .string()
      .regex(/^0?[0-7]{3}$/, 'must be an octal mode in quotes, such as "0600"')
      .prefault('0600')
      .describe('Permission of data_dir/landfall.sock.'),
    socket_group: z
      .string()
      .min(1, 'must not be empty')
      .optional()
      .describe('Group of data_dir/landfall.sock, for operators without root.'),
    public_url: proven(wrongPublicUrl).optional().describe('How forges reach `listen`.'),
    max_body: size().prefault('25MB').describe('The largest delivery.'),
    trusted_proxies: z
      .array(written(parseCidr, 'a network such as "10.0.0.0/8"'))
      .prefault(['127.0.0.0/8', '::1/128'])
      .describe('Only from these networks X-Forwarded-For is believed; a unix peer is trusted.'),
  },
  ['admin_url'],
)

function wrongPublicUrl(text: string): string | null {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol)) return 'must be an http or https URL'
  if (url.username !== '' || url.password !== '') return 'must have no credentials in it'
  return url.search === '' && url.hash === '' ? null : 'must have neither query nor fragment'
}

export const LATER_FORGES: readonly string[] = [
  'gitea',
  'forgejo',
  'gogs',
  'bitbucket',
  'bitbucket-server',
  'azure',
  'sourcehut',
  'standard-webhooks',
  'generic',
]
export const forge = () => oneOf(FORGES, LATER_FORGES)

const hook = table(
  {
    forge: forge().optional().describe("The kind of forge; default: the hook's name, where that is a forge."),
    secrets: z.array(source()).optional().describe('What deliveries are verified with; several while rotating.'),
    repos: z
      .array(repository)
      .min(1, 'must name at least one repository or pattern')
      .optional()
      .describe('Repositories that the hook may speak for; default: those of the targets that name it.'),
    clone: proven(wrongClone)
      .optional()
      .describe("Where its repositories are fetched; default: the forge's public URL."),
    forge_token: source().optional().describe("For API calls and HTTPS clones at this forge's own host only."),
    ssh_key: source().optional().describe('The private key for clones over ssh.'),
    known_hosts: path().optional().describe("ssh's known_hosts file; default: the user's."),
    missed_after: timer().prefault('60s').describe('How long polling gives a delivery to announce what it found.'),
  },
  ['allow_ips'],
)

const variable = proven((name) => {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return `${quoted(name)} is not the name of an environment variable`
  return name.startsWith('LANDFALL_')
    ? `${quoted(name)} is reserved: landfall sets every LANDFALL_ variable itself`
    : null
})

/** `{branch}` is replaced once a target can follow several branches; until then nobody may rely on its staying as it is. */
function withoutBranch(text: string): string | null {
  return text.includes('{branch}') ? `{branch} is ${LATER}` : null
}

function wrongBranch(text: string): string | null {
  if (isGlob(text)) return `a pattern of branches is ${LATER}`
  if (text.startsWith('refs/')) return `must be a short name such as "main", not ${quoted(text)}`
  return isRef(`refs/heads/${text}`) ? null : `${quoted(text)} is not a branch that git accepts`
}

const target = table(
  {
    repo: repository.optional().describe('Full name of the repository, or a pattern: one instance a repository.'),
    hook: z.string().optional().describe('The hook that announces it; default: the only hook, if there is one.'),
    url: proven(wrongRemote).optional().describe("Where it is fetched; default: from the hook's `clone`."),
    branches: z
      .union([proven(wrongBranch), z.array(z.string()).refine(() => false, `a list of branches is ${LATER}`)], {
        error: 'must be a string',
      })
      .transform((branch) => (typeof branch === 'string' ? branch : z.NEVER))
      .optional()
      .describe("The branch to follow; default: the remote's default branch."),
    events: z
      .array(z.string().refine((event) => event === 'push', `an event other than "push" is ${LATER}`))
      .min(1, 'must name at least one event')
      .default(['push'])
      .describe('The events that cause runs.'),
    script: script().optional().describe('A script in scripts_dir; default: looked for by convention.'),
    run: argv().optional().describe('A program and its arguments, from the checkout, instead of a script.'),
    checkout: oneOf(['release', 'none'], ['inplace']).default('release').describe('What the script finds on disk.'),
    current: path()
      .superRefine((text, context) => {
        const message = withoutBranch(text)
        if (message !== null) context.addIssue({ code: 'custom', message })
      })
      .optional()
      .describe('Symlink to the live release.'),
    activate: z
      .union([argv(), script()], { error: 'must be a list of strings, or a name in scripts_dir' })
      .optional()
      .describe('Runs after `current` was switched: a program and its arguments, or a script of scripts_dir.'),
    keep_releases: count(1).default(5).describe('Releases to keep.'),
    queue: oneOf(['sequential', 'evict'], ['parallel'])
      .default('sequential')
      .describe('What waiting runs do to each other.'),
    lane: proven(
      (text) =>
        withoutBranch(text) ??
        (/^[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}$/.test(text) ? null : 'must have letters, digits and . _ - / only'),
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
    max_log: size().prefault('10MB').describe('Of a log, head and tail are kept.'),
  },
  [
    'tags',
    'paths',
    'path',
    'clean',
    'adopt',
    'health',
    'rollback_on_failure',
    'approve',
    'when',
    'deploy_on',
    'on_delete',
    'tag_order',
    'aliases',
    'restore_on_failure',
    'release_mode',
    'submodules',
    'lfs',
    'sparse',
    'files',
  ],
)

function checkEnvValue(value: Source, context: z.RefinementCtx): void {
  if (typeof value !== 'string') return
  const message = value.includes('\0') ? 'must not contain a NUL' : withoutBranch(value)
  if (message !== null) context.addIssue({ code: 'custom', message })
}

/** Names of hooks and targets. They stand in URLs and, made safe, in paths. */
const NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/
export function isName(text: string): boolean {
  return NAME.test(text)
}
const name = z.string().meta({ pattern: NAME.source })

export const landfallToml = table(
  {
    data_dir: path().default('./.landfall').describe('What landfall keeps.'),
    scripts_dir: path().default('per-repo-scripts').describe('Where scripts are looked for.'),
    max_jobs: count(1).optional().describe('Runs at once over all lanes; default: 4, or the number of CPUs if larger.'),
    drain: z
      .union([z.literal('wait'), timer()], { error: `must be ${A_DURATION}, or "wait"` })
      .prefault('30s')
      .describe('On SIGTERM, how long running scripts may take to finish.'),
    keep_deliveries: duration().prefault('30d').describe('How long deliveries are kept.'),
    keep_payloads: duration().prefault('7d').describe('How long payloads are kept.'),
    keep_runs: count(1).default(100).describe('Runs to keep of each instance.'),
    server: server.prefault({}).describe('The listeners.'),
    hook: z.record(name, hook).default({}).describe('Endpoints: [hook.<name>] is POST /hooks/<name>.'),
    defaults: target.prefault({}).describe('Any key of a target, for all targets that do not say it.'),
    target: z.record(name, target).default({}).describe('What to do when a repository moves: [target.<name>].'),
  },
  ['api_token', 'notify'],
)
export type Settings = z.output<typeof landfallToml>
export type HookSettings = Settings['hook'][string]
export type TargetSettings = Settings['target'][string]
