# SPDX-License-Identifier: Apache-2.0
"""State of a ManiSkill task for scripted experts and progress: poses of objects, what the arm holds."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.maniskill.arms import PandaArm, SO100Arm


class Scene(Protocol):
    """The state of a task's world; ``lrm_ros.sim.maniskill.world.ManiSkillWorld`` is one.

    Attributes:
        arm: the arm and its tool.
        task_env: ManiSkill's environment itself.
        first: where things and the tool were at the start of the episode, (3,) each [m].
    """

    arm: PandaArm | SO100Arm
    task_env: Any
    first: dict[str, NDArray[np.float64]]

    @property
    def done(self) -> bool:
        """Whether the task is done, as ManiSkill says."""
        ...

    def position(self, name: str) -> NDArray[np.float64]:
        """Return an actor's position (3,) [m]."""
        ...

    def rotation(self, name: str) -> NDArray[np.float64]:
        """Return an actor's rotation (3, 3)."""
        ...

    def is_grasping(self, name: str) -> bool:
        """Return whether the fingers hold an actor."""
        ...

    def grasp_yaw(self, name: str) -> float:
        """Return the direction [rad] in which the fingers close on an actor squarely."""
        ...
