/** One launcher for each account that targets run as. */
import { accountRoom } from '../belongings.ts'
import type { LoginAccount } from '../config/accounts.ts'
import type { DataDir } from '../data-dir.ts'
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
export function createLaunchers({ log, dataDir }: { readonly log: Log; readonly dataDir: DataDir }): Launchers {
  const launchers = new Map<string | null, Launcher>([[null, createLauncher({ log })]])

  function launcherOf(account: LoginAccount): Launcher {
    const rooms = (['mirrors', 'work', 'logs'] as const).map((room) => accountRoom(dataDir, account, room))
    return createLauncher({ log, becomes: { account, rooms } })
  }

  function launcherFor(account: LoginAccount | null): Launcher {
    const known = launchers.get(account?.name ?? null)
    if (known !== undefined || account === null) return known ?? createLauncher({ log })
    const launcher = launcherOf(account)
    launchers.set(account.name, launcher)
    return launcher
  }

  return {
    as: (account) => launcherFor(account).work,
    async close() {
      await Promise.all([...launchers.values()].map((launcher) => launcher.close()))
    },
  }
}
