#!/bin/sh
# A static site: build it, check it, and let landfall switch `current` to it.
#
#   [target.site]
#   repo    = "acme/site"
#   script  = "examples/static-site.sh"
#   current = "/srv/site"             # the web server's root is /srv/site/public
#   user    = "deploy"
#
# Serve the directory `public` and not the checkout itself: a release has its .git beside it.
set -eu

if [ -f package.json ]; then
  npm ci --no-audit --no-fund
  npm run build --if-present
elif [ -f Makefile ]; then
  make
fi

if [ ! -s public/index.html ]; then
  echo "There is no public/index.html after the build: nothing goes live." >&2
  exit 1
fi

# The web server is another account: it must be able to read what we made, whatever our umask is.
chmod -R a+rX public

echo "Built $LANDFALL_REPO at $LANDFALL_COMMIT; $(wc -l <"$LANDFALL_CHANGED") paths changed since ${LANDFALL_PREVIOUS:-the beginning}."
