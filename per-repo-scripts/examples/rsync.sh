#!/bin/sh
# To another host: copy what the commit holds there with rsync over ssh.
#
#   [target.site-web1]
#   repo    = "acme/site"
#   script  = "examples/rsync.sh"
#   env     = { RSYNC_FROM = "public/", RSYNC_TO = "deploy@web1.example.com:/srv/site/" }
#   lane    = "site-web1"             # a host that is down keeps no other waiting
#   user    = "deploy"                # whose ~/.ssh has the key and known_hosts
#   timeout = "20m"
#
# Another key or port: RSYNC_RSH = "ssh -p 2222 -i /etc/landfall/web1.key" in env. For several hosts make a target each, in
# a lane of its own: targets of one repository share one otherwise. `landfall status` shows the host that is down.
set -eu

: "${RSYNC_TO:?say it in landfall.toml, in env: host and directory}"
from=${RSYNC_FROM:-./}
RSYNC_RSH="${RSYNC_RSH:-ssh} -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15"
export RSYNC_RSH

# Build here, if there is something to build.

if [ -z "$(find "$from" -mindepth 1 -not -path '*/.git*' -print -quit)" ]; then
  echo "$from is empty: sending it would delete all that is on the other side." >&2
  exit 1
fi

# New files wait beside the old ones and take their places together at the end. A fresh checkout has fresh times: with
# --checksum only what has changed is sent.
status=0
rsync --archive --no-owner --no-group --checksum --compress --delete-delay --delay-updates --timeout=60 \
  --exclude=/.git --itemize-changes -- "$from" "$RSYNC_TO" || status=$?

case $status in
  0) echo "$RSYNC_TO is at $LANDFALL_COMMIT." ;;
  10 | 12 | 30 | 35 | 255)
    # No connection, or a broken one. ssh has only 255 for it, a refused key included: its own words are above.
    echo "$RSYNC_TO cannot be reached now (rsync: $status): trying again later." >&2
    exit 75
    ;;
  *) exit "$status" ;;
esac
