#!/bin/sh
# A PHP application: install what composer.lock names, and look at every file once before it goes live.
#
#   [target.shop]
#   repo     = "acme/shop"
#   script   = "examples/php-composer.sh"
#   current  = "/srv/shop"            # the web server's root is /srv/shop/public
#   activate = ["sudo", "-n", "systemctl", "reload", "php8.2-fpm"]
#   user     = "deploy"
#
# PHP caches code by path: the reload makes it forget. In nginx, `fastcgi_param SCRIPT_FILENAME
# $realpath_root$fastcgi_script_name` keeps a request that is under way in the release where it began.
set -eu

# One cache for all releases: LANDFALL_DATA is kept between runs.
COMPOSER_HOME="$LANDFALL_DATA/composer"
COMPOSER_NO_INTERACTION=1
export COMPOSER_HOME COMPOSER_NO_INTERACTION

if [ ! -f composer.lock ]; then
  echo "There is no composer.lock: without one, two releases of a commit can differ. Run composer update and commit it." >&2
  exit 1
fi

composer validate --no-check-publish --no-check-all
composer check-platform-reqs --lock --no-dev

# The lock file says exactly what to fetch, and this PHP can run it: what is left to fail is the network.
if ! composer install --no-dev --prefer-dist --no-progress --download-only; then
  echo "Not every package could be fetched: trying again later." >&2
  exit 75
fi
composer install --no-dev --prefer-dist --no-progress --classmap-authoritative

find . -path ./vendor -prune -o -name '*.php' -print0 |
  xargs -0 -r -n 1 php -d display_errors=stderr -d log_errors=0 -l >/dev/null

echo "Built $LANDFALL_REPO at $LANDFALL_COMMIT for $LANDFALL_TARGET."
