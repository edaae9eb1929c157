#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run the tests of 'colcon build', with colcon from wheels in .venv-colcon, an environment of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${VENV:-.venv}/bin/python
stamp=.venv-colcon/.setup-$(sha256sum requirements-colcon.lock | cut -c1-16)
if [ ! -e "$stamp" ]; then
    "$python" -m venv --clear --without-pip .venv-colcon
    tools/uv.sh pip install -q --python .venv-colcon/bin/python --no-deps -r requirements-colcon.lock
    touch "$stamp"
fi
PATH=$PWD/.venv-colcon/bin:$PATH "$python" -m pytest tests/product/test_packaging.py -k colcon "$@"
