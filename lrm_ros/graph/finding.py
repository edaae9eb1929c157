# SPDX-License-Identifier: Apache-2.0
"""What a check of ``lrm doctor`` has found, and the commands that it runs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

OK, WARN, FAIL = "OK", "WARN", "FAIL"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: what was checked.
        status: ``"OK"``, ``"WARN"`` or ``"FAIL"``.
        detail: what there is.
        cure: what to do about it; empty when nothing is needed.
    """

    name: str
    status: str
    detail: str
    cure: str = ""


def run(command: list[str], seconds: float) -> tuple[int, str, str]:
    """Run a command and return its exit code, its output and the last line of its errors; 124 when time is up."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {seconds:.0f} s"
    errors = done.stderr.strip().splitlines()
    return done.returncode, done.stdout.strip(), errors[-1] if errors else f"exit code {done.returncode}"
