# SPDX-License-Identifier: Apache-2.0
"""One bus: bytes in, the arm's answers out when they are due, through the faults of the wire; no clock of its own."""

from __future__ import annotations

import heapq

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.faults import Wire
from lrm_ros.sim.servo_bus.protocol import Packet, Parser

_KEPT = 10_000  # instructions that ``seen`` holds at most


class Bus:
    """An arm's bus without the port: whoever calls says what time it is.

    Attributes:
        arm: the servos.
        wire: the faults on the way back.
        seen: the latest instructions, oldest first.
    """

    def __init__(self, arm: Arm | None = None, wire: Wire | None = None) -> None:
        self.arm = arm or Arm()
        self.wire = wire or Wire()
        self.seen: list[Packet] = []
        self._parser = Parser()
        self._rate = 0
        self._due: list[tuple[float, int, bytes]] = []
        self._sent = 0

    def receive(self, data: bytes, rate: int, now: float) -> None:
        """Take bytes from the computer.

        Args:
            data: in whatever pieces they come.
            rate: baud rate at which they were sent.
            now: time in seconds.
        """
        if rate != self._rate:
            self._parser.clear()
            self._rate = rate
        for packet in self._parser.feed(data):
            if len(self.seen) >= _KEPT:
                del self.seen[: _KEPT // 2]
            self.seen.append(packet)
            for answer in self.arm.answer(packet, rate):
                seconds, arrives = self.wire.carry(answer)
                self._sent += 1  # answers that are due at one time stay in their order
                heapq.heappush(self._due, (now + seconds, self._sent, arrives))

    def due(self, now: float) -> bytes:
        """Return the bytes that reach the computer until ``now``."""
        out = b""
        while self._due and self._due[0][0] <= now:
            out += heapq.heappop(self._due)[2]
        return out

    def next_due(self) -> float | None:
        """Return when the next bytes reach the computer, None if there are none."""
        return self._due[0][0] if self._due else None

    def forget(self) -> None:
        """Lose what is on the wire: the port was pulled out."""
        self._due.clear()
        self._parser.clear()
