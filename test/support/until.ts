import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Waits until `claim` gives something truthy and returns it; fails by the name of what never came. The limit is generous, for
 * a machine that stalls: it is reached only where something is broken.
 */
export async function until<T>(what: string, claim: () => T | Promise<T>, withinMs = 120_000): Promise<NonNullable<T>> {
  const deadline = performance.now() + withinMs
  for (;;) {
    const value = await claim()
    if (value !== null && value !== undefined && value !== false) return value
    if (performance.now() > deadline) throw new Error(`never came, within ${withinMs} ms: ${what}`)
    await sleep(10)
  }
}
