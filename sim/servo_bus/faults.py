# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on the wire between servos and computer: answers that are silent, late, lost in part, or corrupt."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = ("silent", "late", "lost", "corrupt")


@dataclass
class Fault:
    """One thing that goes wrong with the servos' answers.

    Attributes:
        kind: ``silent``: the answer is gone; ``late``: it comes ``seconds`` later; ``lost``: one byte of it is missing;
            ``corrupt``: one bit of it is turned over.
        count: how many answers it strikes, None for all until it is cleared.
        share: of the answers it strikes, above 0 to 1, at random.
        seconds: by which late answers are late.
        id: whose answers; None for all servos.
    """

    kind: str
    count: int | None = None
    share: float = 1.0
    seconds: float = 0.0
    id: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault '{self.kind}'; there are {', '.join(KINDS)}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count is {self.count}; a fault strikes 1 answer or more")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it is above 0 and at most 1")
        if (self.kind == "late") != (self.seconds > 0):
            raise ValueError(f"seconds is {self.seconds}; it is above 0 for 'late' and 0 for the other faults")


class Wire:
    """The servos' way to the computer, with the faults that are set.

    Attributes:
        faults: those that strike now; they strike in this order.
        struck: how many times a fault has struck.
    """

    def __init__(self, seed: int = 0) -> None:
        self.faults: list[Fault] = []
        self.struck = 0
        self._random = random.Random(seed)

    def set(self, fault: Fault) -> None:
        """Let a fault strike from the next answer on."""
        self.faults.append(fault)

    def clear(self) -> None:
        """Take all faults away."""
        self.faults.clear()

    def carry(self, answer: bytes) -> tuple[float, bytes]:
        """Return by how many seconds a status packet is late and what arrives of it, perhaps nothing."""
        seconds, arrives = 0.0, answer
        for fault in list(self.faults):
            if fault.id not in (None, answer[2]) or self._random.random() >= fault.share:
                continue
            self.struck += 1
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self.faults.remove(fault)
            if fault.kind == "silent":
                arrives = b""
            elif fault.kind == "late":
                seconds += fault.seconds
            elif arrives:
                at = self._random.randrange(len(arrives))
                kept = b"" if fault.kind == "lost" else bytes([arrives[at] ^ 1 << self._random.randrange(8)])
                arrives = arrives[:at] + kept + arrives[at + 1 :]
        return seconds, arrives
