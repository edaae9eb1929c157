# SPDX-License-Identifier: Apache-2.0
"""ManiSkill task: the tabletop with two of each fixture (``lrm_ros.sim.tabletop.fixtures``) instead of loose things."""

from __future__ import annotations

from typing import Any

import numpy as np
import sapien
from mani_skill.utils.registration import register_env

from lrm_ros.sim.tabletop.fixtures import KINDS, build
from lrm_ros.sim.tabletop.task import TabletopEnv

FIXTURES = {f"{kind}_{number}": kind for kind in KINDS for number in (1, 2)}


def _away(number: int) -> sapien.Pose:
    """Return where a fixture stays that an episode does not need."""
    return sapien.Pose([-5.0, 5.0 + number, 0.0])


@register_env("Fixtures-v1", max_episode_steps=1_000_000)
class FixturesEnv(TabletopEnv):
    """Things with a joint; a reset puts all of them away."""

    def _load_things(self) -> None:
        self.fixtures = {
            name: build(self.scene, name, kind, _away(number)) for number, (name, kind) in enumerate(FIXTURES.items())
        }

    def _initialize_episode(self, env_idx: Any, options: dict) -> None:
        super()._initialize_episode(env_idx, options)
        for number, name in enumerate(self.fixtures):
            self._place(name, _away(number), 0.0)

    def put_fixture(self, name: str, spot: Any, yaw: float, joint: float) -> None:
        """Put a fixture on the table, at rest.

        Args:
            name: of ``FIXTURES``.
            spot: (2,) [m].
            yaw: turn about the vertical [rad].
            joint: position of its joint [m or rad].
        """
        turn = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        self._place(name, sapien.Pose([*map(float, spot), 0.0], turn), joint)

    def _place(self, name: str, pose: sapien.Pose, joint: float) -> None:
        body = self.fixtures[name]._objs[0]
        body.set_root_pose(pose)
        body.set_qpos(np.array([joint], np.float32))
        body.set_qvel(np.zeros(1, np.float32))
