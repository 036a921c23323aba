/** Why a program cannot be started, in words that say what to do. */
import { constants } from 'node:fs'
import { access, open, stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { messageOf, systemCode } from '../errors.ts'
import type { ScriptOrder } from '../work.ts'

/** As many bytes of a first line as Linux looks at: https://docs.kernel.org/ (fs/binfmt_script.c, BINPRM_BUF_SIZE). */
const FIRST_LINE_BYTES = 256
const ELF = '\x7fELF'

type Program = Pick<ScriptOrder, 'argv' | 'cwd' | 'env'>

/**
 * Says why a file must not be executed although execvp(3) would: it hands a file without a `#!` line to /bin/sh, and an
 * empty one would even succeed. Null where nothing speaks against a start; any other obstacle shows when it is tried.
 */
export async function noProgram(order: Program): Promise<string | null> {
  const file = await findProgram(order)
  const first = file === null ? null : await beginningOf(file)
  if (file === null || first === null || first.startsWith('#!') || first.startsWith(ELF)) return null
  if (first === '') return `${file} is empty`
  return `${file} has no #! line: begin it with the interpreter it is written for, such as #!/bin/sh`
}

/** The sentence for a failed start. `error` is what spawn gave. */
export async function whyUnstartable(order: Program, error: unknown): Promise<string> {
  const inTheWay = await badDirectory(order.cwd)
  if (inTheWay !== null) return inTheWay
  const name = order.argv[0]
  const file = await findProgram(order)
  switch (systemCode(error) ?? '') {
    case 'ENOENT':
      if (file !== null) return noInterpreter(file, await beginningOf(file))
      if (name.includes('/')) return `${resolve(order.cwd, name)} does not exist`
      return `${name} is in no directory of PATH (${order.env['PATH'] ?? 'not set'})`
    case 'EACCES':
      if (file !== null) return await notExecutable(file)
      if (!name.includes('/'))
        return `${name} is in no directory of PATH that may be entered (${order.env['PATH'] ?? 'not set'})`
      return `${name} is not in reach: ${(await closedDirectory(dirname(resolve(order.cwd, name)))) ?? 'permission denied'}`
    case 'ENOTDIR':
      return `${resolve(order.cwd, name)} leads through something that is not a directory`
    case 'ELOOP':
      return `${resolve(order.cwd, name)} is a symbolic link that leads round in a circle`
    case 'ENOEXEC':
      return `${file ?? name} is not a program for this machine`
    case 'ETXTBSY':
      return `${file ?? name} is still being written`
    case 'E2BIG':
      return `${file ?? name}: arguments and environment are too long together, or one of them is longer than 128 kB`
    case 'EAGAIN':
    case 'ENOMEM':
      return `${file ?? name}: the system has no room for another process (${systemCode(error)})`
    case 'ERR_INVALID_ARG_VALUE':
      // Node's own message would show the value, which may be a secret.
      return `${name}: an argument, or a value of the environment, holds a NUL byte`
    default:
      return `${file ?? name} cannot be started: ${messageOf(error)}`
  }
}

/** The first part of a directory's path that this process may not enter, as a sentence; null where it may enter them all. */
export async function closedDirectory(directory: string): Promise<string | null> {
  let way = '/'
  for (const name of directory.split('/')) {
    way = join(way, name)
    try {
      await access(way, constants.X_OK)
    } catch (error) {
      if (systemCode(error) !== 'EACCES') return null
      return `${way} is closed to ${userInfo().username}; choose another place, or open the way with: chmod o+x ${way}`
    }
  }
  return null
}

async function badDirectory(cwd: string): Promise<string | null> {
  try {
    if (!(await stat(cwd)).isDirectory()) return `${cwd}, where it was to run, is not a directory`
    await access(cwd, constants.X_OK)
    return null
  } catch {
    const closed = await closedDirectory(cwd)
    if (closed !== null) return `${cwd}, where it was to run, may not be entered: ${closed}`
    return `${cwd}, where it was to run, does not exist`
  }
}

function noInterpreter(file: string, first: string | null): string {
  const line = /^#![ \t]*([^ \t\n]+)/.exec(first ?? '')
  const interpreter = line?.[1]
  if (interpreter === undefined) return `${file} needs a dynamic loader that this machine does not have`
  if (interpreter.endsWith('\r')) {
    return `${file} has Windows line endings, so its interpreter "${interpreter.trimEnd()}" is not found: save it with LF`
  }
  return `${file} needs the interpreter ${interpreter} (its first line says so), which does not exist`
}

async function notExecutable(file: string): Promise<string> {
  const status = await unlessFailing(stat(file))
  if (status?.isDirectory()) return `${file} is a directory`
  if (status !== null && (status.mode & 0o111) === 0) return `${file} is not executable: chmod +x ${file}`
  return `${file}, or its interpreter, may not be executed: another account's, or on a file system mounted noexec`
}

/** Where execvp(3) finds it: by path, or by name in the PATH that the program itself gets. */
async function findProgram({ argv: [name], cwd, env }: Program): Promise<string | null> {
  const candidates = name.includes('/')
    ? [resolve(cwd, name)]
    : (env['PATH'] ?? '').split(delimiter).map((directory) => resolve(cwd, directory, name))
  let found: string | null = null
  for (const file of candidates) {
    const status = await unlessFailing(stat(file))
    if (status === null) continue
    if (status.isFile() && (await unlessFailing(access(file, constants.X_OK).then(() => true))) === true) return file
    found ??= file
  }
  return found
}

/** Null where it cannot be read: a program may be executable and yet unreadable. */
async function beginningOf(file: string): Promise<string | null> {
  const handle = await unlessFailing(open(file, constants.O_RDONLY | constants.O_NONBLOCK))
  if (handle === null) return null
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(FIRST_LINE_BYTES))
    return buffer.toString('latin1', 0, bytesRead)
  } catch {
    return null
  } finally {
    await handle.close()
  }
}

async function unlessFailing<T>(attempt: Promise<T>): Promise<T | null> {
  try {
    return await attempt
  } catch {
    return null
  }
}
