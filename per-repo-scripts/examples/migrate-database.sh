#!/bin/sh
# A database that changes with the code: back it up and migrate it; `current` is switched only if that has succeeded.
#
#   [target.shop]
#   repo     = "acme/shop"
#   script   = "examples/migrate-database.sh"
#   current  = "/srv/shop"
#   activate = ["sudo", "-n", "systemctl", "restart", "shop"]
#   env      = { DATABASE = "/var/lib/shop/shop.db" }
#   user     = "deploy"
#
# For SQLite: `migrations/*.sql`, applied in the order of their names, each once, without BEGIN and COMMIT of their own. For
# another database put its tools in the places of sqlite3 (pg_dump, then `alembic upgrade head`, `prisma migrate deploy`, …).
# The release before goes on working with the migrated database until the switch, and after a roll-back: first add, and
# remove only in a later push.
set -eu

: "${DATABASE:?say it in landfall.toml, in env: the path of the database}"
backup="$LANDFALL_DATA/before-$LANDFALL_COMMIT.db"
plan="$LANDFALL_DATA/plan.sql"

sql() {
  sqlite3 -batch -bail -cmd '.timeout 5000' "$DATABASE" "$@"
}

# The database itself knows what was applied to it. Asking for the write lock shows whether it is to be had at all.
status=0
sql 'BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, at TEXT NOT NULL); COMMIT' || status=$?
case $status in
  0) ;;
  5) # SQLITE_BUSY
    echo "$DATABASE is locked by another program: trying again later." >&2
    exit 75
    ;;
  *) exit "$status" ;;
esac

# All that is pending is one transaction: it is applied as a whole or not at all.
echo 'BEGIN IMMEDIATE;' >"$plan"
pending=0
for file in migrations/*.sql; do
  [ -e "$file" ] || continue
  name=${file##*/}
  case $name in
    *[!A-Za-z0-9._-]*)
      echo "$file: use only letters, digits, '.', '_' and '-' in its name." >&2
      exit 1
      ;;
  esac
  if [ "$(sql "SELECT count(*) FROM migrations WHERE name = '$name'")" -eq 0 ]; then
    { cat "$file" && printf ";\nINSERT INTO migrations VALUES ('%s', datetime('now'));\n" "$name"; } >>"$plan"
    pending=$((pending + 1))
  fi
done
echo 'COMMIT;' >>"$plan"

if [ "$pending" -eq 0 ]; then
  echo "$DATABASE needs no migration."
  exit 0
fi

find "$LANDFALL_DATA" -name 'before-*.db' -mtime +30 -delete
sql ".backup '$backup'"
if ! sql <"$plan"; then
  echo "The migration failed: $DATABASE is as it was, and so is what is live." >&2
  exit 1
fi
echo "Migrations applied to $DATABASE: $pending. What it was before is in $backup."
