#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Print the path of a Python of the first of the versions given (3.12 3.13 ...) that this machine has and that runs.
# Looked for on PATH, among pyenv's versions and among uv's. A shim of pyenv stands on PATH for versions that are not
# chosen and fails when it is called: so each candidate is run before it is believed.
set -euo pipefail

# The interpreter itself, not a shim or a virtual environment's link to it.
origin() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys._base_executable)' 2>/dev/null; }

candidates() {
    local name uv_folder
    for name in "python$1" python3 python; do type -aP "$name" || true; done
    for name in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do printf '%s\n' "$name"; done | sort -Vr
    uv_folder=$(uv python dir 2>/dev/null) || uv_folder=${XDG_DATA_HOME:-$HOME/.local/share}/uv/python
    for name in "$uv_folder/cpython-$1".*/bin/python3; do printf '%s\n' "$name"; done | sort -Vr
}

for version in "$@"; do
    while read -r candidate; do
        [ -x "$candidate" ] && found=$(origin "$candidate") && [ "${found%% *}" = "$version" ] || continue
        printf '%s\n' "${found#* }"
        exit 0
    done < <(candidates "$version")
done
exit 1
