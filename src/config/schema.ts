/**
 * Every key of `landfall.toml`: its type, default and meaning. The validation, the JSON Schema for editors and the pages
 * about the configuration have this one source. What needs more than one key to judge is in the file of its table.
 */
import * as z from 'zod'
import { FORGES } from '../model.ts'
import { CLONE, LISTEN, NETWORK, parseCidr, parseListen, WITH_CREDENTIALS, wrongClone } from './grammar.ts'
import { target } from './target-keys.ts'
import {
  A_DURATION,
  count,
  duration,
  looksLike,
  oneOf,
  path,
  proven,
  repository,
  size,
  source,
  table,
  timer,
  written,
} from './words.ts'

const HTTP_URL = /^[Hh][Tt][Tt][Pp][Ss]?:\/\/\S+$/
const listen = () =>
  written(parseListen, '"host:port", "[::]:port", "unix:/path" or "systemd:<fd name>"').meta({
    ...looksLike(...LISTEN),
    kind: 'address',
  })

const server = table(
  {
    listen: listen()
      .prefault('127.0.0.1:8787')
      .meta({ description: 'Where `/hooks/…` and `/healthz` are served.', example: '[::]:8787' }),
    admin: z
      .union([z.literal('off'), listen()], {
        error: 'must be "host:port", "[::]:port", "unix:/path", "systemd:<fd name>" or "off"',
      })
      .prefault('127.0.0.1:8788')
      .meta({
        description: 'Where the dashboard, the API and the metrics will be served; this version opens nothing there.',
        example: 'off',
      }),
    socket_mode: z
      .string()
      .regex(/^0?[0-7]{3}$/, 'must be an octal mode in quotes, such as "0600"')
      .prefault('0600')
      .meta({
        description: 'The permissions of `data_dir/landfall.sock`, through which `landfall status` and the others ask.',
        kind: 'octal mode',
        example: '0660',
      }),
    socket_group: z.string().min(1, 'must not be empty').optional().meta({
      description: 'The group of `data_dir/landfall.sock`, for operators who are not root.',
      kind: 'group',
      byDefault: "the group of landfall's own account",
      example: 'adm',
    }),
    public_url: proven(wrongPublicUrl)
      .meta({ ...looksLike(HTTP_URL), kind: 'URL' })
      .optional()
      .meta({
        description: 'How forges reach `listen` from outside.',
        byDefault: 'unknown',
        example: 'https://hooks.example.com',
      }),
    max_body: size()
      .prefault('25MB')
      .meta({ description: 'The largest delivery that is accepted; a larger one is answered 413.', example: '5MB' }),
    trusted_proxies: z
      .array(written(parseCidr, 'a network such as "10.0.0.0/8"').meta(looksLike(NETWORK)))
      .prefault(['127.0.0.0/8', '::1/128'])
      .meta({
        description: 'Only from these networks is `X-Forwarded-For` believed. A peer on a unix socket always is.',
        kind: 'list of networks',
        example: ['10.0.0.0/8'],
      }),
  },
  ['admin_url'],
)

function wrongPublicUrl(text: string): string | null {
  const url = HTTP_URL.test(text) ? URL.parse(text) : null
  if (url === null) return 'must be an http or https URL'
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

/** Names of hooks and targets. They stand in URLs and, made safe, in paths. */
const NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/
export function isName(text: string): boolean {
  return NAME.test(text)
}
// Judged where a wrong name has a sentence of its own; told here.
const name = z.string().meta(looksLike(NAME))

const hook = table(
  {
    forge: forge().optional().meta({
      description: 'The kind of forge that speaks here.',
      byDefault: "the hook's name, where that is a forge",
      example: 'gitlab',
    }),
    secrets: z
      .array(source())
      .optional()
      .meta({
        description: 'What deliveries are verified with, at least one; several while a secret is being changed.',
        kind: 'list of secrets',
        byDefault: 'none, so it must be given',
        example: [{ env: 'GITHUB_WEBHOOK_SECRET' }],
      }),
    repos: z
      .array(repository)
      .min(1, 'must name at least one repository or pattern')
      .optional()
      .meta({
        description: 'The repositories that this hook may speak for; a delivery about any other is ignored.',
        kind: 'list of repositories and patterns',
        byDefault: 'those of the targets that name the hook',
        example: ['acme/*'],
      }),
    clone: proven(wrongClone)
      .meta({ ...looksLike(CLONE), not: looksLike(WITH_CREDENTIALS), kind: 'remote with `{repo}`' })
      .optional()
      .meta({
        description: 'Where its repositories are fetched from; `{repo}` becomes `owner/name`.',
        byDefault: "the forge's public HTTPS URL",
        example: 'git@github.com:{repo}.git',
      }),
    forge_token: source()
      .optional()
      .meta({
        description: "An access token, for API calls and HTTPS clones at this forge's own host only.",
        byDefault: 'none',
        example: { file: '/etc/landfall/github.token' },
      }),
    ssh_key: source()
      .optional()
      .meta({
        description: 'The private key for clones over SSH.',
        byDefault: "what SSH finds in the user's home",
        example: { file: '/etc/landfall/deploy_key' },
      }),
    known_hosts: path().optional().meta({
      description: 'The `known_hosts` file for clones over SSH. An unknown host is an error that says what to add.',
      byDefault: "the user's",
      example: '/etc/landfall/known_hosts',
    }),
    missed_after: timer().prefault('60s').meta({
      description:
        'How long a delivery may take to announce what polling has found already; after that it counts as missed.',
      example: '5m',
    }),
  },
  ['allow_ips'],
)

export const landfallToml = table(
  {
    data_dir: path().default('./.landfall').meta({
      description: 'Where landfall keeps its database, mirrors, releases and logs.',
      example: '/var/lib/landfall',
    }),
    scripts_dir: path()
      .default('per-repo-scripts')
      .meta({ description: 'Where scripts are looked for.', example: '/etc/landfall/scripts' }),
    max_jobs: count(1).optional().meta({
      description: 'How many runs go on at once, over all lanes.',
      byDefault: '4, or the number of CPUs where that is larger',
      example: 2,
    }),
    drain: z
      .union([z.literal('wait'), timer()], { error: `must be ${A_DURATION}, or "wait"` })
      .prefault('30s')
      .meta({
        description:
          'How long running scripts may take to finish when landfall is told to stop; "wait" waits for as long as they take.',
        example: 'wait',
      }),
    keep_deliveries: duration().prefault('30d').meta({
      description: 'How long deliveries are kept; within this time one that comes again is known.',
      example: '90d',
    }),
    keep_payloads: duration()
      .prefault('7d')
      .meta({ description: 'How long the bodies of deliveries are kept, compressed.', example: '1d' }),
    keep_runs: count(1).default(100).meta({
      description: 'How many runs of each instance are kept; the deployed one and the one before it always are.',
      example: 500,
    }),
    server: server.prefault({}).meta({ description: 'Where landfall listens.' }),
    hook: z.record(name, hook).default({}).meta({
      description: 'The endpoints that forges send to: `[hook.<name>]` is `POST /hooks/<name>`.',
    }),
    defaults: target.prefault({}).meta({ description: 'Any key of a target, for each target that does not say it.' }),
    target: z.record(name, target).default({}).meta({
      description:
        'What to do when a repository moves: `[target.<name>]`. A name has a-z, 0-9, ".", "_" and "-", and begins with a letter or digit.',
    }),
  },
  ['api_token', 'notify'],
)
export type Settings = z.output<typeof landfallToml>
export type HookSettings = Settings['hook'][string]
