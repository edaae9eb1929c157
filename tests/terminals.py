# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of its own, as a person starts it: what it says is awaited, what it asks is answered."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

PATIENCE = 120.0  # s, for a program that imports much on a busy machine


class Terminal:
    """A program whose input, output and errors are one pseudo-terminal; it ends with the context."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._master, slave = os.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "COLUMNS": "200", **(env or {})},
            start_new_session=True,
        )
        os.close(slave)
        self.said = ""
        self._read_to = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def expect(self, text: str) -> None:
        """Wait until the program says this, after what was expected before."""
        end = time.monotonic() + PATIENCE
        while (at := self.said.find(text, self._read_to)) < 0:
            more = self._more(end)
            assert more, f"it never said {text!r}, but:\n{self.said[-3000:]}"
        self._read_to = at + len(text)

    def type(self, text: str) -> None:
        """Type this on the program's terminal."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Interrupt it as Ctrl+C does."""
        self._process.send_signal(signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end and return the exit code."""
        end = time.monotonic() + PATIENCE
        while self._more(end):
            pass
        assert time.monotonic() < end, f"it never ended, and said:\n{self.said[-3000:]}"
        return self._process.wait()

    def _more(self, end: float) -> bool:
        """Read what it says next; False at its end, or when patience is."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the terminal has no program any more
            return False
        self.said += data.decode(errors="replace")
        return bool(data)
