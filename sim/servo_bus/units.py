# SPDX-License-Identifier: Apache-2.0
"""Between a joint's angle in radians and a servo's position in steps, in this one place.

A turn of the shaft is 4096 steps. A servo is mounted so that its encoder stands at ``zero`` steps where the joint is at
0 rad, and turns with the joint (``sign`` 1) or against it (-1):

    actual = zero + sign * angle * 4096 / (2 pi)
    Present_Position = (actual - Homing_Offset) modulo 4096

The modulo is left out where bit 4 of Phase asks for positions beyond one turn. Homing_Offset has its sign in bit 11,
positions and velocities in bit 15, load in bit 10 (``registers``). Zeros and signs are the arm's (``calibration``); the
default is the middle of the encoder and the same direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TURN = 4096  # steps
STEP = 2 * math.pi / TURN  # rad


@dataclass(frozen=True)
class Mounting:
    """How a servo sits on its joint.

    Attributes:
        zero: steps of the encoder where the joint is at 0 rad, 0 to 4095.
        sign: 1 or -1.
    """

    zero: int = TURN // 2
    sign: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.zero < TURN:
            raise ValueError(f"zero is {self.zero}; it is a step of the encoder, 0 to {TURN - 1}")
        if self.sign not in (1, -1):
            raise ValueError(f"sign is {self.sign}; it is 1 or -1")

    def actual(self, angle: float) -> float:
        """Return the encoder's steps, not rounded and not within a turn, at an angle in rad."""
        return self.zero + self.sign * angle / STEP

    def present(self, angle: float, offset: int, beyond_a_turn: bool = False) -> float:
        """Return what Present_Position is at an angle in rad, not rounded: 0 to 4096, or beyond."""
        steps = self.actual(angle) - offset
        return steps if beyond_a_turn else steps % TURN

    def angle(self, present: float, offset: int) -> float:
        """Return the angle in rad at a position in steps: that within half a turn of the encoder's zero."""
        turned = (present + offset - self.zero + TURN / 2) % TURN - TURN / 2
        return self.sign * turned * STEP
