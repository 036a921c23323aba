/** What `landfall.toml` amounts to: parsed, checked and frozen. Every path is absolute. */
import type { ForgeName } from '../model.ts'

export type Listen =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'systemd'; readonly name: string }

export interface Hook {
  readonly name: string
  readonly forge: ForgeName
  /** Resolved; empty only where the configuration was read without secrets. */
  readonly secrets: readonly string[]
  /** Patterns as written; null where the targets' own repositories are the list. */
  readonly repos: readonly string[] | null
  /** With `{repo}`. */
  readonly clone: string
  readonly forgeToken: string | null
  /** A file as it stands, or the key itself where it came from the environment or a credential. */
  readonly sshKey: { readonly file: string } | { readonly text: string } | null
  readonly knownHosts: string | null
  readonly missedAfterMs: number
}

export interface Target {
  readonly name: string
  /** A full name, or a glob. */
  readonly repo: string
  readonly repoIsGlob: boolean
  /** Null for a target that only polls. */
  readonly hook: string | null
  /** Null: from the hook's `clone`. */
  readonly url: string | null
  /** Short name; null follows the remote's default branch. */
  readonly branch: string | null
  readonly events: readonly string[]
  /** A name in the scripts directory; null looks by convention. */
  readonly script: string | null
  readonly run: readonly [string, ...string[]] | null
  readonly checkout: 'release' | 'none'
  readonly current: string | null
  /** An argv, or a name in the scripts directory. */
  readonly activate: { readonly argv: readonly [string, ...string[]] } | { readonly script: string } | null
  readonly keepReleases: number
  readonly queue: 'sequential' | 'evict'
  /** Null: `<hook>/<repository>`. */
  readonly lane: string | null
  /** The account that everything of this target runs as; for now the one landfall itself runs as. */
  readonly user: string
  readonly env: Readonly<Record<string, string>>
  /** Values of `env` that came from a secret source: blotted out in logs. */
  readonly masked: readonly string[]
  readonly passEnv: readonly string[]
  readonly timeoutMs: number
  readonly fetchTimeoutMs: number
  readonly killGraceMs: number
  readonly retries: number
  readonly rerunInterrupted: boolean
  /** Null: off. */
  readonly pollMs: number | null
  readonly onFailure: string | null
  readonly onSuccess: string | null
  readonly onRecovery: string | null
  readonly maxLogBytes: number
}

export interface Config {
  /** Absolute; null for `once --url`, which needs none. */
  readonly file: string | null
  readonly dataDir: string
  readonly scriptsDir: string
  readonly maxJobs: number
  readonly drainMs: number | 'wait'
  readonly keepDeliveriesMs: number
  readonly keepPayloadsMs: number
  readonly keepRuns: number
  readonly server: {
    readonly listen: Listen
    readonly admin: Listen | null
    /** As a number: 0o600. */
    readonly socketMode: number
    readonly socketGroup: string | null
    /** Without a trailing slash. */
    readonly publicUrl: string | null
    readonly maxBodyBytes: number
    /** CIDRs. */
    readonly trustedProxies: readonly string[]
  }
  readonly hooks: readonly Hook[]
  /** In file order. */
  readonly targets: readonly Target[]
}
