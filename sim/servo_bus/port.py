# SPDX-License-Identifier: Apache-2.0
"""The pseudo-terminal that stands for the USB adapter of a bus: its name, its baud rate, and pulling it out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import tty
from pathlib import Path

_TCGETS2 = 0x802C542A  # struct termios2: it has rates that no constant stands for, such as 250000
_OUTPUT_RATE_AT = 40


class Port:
    """A serial port as a program opens it, e.g. /dev/pts/7.

    A link with a name of one's own can stand beside it: pulled out and plugged in again, a USB adapter often comes back
    under another name.

    Attributes:
        link: the link's path, None if there is none.
    """

    def __init__(self, link: str | Path | None = None) -> None:
        """Plug it in.

        Raises:
            FileExistsError: there is something at ``link`` that is no link.
        """
        self.link: Path | None = None
        self._fds: tuple[int, int] | None = None
        self.plug(link)

    @property
    def plugged(self) -> bool:
        """Whether it is there."""
        return self._fds is not None

    @property
    def name(self) -> str:
        """Path of the terminal; empty while it is pulled out."""
        return "" if self._fds is None else os.ttyname(self._fds[1])

    @property
    def path(self) -> str:
        """What to give a program as its port: the link, or the terminal if there is none."""
        return str(self.link) if self.link is not None else self.name

    def plug(self, link: str | Path | None = None) -> None:
        """Plug it in under a new terminal and the link given; a link from before is replaced.

        Raises:
            FileExistsError: there is something at ``link`` that is no link.
            RuntimeError: it is plugged in.
        """
        if self._fds is not None:
            raise RuntimeError(f"'{self.path}' is plugged in; unplug it first")
        path = None if link is None else Path(link)
        if path is not None and path.exists() and not path.is_symlink():
            raise FileExistsError(f"'{path}' is no link; give another path for the port")
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        # The slave is kept open, so that a program may come and go.
        self._fds = (master, slave)
        if path is not None:
            path.unlink(missing_ok=True)
            path.symlink_to(self.name)
        self.link = path

    def unplug(self) -> None:
        """Pull it out: who has it open gets errors from now on, and its names are gone."""
        if self._fds is None:
            return
        if self.link is not None and self.link.is_symlink() and os.readlink(self.link) == self.name:
            self.link.unlink()
        for fd in self._fds:
            os.close(fd)
        self._fds = None

    def fileno(self) -> int:
        """Return the file descriptor to wait on.

        Raises:
            RuntimeError: it is pulled out.
        """
        if self._fds is None:
            raise RuntimeError("the port is unplugged")
        return self._fds[0]

    def read(self) -> bytes:
        """Return what was sent to the servos and not read yet, perhaps nothing."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.fileno(), 4096)
        return b""

    def write(self, data: bytes) -> None:
        """Send to the program; what does not fit into a terminal that nobody reads is lost."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.fileno(), data)

    def rate(self) -> int:
        """Return the baud rate that the program has set."""
        got = fcntl.ioctl(self.fileno(), _TCGETS2, bytes(44))
        return int(struct.unpack_from("I", got, _OUTPUT_RATE_AT)[0])
