# SPDX-License-Identifier: Apache-2.0
"""Progress bars: smooth in a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress_bar(total: int, what: str, unit: str, initial: int = 0) -> tqdm:
    """Return a progress bar on stderr.

    Args:
        total: number of units until the end.
        what: shown before the bar.
        unit: what is counted.
        initial: units done before.
    """
    interval_s = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=what, unit=unit, initial=initial, mininterval=interval_s)
