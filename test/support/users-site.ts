/** A daemon's site whose ways are open to real users, with a repository that they can all fetch. */
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { createSite, type Site, type SiteOptions } from './daemon.ts'
import type { Origin } from './git.ts'
import { serveGit } from './git-http.ts'
import { createUsers, type User } from './users.ts'

export interface UsersSite extends Omit<Site, 'origin'> {
  readonly origin: Origin
  /** As many as were asked for; further ones are the last of them. */
  readonly users: readonly [User, User]
  /** The lines of a target of the one repository, as this user; null is root. */
  target(name: string, user: User | null, ...lines: string[]): string
}

export async function usersSite(t: TestContext, count: 1 | 2, options: SiteOptions = {}): Promise<UsersSite> {
  const tidying: (() => unknown)[] = []
  const later = { after: (tidy: () => unknown) => void tidying.push(tidy) }
  // One after the other, whatever becomes of the first: accounts must not stay on the machine.
  t.after(async () => {
    const ends = []
    for (const tidy of tidying) ends.push(...(await Promise.allSettled([Promise.resolve().then(tidy)])))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  })
  const site = createSite(later, options)
  chmodSync(site.directory, 0o755)
  chmodSync(site.out, 0o1777)
  const origin = await site.origin('acme/site')
  const url = `${await serveGit(later, join(site.directory, 'forge'))}/acme/site/origin.git`
  const users = createUsers(later, count)
  const [first] = users
  if (first === undefined) throw new Error('no users')
  return {
    ...site,
    origin,
    users: [first, users[1] ?? first],
    target: (name, user, ...lines) => {
      const own = [`[target.${name}]`, 'repo = "acme/site"', 'branches = "main"', `url = "${url}"`]
      return [...own, `user = "${user?.name ?? 'root'}"`, ...lines].join('\n')
    },
  }
}
