# SPDX-License-Identifier: Apache-2.0
"""Progress bars: smooth in a terminal; in a log a line every ten seconds, without carriage returns."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class _Log:
    """What tqdm writes to, in place of a terminal: each state of a bar becomes a line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.replace("\r", "").strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


def progress_bar(total: int, what: str, unit: str, initial: int = 0) -> tqdm:
    """Return a progress bar on stderr.

    Args:
        total: number of units until the end.
        what: shown before the bar.
        unit: what is counted.
        initial: units done before.
    """
    if sys.stderr.isatty():
        return tqdm(total=total, desc=what, unit=unit, initial=initial, mininterval=0.2)
    return tqdm(total=total, desc=what, unit=unit, initial=initial, mininterval=10.0, file=_Log(sys.stderr))
