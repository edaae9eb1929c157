# SPDX-License-Identifier: Apache-2.0
"""How the first command after a break is approached: slowly, unless it begins where the arm is."""

from __future__ import annotations

import math

from lrm_ros.robot.arm_envelope import EnvelopeServer


class Approach:
    """The speed of a motion to a first command; it grows by itself each second."""

    def __init__(self) -> None:
        """Wait for a first command."""
        self.begin()

    def begin(self) -> None:
        """The next command is a first one."""
        self._awaited = True
        self._since_s: float | None = None  # since when a first one is approached

    def interrupt(self) -> None:
        """Approach nothing now."""
        self._since_s = None

    def follow(self, server: EnvelopeServer, now_ns: int, now_s: float) -> None:
        """Look at a command that the server follows from now on.

        Args:
            server: in front of the arm.
            now_ns: time of the arm's clock [ns].
            now_s: time of a clock that does not go back [s].
        """
        if self._awaited and self._since_s is None:
            if server.near(now_ns):
                self._awaited = False
            else:
                self._since_s = now_s

    def speed(self, first: float, now_s: float) -> float:
        """Return the highest speed now [rad/s], infinite if nothing is approached.

        Args:
            first: speed at its beginning [rad/s].
            now_s: as for :meth:`follow`.
        """
        return math.inf if self._since_s is None else first * (1 + now_s - self._since_s)

    def reached(self) -> None:
        """The motion has come to what was commanded."""
        if self._since_s is not None:
            self._awaited, self._since_s = False, None
