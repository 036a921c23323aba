/** The writing verbs: each is one transaction, told in SQL. */
import type { DatabaseSync } from 'node:sqlite'
import type { Delivery, Effect, Receipt, Received, Run, Trigger } from '../model.ts'
import { type GroupWrite, storeError } from './group.ts'
import type { Payloads } from './payloads.ts'
import type { createQueueing } from './queueing.ts'
import { toDelivery, toRun } from './rows.ts'
import type { InstancePatch, Queued, Recorded, Route, Routing, Store } from './store.ts'

export type Journey = Pick<
  Store,
  | 'record'
  | 'queue'
  | 'started'
  | 'returned'
  | 'decided'
  | 'marked'
  | 'unmarked'
  | 'finished'
  | 'reconfigured'
  | 'listed'
  | 'seen'
  | 'movedTo'
  | 'remember'
  | 'fellSilent'
  | 'prune'
  | 'probe'
>

export function createJourney(parts: {
  readonly db: DatabaseSync
  readonly write: GroupWrite
  readonly queueing: ReturnType<typeof createQueueing>
  readonly payloads: Payloads
  readonly keepDeliveriesMs: () => number
}): Journey {
  const { db, write, queueing, payloads } = parts
  const sql = prepare(db)
  let nextDelivery = queueing.lastId('deliveries') + 1

  /** The newest earlier delivery that this one repeats, by the forge's id or by its content. */
  function sameDelivery(received: Received): Delivery | null {
    const since = received.receivedAt - parts.keepDeliveriesMs()
    const byGuid = received.guid === null ? undefined : sql.sameGuid.get(received.guid, received.hook, since)
    const row = byGuid ?? sql.sameBody.get(received.bodyHash, received.hook, received.event, since)
    return row === undefined ? null : toDelivery(row)
  }

  /** What waits for its time outside the lane does not count: a redelivery would wait with it, for hours perhaps. */
  function isUnfinished(delivery: Delivery, at: number): boolean {
    const runs = delivery.targets.flatMap((effect) => ('run' in effect ? [effect.run] : []))
    if (runs.some((run) => sql.isUnfinished.get(run, at) !== undefined)) return true
    // A retry or a recovery carries its delivery on.
    return sql.hasUnfinished.get(delivery.id, at) !== undefined
  }

  function recordNow(received: Received, routing: Routing, file: string | null): Recorded {
    const id = nextDelivery
    nextDelivery += 1
    const earlier = received.kind === 'event' ? sameDelivery(received) : null
    if (earlier !== null && isUnfinished(earlier, received.receivedAt)) {
      insertDelivery(
        id,
        received,
        { verdict: 'duplicate', reason: null, detail: null, targets: earlier.targets },
        earlier,
      )
      const receipt = {
        delivery: earlier.id,
        verdict: 'duplicate',
        reason: null,
        detail: null,
        targets: earlier.targets,
      }
      return { receipt: receipt as Receipt, queued: [], superseded: [] }
    }

    const queued: Run[] = []
    const superseded: number[] = []
    const follow = (route: Route): Effect => {
      if (route.kind === 'reason') {
        return { target: route.instance.name, reason: route.reason, detail: route.detail }
      }
      const trigger: Trigger = earlier === null ? route.order.trigger : 'redelivery'
      // Only a first delivery is believed when it says that history was rewritten: this one may be a replay.
      const before = earlier === null ? route.order.before : null
      const made = queueing.queue({ ...route.order, trigger, before }, id, received.receivedAt)
      if (made.isNew || made.isDue) queued.push(made.run)
      superseded.push(...made.superseded)
      return { target: route.order.instance.name, run: made.run.id }
    }
    const targets = routing.kind === 'routes' && received.kind === 'event' ? routing.routes.map(follow) : []
    const verdict = verdictOf(received, targets)
    const nowhere = routing.kind === 'nowhere' && received.kind === 'event' ? routing : null
    const reason = nowhere?.reason ?? null
    const detail = nowhere?.detail ?? received.detail
    insertDelivery(id, received, { verdict, reason, detail, targets }, earlier)
    payloads.insert(id, received.payload, file)
    // A ping too: who has set a hook up has spoken for the repository, and the first push can be missed already.
    if (received.repo !== null && received.kind !== 'invalid') {
      sql.heard.run(received.hook, received.repo.toLowerCase(), received.receivedAt, received.receivedAt)
    }
    if (routing.kind === 'routes' && routing.learns !== null) learn(received.hook, routing.learns)
    return { receipt: { delivery: id, verdict, reason, detail, targets }, queued, superseded }
  }

  /** A name is one repository's: whoever had it before has another by now, or is gone. */
  function learn(hook: string, { id, repo }: { readonly id: number; readonly repo: string }): void {
    sql.unlearn.run(hook, repo)
    sql.learn.run(hook, id, repo)
  }

  function insertDelivery(
    id: number,
    received: Received,
    told: Omit<Receipt, 'delivery'>,
    earlier: Delivery | null,
  ): void {
    const { hook, forge, guid, event, forgeEvent, repo, changes, bodyHash, receivedAt } = received
    const { verdict, reason, detail, targets } = told
    const about = [hook, forge, guid, event, forgeEvent, verdict, reason, detail, earlier?.id ?? null, repo]
    sql.delivery.run(id, ...about, JSON.stringify(changes), JSON.stringify(targets), bodyHash, receivedAt)
  }

  function patch(instance: string, change: InstancePatch): void {
    const { state, deployed, deployedBefore, considered, doubt, defaultBranch, rejected } = change
    const { activating, filesAt, goneSince, retiredAt } = change
    if (state !== undefined) sql.state.run(state, instance)
    if (deployed !== undefined) {
      sql.deployed.run(deployed?.commit ?? null, deployed?.run ?? null, deployed?.at ?? null, instance)
    }
    if (deployedBefore !== undefined) sql.deployedBefore.run(deployedBefore, instance)
    if (considered !== undefined) sql.considered.run(considered, instance)
    if (doubt !== undefined) sql.doubt.run(doubt?.tip ?? null, doubt?.since ?? null, instance)
    if (defaultBranch !== undefined) sql.defaultBranch.run(defaultBranch, instance)
    if (rejected !== undefined) sql.rejected.run(JSON.stringify(rejected), instance)
    if (filesAt !== undefined) sql.filesAt.run(filesAt, instance)
    if (activating !== undefined) sql.activating.run(activating, instance)
    if (goneSince !== undefined) sql.goneSince.run(goneSince, instance)
    if (retiredAt !== undefined) {
      sql.retiredAt.run(retiredAt, instance)
      queueing.forget()
    }
  }

  return {
    async record(received, routing) {
      const staged = payloads.stage(received.payload)
      // No await for the usual small payload: its write joins the group of this turn.
      if (staged === null) return write(() => recordNow(received, routing, null))
      let file: string
      try {
        file = await staged
      } catch (cause) {
        throw storeError(cause)
      }
      try {
        const recorded = await write(() => recordNow(received, routing, file))
        if (recorded.receipt.verdict === 'duplicate') await payloads.discard(file)
        return recorded
      } catch (cause) {
        await payloads.discard(file)
        throw cause
      }
    },

    queue: (orders, at) =>
      write((): Queued => {
        const made = orders.map((order) => ({ order, ...queueing.queue(order, null, at) }))
        return {
          queued: made.filter(({ isNew }) => isNew).map(({ run }) => run),
          superseded: made.flatMap(({ superseded }) => superseded),
          runs: made.map(({ order, run, isNew }) => ({ target: order.instance.name, run: run.id, isNew })),
        }
      }),

    started: (run, at) => write(() => sql.started.run(at, run).changes === 1),
    returned: (run) => write(() => void sql.returned.run(run)),
    decided: (run, { ref, commit, previous, detail }) =>
      write(() => void sql.decided.run(ref, commit, previous, detail, run)),
    marked: (run, { pid, startTime }) => write(() => void sql.marked.run(run, pid, startTime)),
    unmarked: (run) => write(() => void sql.unmarked.run(run)),

    finished: (id, finish) =>
      write(() => {
        const { outcome, phases, at } = finish
        const { end, reason, detail, exitCode, signal } = outcome
        const ended = sql.finished.run(end, reason, detail, exitCode, signal, JSON.stringify(phases), at, id)
        if (ended.changes === 0) return { queued: [], superseded: [] }
        sql.unmarked.run(id)
        const row = sql.run.get(id)
        if (row === undefined) return { queued: [], superseded: [] }
        const run = toRun(row)
        if (sql.isItsRepository.get(run.target, run.repo) !== undefined) patch(run.target, finish.instance)
        for (const forgotten of finish.forgotten) sql.forget.run(forgotten)
        if (finish.sealed !== null) {
          sql.seal.run(finish.sealed.run, finish.sealed.instance, finish.sealed.commit, finish.sealed.directory)
        }
        const followUp = finish.followUp && queueing.follow(run, finish.followUp, at)
        return { queued: followUp ? [followUp] : [], superseded: [] }
      }),

    reconfigured: (change, at) => write(() => queueing.reconfigure(change, at)),

    listed: ({ listing, repo, found }, at) =>
      write(() => {
        if (sql.list.run(listing, repo.toLowerCase(), at).changes === 0) return
        for (const { instance, tip } of found) {
          queueing.see(instance, at)
          sql.recorded.run(tip, instance.name)
        }
      }),
    seen: (instance, at) => write(() => queueing.see(instance, at)),
    movedTo: (instance, path) =>
      write(() => {
        sql.vacate.run(path, instance)
        sql.moveTo.run(path, instance)
      }),
    remember: (instance, change) => write(() => patch(instance, change)),
    fellSilent: (hook, repo, at) => write(() => void sql.silent.run(at, hook, repo.toLowerCase())),

    async prune({ keepDeliveriesMs: deliveriesMs, keepPayloadsMs, keepRuns }, at) {
      await payloads.prune(at - Math.min(keepPayloadsMs, deliveriesMs))
      return write(() => {
        const rows = [...sql.oldRuns.all(keepRuns), ...sql.retiredRuns.all(at - deliveriesMs)]
        const doomed = [...new Set(rows.map(({ id }) => Number(id)))]
        for (const run of doomed) sql.deleteRun.run(run)
        sql.deleteInstances.run(at - deliveriesMs)
        sql.deleteDeliveries.run(at - deliveriesMs)
        return doomed
      })
    },

    probe: (at) => write(() => void sql.probe.run(at)),
  }
}

function verdictOf(received: Received, targets: readonly Effect[]): Receipt['verdict'] {
  if (received.kind !== 'event') return received.kind
  return targets.some((effect) => 'run' in effect) ? 'accepted' : 'ignored'
}

/** Running or in its lane; with the time of now. What waits for its time is not. */
const IS_AT_WORK = "finished_at is null and (state = 'running' or not_before is null or not_before <= ?)"

function prepare(db: DatabaseSync) {
  return {
    sameGuid: db.prepare(
      "select * from deliveries where guid = ? and hook = ? and received_at >= ? and verdict <> 'duplicate' order by id desc limit 1",
    ),
    // Our word for the event: the forge's is in a header that nobody signed, and `PUSH` is `push` to us.
    sameBody: db.prepare(
      "select * from deliveries where body_hash = ? and hook = ? and event is ? and received_at >= ? and verdict <> 'duplicate' order by id desc limit 1",
    ),
    isUnfinished: db.prepare(`select 1 from runs where id = ? and ${IS_AT_WORK}`),
    hasUnfinished: db.prepare(
      `select 1 from runs indexed by runs_following where delivery = ? and trigger in ('retry', 'recovery')
         and ${IS_AT_WORK} limit 1`,
    ),
    delivery: db.prepare(
      'insert into deliveries (id, hook, forge, guid, event, forge_event, verdict, reason, detail, repeats, repo, changes, targets, body_hash, received_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
    ),
    // A minute's grain is enough for people, and saves a page write on nearly every delivery.
    heard: db.prepare(
      `insert into speakers (hook, repo, first_heard, last_heard) values (?, ?, ?, ?)
       on conflict do update set last_heard = excluded.last_heard, silent_since = null
       where silent_since is not null or excluded.last_heard - last_heard >= 60000`,
    ),
    started: db.prepare("update runs set state = 'running', started_at = ? where id = ? and state = 'queued'"),
    returned: db.prepare("update runs set state = 'queued', started_at = null where id = ? and state = 'running'"),
    decided: db.prepare(
      'update runs set ref = coalesce(?, ref), commit_id = ?, previous = ?, detail = ? where id = ? and finished_at is null',
    ),
    marked: db.prepare('insert or replace into processes (run, pid, start_time) values (?, ?, ?)'),
    unmarked: db.prepare('delete from processes where run = ?'),
    finished: db.prepare(
      'update runs set state = ?, reason = ?, detail = ?, exit_code = ?, signal = ?, phases = ?, finished_at = ? where id = ? and finished_at is null',
    ),
    run: db.prepare('select * from runs where id = ?'),
    isItsRepository: db.prepare('select 1 from instances where name = ? and lower(repo) = lower(?)'),
    state: db.prepare('update instances set state = ? where name = ?'),
    deployed: db.prepare('update instances set deployed_commit = ?, deployed_run = ?, deployed_at = ? where name = ?'),
    deployedBefore: db.prepare('update instances set deployed_before = ? where name = ?'),
    considered: db.prepare('update instances set considered = ? where name = ?'),
    doubt: db.prepare('update instances set doubt_tip = ?, doubt_since = ? where name = ?'),
    defaultBranch: db.prepare('update instances set default_branch = ? where name = ?'),
    rejected: db.prepare('update instances set rejected = ? where name = ?'),
    activating: db.prepare('update instances set activating = ? where name = ?'),
    filesAt: db.prepare('update instances set files_at = ? where name = ?'),
    vacate: db.prepare('update instances set lives_at = null, files_at = null where lives_at = ? and name <> ?'),
    moveTo: db.prepare('update instances set lives_at = ?, files_at = null where name = ?'),
    goneSince: db.prepare('update instances set gone_since = ? where name = ?'),
    retiredAt: db.prepare('update instances set retired_at = ? where name = ?'),
    list: db.prepare('insert into listings (listing, repo, listed_at) values (?, ?, ?) on conflict do nothing'),
    // Of an instance that a delivery has just brought into being, its run decides.
    recorded: db.prepare(
      'update instances set considered = ? where name = ? and considered is null and wanted_commit is null and deployed_commit is null',
    ),
    unlearn: db.prepare('delete from repositories where hook = ? and lower(repo) = lower(?)'),
    learn: db.prepare('insert or replace into repositories (hook, id, repo) values (?, ?, ?)'),
    seal: db.prepare('insert or replace into releases (run, instance, commit_id, directory) values (?, ?, ?, ?)'),
    forget: db.prepare('delete from releases where run = ?'),
    silent: db.prepare('update speakers set silent_since = ? where hook = ? and repo = ? and silent_since is null'),
    // The deployed run, the one before it and whatever has a release stay, however many came after them.
    oldRuns: db.prepare(`
      select id from (
        select id, target, finished_at, row_number() over (partition by target order by id desc) as age from runs
      ) old
      where age > ? and finished_at is not null
        and id not in (select run from releases)
        and id not in (select deployed_run from instances where deployed_run is not null)
        and id not in (
          select max(r.id) from runs r join instances i on i.name = r.target
          where r.state = 'succeeded' and r.commit_id = i.deployed_before group by i.name)`),
    // Branches come and go: of those that are long gone nothing is left.
    retiredRuns: db.prepare(
      'select id from runs where finished_at is not null and target in (select name from instances where retired_at < ?)',
    ),
    deleteInstances: db.prepare(
      'delete from instances where retired_at < ? and not exists (select 1 from runs where runs.target = instances.name)',
    ),
    deleteRun: db.prepare('delete from runs where id = ?'),
    deleteDeliveries: db.prepare(
      'delete from deliveries where received_at < ? and id not in (select delivery from runs where finished_at is null and delivery is not null)',
    ),
    probe: db.prepare('insert into probes (id, at) values (1, ?) on conflict do update set at = excluded.at'),
  }
}
