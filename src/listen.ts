/** Where a server listens: TCP, a unix socket, or a socket that systemd opened for us. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { lstat, unlink } from 'node:fs/promises'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import type { Listen } from './config/config.ts'
import { LandfallError, messageOf, systemCode } from './errors.ts'

export interface ListenParts {
  readonly server: Server
  readonly listen: Listen
  /** Permissions of a unix socket that is made here. */
  readonly socketMode: number
  /** Where systemd says which sockets it passes. */
  readonly env: Readonly<Record<string, string | undefined>>
}

/**
 * Afterwards the server accepts connections. Resolves to `http://host:port`, with the real port where 0 was asked for, or
 * `unix:/path`. Throws `start` with a sentence that says where, and what to do.
 */
export async function startListening({ server, listen, socketMode, env }: ListenParts): Promise<string> {
  switch (listen.kind) {
    case 'tcp':
      return await listenOnPort(server, listen.host, listen.port)
    case 'unix':
      return await listenOnPath(server, listen.path, socketMode)
    case 'systemd':
      await bind(server, { fd: inheritedSocket(listen.name, env) }, `the systemd socket "${listen.name}"`)
      return addressOf(server)
  }
}

async function listenOnPort(server: Server, host: string, port: number): Promise<string> {
  await bind(server, { host, port }, `${host.includes(':') ? `[${host}]` : host}:${port}`)
  return addressOf(server)
}

async function listenOnPath(server: Server, path: string, mode: number): Promise<string> {
  // sockaddr_un has 108 bytes with the final zero; a longer path would be cut or refused with a riddle.
  if (Buffer.byteLength(path) > 107) {
    throw new LandfallError(
      'start',
      `Cannot listen on ${path}: a socket's path may have 107 bytes. Choose a shorter one.`,
    )
  }
  await removeStale(path)
  // The socket is never there with more permissions than it shall have, not even between bind and chmod.
  const umask = process.umask(0o777 & ~mode)
  const bound = bind(server, { path }, path)
  process.umask(umask)
  await bound
  return `unix:${path}`
}

/** A socket file that nobody listens on was left by a process that was killed. */
async function removeStale(path: string): Promise<void> {
  if (!existsSync(dirname(path))) {
    // Binding would call this EACCES, for the sake of Windows.
    throw new LandfallError('start', `Cannot listen on ${path}: its directory does not exist. Make it.`)
  }
  const stats = await lstat(path).catch(() => null)
  if (stats === null) return
  if (!stats.isSocket()) {
    throw new LandfallError('start', `Cannot listen on ${path}: there is a file that is no socket. Move it away.`)
  }
  const probe = connect(path)
  try {
    await once(probe, 'connect')
  } catch (error) {
    if (systemCode(error) === 'ECONNREFUSED') await unlink(path).catch(() => {})
    return
  } finally {
    probe.destroy()
  }
  throw new LandfallError(
    'start',
    `Cannot listen on ${path}: another process listens there. Stop it, or change \`listen\`.`,
  )
}

/** `LISTEN_FDS` sockets begin at descriptor 3; `LISTEN_FDNAMES` names them in order (sd_listen_fds(3)). */
function inheritedSocket(name: string, env: ListenParts['env']): number {
  const count = env['LISTEN_PID'] === String(process.pid) ? Number(env['LISTEN_FDS'] ?? 0) : 0
  const names = (env['LISTEN_FDNAMES'] ?? '').split(':').slice(0, count)
  const index = names.indexOf(name)
  if (index !== -1) return 3 + index
  const passed = names.length === 0 || count === 0 ? 'systemd passed no socket' : `systemd passed ${names.join(', ')}`
  throw new LandfallError(
    'start',
    `Cannot listen on systemd:${name}: ${passed}. Set FileDescriptorName=${name} in the .socket unit, and start that.`,
  )
}

async function bind(
  server: Server,
  where: { host: string; port: number } | { path: string } | { fd: number },
  name: string,
): Promise<void> {
  try {
    server.listen({ ...where, backlog: 511 })
    await once(server, 'listening')
  } catch (error) {
    throw new LandfallError('start', `Cannot listen on ${name}: ${reasonFor(error)}`, { cause: error })
  }
}

function reasonFor(error: unknown): string {
  switch (systemCode(error) ?? '') {
    case 'EADDRINUSE':
      return 'another process listens there. Stop it, or change `listen`.'
    case 'EACCES':
      return 'permission denied. Ports below 1024 need CAP_NET_BIND_SERVICE; a socket needs a directory we may write.'
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return 'this machine has no such address. Change `listen`.'
    default:
      return messageOf(error)
  }
}

function addressOf(server: Server): string {
  const address = server.address()
  if (address === null || typeof address === 'string') return `unix:${address ?? ''}`
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
}
