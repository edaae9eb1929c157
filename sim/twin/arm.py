# SPDX-License-Identifier: Apache-2.0
"""The twin's arm: each target makes one control step of its world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.twin.world import World


class TwinArm:
    """An ``lrm_ros.robot.arm.Arm`` in a simulated world.

    Attributes:
        disturbance_std: standard deviation of Gaussian noise that is added to the targets of all joints but the last,
            the gripper, on their way to the motors [rad].
    """

    def __init__(self, world: World) -> None:
        """Take the arm of a world."""
        self._world = world
        self.disturbance_std = 0.0
        self._noise = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        """Start an episode of the world; its noise has the same seed."""
        self._world.reset(seed)
        self._noise = np.random.default_rng((seed, 1))

    def read(self) -> tuple[int, NDArray[np.float32]]:
        """Return (simulated time [ns], (D,) joint positions [rad])."""
        return self._world.stamp_ns, self._world.state

    def send(self, target: NDArray[np.float32]) -> None:
        """Make one control step towards (D,) [rad]."""
        if self.disturbance_std > 0:
            target = target.copy()
            target[:-1] += self._noise.normal(0.0, self.disturbance_std, len(target) - 1).astype(np.float32)
        self._world.step(target)
