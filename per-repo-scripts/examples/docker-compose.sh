#!/bin/sh
# A service under Docker Compose: fetch and build its images here; `activate` brings the service to them.
#
#   [target.shop]
#   repo     = "acme/shop"
#   script   = "examples/docker-compose.sh"
#   activate = ["docker", "compose", "up", "--detach", "--wait", "--remove-orphans"]
#   env      = { COMPOSE_PROJECT_NAME = "shop" }
#   user     = "deploy"               # in the group docker
#
# In compose.yaml, name what you build by its commit: `image: acme/shop:${LANDFALL_COMMIT:-dev}`. When a service does not
# become healthy, `activate` runs for the release before, and so brings its images back. Keep data in named volumes and not
# in `./data`: a release directory is removed after a few newer ones. Needs Docker Compose 2.15 or newer.
set -eu

# Without it Compose would name the project after the directory, which is the commit: every push would be a service more.
: "${COMPOSE_PROJECT_NAME:?say it in landfall.toml, in env}"

docker compose config --quiet

# Images of this project that nothing uses and that are older than a week: else the disk fills, push by push.
docker image prune --all --force --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter until=168h

if ! docker compose pull --quiet --ignore-buildable; then
  echo "Not every image could be fetched: trying again later." >&2
  exit 75
fi
docker compose build

echo "Images of $COMPOSE_PROJECT_NAME are ready at $LANDFALL_COMMIT."
