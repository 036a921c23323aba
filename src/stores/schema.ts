import type { DatabaseSync } from 'node:sqlite'
import { LandfallError } from '../errors.ts'

/**
 * Numbered by position, from 1. One that has been released is never edited: add another.
 *
 * Times are integer milliseconds, lists and records JSON text, commit ids hex text. The partial indexes hold unfinished
 * runs only: they stay small however long the history is, and each statement that is meant to use one names it, since
 * SQLite would rather walk a target's whole history. A run's delivery is no foreign key: deliveries are pruned earlier.
 */
const MIGRATIONS: readonly string[] = [
  `
  create table deliveries (
    id          integer primary key autoincrement,
    hook        text    not null,
    forge       text    not null,
    guid        text,
    event       text,
    forge_event text,
    verdict     text    not null,
    reason      text,
    detail      text,
    repeats     integer,
    repo        text,
    changes     text    not null,
    targets     text    not null,
    body_hash   blob    not null,
    received_at integer not null
  ) strict;
  create index deliveries_guid on deliveries (guid) where guid is not null;
  create index deliveries_body on deliveries (body_hash);

  create table payloads (
    delivery integer primary key references deliveries (id) on delete cascade,
    bytes    integer not null,
    codec    integer not null,
    data     blob,
    file     text
  ) strict;

  create table instances (
    name            text primary key,
    target          text    not null,
    repo            text    not null,
    state           text    not null default 'new',
    deployed_commit text,
    deployed_run    integer,
    deployed_at     integer,
    deployed_before text,
    wanted_commit   text,
    wanted_at       integer,
    considered      text,
    rejected        text    not null default '[]',
    doubt_tip       text,
    doubt_since     integer,
    default_branch  text,
    first_seen_at   integer not null
  ) strict, without rowid;

  create table runs (
    id            integer primary key autoincrement,
    target        text    not null,
    repo          text    not null,
    ref           text,
    announced     text,
    before        text,
    commit_id     text,
    previous      text,
    trigger       text    not null,
    event         text    not null,
    delivery      integer,
    state         text    not null,
    reason        text,
    detail        text,
    attempt       integer not null,
    soft_attempts integer not null,
    interruptions integer not null,
    polls_agree   integer not null,
    exit_code     integer,
    signal        text,
    phases        text    not null default '[]',
    place         integer not null,
    not_before    integer,
    queued_at     integer not null,
    started_at    integer,
    finished_at   integer,
    superseded_by integer
  ) strict;
  create index runs_unfinished on runs (target, announced) where finished_at is null;
  create index runs_decided on runs (target, commit_id) where finished_at is null and commit_id is not null;
  create index runs_following on runs (target) where finished_at is null and trigger in ('retry', 'recovery');
  create index runs_of_target on runs (target, id);

  create table processes (
    run        integer not null references runs (id) on delete cascade,
    pid        integer not null,
    start_time integer not null,
    primary key (run, pid)
  ) strict, without rowid;

  create table releases (
    run       integer primary key references runs (id),
    instance  text not null,
    commit_id text not null,
    directory text not null
  ) strict;
  create index releases_of_instance on releases (instance, run);

  create table speakers (
    hook          text    not null,
    repo          text    not null,
    first_heard   integer not null,
    last_heard    integer not null,
    silent_since  integer,
    primary key (hook, repo)
  ) strict, without rowid;

  create table probes (id integer primary key check (id = 1), at integer not null) strict;
  `,
  `
  alter table instances add column branch text;
  alter table instances add column files_at text;
  alter table instances add column gone_since integer;
  alter table instances add column retired_at integer;
  create index instances_of_target on instances (target);

  create table listings (
    listing   text    not null,
    repo      text    not null,
    listed_at integer not null,
    primary key (listing, repo)
  ) strict, without rowid;

  create table repositories (
    hook text    not null,
    id   integer not null,
    repo text    not null,
    primary key (hook, id)
  ) strict, without rowid;
  `,
  // Where the files were whose commit is on record is not known: the configuration may have changed since.
  `
  alter table instances add column lives_at text;
  update instances set files_at = null;
  create index instances_living_at on instances (lives_at) where lives_at is not null;
  alter table instances add column activating integer;
  `,
]

export const SCHEMA_VERSION = MIGRATIONS.length

/** Brings the database to the newest schema, each step in a transaction of its own. Throws `start` for a newer one. */
export function migrate(db: DatabaseSync, file: string): void {
  const version = versionOf(db)
  if (version > SCHEMA_VERSION) {
    throw new LandfallError(
      'start',
      `${file} has schema ${version}, this landfall knows up to ${SCHEMA_VERSION}: it was written by a newer version; install that version, or restore a backup made before the upgrade`,
    )
  }
  for (let step = version; step < SCHEMA_VERSION; step += 1) {
    db.exec('begin immediate')
    try {
      db.exec(MIGRATIONS[step] ?? '')
      db.exec(`pragma user_version = ${step + 1}`)
      db.exec('commit')
    } catch (cause) {
      if (db.isTransaction) db.exec('rollback')
      throw new LandfallError('start', `${file}: migration ${step + 1} failed`, { cause })
    }
  }
}

function versionOf(db: DatabaseSync): number {
  const version = db.prepare('pragma user_version').get()?.['user_version']
  return typeof version === 'number' ? version : 0
}
