# SPDX-License-Identifier: Apache-2.0
"""Which commit of the source tree runs, for the records of a run."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit() -> str:
    """Return the commit of the source tree, or the reason why it is not known."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except OSError as error:
        return f"unknown: {error}"
    return done.stdout.strip() or "unknown: no git repository"
