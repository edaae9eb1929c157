# SPDX-License-Identifier: Apache-2.0
"""ManiSkill task: a Panda at a table with the things an episode needs (``lrm_ros.sim.tabletop.scenes``); no reward."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import sapien
import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.sensors.camera import CameraConfig
from mani_skill.utils import sapien_utils
from mani_skill.utils.building import actors
from mani_skill.utils.registration import register_env
from mani_skill.utils.scene_builder.table import TableSceneBuilder

from lrm_ros.sim.tabletop.scenes import BOX, SHAPES, TARGETS, Shape

_WHITE = (1.0, 1.0, 1.0, 1.0)


def _away(number: int) -> tuple[float, float, float]:
    """Return where a thing stays that an episode does not need (3,) [m]; one a metre from the next."""
    return 5.0, 5.0 + number, 0.5


@register_env("Tabletop-v1", max_episode_steps=1_000_000)
class TabletopEnv(BaseEnv):
    """Things to grasp, things to put them on or into, and targets; a reset puts all of them away."""

    SUPPORTED_ROBOTS: ClassVar[list[str]] = ["panda"]

    def __init__(self, *args: Any, robot_uids: str = "panda", **kwargs: Any) -> None:
        """Build the task."""
        self.parts: list[str] = []
        super().__init__(*args, robot_uids=robot_uids, **kwargs)

    @property
    def _default_sensor_configs(self) -> list[CameraConfig]:
        return [CameraConfig("base_camera", sapien_utils.look_at([0.5, 0.3, 0.4], [0, 0, 0]), 96, 96, 0.75, 0.01, 10)]

    def _load_agent(self, options: dict) -> None:
        super()._load_agent(options, sapien.Pose(p=[-0.615, 0, 0]))

    def _load_scene(self, options: dict) -> None:
        self._table = TableSceneBuilder(env=self, robot_init_qpos_noise=0.02)
        self._table.build()
        self._load_things()

    def _load_things(self) -> None:
        """Build what stands and lies on the table."""
        for name, shape in SHAPES.items():
            self._add(name, self._build(name, shape))
        self._add("box", self._build_box("box"))
        for name, radius in TARGETS.items():
            target = actors.build_red_white_target(
                self.scene, radius, 1e-5, name, "kinematic", False, initial_pose=self._away()
            )
            self._add(name, target)
        goal = actors.build_sphere(
            self.scene, 0.02, [0, 1, 0, 1], "goal", "kinematic", False, initial_pose=self._away()
        )
        self._add("goal", goal)
        self._add("other_box", self._build_box("other_box"))

    def _add(self, name: str, actor: Any) -> None:
        setattr(self, name, actor)
        self.parts.append(name)

    def _away(self) -> sapien.Pose:
        return sapien.Pose(_away(len(self.parts)))

    def _build(self, name: str, shape: Shape) -> Any:
        builder = self.scene.create_actor_builder()
        material = sapien.render.RenderMaterial(base_color=_WHITE)
        upright = sapien.Pose(q=[np.sqrt(0.5), 0, np.sqrt(0.5), 0])  # SAPIEN's cylinders lie along x
        if shape.form == "box":
            builder.add_box_collision(half_size=shape.half)
            builder.add_box_visual(half_size=shape.half, material=material)
        elif shape.form == "cylinder":
            builder.add_cylinder_collision(upright, shape.half[0], shape.half[2])
            builder.add_cylinder_visual(upright, shape.half[0], shape.half[2], material)
        else:
            builder.add_sphere_collision(radius=shape.half[0])
            builder.add_sphere_visual(radius=shape.half[0], material=material)
        builder.set_initial_pose(self._away())
        return builder.build_kinematic(name) if shape.fixed else builder.build(name)

    def _build_box(self, name: str) -> Any:
        """Build an open box whose origin is the middle of its floor's upper side."""
        builder = self.scene.create_actor_builder()
        material = sapien.render.RenderMaterial(base_color=_WHITE)
        inside, wall, height = BOX.half[0], 0.004, BOX.half[2]
        sides = [([0, 0, -wall], [inside + wall, inside + wall, wall])]
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            half = [wall / 2 if x else inside + wall, wall / 2 if y else inside + wall, height / 2]
            sides.append(([x * (inside + wall / 2), y * (inside + wall / 2), height / 2], half))
        for centre, half in sides:
            builder.add_box_collision(sapien.Pose(centre), half)
            builder.add_box_visual(sapien.Pose(centre), half, material)
        builder.set_initial_pose(self._away())
        return builder.build_kinematic(name)

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        self._table.initialize(env_idx)
        for number, name in enumerate(self.parts):
            self.put(name, _away(number))

    def put(self, name: str, position: Any, yaw: float = 0.0) -> None:
        """Put a part somewhere, at rest.

        Args:
            name: one of ``parts``.
            position: (3,) [m].
            yaw: turn about the vertical [rad].
        """
        entity = getattr(self, name)._objs[0]
        lying = sapien.Pose(q=[np.sqrt(0.5), 0, np.sqrt(0.5), 0]) if name in TARGETS else sapien.Pose()
        entity.set_pose(sapien.Pose(position, [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]) * lying)
        body = entity.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)
        if body is not None and not body.kinematic:
            body.set_linear_velocity(np.zeros(3, np.float32))
            body.set_angular_velocity(np.zeros(3, np.float32))

    def evaluate(self) -> dict:
        """Return nothing: what is to be done differs from episode to episode."""
        return {}

    def _get_obs_extra(self, info: dict) -> dict:
        return {}
