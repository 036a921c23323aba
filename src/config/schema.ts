/**
 * Every key of `landfall.toml`: its type, default and meaning. The validation, the JSON Schema for editors and the pages
 * about the configuration have this one source. What needs more than one key to judge is in the file of its table.
 */
import * as z from 'zod'
import { FORGES } from '../model.ts'
import { parseCidr, parseListen, wrongClone } from './grammar.ts'
import { target } from './target-keys.ts'
import {
  A_DURATION,
  count,
  duration,
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

const listen = () => written(parseListen, '"host:port", "[::]:port", "unix:/path" or "systemd:<fd name>"')

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
