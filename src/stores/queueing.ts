/** How a run comes into the queue, inside a transaction: coalescing, eviction, retries. */
import type { DatabaseSync } from 'node:sqlite'
import type { Instance, Run, Sha, Trigger } from '../model.ts'
import { type Row, toInstance, toRun, toWaiting, type Waiting } from './rows.ts'
import type { FollowUp, InstanceKey, QueueChange, Reconfiguration, RunOrder } from './store.ts'

/** The event of a run that retires an instance: instances.ts. Two of them at once would be one too many. */
const DELETION = 'delete'

/** Runs made by people stay, whatever comes after them. */
const BY_PEOPLE: readonly Trigger[] = ['manual', 'rollback', 'unfreeze']

export interface Made {
  readonly run: Run
  /** False where an unfinished run has the announced commit already. */
  readonly isNew: boolean
  /** It is a retry that has waited for its time until now. */
  readonly isDue: boolean
  readonly superseded: readonly number[]
}

/** The columns of `Waiting`. */
const WAITING = 'id, announced, before, trigger, place, not_before'

export function createQueueing(db: DatabaseSync) {
  const sql = {
    // One that was retired begins anew.
    see: db.prepare(
      `insert into instances (name, target, repo, branch, first_seen_at) values (?, ?, ?, ?, ?)
       on conflict do update set retired_at = null, gone_since = null, state = 'new', deployed_commit = null, deployed_run = null,
         deployed_at = null, deployed_before = null, wanted_commit = null, wanted_at = null, considered = null, rejected = '[]',
         doubt_tip = null, doubt_since = null, lives_at = null, files_at = null, activating = null
       where retired_at is not null`,
    ),
    moved: db.prepare('update instances set repo = ? where name = ?'),
    movedRuns: db.prepare('update runs set repo = ? where target = ? and finished_at is null'),
    retired: db.prepare('update instances set retired_at = ?, default_branch = null where name = ?'),
    cancel: db.prepare(
      "update runs set state = 'cancelled', reason = 'target-removed', detail = ?, finished_at = ? where id = ? and state = 'queued'",
    ),
    deletion: db.prepare(
      "select * from runs indexed by runs_unfinished where target = ? and finished_at is null and event = 'delete' limit 1",
    ),
    instance: db.prepare('select * from instances where name = ?'),
    wanted: db.prepare('update instances set wanted_commit = ?, wanted_at = ? where name = ?'),
    announced: db.prepare(
      'select * from runs indexed by runs_unfinished where target = ? and announced = ? and finished_at is null order by id desc limit 1',
    ),
    decided: db.prepare(
      'select * from runs indexed by runs_decided where target = ? and commit_id = ? and finished_at is null order by id desc limit 1',
    ),
    announcedMove: db.prepare('update runs set before = ? where id = ? and before is null'),
    bringForward: db.prepare("update runs set not_before = ? where id = ? and state = 'queued' and not_before > ?"),
    waiting: db.prepare(
      `select ${WAITING} from runs indexed by runs_unfinished where target = ? and finished_at is null and state = 'queued'`,
    ),
    // Not by way of all that is unfinished: a sequential lane may hold thousands.
    waitingRetries: db.prepare(
      `select ${WAITING} from runs indexed by runs_following
       where target = ? and trigger = 'retry' and trigger in ('retry', 'recovery') and finished_at is null and state = 'queued'`,
    ),
    others: db.prepare(
      'select 1 from runs indexed by runs_unfinished where target = ? and id <> ? and finished_at is null limit 1',
    ),
    insert: db.prepare(
      `insert into runs (id, target, repo, ref, announced, before, trigger, event, delivery, state, attempt, soft_attempts,
         interruptions, polls_agree, place, not_before, queued_at)
       values (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)`,
    ),
    supersede: db.prepare(
      "update runs set state = 'superseded', superseded_by = ?, finished_at = ? where id = ? and state = 'queued'",
    ),
    sequence: db.prepare('select seq from sqlite_sequence where name = ?'),
  }
  const lastId = (table: string): number => Number(sql.sequence.get(table)?.['seq'] ?? 0)
  let nextRun = lastId('runs') + 1

  function insert(run: Run): Run {
    const about = [run.target, run.repo, run.ref, run.announced, run.before, run.trigger, run.event, run.delivery]
    const counts = [run.attempt, run.softAttempts, run.interruptions, run.pollsAgree ? 1 : 0]
    sql.insert.run(run.id, ...about, ...counts, run.place, run.notBefore, run.queuedAt)
    return run
  }

  /** The repositories of instances as first seen, so that a delivery need not ask for them. */
  const repositories = new Map<string, string>()

  function repositoryOf(key: InstanceKey, at: number): string {
    const known = repositories.get(key.name)
    if (known !== undefined && known.toLowerCase() === key.repo.toLowerCase()) return known
    const { repo } = see(key, at)
    repositories.set(key.name, repo)
    return repo
  }

  function see(key: InstanceKey, at: number): Instance {
    sql.see.run(key.name, key.target, key.repo, key.branch, at)
    const row = sql.instance.get(key.name)
    if (row === undefined) throw new Error(`instance ${key.name} is missing right after its insert`)
    return toInstance(row)
  }

  /** As one that was retired does when its branch returns. */
  function beginAnew(instance: string, at: number): void {
    sql.retired.run(at, instance)
    const row = sql.instance.get(instance)
    if (row !== undefined) see(toInstance(row), at)
  }

  /** The unfinished run that has the commit already: named by its trigger, or as what it has decided to deploy. */
  function unfinishedAt(instance: string, commit: Sha): Row | undefined {
    return sql.announced.get(instance, commit) ?? sql.decided.get(instance, commit)
  }

  /**
   * The waiting runs that a new one replaces: with `evict` the one in the queue, and with any policy a retry that waits for
   * its time.
   */
  function replaced(instance: string, evicts: boolean): readonly Waiting[] {
    const waiting = evicts ? sql.waiting : sql.waitingRetries
    return waiting
      .all(instance)
      .map(toWaiting)
      .filter((run) => !BY_PEOPLE.includes(run.trigger))
  }

  /** Who presses Redeliver wants what waits for its time to run now; it leaves its place there, and gets one in the lane. */
  function broughtForward(run: Run, at: number): Omit<Made, 'isNew'> {
    if (sql.bringForward.run(at, run.id, at).changes === 0) return asItIs(run)
    return { run: { ...run, notBefore: at }, isDue: true, superseded: [run.id] }
  }

  return {
    lastId,
    see,
    /** A transaction was undone, and perhaps the first sight of an instance with it; or an instance was retired. */
    forget: () => repositories.clear(),

    queue(order: RunOrder, delivery: number | null, at: number): Made {
      const { announced } = order
      const { name } = order.instance
      const repo = repositoryOf(order.instance, at)
      const same = order.event === DELETION ? sql.deletion.get(name) : announced && unfinishedAt(name, announced)
      if (same) {
        // A poll may have queued what a forge now announces as a force push.
        const run = toRun(same)
        if (order.before !== null) sql.announcedMove.run(order.before, run.id)
        return { isNew: false, ...(order.trigger === 'redelivery' ? broughtForward(run, at) : asItIs(run)) }
      }
      if (announced !== null) sql.wanted.run(announced, at, name)

      const id = nextRun
      nextRun += 1
      const evicts = order.policy === 'evict' && !BY_PEOPLE.includes(order.trigger)
      const evicted = replaced(name, evicts)
      const inLane = evicts ? evicted.filter((run) => run.notBefore === null || run.notBefore <= at) : []
      const run = insert({
        ...blankRun,
        id,
        target: name,
        repo,
        ref: order.ref,
        announced,
        before: carriedOver(order, evicted),
        trigger: order.trigger,
        event: order.event,
        delivery,
        pollsAgree: order.pollsAgree,
        place: inLane.reduce((place, waiting) => Math.min(place, waiting.place), id),
        queuedAt: at,
      })
      for (const old of evicted) sql.supersede.run(id, at, old.id)
      return { run, isNew: true, isDue: false, superseded: evicted.map((old) => old.id) }
    },

    reconfigure({ gone, moved }: Reconfiguration, at: number): QueueChange {
      repositories.clear()
      const ended = gone.filter(({ run, detail }) => sql.cancel.run(detail, at, run).changes === 1)
      for (const { instance, repo, isSame } of moved) {
        sql.moved.run(repo, instance)
        if (isSame) sql.movedRuns.run(repo, instance)
        else beginAnew(instance, at)
      }
      return { queued: [], superseded: ended.map(({ run }) => run) }
    },

    /** A retry or recovery of `run`; null where a retry would only repeat what a newer run does anyway. */
    follow(run: Run, followUp: FollowUp, at: number): Run | null {
      if (followUp.trigger === 'retry' && sql.others.get(run.target, run.id) !== undefined) return null
      const id = nextRun
      nextRun += 1
      return insert({
        ...blankRun,
        ...pick(run),
        ...followUp,
        id,
        // A recovery goes on where the interrupted run was; a retry has waited its time outside the lane.
        place: followUp.trigger === 'recovery' ? run.place : id,
        queuedAt: at,
      })
    },
  }
}

function asItIs(run: Run): Omit<Made, 'isNew'> {
  return { run, isDue: false, superseded: [] }
}

function pick({ target, repo, ref, announced, before, event, delivery, pollsAgree }: Run) {
  return { target, repo, ref, announced, before, event, delivery, pollsAgree }
}

/**
 * Two announced moves in a row, A to B and B to C, are one from A to C: so a force push is still believed when a further
 * push took its run's place before it started.
 */
function carriedOver(order: RunOrder, evicted: readonly Waiting[]): Sha | null {
  const first = evicted.find((run) => run.announced !== null && run.announced === order.before && run.before !== null)
  return first?.before ?? order.before
}

const blankRun = {
  commit: null,
  previous: null,
  state: 'queued',
  reason: null,
  detail: null,
  attempt: 1,
  softAttempts: 0,
  interruptions: 0,
  exitCode: null,
  signal: null,
  phases: [],
  notBefore: null,
  startedAt: null,
  finishedAt: null,
  supersededBy: null,
} satisfies Partial<Run>
