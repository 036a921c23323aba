/**
 * What the launcher does for the daemon: everything that starts a process or touches a target's files. The daemon's event
 * loop stays free of process starts, which block it for milliseconds (docs/performance.md). Values cross a pipe as JSON,
 * so these are plain data.
 */
import type { Sha } from './model.ts'

/**
 * What git gets of our own environment, on purpose and nothing else beside PATH and HOME: the ssh agent, proxies, and the
 * certificates of a private authority. The user's and the system's git configuration apply through HOME.
 */
export const GIT_ENVIRONMENT = [
  'SSH_AUTH_SOCK',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'GIT_SSL_CAINFO',
  'http_proxy',
  'https_proxy',
  'HTTPS_PROXY',
  'all_proxy',
  'ALL_PROXY',
  'no_proxy',
  'NO_PROXY',
]

/** Where a repository is fetched from, and with what. */
export interface Remote {
  /** Without credentials. A URL, scp-like `git@host:path`, or an absolute path. */
  readonly url: string
  /** Absolute directory of the bare mirror, one for each (remote, user). */
  readonly mirror: string
  readonly sshKeyFile: string | null
  readonly knownHostsFile: string | null
  /** A file in git's credential-store format, for HTTPS. */
  readonly credentialsFile: string | null
}

export interface ListRefsOrder {
  readonly remote: Remote
  /** Short names (`main`), or all of them; the default branch is always told. */
  readonly branches: readonly string[] | 'all'
  readonly tags: boolean
  readonly timeoutMs: number
}
export interface RemoteRefs {
  /** The default branch (`main`) and its tip; null where the remote is empty or its HEAD points nowhere. */
  readonly head: { readonly branch: string; readonly tip: Sha } | null
  /** Tips by short name, of the branches asked for that exist. */
  readonly branches: Readonly<Record<string, Sha>>
  /** By short name (`v1.0`); empty where they were not asked for. */
  readonly tags: Readonly<Record<string, RemoteTag>>
}
export interface RemoteTag {
  /** What the ref names: the commit itself, or the tag object of an annotated tag. */
  readonly object: Sha
  readonly commit: Sha
}

/** Which of several tags is the one: the highest version, or the one made last. */
export type TagOrder = 'version' | 'newest'
/** Tags by pattern: `matchesRefName`. */
export interface TagChoice {
  readonly patterns: readonly string[]
  readonly order: TagOrder
}
export interface ChooseTagOrder extends TagChoice {
  readonly remote: Remote
  readonly timeoutMs: number
}
export interface ChosenTag {
  /** Short name. */
  readonly tag: string
  readonly commit: Sha
}

/** The ref that a run follows. */
export type Wanted =
  | { readonly kind: 'default' }
  | { readonly kind: 'branch'; readonly branch: string }
  | ({
      readonly kind: 'tag'
      /** The tag that the trigger named, short; null where it named none. */
      readonly announced: string | null
      /** The tag that D was deployed as, short. */
      readonly deployed: string | null
    } & TagChoice)

/**
 * How one commit lies to another, or one tag by the order of tags: `ahead` = a descendant (a higher one), `behind` = an ancestor, `unknown` = the other is not in the
 * mirror. A tag that was moved has `diverged` from itself.
 */
export type Relation = 'same' | 'ahead' | 'behind' | 'diverged' | 'unknown'

export interface FetchOrder {
  readonly remote: Remote
  readonly wanted: Wanted
  /** When the run was due. A fetch of the same ref that began later is taken for its own: targets of one repository share it. */
  readonly dueAt: number
  /** C, to be looked for in what was fetched. */
  readonly announced: Sha | null
  /** D, to be compared with. */
  readonly deployed: Sha | null
  /** Whether the relation of C to D is wanted too; it costs a git command where C is neither T nor D. */
  readonly compareAnnounced: boolean
  /** A directory-safe name under `refs/landfall/`, where T and C are pinned until the run has ended. */
  readonly pinnedAs: string
  /** Marks git's processes, so that they can be found after a crash. */
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
}
export interface Fetched {
  /** The ref that was followed, full name; null where the remote has no default branch, or no tag that fits. */
  readonly ref: string | null
  /** T, a commit; null where the ref is gone. */
  readonly tip: Sha | null
  /** T seen from D; `unknown` without a D, or where D is not in the mirror. */
  readonly tipToDeployed: Relation
  readonly announcedInTip: 'yes' | 'no' | 'missing'
  /** C seen from D; `unknown` where it was not asked for. */
  readonly announcedToDeployed: Relation
  /** Git commands that were started. */
  readonly commands: number
}

export interface PinOrder {
  readonly remote: Remote
  readonly pinnedAs: string
  /** The pins that shall be there, by last name component (`deployed`); every other pin of `pinnedAs` is removed. */
  readonly pins: Readonly<Record<string, Sha>>
}

export interface RelationOrder {
  readonly remote: Remote
  readonly commit: Sha
  readonly base: Sha
  readonly timeoutMs: number
}

export interface TouchesOrder {
  readonly remote: Remote
  /** Both are in the mirror, or were; where one is not, everything counts as changed. */
  readonly from: Sha
  readonly to: Sha
  /** `matchesAny`. */
  readonly patterns: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
}

/** From which hosts submodules are checked out, beside the repository's own (`*.example.com`); null: not at all. */
export type Submodules = { readonly hosts: readonly string[] } | null

/** What belongs to a work tree beyond the commit's own files. */
export interface Extras {
  readonly submodules: Submodules
  readonly lfs: boolean
}

export interface CheckOutOrder extends Extras {
  readonly remote: Remote
  readonly commit: Sha
  /** D, for the list of changed paths; null lists every file. */
  readonly previous: Sha | null
  /** Absolute and not there yet; its parent is made where missing. */
  readonly directory: string
  /** Where to write the changed paths, one a line and NUL-separated. */
  readonly changed: { readonly lines: string; readonly nul: string }
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
}

export interface InPlaceOrder extends Extras {
  readonly remote: Remote
  readonly commit: Sha
  /** D, for the list of changed paths; null lists every file. */
  readonly previous: Sha | null
  /** The working tree, absolute. Made where it is missing or empty; its parent is there. A symlink is followed. */
  readonly path: string
  /** The branch that it shall be on, short; null: a detached HEAD. */
  readonly branch: string | null
  /** Who has the tree, written into its `.git` when it was taken over. */
  readonly instance: string
  readonly run: number
  readonly adopt: boolean
  readonly clean: boolean
  /**
   * Where tracked edits, and untracked files that stand in the way, are saved before they are undone: for `git apply` at
   * what the files were at. The file is there, empty.
   */
  readonly patch: string
  /** What the names of files begin with that are made for it and do not last: `patch`, unless they must not lie beside it. */
  readonly patchAside?: string
  readonly changed: { readonly lines: string; readonly nul: string }
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
}
export interface InPlace {
  /** What the files were at; null for a tree that was made, or had no commit. */
  readonly was: Sha | null
  /** Sentences for the run's log: what was saved where. */
  readonly notes: readonly string[]
}
export interface RestoreOrder extends Extras {
  readonly remote: Remote
  readonly path: string
  readonly branch: string | null
  /** What the tree shall be at again. */
  readonly commit: Sha
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
}

export interface LinkOrder {
  /** The symlink to switch atomically; its parent directory exists. */
  readonly link: string
  /** What it shall point to; null removes it. */
  readonly to: string | null
}

export interface RenameOrder {
  readonly from: string
  readonly to: string
}

export interface ScriptOrder {
  /** Executed directly, never through a shell; a relative first element is taken from `cwd`. */
  readonly argv: readonly [string, ...string[]]
  readonly cwd: string
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>
  /** From start to TERM. */
  readonly timeoutMs: number
  /** From TERM to KILL. */
  readonly killGraceMs: number
  readonly log: LogFileOrder
}
export interface LogFileOrder {
  /** Appended to. */
  readonly file: string
  /**
   * What the names of directories begin with that are made for a part of it: `file` itself, unless they must not be made
   * beside it.
   */
  readonly aside?: string
  /** Head and tail are kept, the cut between them is marked. */
  readonly maxBytes: number
  /** Values to blot out as `***`. */
  readonly masked: readonly string[]
}
/** A process group leader, told apart from a later process of the same id by its start time (clock ticks since boot). */
export interface ProcessMark {
  readonly pid: number
  readonly startTime: number
}
export type ScriptEnd =
  | { readonly kind: 'exited'; readonly code: number }
  | { readonly kind: 'killed'; readonly signal: NodeJS.Signals }
  | { readonly kind: 'timed-out' }
  | { readonly kind: 'aborted' }
  | { readonly kind: 'unstartable'; readonly detail: string }

/**
 * Every call that may take long has an abort signal: git is killed with its descendants, a script gets TERM, grace, KILL. An aborted call
 * rejects with `aborted`, save `runScript`, which resolves to the kind `aborted` once the whole group is gone.
 */
export interface Work {
  /** Throws `remote` where the remote cannot be reached, `git` for anything else. */
  listRefs(order: ListRefsOrder, signal?: AbortSignal): Promise<RemoteRefs>
  /** Makes the mirror where it is missing or corrupt. Throws like `listRefs`. */
  fetch(order: FetchOrder, signal?: AbortSignal): Promise<Fetched>
  /** The tag that a run would deploy; null where none fits. Throws like `listRefs`. */
  chooseTag(order: ChooseTagOrder, signal?: AbortSignal): Promise<ChosenTag | null>
  /** `commit` seen from `base`, as the mirror has them. */
  relation(order: RelationOrder, signal?: AbortSignal): Promise<Relation>
  /** Whether a file that the patterns name differs between two commits; both names of a renamed file count. */
  touches(order: TouchesOrder, signal?: AbortSignal): Promise<boolean>
  pin(order: PinOrder): Promise<void>
  /** Afterwards `directory` is a work tree at exactly `commit` with a `.git` of its own. On error it is removed. */
  checkOut(order: CheckOutOrder, signal?: AbortSignal): Promise<void>
  /**
   * Afterwards the tree at `path` is exactly at `commit`. Throws `unstartable`, and has changed nothing, where that is not
   * landfall's to do: a foreign clone, no clone at all, or a first takeover of somebody's work without `adopt`. Throws `git`
   * where another git is at work in the tree, for it will have finished later.
   */
  checkOutInPlace(order: InPlaceOrder, signal?: AbortSignal): Promise<InPlace>
  /** Afterwards the tree is exactly at `commit`, which it was at before; edits are not saved, untracked files stay. Throws like `checkOutInPlace`. */
  restore(order: RestoreOrder): Promise<void>
  /** Why `link` cannot be switched, as a sentence that says what to do; null where it can. */
  wrongLink(link: string): Promise<string | null>
  /** Resolves to what the link pointed to before, or null. Throws `unstartable` where `link` is something else than a symlink. */
  switchLink(order: LinkOrder): Promise<string | null>
  rename(order: RenameOrder): Promise<void>
  /** Makes the directory, for nobody else to enter; what was in it is gone. */
  emptyDirectory(directory: string): Promise<void>
  /**
   * Removes directories with everything in them; missing ones are fine. One that lies in a directory of another account is
   * left empty.
   */
  remove(directories: readonly string[]): Promise<void>
  /** `started` is called once, as soon as the process is there. */
  runScript(order: ScriptOrder, started: (mark: ProcessMark) => void, signal?: AbortSignal): Promise<ScriptEnd>
  /**
   * Joins a log's head with the tail that waits aside; needed after a crash, harmless at any other time, unless the log is
   * being written. Afterwards the file has at most `maxBytes` and, where something was left out, one line that says so.
   */
  sealLog(order: Omit<LogFileOrder, 'masked'>): Promise<void>
  /** Packs the mirror if loose objects or packs have become many, so that linking them stays cheap. */
  tidy(remote: Remote, signal?: AbortSignal): Promise<void>
}
