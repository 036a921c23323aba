/** What `init` writes. */
import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import type { Account } from '../config/accounts.ts'
import { isName } from '../config/schema.ts'
import type { ForgeName } from '../model.ts'
import type { Answers } from './init-questions.ts'

export interface Plan extends Answers {
  /** The configuration; everything else lies beside it. */
  readonly file: string
  readonly secret: string
  readonly account: Account
}

export interface PlannedFile {
  readonly path: string
  readonly text: string
  readonly mode: number
  readonly about: string
}

/** The configuration last: where it is, the rest is too. */
export function filesOf(plan: Plan): readonly PlannedFile[] {
  const beside = (...names: readonly string[]) => join(dirname(plan.file), ...names)
  return [
    {
      path: beside('per-repo-scripts', ...plan.repo.toLowerCase().split('/')),
      text: scriptFor(plan.repo),
      mode: 0o755,
      about: 'what a push runs: your steps go there',
    },
    { path: beside('.env'), text: dotenvFor(plan), mode: 0o600, about: 'the secret of the webhook' },
    { path: plan.file, text: configurationFor(plan), mode: 0o644, about: 'the configuration' },
  ]
}

/** Hexadecimal: it survives every form field, .env file and header. GitLab takes it as its "Secret token". */
export function freshSecret(): string {
  return randomBytes(32).toString('hex')
}

export function secretName(forge: ForgeName): string {
  return `${forge.toUpperCase()}_WEBHOOK_SECRET`
}

// A JSON string is a TOML string.
const toml = (text: string): string => JSON.stringify(text)

/** The JSON Schema that this landfall ships, as a URL: editors find it from wherever the configuration lies. */
const SCHEMA = new URL('../../landfall.schema.json', import.meta.url).href

function configurationFor({ forge, repo, publicUrl, deployKey, account }: Plan): string {
  const lines = [
    `#:schema ${SCHEMA}`,
    '# The configuration of landfall. `landfall check` says what it amounts to.',
    '',
    '[server]',
    'listen     = "127.0.0.1:8787"    # hooks and /healthz',
    `public_url = ${toml(publicUrl)}    # how the forge reaches it`,
    '',
    `[hook.${forge}]    # POST /hooks/${forge}`,
    `secrets = [{ env = "${secretName(forge)}" }]    # from .env, beside this file`,
    ...(deployKey ? ['ssh_key = { file = "deploy_key" }', `clone   = "git@${forge}.com:{repo}.git"`] : []),
    '',
    `[target.${targetName(repo)}]`,
    `repo  = ${toml(repo)}    # runs per-repo-scripts/${repo.toLowerCase()}`,
    'queue = "evict"    # of several waiting pushes only the newest runs',
    ...(account.uid === 0 ? ['user  = "root"     # scripts run with all rights'] : []),
  ]
  return `${lines.join('\n')}\n`
}

/** `site` of `acme/Site`. */
function targetName(repo: string): string {
  const name = repo
    .slice(repo.lastIndexOf('/') + 1)
    .toLowerCase()
    .replace(/[^a-z0-9_-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
    .slice(0, 100)
  return isName(name) ? name : 'site'
}

function dotenvFor({ forge, secret }: Plan): string {
  return `# Secrets, read by landfall alone. Keep this file out of git.\n${secretName(forge)}=${secret}\n`
}

function scriptFor(repo: string): string {
  return `#!/bin/sh
# Runs when ${repo} moves, in a fresh checkout of the commit.
# Exit 0 is success; 75 asks for another try later; anything else is failure.
# It must be safe to run twice, and must leave no process behind.
set -eu

echo "$LANDFALL_REPO: \${LANDFALL_BRANCH:-?} is at $LANDFALL_COMMIT"
echo "before: \${LANDFALL_PREVIOUS:-nothing}"
echo "changed:"
head -n 20 "$LANDFALL_CHANGED" | sed 's/^/  /'

# Your steps, for example:
# npm ci && npm run build
# rsync -a --delete public/ /srv/www/
`
}
