/** What `landfall.toml` amounts to: parsed, checked and frozen. Every path is absolute. */
import type { ForgeName, QueuePolicy } from '../model.ts'
import type { Submodules, TagOrder } from '../work.ts'
import type { LoginAccount } from './accounts.ts'

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

/** Which refs of the remote a target follows. Patterns are as written; one that begins with `!` excludes. */
export type Follows =
  /** The remote's default branch. */
  | { readonly kind: 'default' }
  | { readonly kind: 'branch'; readonly branch: string }
  /** One instance a branch. */
  | { readonly kind: 'branches'; readonly patterns: readonly string[] }
  | { readonly kind: 'tags'; readonly patterns: readonly string[]; readonly order: TagOrder }

export interface Target {
  readonly name: string
  /** A full name, or a glob. */
  readonly repo: string
  readonly repoIsGlob: boolean
  /** Null for a target that only polls. */
  readonly hook: string | null
  /** Null: from the hook's `clone`. */
  readonly url: string | null
  /** Other names of the repository; compared case-insensitively. */
  readonly aliases: readonly string[]
  readonly follows: Follows
  readonly events: readonly string[]
  /** A run is made only where one of these files changed; null: always. */
  readonly paths: readonly string[] | null
  /** A name in the scripts directory; null looks by convention. */
  readonly script: string | null
  readonly run: readonly [string, ...string[]] | null
  readonly checkout: 'release' | 'inplace' | 'none'
  /** Absolute. Like `path`, `lane` and the values of `env` it may hold `{branch}`: see `targetOf`. */
  readonly current: string | null
  /** An argv, or a name in the scripts directory. */
  readonly activate: { readonly argv: readonly [string, ...string[]] } | { readonly script: string } | null
  readonly keepReleases: number
  /** The working tree of `inplace`, absolute; null for the other checkouts. */
  readonly path: string | null
  readonly clean: boolean
  readonly adopt: boolean
  readonly restoreOnFailure: boolean
  readonly submodules: Submodules
  readonly lfs: boolean
  readonly queue: QueuePolicy
  /** Null: `<hook>/<repository>`. */
  readonly lane: string | null
  /** The account that everything of this target runs as. */
  readonly user: string
  /** The same with what it takes to become it; null where landfall itself runs as it. */
  readonly account: LoginAccount | null
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
  readonly onDelete: string | null
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
