import { destination, pino, stdTimeFunctions } from 'pino'
import { PinoPretty } from 'pino-pretty'
import { LandfallError } from './errors.ts'
import type { Log } from './model.ts'

/**
 * JSON lines on a pipe or in the journal, readable ones on a terminal. Errors keep their code and cause; a URL loses its
 * user part, since that may hold a token.
 */
export function createLog(out: { readonly isTTY?: boolean; readonly fd: number } = process.stdout): Log {
  const options = {
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  }
  // No transport: worker threads break single-file bundles, and lose the last lines of a crash.
  const logger = out.isTTY
    ? pino(options, PinoPretty({ colorize: true, sync: true, translateTime: 'SYS:HH:MM:ss', destination: out.fd }))
    : pino(options, destination({ fd: out.fd, sync: true }))
  const at =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (event: string, fields: Record<string, unknown> = {}): void => {
      logger[level](plain(fields), event)
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

function plain(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields)
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([key, value]) => [key, plainValue(value)]),
  )
}

function plainValue(value: unknown): unknown {
  if (typeof value === 'string') return withoutCredentials(value)
  if (!(value instanceof Error)) return value
  const { message, stack, cause } = value
  return {
    message: withoutCredentials(message),
    ...(value instanceof LandfallError ? { code: value.code } : { stack: withoutCredentials(stack ?? '') }),
    ...(cause === undefined ? {} : { cause: plainValue(cause) }),
  }
}

function withoutCredentials(text: string): string {
  return text.replace(/([a-z][a-z0-9+.-]*:\/\/)[^/@\s]+@/gi, '$1***@')
}
