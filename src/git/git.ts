/**
 * git through simple-git, hardened: a small environment, no prompts, no hooks, no helpers of the repository's choosing, one
 * time limit, and an end for everything that git started. What a remote says reaches people redacted and shortened.
 */
import { randomUUID } from 'node:crypto'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { simpleGit } from 'simple-git'
import { LandfallError, messageOf } from '../errors.ts'
import { GIT_ENVIRONMENT, type Remote } from '../work.ts'
import { endMarked } from './descendants.ts'

/** Beats every configuration file. `-c` and not the mirror's own config, so that nothing in a repository can undo it. */
const CONFIG = [
  'core.hooksPath=/dev/null',
  'core.fsmonitor=false',
  'protocol.ext.allow=never',
  'submodule.recurse=false',
  'http.lowSpeedLimit=1000',
  'http.lowSpeedTime=30',
  // A renamed repository is found; credentials go to the host that they are for, wherever a redirect points.
  'http.followRedirects=initial',
  // No collection behind our back: it would pack refs, drop objects and cost a process. `tidy` packs.
  'gc.auto=0',
  'maintenance.auto=false',
  'fetch.showForcedUpdates=false', // costs a walk of the history; we ask ourselves
  'fetch.writeCommitGraph=false',
  // One pack a fetch instead of loose objects and their directories: two files to link into each release. Unsynced, since a
  // mirror that a power cut damages is cloned anew.
  'fetch.unpackLimit=1',
  'core.fsync=none',
]

/** setTimeout takes no more (about 24 days). */
const MAX_TIMER_MS = 2 ** 31 - 1
/**
 * What git may print: the names of half a million files. Trees that name each other make a commit of a few kilobytes into
 * one of a billion files, whose list would be the end of the launcher, and so of everybody's runs.
 */
const MAX_OUTPUT_BYTES = 64 * 2 ** 20
/** How long a killed git may take to be gone before we stop waiting for it. */
const LAST_WAIT_MS = 5_000

export interface GitResult {
  /** Null where a signal ended git. */
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: string
}

/** The git commands of one operation: they share a time limit, a signal and a counter. */
export interface GitSession {
  /**
   * Runs git whatever its exit code; `gitDir` null is no repository at all, `workTree` the working directory. Throws
   * `aborted`, `remote` past the time limit (git and all that it started are gone then), `git` where git cannot start.
   * `unstartable` once any command of the session has printed too much: then none of them goes on.
   */
  run(args: readonly string[], at: { readonly gitDir: string | null; readonly workTree?: string }): Promise<GitResult>
  /** Throws as `run` does once the caller aborted or the time is up. */
  goOn(): void
  /** The error that a failed command amounts to: `remote` where the remote is at fault, `git` else. */
  failure(result: GitResult): LandfallError
  /** Commands started so far. */
  readonly commands: number
}

export interface GitOrder {
  readonly remote: Remote
  /** What the session is for, as a sentence begins: `fetching`. */
  readonly doing: string
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
}

export type OpenGit = (order: GitOrder) => GitSession

/** `environment` is where PATH, HOME and what `GIT_ENVIRONMENT` names are taken from. The time limit starts with the session. */
export function createGit({ environment }: { readonly environment: NodeJS.ProcessEnv }): OpenGit {
  return function open({ remote, doing, env, timeoutMs, signal }) {
    const timeout = AbortSignal.timeout(Math.min(timeoutMs, MAX_TIMER_MS))
    const flood = new AbortController()
    const stop = AbortSignal.any([...(signal ? [signal] : []), timeout, flood.signal])
    const what = `${doing} ${redact(remote.url)}`
    let commands = 0

    function goOn(): void {
      if (signal?.aborted) throw new LandfallError('aborted', `${what} was stopped`)
      if (timeout.aborted) throw new LandfallError('remote', `${what} took longer than ${timeoutMs / 1000} s`)
      if (flood.signal.aborted) {
        const limit = `more than ${MAX_OUTPUT_BYTES / 2 ** 20} MB`
        throw new LandfallError(
          'unstartable',
          `${what} was given up: git printed ${limit}, as it does for millions of files`,
        )
      }
    }

    return {
      goOn,
      failure: (result) => failure(what, result, remote, environment),
      get commands() {
        return commands
      },
      async run(args, { gitDir, workTree }) {
        goOn()
        commands += 1
        const mark = randomUUID()
        const done = start({
          args,
          // Never found by looking upwards: data_dir may lie inside a repository that is not ours.
          env: { ...baseEnv(environment, remote), ...env, GIT_DIR: gitDir ?? '/dev/null', LANDFALL_GIT: mark },
          config: [...CONFIG, ...credentialConfig(remote)],
          directory: workTree ?? gitDir ?? '/',
          onFlood: () => flood.abort(),
        })
        await settledOrStopped(done, stop)
        if (stop.aborted) {
          await endMarked('LANDFALL_GIT', mark)
          await Promise.race([done.catch(() => undefined), sleep(LAST_WAIT_MS, undefined, { ref: false })])
          goOn()
        }
        return await done
      },
    }
  }
}

interface Started {
  readonly args: readonly string[]
  readonly env: Record<string, string>
  readonly config: string[]
  readonly directory: string
  /** Called where git prints more than is kept. */
  readonly onFlood: () => void
}

/** simple-git's own verdict is not used: it takes death by a signal, and failure without a word, for success. */
async function start({ args, env, config, directory, onFlood }: Started): Promise<GitResult> {
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  let printed = 0
  const keepIn = (kept: Buffer[]) => (chunk: Buffer) => {
    printed += chunk.length
    if (printed > MAX_OUTPUT_BYTES) onFlood()
    else kept.push(chunk)
  }
  const end: { code: number | null } = { code: null }
  const git = simpleGit({
    baseDir: directory,
    config,
    allowEnvironment: Object.keys(env),
    // These widen what our own settings above may do; no string from outside reaches `config` or the options.
    unsafe: {
      allowUnsafeHooksPath: true,
      allowUnsafeFsMonitor: true,
      allowUnsafeProtocolOverride: true,
      allowUnsafeCredentialHelper: true,
      allowUnsafeSshCommand: true,
      allowUnsafeAskPass: true,
    },
    errors: (_error, result) => {
      end.code = result.exitCode
      return undefined
    },
  })
    .env(env)
    .outputHandler((_command, out, err) => {
      out.on('data', keepIn(stdout))
      err.on('data', keepIn(stderr))
      // simple-git 4.0.2 waits 50 ms after a command that printed nothing. No bytes count as printed.
      out.once('end', () => out.emit('data', Buffer.alloc(0)))
    })
  try {
    await git.raw([...args])
  } catch (error) {
    throw new LandfallError('git', `git could not be started: ${messageOf(error)}`, { cause: error })
  }
  if (end.code !== null && end.code < 0) {
    throw new LandfallError(
      'git',
      `git could not be started (system error ${end.code}): is it installed and on the PATH?`,
    )
  }
  return { code: end.code, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }
}

/** Resolves with the first of both, without a word on which; leaves no listener behind on a signal that lives long. */
async function settledOrStopped(done: Promise<unknown>, stop: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const stopped = () => resolve()
  stop.addEventListener('abort', stopped, { once: true })
  await Promise.race([done.then(stopped, stopped), promise])
  stop.removeEventListener('abort', stopped)
}

// --- The profile ----------------------------------------------------------------------------------------------------

function baseEnv(environment: NodeJS.ProcessEnv, remote: Remote): Record<string, string> {
  const passed = GIT_ENVIRONMENT.flatMap((name) => (environment[name] ? [[name, environment[name]]] : []))
  const protocols = 'https:http:ssh:git'
  return {
    ...Object.fromEntries(passed),
    PATH: environment['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
    HOME: homeOf(environment),
    LANG: 'C', // messages are read below
    GIT_TERMINAL_PROMPT: '0',
    GIT_ASKPASS: '', // set and empty: no program is asked, whatever core.askPass says
    GIT_ALLOW_PROTOCOL: /^(?:\/|file:\/\/)/.test(remote.url) ? `${protocols}:file` : protocols,
    GIT_SSH_COMMAND: sshCommand(remote),
    // Whatever the user's filter.lfs says: nothing is fetched from where the repository names. See pullLfs.
    GIT_LFS_SKIP_SMUDGE: '1',
  }
}

function homeOf(environment: NodeJS.ProcessEnv): string {
  return environment['HOME'] ?? homedir()
}

/** Never asks, never trusts a host it does not know, never hangs on a dead peer for longer than a minute. */
function sshCommand({ sshKeyFile, knownHostsFile }: Remote): string {
  const options = [
    'BatchMode=yes',
    'StrictHostKeyChecking=yes',
    'ConnectTimeout=10',
    'ServerAliveInterval=15',
    'ServerAliveCountMax=3',
    ...(sshKeyFile ? ['IdentitiesOnly=yes', `IdentityFile=${sshQuote(sshKeyFile)}`] : []),
    ...(knownHostsFile ? [`UserKnownHostsFile=${sshQuote(knownHostsFile)}`] : []),
  ]
  return ['ssh', ...options.flatMap((option) => ['-o', shellQuote(option)])].join(' ')
}

/** A path as ssh's option parser reads it: in double quotes, with its percent tokens disarmed. */
function sshQuote(path: string): string {
  if (/["\\\n]|\$\{/.test(path)) {
    throw new LandfallError('git', `ssh cannot take the path ${path}: it holds a quote, a backslash or "\${"`)
  }
  return `"${path.replaceAll('%', '%%')}"`
}

export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/**
 * The file alone, where there is one: the user's helpers are reset, so the token goes to no keyring, and git matches it by
 * host. Only `get` is let through: after a 401 git says `erase`, which would strike the token from the file for good.
 */
function credentialConfig({ credentialsFile }: Remote): string[] {
  if (credentialsFile === null) return []
  const get = `git credential-store --file=${shellQuote(credentialsFile)} get`
  return ['credential.helper=', `credential.helper=!f() { if [ "$1" = get ]; then ${get}; fi; }; f`]
}

// --- What went wrong ------------------------------------------------------------------------------------------------

/** `text` without the credentials of any URL in it. The user name of an HTTP URL may be a token too, that of ssh is none. */
export function redact(text: string): string {
  return text.replace(/\b(\w[\w+.-]*:\/\/)([^\s/]*)@/g, (whole, scheme: string, user: string) =>
    /^https?:/i.test(scheme) || user.includes(':') ? `${scheme}***@` : whole,
  )
}

/** `url` as it may be written down: without what `redact` would hide. */
export function withoutCredentials(url: string): string {
  return redact(url).replace('***@', '')
}

const REMOTE_AT_FAULT = new RegExp(
  [
    'Could not resolve|Failed to connect|Couldn.t connect|Connection (?:refused|timed out|reset|closed)|No route to host',
    'unable to access |The requested URL returned error|Operation too slow|RPC failed|SSL|certificate',
    'Authentication failed|could not read (?:Username|Password)|terminal prompts disabled|Permission denied \\(',
    'Host key verification failed|Could not read from remote repository|remote end hung up|unable to connect to',
    'not found|does not appear to be a git repository|dubious ownership|remote error:|transport .* not allowed',
    'expected flush|protocol error|bad line length|unexpected disconnect|early EOF|invalid server response',
  ].join('|'),
  'i',
)
const MACHINE_AT_FAULT =
  /No space left|quota exceeded|Read-only file system|Too many open files|Cannot allocate memory/i

/** True where git's words name this machine's resources, so that looking for corruption would only make it worse. */
export function isShortOfResources(stderr: string): boolean {
  return MACHINE_AT_FAULT.test(stderr)
}

function failure(what: string, result: GitResult, remote: Remote, environment: NodeJS.ProcessEnv): LandfallError {
  const { stderr } = result
  if (/Host key verification failed/.test(stderr)) {
    return new LandfallError('remote', `${what} failed: ${hostKeyAdvice(stderr, remote, environment)}`)
  }
  const code = REMOTE_AT_FAULT.test(stderr) && !MACHINE_AT_FAULT.test(stderr) ? 'remote' : 'git'
  const said = lastWords(stderr) || (result.code === null ? 'a signal ended git' : `git exited with ${result.code}`)
  return new LandfallError(code, `${what} failed: ${said}`)
}

/** git's own last lines, on one line, without escapes that a terminal would obey. */
function lastWords(stderr: string): string {
  const lines = redact(stderr)
    .split(/[\r\n]+/)
    .map((line) => line.replace(/\p{Cc}+/gu, ' ').trim())
    .filter((line) => line !== '' && !/^(?:From |POST git-|Please make sure|and the repository exists)/.test(line))
  return lines.slice(-4).join('; ').slice(0, 600)
}

function hostKeyAdvice(stderr: string, remote: Remote, environment: NodeJS.ProcessEnv): string {
  const file = shellQuote(remote.knownHostsFile ?? join(homeOf(environment), '.ssh', 'known_hosts'))
  const named = /host key (?:is known )?for (\S+)/i.exec(stderr)?.[1] ?? hostOf(remote.url)
  const [, host = named, port] = /^\[(.*)\]:(\d+)$/.exec(named) ?? []
  if (/HAS CHANGED/.test(stderr)) {
    const old = shellQuote(port ? `[${host}]:${port}` : host)
    return `the host key of ${host} has changed. If you know why, run: ssh-keygen -f ${file} -R ${old} and then: ${scan()}`
  }
  return `the host key of ${host} is not known. If you trust that host, run: ${scan()}`

  function scan(): string {
    return `ssh-keyscan ${port ? `-p ${port} ` : ''}${shellQuote(host)} >> ${file}`
  }
}

/** `host` or `[host]:port` of an ssh URL or of the scp-like form. */
function hostOf(url: string): string {
  const ssh = /^ssh:\/\/(?:[^@/]*@)?(\[[^\]]*\]|[^:/]+)(?::(\d+))?/i.exec(url)
  const host = ssh?.[1] ?? /^(?:[^@/]*@)?([^:/]+):/.exec(url)?.[1] ?? url
  return ssh?.[2] ? `[${host}]:${ssh[2]}` : host
}
