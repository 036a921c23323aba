/** What another configuration changes for a landfall that runs. */
import { isDeepStrictEqual } from 'node:util'
import type { Config, Hook, Target } from './config/config.ts'
import { clashWith } from './config/targets.ts'
import { type DataDir, directoryName } from './data-dir.ts'
import { LandfallError } from './errors.ts'
import { isNameOf, sameName, targetOf, targetOfRun, whyGone } from './instances.ts'
import type { Clock, Instance, Log, Run } from './model.ts'
import type { QueueChange, Reconfiguration, Store } from './stores/store.ts'

export interface Changes {
  /** Names of targets. One is changed too where its hook is. */
  readonly added: readonly string[]
  readonly removed: readonly string[]
  readonly changed: readonly string[]
  /** Keys that stay as they were until the next start. */
  readonly needRestart: readonly string[]
}

/** The configuration to go on with: `read`, save for what only a start can change. Throws `config` where the two do not fit. */
export function merged(
  running: Config,
  read: Config,
): { readonly config: Config; readonly needRestart: readonly string[] } {
  const { listen, admin, socketMode, socketGroup } = running.server
  const fixed = {
    data_dir: [running.dataDir, read.dataDir],
    'server.listen': [listen, read.server.listen],
    'server.admin': [admin, read.server.admin],
    'server.socket_mode': [socketMode, read.server.socketMode],
    'server.socket_group': [socketGroup, read.server.socketGroup],
  }
  const needRestart = Object.entries(fixed).flatMap(([key, [is, said]]) => (isDeepStrictEqual(is, said) ? [] : [key]))
  if (read.dataDir !== running.dataDir) stayOut(running.dataDir, read)
  const server = { ...read.server, listen, admin, socketMode, socketGroup }
  return { config: { ...read, dataDir: running.dataDir, server }, needRestart }
}

/** The file was judged by another data_dir than the one that stays landfall's until the next start. */
function stayOut(dataDir: string, { file, targets }: Config): void {
  const mistakes = targets.flatMap(({ name, ...places }) =>
    (['current', 'path'] as const).flatMap((word) => {
      const place = places[word]
      if (place === null || clashWith(dataDir, place) === null) return []
      return [
        `${file}: target.${name}.${word}: is where data_dir is until the next start (${dataDir}); restart landfall`,
      ]
    }),
  )
  if (mistakes.length > 0) throw new LandfallError('config', mistakes.join('\n'))
}

export function changesOfTargets(before: Config, after: Config): Omit<Changes, 'needRestart'> {
  const [old, now] = [settingsOf(before), settingsOf(after)]
  const names = [...now.keys()]
  return {
    added: names.filter((name) => !old.has(name)),
    removed: [...old.keys()].filter((name) => !now.has(name)),
    changed: names.filter((name) => old.has(name) && !isDeepStrictEqual(old.get(name), now.get(name))),
  }
}

/** Each target by its name, with its hook. */
function settingsOf({ targets, hooks }: Config): ReadonlyMap<string, readonly [Target, Hook | undefined]> {
  const hookOf = new Map(hooks.map((hook) => [hook.name, hook]))
  return new Map(targets.map((target) => [target.name, [target, hookOf.get(target.hook ?? '')]]))
}

/**
 * Tells the store what a configuration means for what it has, at a start and at a reload: what is queued without a target ends
 * `cancelled`, and an instance goes on under the name that the file has for its repository, or begins anew with another one.
 */
export function createReconfigure(parts: {
  readonly store: Store
  readonly dataDir: DataDir
  readonly onQueueChange: (change: QueueChange) => void
  readonly log: Log
  readonly now: Clock
}): (config: Config) => Promise<void> {
  const { store, dataDir, onQueueChange, log, now } = parts
  return async function reconfigure(config) {
    const unfinished = await store.unfinished()
    const change = reconfigurationFor(config, await store.instances(), unfinished)
    if (change.gone.length === 0 && change.moved.length === 0) return
    const ended = await store.reconfigured(change, now())
    onQueueChange(ended)
    const cancelled = new Set(ended.superseded)
    const detailOf = new Map(change.gone.map(({ run, detail }) => [run, detail]))
    for (const { id, target, delivery } of unfinished.filter((run) => cancelled.has(run.id))) {
      const why = { end: 'cancelled', reason: 'target-removed', detail: detailOf.get(id) }
      log.warn('finished', { run: id, delivery, target, ...why })
    }
    for (const { instance, repo, isSame } of change.moved) {
      const hint = `it begins anew; what it deployed stays in ${dataDir.room('releases', directoryName(instance))}`
      if (isSame) log.info('repository renamed', { target: instance, repo })
      else log.warn('another repository', { target: instance, repo, hint })
    }
  }
}

/** Says of each target that is gone where its files are, since nobody will touch them any more. */
export function sayWhatStays({ targets }: Config, removed: readonly string[], dataDir: DataDir, log: Log): void {
  for (const { name, path } of targets.filter((target) => removed.includes(target.name))) {
    const place = path ?? dataDir.room('releases')
    log.warn('target removed', { target: name, hint: `it is gone from the file; what it deployed stays in ${place}` })
  }
}

/** What the store is to be told of a configuration. */
export function reconfigurationFor(
  config: Config,
  instances: readonly Instance[],
  unfinished: readonly Run[],
): Reconfiguration {
  const gone = unfinished.filter((run) => run.state === 'queued' && targetOfRun(config, run) === undefined)
  const moved = instances.flatMap(({ name, repo }) => {
    const target = targetOf(config, name)
    // An instance of a pattern has the repository in its name.
    if (target === undefined || target.repoIsGlob || sameName(target.repo, repo)) return []
    return [{ instance: name, repo: target.repo, isSame: isNameOf(target, repo) }]
  })
  return { gone: gone.map((run) => ({ run: run.id, detail: whyGone(config, run) })), moved }
}
