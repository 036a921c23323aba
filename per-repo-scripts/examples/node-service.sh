#!/bin/sh
# A Node service: install and build in the release, then `activate` restarts it through systemd.
#
#   [target.api]
#   repo     = "acme/api"
#   script   = "examples/node-service.sh"
#   current  = "/srv/api"             # WorkingDirectory= of the unit
#   activate = ["sudo", "-n", "systemctl", "restart", "api"]
#   user     = "deploy"
#
# If the restart fails, landfall switches `current` back and restarts the old release. So that `systemctl restart` knows
# whether the service came up, give the unit Type=notify, or an ExecStartPost= that asks it for its health.
set -eu

# One cache for all releases: LANDFALL_DATA is kept between runs.
npm_config_cache="$LANDFALL_DATA/npm"
export npm_config_cache

if [ ! -f package-lock.json ]; then
  echo "There is no package-lock.json: without one, two releases of a commit can differ. Run npm install and commit it." >&2
  exit 1
fi

npm ci --no-audit --no-fund
npm run build --if-present
npm test --if-present
# What only the build and the tests needed stays out of the running service.
npm prune --omit=dev --no-audit --no-fund

echo "Built $LANDFALL_REPO at $LANDFALL_COMMIT for $LANDFALL_TARGET."
