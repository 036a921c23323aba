/** Who is asking, through however many proxies, and whether they have failed too often. */
import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'

/** For log lines: an IP address, or `unix` for a peer on a unix socket that no proxy speaks for. */
export type ClientOf = (incoming: IncomingMessage) => string

/**
 * `X-Forwarded-For` is believed only as far as trusted proxies wrote it: from the right, the first hop that is not itself
 * a trusted proxy is the client. `trustedProxies` are CIDRs, already checked.
 */
export function createClientOf(trustedProxies: readonly string[]): ClientOf {
  const trusted = new BlockList()
  for (const cidr of trustedProxies) {
    const [network = '', prefix] = cidr.split('/')
    const family = isIP(network) === 6 ? 'ipv6' : 'ipv4'
    trusted.addSubnet(network, prefix === undefined ? (family === 'ipv6' ? 128 : 32) : Number(prefix), family)
  }
  const isTrusted = (address: string) => trusted.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')

  return (incoming) => {
    const peer = incoming.socket.remoteAddress
    const forwarded = incoming.headers['x-forwarded-for']
    let client = peer === undefined ? 'unix' : plainAddress(peer)
    if (forwarded === undefined || (peer !== undefined && !isTrusted(client))) return client
    const hops = Array.isArray(forwarded) ? forwarded.join(',') : forwarded
    for (const hop of hops.split(',').reverse()) {
      const address = plainAddress(withoutPort(hop.trim()))
      if (isIP(address) === 0) return client
      client = address
      if (!isTrusted(address)) return client
    }
    return client
  }
}

/** Some proxies write `192.0.2.1:4711` and `[2001:db8::1]:4711`. */
function withoutPort(hop: string): string {
  return /^\[([^\]]*)\](?::\d+)?$/.exec(hop)?.[1] ?? /^(\d+\.\d+\.\d+\.\d+):\d+$/.exec(hop)?.[1] ?? hop
}

/** One spelling for each address: no zone, and IPv4 in IPv6 as IPv4. */
function plainAddress(address: string): string {
  const bare = address.split('%', 1)[0] ?? address
  if (isIP(bare) !== 6) return bare
  const groups = groupsOf(bare)
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    const [high = 0, low = 0] = groups.slice(6)
    return [high >> 8, high & 255, low >> 8, low & 255].join('.')
  }
  return bare.toLowerCase()
}

/** The eight numbers of a valid IPv6 address. */
function groupsOf(address: string): number[] {
  // The URL parser writes the last 32 bits in hex, however they came.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const numbers = (part: string | undefined) => (part ? part.split(':').map((group) => Number.parseInt(group, 16)) : [])
  const left = numbers(head)
  const right = numbers(tail)
  return [...left, ...Array<number>(8 - left.length - right.length).fill(0), ...right]
}

/** What counts as one sender: an IPv4 address, or the /64 that a single IPv6 host usually has to itself. */
export function senderOf(client: string): string {
  return isIP(client) === 6
    ? groupsOf(client)
        .slice(0, 4)
        .map((group) => group.toString(16))
        .join(':')
    : client
}

export interface Allowance {
  /** True while `key` has any left, and takes one. */
  take(key: string): boolean
  /** Seconds until `key` has one again; at least 1. */
  secondsUntilNext(key: string): number
}

/** A token bucket a key: `burst` at once, then one every `refillMs`. Of the keys, the `maxKeys` latest are remembered. */
export function createAllowance(parts: {
  readonly burst: number
  readonly refillMs: number
  readonly maxKeys: number
  readonly now: () => number
}): Allowance {
  const { burst, refillMs, maxKeys, now } = parts
  /** In order of last use. A bucket is full again at the time kept here, and empty `burst` refills before it. */
  const fullAt = new Map<string, number>()

  return {
    take(key) {
      const time = now()
      const empty = time + burst * refillMs
      // No later than empty from now, or a clock that was set back would leave a bucket dry for as long.
      const full = Math.min(Math.max(fullAt.get(key) ?? time, time), empty)
      const granted = full + refillMs <= empty
      fullAt.delete(key)
      fullAt.set(key, granted ? full + refillMs : full)
      if (fullAt.size > maxKeys) {
        for (const oldest of fullAt.keys()) {
          fullAt.delete(oldest)
          break
        }
      }
      return granted
    },
    secondsUntilNext(key) {
      const waitMs = (fullAt.get(key) ?? 0) - now() - (burst - 1) * refillMs
      return Math.max(1, Math.ceil(waitMs / 1000))
    },
  }
}
