#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# uv of the environment VENV (default .venv; installed there if missing), with pip's configuration of this machine.
# uv does not read that itself: it is handed over through the environment, never through a file of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV_VERSION=0.13.9
VENV=${VENV:-.venv}

# What pip is configured to use as $1 (environment, then user, then system), on one line.
pip_setting() {
    local section
    for section in :env: install global; do
        if "$VENV/bin/python" -m pip config get "$section.$1" 2>/dev/null | tr '\n' ' '; then
            return
        fi
    done
}

pass() {
    local value
    value=$(pip_setting "$2")
    value=${value% }
    if [ -n "$value" ] && [ -z "${!1:-}" ]; then export "$1=$value"; fi
}

pass UV_INDEX_URL index-url
pass UV_EXTRA_INDEX_URL extra-index-url
pass UV_FIND_LINKS find-links
pass UV_INSECURE_HOST trusted-host
pass SSL_CERT_FILE cert
pass UV_HTTP_TIMEOUT default-timeout
export UV_FIND_LINKS="${UV_FIND_LINKS:-}"
UV_FIND_LINKS=${UV_FIND_LINKS// /,}
[ -n "$UV_FIND_LINKS" ] || unset UV_FIND_LINKS
export UV_INDEX_STRATEGY=unsafe-best-match  # as pip does: the version decides, not the order of the indexes
[ -x "$VENV/bin/uv" ] || "$VENV/bin/python" -m pip install -q --disable-pip-version-check "uv==$UV_VERSION"
exec "$VENV/bin/uv" "$@"
