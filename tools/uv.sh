# SPDX-License-Identifier: Apache-2.0
# Sourced by the set-up scripts: uv for the environment $VENV, with what pip is configured to use on this machine.

UV_VERSION=0.13.9

# What pip is configured to use as $1 on this machine (environment, then user, then system), on one line.
pip_setting() {
    local section
    for section in :env: install global; do
        if "$VENV/bin/python" -m pip config get "$section.$1" 2>/dev/null | tr '\n' ' '; then
            return
        fi
    done
}

# uv does not read pip's configuration: hand it over through the environment, never through a file of the repository.
pip_settings_for_uv() {
    local value
    pass() { value=$(pip_setting "$2"); value=${value% }; if [ -n "$value" ] && [ -z "${!1:-}" ]; then export "$1=$value"; fi; }
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
}

# Print the path of uv: that of .venv if it is there, else one installed into $VENV.
find_uv() {
    local uv
    for uv in .venv/bin/uv "$VENV/bin/uv"; do
        if [ -x "$uv" ]; then printf '%s' "$uv"; return; fi
    done
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check "uv==$UV_VERSION" >&2
    printf '%s' "$VENV/bin/uv"
}
