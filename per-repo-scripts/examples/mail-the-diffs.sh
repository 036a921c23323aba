#!/bin/sh
# Mail the diffs: each push as one mail, with its commits and what they changed.
#
#   [target.diffs]
#   repo          = "acme/site"
#   script        = "examples/mail-the-diffs.sh"
#   env           = { MAIL_TO = "team@example.com", MAIL_FROM = "landfall@example.com" }
#   keep_releases = 1                 # nobody needs the checkout afterwards
#   user          = "deploy"
#
# Needs a `sendmail`: postfix, exim4, msmtp-mta and nullmailer bring one.
set -eu

: "${MAIL_TO:?say it in landfall.toml, in env: who reads the diffs}"
: "${MAIL_FROM:?say it in landfall.toml, in env: who sends them}"
PATH="$PATH:/usr/sbin:/usr/lib"
max_bytes=1000000

if git cat-file -e "$LANDFALL_PREVIOUS^{commit}" 2>/dev/null; then
  set -- "$LANDFALL_PREVIOUS..$LANDFALL_COMMIT"
else
  # The first time; or a force push has left the commit before behind.
  set -- --max-count=1 "$LANDFALL_COMMIT"
fi

# A run may be repeated that has sent its mail: nobody wants it twice.
mailed="$LANDFALL_DATA/mailed"
count=$(git rev-list --count "$@")
if [ "$count" -eq 0 ] || { [ -f "$mailed" ] && [ "$(cat "$mailed")" = "$*" ]; }; then
  echo "There is nothing new to mail."
  exit 0
fi

diffs="$LANDFALL_DATA/diffs"
git log --reverse --stat --patch --no-color "$@" >"$diffs"
if [ "$(wc -c <"$diffs")" -gt "$max_bytes" ]; then
  git log --reverse --stat --no-color "$@" | head -c "$max_bytes" >"$diffs"
  printf '\nThe diffs are too long for a mail: git log --patch %s\n' "$*" >>"$diffs"
fi

# base64, because a line of code may be longer than a line of mail.
mail="$LANDFALL_DATA/mail"
cat >"$mail" <<HEADERS
From: $MAIL_FROM
To: $MAIL_TO
Subject: [$LANDFALL_REPO] ${LANDFALL_BRANCH:-$LANDFALL_TAG}: $count new commit(s)
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

HEADERS
base64 "$diffs" >>"$mail"

# sendmail itself ends with 75 where it should be tried again later, which is just what landfall understands.
sendmail -oi -t <"$mail"
echo "$*" >"$mailed"
echo "Mailed $count commit(s) to $MAIL_TO."
