import { isDeepStrictEqual } from 'node:util'
import { createApi } from './admin/api.ts'
import type { Config, Target } from './config/config.ts'
import { ownDataDir } from './data-dir.ts'
import { LandfallError } from './errors.ts'
import { laneOf, targetOf, targetOfRun } from './instances.ts'
import { createIntake } from './intake.ts'
import { createLanes, type Lanes } from './lanes.ts'
import { createLaunchers } from './launcher/launchers.ts'
import type { Clock, Log } from './model.ts'
import type { PollResult } from './polling/look.ts'
import { createPoller } from './polling/poller.ts'
import { createSilences } from './polling/silences.ts'
import { endLeftovers } from './processes.ts'
import { createPruner } from './pruner.ts'
import { createReceiver } from './receiver/receiver.ts'
import { recover } from './recovery.ts'
import { type Changes, changesOfTargets, createReconfigure, merged, sayWhatStays } from './reload.ts'
import { openRemotes, type Remotes } from './remotes.ts'
import { createReleases } from './runs/releases.ts'
import { createRunner } from './runs/runner.ts'
import { openSqlite } from './stores/sqlite.ts'
import type { QueueChange, Store } from './stores/store.ts'
import type { Work } from './work.ts'

/** Beyond `drain` and `kill_grace`: what has not ended by then never will, and its launcher goes without it. */
const LAST_GRACE_MS = 10_000
/** Nothing that comes after a stop is recorded, so there is little to wait for. */
const CLOSE_GRACE_MS = 1000

const STOPPING = 'landfall is stopping; try again when it has been started again'

/** The whole of landfall in one value: what `serve` serves, what `once` asks, what the tests start. */
export interface Agent {
  readonly store: Store
  /** Where hooks are received, `http://host:port`; null where the agent does not listen. */
  readonly url: string | null
  /** Polls every target once, and tells what that makes of each. */
  once(): Promise<readonly PollResult[]>
  /** Resolves when everything that is due has ended, reports of a start among it; retries whose time has not come stay queued. */
  idle(): Promise<void>
  /**
   * Goes on with another configuration, save for what only a start can change; queued runs take it too, and what runs keeps
   * what it began with. Null where nothing has changed. Throws, and goes on as before, where it cannot be taken over.
   */
  reload(read: Config): Promise<Changes | null>
  /**
   * Takes no more work, gives running scripts the configured time, then ends them. Resolves when all has ended and the
   * data_dir is free.
   */
  stop(): Promise<void>
  /** Ends everything at once. What was running is found unfinished by the next start. */
  stopNow(): Promise<void>
}

export interface AgentParts {
  readonly config: Config
  readonly log: Log
  readonly now?: Clock
  /** Whether hooks, polls and the socket are served; `once` without a daemon does none of it. */
  readonly serves: boolean
}

/** Throws `start` where the data_dir is another's, the store cannot be opened, or an address is taken. */
export async function startAgent({ config: first, log, now = Date.now, serves }: AgentParts): Promise<Agent> {
  let config = first
  const dataDir = await ownDataDir(config.dataDir)
  const stopping = new AbortController()
  const cutOff = new AbortController()
  /** The store knows the configuration: deliveries can be recorded, though no lane is served yet. */
  const recording = Promise.withResolvers<void>()
  const recovered = Promise.withResolvers<void>()
  for (const { promise } of [recording, recovered]) promise.catch(() => {}) // nobody may be waiting for it
  let reporting: Promise<unknown> = Promise.resolve()
  let isRecovered = false
  const store = await openSqlite({
    dataDir: config.dataDir,
    get keepDeliveriesMs() {
      return config.keepDeliveriesMs
    },
  }).catch((cause: unknown) => {
    dataDir.release()
    throw cause
  })
  const launchers = createLaunchers({ log, dataDir })
  const workOf = ({ account }: Target): Work => launchers.as(account)
  const current = () => config
  let access = await openRemotes({ config, dataDir })
  const remotes: Remotes = { of: (target, repo) => access.of(target, repo) }
  const releases = createReleases({ dataDir, store, workOf })

  /** Only of these: what other runs have started may be alive and well. */
  async function endProcessesOf(runs: readonly number[]): Promise<void> {
    const ids = new Set(runs)
    const marks = (await store.marks()).filter(({ run }) => ids.has(run))
    const ended = await endLeftovers({ marks, runs: ids, dataDir: config.dataDir, log })
    if (ended > 0) log.warn('leftover processes ended', { processes: ended, runs: runs.slice(0, 20) })
  }

  const runner = createRunner({
    config: current,
    store,
    workOf,
    remotes,
    releases,
    dataDir,
    log,
    now,
    stopping: stopping.signal,
    cutOff: cutOff.signal,
    onQueueChange: follow,
    onPollSoon: (instance) => poller.soon(instance),
    endLeftovers: endProcessesOf,
  })
  const lanes: Lanes = createLanes({
    perform: runner.perform,
    laneOf: (run) => laneOf(config, run),
    maxJobs: config.maxJobs,
    log,
    now,
  })
  const silences = createSilences({ config: current, store, log, now, onSilent: (name) => poller.soon(name) })
  const poller = createPoller({
    config: current,
    store,
    workOf,
    remotes,
    silences,
    log,
    now,
    async queue(orders) {
      const isGone = orders.some(({ instance: { name, repo } }) => !targetOfRun(config, { target: name, repo }))
      if (isGone) throw new LandfallError('aborted', 'the configuration has changed during the poll')
      const queued = await store.queue(orders, now())
      followInTurn(queued)
      return queued
    },
  })
  const reconfigure = createReconfigure({ store, dataDir, log, now, onQueueChange: (change) => lanes.apply(change) })
  const pruner = createPruner({ config: current, store, workOf, dataDir, log, now })

  const intake = createIntake({
    store,
    onQueueChange: followInTurn,
    silences,
    onInstance: (instance) => poller.add(instance),
    recording: recording.promise,
    stopping: stopping.signal,
    now,
  })
  const receiver = createReceiver({
    config: current,
    intake: intake.take,
    healthy: intake.healthy,
    stopping: () => stopping.signal.aborted,
    log,
    now,
  })
  async function once(): Promise<readonly PollResult[]> {
    refuseWhileStopping()
    await recovered.promise
    const results = await poller.once()
    // A stop has cut it short: nothing found would be said of what was not looked for.
    refuseWhileStopping()
    return results
  }
  const api = createApi({ config: current, store, dataDir, once, log })

  function refuseWhileStopping(): void {
    if (stopping.signal.aborted) throw new LandfallError('stopping', STOPPING)
  }

  /** What comes during a start waits its turn in the store: leftovers are ended first, and then recoveries go first. */
  function followInTurn(change: QueueChange): void {
    if (isRecovered) follow(change)
    else recovered.promise.then(() => follow(change)).catch(() => {})
  }

  /** What somebody with an older view has queued still, at the moment of a reload, ends as if it had come before. */
  function follow(change: QueueChange): void {
    lanes.apply(change)
    if (change.queued.every((run) => targetOfRun(config, run) !== undefined)) return
    reconfigureSoon()
  }

  function reconfigureSoon(): void {
    reconfigure(config).catch((cause: unknown) => log.error('store failed', { cause }))
  }

  async function reload(read: Config): Promise<Changes | null> {
    refuseWhileStopping()
    const { config: next, needRestart } = merged(config, read)
    if (isDeepStrictEqual(next, config) && needRestart.length === 0) return null
    const before = config
    const changes = { ...changesOfTargets(before, next), needRestart }
    const nextAccess = await openRemotes({ config: next, dataDir })
    await reconfigure(next)
    const poll = await poller.prepare(next)
    // All at once: nobody sees a part of it.
    config = next
    access = nextAccess
    lanes.rearrange(next.maxJobs)
    poll()
    sayWhatStays(before, changes.removed, dataDir, log)
    // Once more, for what has come since the first time.
    reconfigureSoon()
    return changes
  }

  let closing: Promise<void> | null = null
  /** Once, although a stop at once comes while a slow one is under way. */
  function close(): Promise<void> {
    closing ??= launchers
      .close()
      .then(() => store.close())
      .then(() => dataDir.release())
    return closing
  }

  async function stop(): Promise<void> {
    stopping.abort()
    log.info('stopping', { unfinished: lanes.size(), drain: config.drainMs })
    const timers = config.drainMs === 'wait' ? [] : endInTime(config.drainMs)
    await Promise.all([poller.stop(), lanes.drain(), reporting])
    for (const timer of timers) clearTimeout(timer)
    silences.stop()
    await pruner.stop()
    // Last, so that deliveries are told to come again, and `status` and `logs` still tell what a drain waits for.
    await Promise.all([receiver.close(CLOSE_GRACE_MS), api.close()])
    await close()
  }

  function endInTime(drainMs: number): readonly NodeJS.Timeout[] {
    const graceMs = Math.max(0, ...config.targets.map(({ killGraceMs }) => killGraceMs))
    const giveUp = () => void launchers.close().catch((cause: unknown) => log.error('stop failed', { cause }))
    return [setTimeout(() => cutOff.abort(), drainMs), setTimeout(giveUp, drainMs + graceMs + LAST_GRACE_MS)]
  }

  async function stopNow(): Promise<void> {
    stopping.abort()
    await close()
  }

  try {
    // First, so that a start which an address refuses has begun nothing that it would have to cut off.
    const url = serves ? await receiver.listen(config.server.listen) : null
    if (serves) await api.listen(config.server)
    const sweep = () => releases.sweep((instance) => targetOf(config, instance.name))
    const reports = await recover({
      store,
      runner,
      lanes,
      log,
      endLeftovers: endProcessesOf,
      sweep,
      async reconfigure() {
        await reconfigure(config)
        recording.resolve()
      },
    })
    isRecovered = true
    recovered.resolve()
    reporting = Promise.all(reports.map((report) => report()))
    if (serves) await poller.start()
    pruner.start()
    const idle = async () => void (await Promise.all([lanes.idle(), reporting]))
    return { store, url, once, idle, reload, stop, stopNow }
  } catch (cause) {
    stopping.abort()
    for (const { reject } of [recording, recovered]) reject(new LandfallError('stopping', 'landfall could not start'))
    await Promise.all([receiver.close(0), api.close()])
    await close()
    throw cause
  }
}
