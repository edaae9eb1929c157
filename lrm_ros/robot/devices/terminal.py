# SPDX-License-Identifier: Apache-2.0
"""A terminal as a keyboard: single key presses in, one status line out; works over SSH and puts everything back."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
import threading
import tty

# A key is a character or the escape sequence of a special key, e.g. "\x1b[A" for the upward arrow.
_KEY = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])|[^\x1b]")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-9;]*|O)?")


class Terminal:
    """Reads keys without echo while open; Ctrl+C still interrupts."""

    def __init__(self, fd: int | None = None) -> None:
        """Choose the terminal.

        Args:
            fd: file descriptor of a terminal; default: standard input, or else the one this process was started from.

        Raises:
            ValueError: there is no terminal.
        """
        self._own: int | None = None
        if fd is None and sys.stdin is not None and sys.stdin.isatty():
            fd = sys.stdin.fileno()
        if fd is None:
            try:
                fd = self._own = os.open("/dev/tty", os.O_RDWR)
            except OSError as error:
                raise ValueError(
                    f"there is no terminal to read keys from ({error}); start it in one, over SSH with 'ssh -t'"
                ) from error
        self._fd = fd
        self._before = termios.tcgetattr(fd)
        self._shown = ""
        self._pending = ""
        self._open = False
        self._lock = threading.Lock()  # lines may be said by any thread

    def open(self) -> None:
        """Switch to single key presses without echo."""
        tty.setcbreak(self._fd)
        attributes = termios.tcgetattr(self._fd)
        attributes[0] &= ~termios.IXON  # Ctrl+S must not freeze the status line and with it the arm's commands
        termios.tcsetattr(self._fd, termios.TCSADRAIN, attributes)
        self._open = True

    def read(self) -> list[str]:
        """Return the keys pressed since the last call; never waits.

        Raises:
            EOFError: the terminal is gone (window closed, connection lost).
        """
        while select.select([self._fd], [], [], 0)[0]:
            try:
                data = os.read(self._fd, 1024)
            except OSError as error:
                raise EOFError(f"the terminal is gone: {error}") from error
            if not data:
                raise EOFError("the terminal is gone")
            self._pending += data.decode(errors="replace")
        keys: list[str] = []
        while self._pending and not _UNFINISHED.fullmatch(self._pending):
            match = _KEY.match(self._pending)
            if match:
                keys.append(match.group())
            self._pending = self._pending[match.end() if match else 1 :]  # an Escape on its own means nothing
        return keys

    def say(self, text: str) -> None:
        """Print lines above the status line, from any thread; nothing once closed."""
        with self._lock:
            if self._open:
                self._write("\r\x1b[K" + text.replace("\n", "\r\n") + "\r\n" + self._shown)

    def status(self, text: str) -> None:
        """Show the status line, cut to the terminal's width; written only when it changed."""
        try:
            width = os.get_terminal_size(self._fd).columns or 80
        except OSError:
            width = 80
        text = text[: width - 1]
        with self._lock:
            if self._open and text != self._shown:
                self._shown = text
                self._write("\r\x1b[K" + text)

    def close(self) -> None:
        """Put the terminal back as it was; may be called more than once."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            with contextlib.suppress(OSError, termios.error):  # a terminal that is gone needs nothing put back
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
                self._write("\r\n")
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def _write(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self._fd, data) :]
