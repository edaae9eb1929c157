# SPDX-License-Identifier: Apache-2.0
"""Who is told what happens on an arm's bus."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.feetech import Health


class Listener(Protocol):
    """Of a ``BusLoop``; called in its thread."""

    def on_state(self, stamp_ns: int, position: NDArray[np.float32]) -> None:
        """Joint positions (D,) [rad] were read."""

    def on_sent(self, stamp_ns: int, target: NDArray[np.float32]) -> None:
        """The target (D,) [rad] that the arm had at a control step."""

    def on_command(self, seconds: float) -> None:
        """A command has waited so long for its first target to be sent."""

    def on_health(self, health: Health) -> None:
        """The servos were asked how they are."""

    def on_fault(self, key: str, message: str) -> None:
        """Something is wrong."""

    def on_good(self, key: str, message: str) -> None:
        """It is not any more."""
