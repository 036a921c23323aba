#!/bin/sh
# A Python service: a virtual environment inside its release, so that code and packages are switched, and come back, as one.
#
#   [target.api]
#   repo     = "acme/api"
#   script   = "examples/python-venv.sh"
#   current  = "/srv/api"             # ExecStart=/srv/api/.venv/bin/gunicorn app:app
#   activate = ["sudo", "-n", "systemctl", "restart", "api"]
#   retries  = 2                      # pip does not tell a network that is down from a package that does not exist
#   user     = "deploy"
#
# A virtual environment must not be moved. That is no worry here: a release directory never is.
set -eu

# One cache for all releases: LANDFALL_DATA is kept between runs.
PIP_CACHE_DIR="$LANDFALL_DATA/pip"
PIP_DISABLE_PIP_VERSION_CHECK=1
PIP_NO_INPUT=1
export PIP_CACHE_DIR PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT

# Versions pinned with == (pip freeze, pip-compile, uv export), or two releases of a commit can differ.
python3 -m venv .venv
.venv/bin/pip install --requirement requirements.txt
.venv/bin/pip check

# A syntax error ends here, and the service needs no right to write to the release.
.venv/bin/python -m compileall -q -x '/\.venv/' .

echo "Built $LANDFALL_REPO at $LANDFALL_COMMIT for $LANDFALL_TARGET."
