#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Write requirements.lock anew: the newest packages that setup.py allows on Python 3.12, which are those for 3.13 as well.
# Run it after a change of setup.py, then 'make setup' and 'make test'. requirements-3.11.lock is kept by hand.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Left out: mplib (ManiSkill's planner, unused here; it has no wheel for 3.13 and none for numpy 2) and opencv-python
# (the same folder cv2 as opencv-python-headless).
printf '%s ; python_version < "3"\n' mplib opencv-python > "$scratch/left_out"
# With mplib left out ManiSkill is there for 3.13, too; setuptools builds the package, as pyproject.toml asks.
printf '%s\n' 'mani_skill>=3.0.1,<3.1' 'setuptools>=71,<81' > "$scratch/more.in"
for version in 3.12 3.13; do
    tools/uv.sh pip compile -q --no-annotate --no-header --overrides "$scratch/left_out" --python-version $version \
        --extra ros --extra serve --extra train --extra test -o "$scratch/$version" setup.py "$scratch/more.in"
done
diff "$scratch/3.12" "$scratch/3.13" || { echo "lock: 3.12 and 3.13 need different packages, see above" >&2; exit 1; }
{
    echo "# Python packages of lrm_ros, tested together on Python 3.12 (tools/lock.sh writes this); install with --no-deps."
    grep -E '^[A-Za-z0-9._-]+==[^ ]+$' "$scratch/3.12"
} > requirements.lock
