/** HTTP by hand: what no well-behaved client would send. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export interface RawConnection {
  readonly socket: Socket
  /** All that has come so far. */
  readonly text: () => string
  /** Resolves with what came as soon as it matches; rejects with what came once the other side has closed without. */
  readonly until: (pattern: RegExp) => Promise<string>
  /** Resolves with all that came once the connection is closed, however it was closed. */
  readonly closed: Promise<string>
}

/** `address` is what a listener told: `http://host:port` or `unix:/path`. */
export async function openRaw(address: string): Promise<RawConnection> {
  const socket = address.startsWith('unix:')
    ? connect({ path: address.slice('unix:'.length), allowHalfOpen: true })
    : connect({ host: new URL(address).hostname, port: Number(new URL(address).port), allowHalfOpen: true })
  let received = ''
  let isClosed = false
  socket.on('data', (bytes: Buffer) => {
    received += bytes.toString('latin1')
  })
  socket.on('error', () => {}) // a reset while still sending is one way of being closed
  await once(socket, 'connect')
  const closed = new Promise<string>((resolve) => {
    const end = () => {
      isClosed = true
      resolve(received)
    }
    socket.on('end', end).on('close', end)
  })
  return {
    socket,
    text: () => received,
    closed,
    until: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (pattern.test(received)) resolve(received)
          else if (isClosed) reject(new Error(`closed after ${JSON.stringify(received)}`))
        }
        socket.on('data', look)
        void closed.then(look)
        look()
      }),
  }
}

/** Sends `text` and resolves to all that came back until the other side closed. */
export async function exchange(address: string, text: string | Uint8Array): Promise<string> {
  const { socket, closed } = await openRaw(address)
  socket.write(text)
  const answer = await closed
  socket.destroy()
  return answer
}
