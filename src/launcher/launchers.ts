/** One launcher for each account that targets run as. */
import type { LoginAccount } from '../config/accounts.ts'
import type { Log } from '../model.ts'
import type { Work } from '../work.ts'
import { createLauncher, type Launcher } from './launcher.ts'

export interface Launchers {
  /** What works as that account; null is landfall's own. */
  as(account: LoginAccount | null): Work
  /** Kills whatever still runs, of every account. */
  close(): Promise<void>
}

/** Landfall's own launcher is started at once, another account's with its first order. */
export function createLaunchers({ log }: { readonly log: Log }): Launchers {
  const launchers = new Map<number | null, Launcher>([[null, createLauncher({ log })]])

  function launcherFor(account: LoginAccount | null): Launcher {
    const key = account?.uid ?? null
    const launcher = launchers.get(key) ?? createLauncher({ log, account })
    launchers.set(key, launcher)
    return launcher
  }

  return {
    as: (account) => launcherFor(account).work,
    async close() {
      await Promise.all([...launchers.values()].map((launcher) => launcher.close()))
    },
  }
}
