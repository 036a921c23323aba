#!/bin/sh
# nginx, for what it serves from `current`: check its configuration, and reload it. For `activate`.
#
#   [target.site]
#   repo     = "acme/site"
#   script   = "examples/static-site.sh"
#   current  = "/srv/site"
#   activate = "examples/nginx-reload.sh"
#   user     = "deploy"
#
# The server block, once and by hand: `root /srv/site/public;`, and for redirects and headers that come with the commit
# `include /srv/site/nginx.conf*;` (whoever can push then has a say in nginx). Without such an include no `activate` is
# needed: nginx follows the link `current` at each request.
#
# An account that is not root needs this line in sudoers (visudo -f /etc/sudoers.d/landfall):
#   deploy ALL=(root) NOPASSWD: /usr/sbin/nginx -t -q, /usr/sbin/nginx -s reload
set -eu

PATH="$PATH:/usr/sbin"
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# If this fails, landfall switches `current` back and calls us again, at the release before.
as_root nginx -t -q
as_root nginx -s reload
