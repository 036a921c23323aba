import type { DatabaseSync } from 'node:sqlite'
import { storeError } from './group.ts'
import { type Row, toDelivery, toInstance, toRelease, toRun, toSpeaker } from './rows.ts'
import type { DeliveryFilter, RunFilter, Store } from './store.ts'

export type Reads = Pick<
  Store,
  | 'unfinished'
  | 'marks'
  | 'knownAs'
  | 'numberOf'
  | 'wasListed'
  | 'instance'
  | 'instances'
  | 'instancesOf'
  | 'livingAt'
  | 'releases'
  | 'allReleases'
  | 'run'
  | 'runs'
  | 'activity'
  | 'delivery'
  | 'deliveries'
  | 'speakers'
>

export function createReads(db: DatabaseSync): Reads {
  const sql = {
    unfinished: db.prepare('select * from runs where finished_at is null order by place, id'),
    marks: db.prepare('select run, pid, start_time from processes'),
    // Only for a name that is new: the table is small, and needs no index.
    numberOf: db.prepare('select id from repositories where hook = ? and lower(repo) = lower(?) limit 1'),
    knownAs: db.prepare('select repo from repositories where hook = ? and id = ?'),
    wasListed: db.prepare('select 1 from listings where listing = ? and repo = ?'),
    instance: db.prepare('select * from instances where name = ?'),
    instancesOf: db.prepare('select * from instances where target = ? and lower(repo) = lower(?) order by name'),
    livingAt: db.prepare('select * from instances where lives_at = ? and retired_at is null order by name'),
    instances: db.prepare('select * from instances order by name'),
    releases: db.prepare('select * from releases where instance = ? order by run desc'),
    allReleases: db.prepare('select * from releases order by run desc'),
    run: db.prepare('select * from runs where id = ?'),
    runs: db.prepare(
      'select * from runs where id < ? and (?2 is null or target = ?2 or target in (select name from instances where instances.target = ?2)) and (?3 is null or state = ?3) order by id desc limit ?4',
    ),
    lastRuns: db.prepare(
      'select runs.* from instances join runs on runs.id = (select max(id) from runs where target = instances.name)',
    ),
    counts: db.prepare(
      "select target, count(*) filter (where state = 'queued') as queued, max(id) filter (where state = 'running') as running from runs where finished_at is null group by target",
    ),
    delivery: db.prepare('select * from deliveries where id = ?'),
    deliveries: db.prepare(
      'select * from deliveries where id < ? and (?2 is null or hook = ?2) and (?3 is null or lower(repo) = lower(?3)) and (?4 is null or verdict = ?4) order by id desc limit ?5',
    ),
    speakers: db.prepare('select * from speakers order by hook, repo'),
  }
  const newest = Number.MAX_SAFE_INTEGER

  return {
    unfinished: reading(() => sql.unfinished.all().map(toRun)),
    marks: reading(() =>
      sql.marks.all().map((row) => ({
        run: Number(row['run']),
        pid: Number(row['pid']),
        startTime: Number(row['start_time']),
      })),
    ),
    numberOf: reading((hook: string, repo: string) => {
      const id = sql.numberOf.get(hook, repo)?.['id']
      return typeof id === 'number' ? id : null
    }),
    knownAs: reading((hook: string, id: number) => {
      const repo = sql.knownAs.get(hook, id)?.['repo']
      return typeof repo === 'string' ? repo : null
    }),
    wasListed: reading((listing: string, repo: string) => sql.wasListed.get(listing, repo.toLowerCase()) !== undefined),
    instance: reading((name: string) => orNull(sql.instance.get(name), toInstance)),
    instancesOf: reading((target: string, repo: string) => sql.instancesOf.all(target, repo).map(toInstance)),
    livingAt: reading((path: string) => sql.livingAt.all(path).map(toInstance)),
    instances: reading(() => sql.instances.all().map(toInstance)),
    releases: reading((instance: string) => sql.releases.all(instance).map(toRelease)),
    allReleases: reading(() => sql.allReleases.all().map(toRelease)),
    run: reading((id: number) => orNull(sql.run.get(id), toRun)),
    runs: reading(({ target, state, limit, before }: RunFilter) =>
      sql.runs.all(before ?? newest, target, state, limit).map(toRun),
    ),
    activity: reading(() => {
      const counts = new Map(sql.counts.all().map((row) => [String(row['target']), row]))
      return new Map(
        sql.lastRuns.all().map((row) => {
          const last = toRun(row)
          const count = counts.get(last.target)
          const running = count?.['running']
          return [
            last.target,
            { last, running: typeof running === 'number' ? running : null, queued: Number(count?.['queued'] ?? 0) },
          ]
        }),
      )
    }),
    delivery: reading((id: number) => orNull(sql.delivery.get(id), toDelivery)),
    deliveries: reading(({ hook, repo, verdict, limit, before }: DeliveryFilter) =>
      sql.deliveries.all(before ?? newest, hook, repo, verdict, limit).map(toDelivery),
    ),
    speakers: reading(() => sql.speakers.all().map(toSpeaker)),
  }
}

/** A promise of what `look` finds; what SQLite cannot read is `store`. */
function reading<A extends readonly unknown[], T>(look: (...given: A) => T): (...given: A) => Promise<T> {
  return async (...given) => {
    try {
      return look(...given)
    } catch (cause) {
      throw storeError(cause)
    }
  }
}

function orNull<T>(row: Row | undefined, toNoun: (row: Row) => T): T | null {
  return row === undefined ? null : toNoun(row)
}
