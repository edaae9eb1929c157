# SPDX-License-Identifier: Apache-2.0
"""ManiSkill task: an SO-100 arm puts a toy animal into a bowl (the real-robot task of the paper, section IV-C).

The toy is built of primitives; animal, colour, size and pose are drawn from the seed, over most of the table the arm
can reach. A soft toy and compliant fingers make the real grasp forgiving; here the gripper motor is torque-limited and
the toy has high friction. The difficulty is coverage: where the toy lies, not how it is squeezed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import sapien
import torch
from mani_skill.agents.controllers import PDJointPosControllerConfig
from mani_skill.agents.registration import register_agent
from mani_skill.agents.robots.so100.so_100 import SO100
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.sensors.camera import CameraConfig
from mani_skill.utils import sapien_utils
from mani_skill.utils.building.ground import build_ground
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs.pose import Pose
from mani_skill.utils.structs.types import SceneConfig, SimConfig
from transforms3d.euler import euler2quat

from lrm_ros.config import CameraSpec
from lrm_ros.sim.instructions import NEVER, UNKNOWN, Instruction
from lrm_ros.sim.render.coarse import coarsen
from lrm_ros.sim.render.shaders import quick_shaders
from lrm_ros.sim.seen import HELD
from lrm_ros.sim.twin.instructions import Goal, asked
from lrm_ros.sim.twin.things import (
    BOWL_CENTRE,
    BOWL_HEIGHT,
    BOWL_RADIUS,
    build_bowl,
    build_toy,
    paint,
    parked,
    picture,
    position,
    repaint,
    speed,
)
from lrm_ros.sim.twin.toys import ANIMALS, COLOURS, instruction

REST = np.array([0.0, -1.2, 1.1, 1.2, 0.0, 0.2], dtype=np.float32)
BOWL_JITTER = 0.015
PAN_AXIS = (0.0452, 0.0)
SPAWN_RADIUS = (0.115, 0.24)  # distance of the toy from the arm's pan axis [m]
SPAWN_ANGLE = (-0.12, 0.95)  # its direction, left of straight ahead [rad]
AT_REST = 0.03  # [m/s]
GRASP_FORCE = 0.5  # force on the toy from which a jaw holds it [N]
REST_STEPS = 3


@register_agent()
class SO100Twin(SO100):
    """SO-100 with position control and a gripper motor whose torque is limited, as the real servo's is."""

    uid = "so100_twin"

    @property
    def _controller_configs(self) -> dict[str, Any]:
        position = PDJointPosControllerConfig(
            [joint.name for joint in self.robot.active_joints],
            lower=None,
            upper=None,
            stiffness=[1e3] * 5 + [10.0],
            damping=[1e2] * 5 + [1.0],
            force_limit=[100.0] * 5 + [1.0],
            normalize_action=False,
        )
        return {"pd_joint_pos": copy.deepcopy(position)}

    def _after_loading_articulation(self) -> None:
        super()._after_loading_articulation()
        for link in self.robot.links:
            for body in link._objs:
                coarsen(body.entity, 0.006, small=0)


@register_env("PlaceToyInBowl-v1", max_episode_steps=200)
class PlaceToyInBowlEnv(BaseEnv):
    """Toy animal to bowl. Success: the toy is in the bowl, released, and at rest for three control steps."""

    SUPPORTED_ROBOTS: ClassVar[list[str]] = ["so100_twin"]
    MARKED: ClassVar[bool] = False  # whether the animals have what tells them apart

    def __init__(self, *args: Any, image_size: int = 96, desk: Sequence[CameraSpec] = (), **kwargs: Any) -> None:
        """Build the task.

        Args:
            args: of ManiSkill's environment.
            image_size: width and height of the front camera [pixels].
            desk: the cameras of a desk instead: ``front`` at the same place, ``wrist`` on the gripper, of any size.
            kwargs: of ManiSkill's environment.
        """
        self._image_size = image_size
        self._desk = tuple(desk)
        self._animal = ""
        self._colour = ""
        self._quiet_steps = 0
        self._asked: list[tuple[Instruction, Goal | None]] = []
        super().__init__(*args, robot_uids="so100_twin", **kwargs)

    @property
    def _default_sim_config(self) -> SimConfig:
        return SimConfig(sim_freq=120, control_freq=10, scene_config=SceneConfig(contact_offset=0.005))

    @property
    def _default_sensor_configs(self) -> list[CameraConfig]:
        pose = sapien_utils.look_at(eye=[0.47, 0.0, 0.40], target=[0.195, 0.0, 0.02])
        size, shaders = self._image_size, quick_shaders()
        if not self._desk:
            return [CameraConfig("front", pose, size, size, 0.86, 0.01, 10, shader_config=shaders)]
        # Beside the gripper, with a view of both jaws and what is between them; they point along -y of this link.
        on_jaw = sapien_utils.look_at(eye=[-0.05, 0.03, 0.065], target=[-0.014, -0.09, 0.0], up=[-1, 0, 0])
        places = {
            "front": {"pose": pose, "fov": 0.86},
            "wrist": {"pose": on_jaw, "fov": 1.2, "mount": self.agent.robot.links_map["Fixed_Jaw"]},
        }
        common = {"near": 0.01, "far": 10, "shader_config": shaders}
        return [
            CameraConfig(camera.name, width=camera.width, height=camera.height, **places[camera.name], **common)
            for camera in self._desk
        ]

    @property
    def _default_human_render_camera_configs(self) -> CameraConfig:
        pose = sapien_utils.look_at(eye=[0.62, 0.25, 0.42], target=[0.17, 0.0, 0.03])
        return CameraConfig("render_camera", pose, 640, 480, 0.75, 0.01, 10, shader_config=quick_shaders())

    def _load_agent(self, options: dict) -> None:
        super()._load_agent(options, sapien.Pose(p=[0, 0, 0], q=euler2quat(0, 0, np.pi / 2)))

    def _load_lighting(self, options: dict) -> None:
        for scene in self.scene.sub_scenes:
            scene.set_ambient_light([0.55, 0.55, 0.55])
            scene.add_directional_light([-0.4, 0.3, -1.0], [0.8, 0.8, 0.8], shadow=False)

    def _load_scene(self, options: dict) -> None:
        build_ground(self.scene, floor_width=4, altitude=-0.02)
        table = self.scene.create_actor_builder()
        table.add_box_collision(half_size=[0.35, 0.45, 0.01])
        table.add_box_visual(half_size=[0.35, 0.45, 0.01], material=paint((0.62, 0.55, 0.47)))
        table.initial_pose = sapien.Pose(p=[0.2, 0, -0.01])
        table.build_static("table")
        self.bowl = build_bowl(self.scene)
        self.toys = {name: build_toy(self.scene, name, i, marked=self.MARKED) for i, name in enumerate(ANIMALS)}

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        rng = self._batched_episode_rng[int(env_idx[0])]
        self._quiet_steps = 0
        self._animal = str(rng.choice(list(ANIMALS)))
        self._colour = str(rng.choice(list(COLOURS)))
        radius = float(np.sqrt(rng.uniform(SPAWN_RADIUS[0] ** 2, SPAWN_RADIUS[1] ** 2)))
        angle = float(rng.uniform(*SPAWN_ANGLE))
        x, y = PAN_AXIS[0] + radius * np.cos(angle), PAN_AXIS[1] + radius * np.sin(angle)
        yaw = rng.uniform(-np.pi, np.pi)
        bowl = np.array(BOWL_CENTRE) + rng.uniform(-BOWL_JITTER, BOWL_JITTER, 2)
        self.bowl.set_pose(Pose.create_from_pq(torch.tensor([[bowl[0], bowl[1], 0.0]], dtype=torch.float32)))
        for i, (name, toy) in enumerate(self.toys.items()):
            pose = parked(i)
            picture(toy).visibility = float(name == self._animal)
            if name == self._animal:
                height = ANIMALS[name][0][2] + 0.006
                pose = sapien.Pose(p=[x, y, height + 0.001], q=euler2quat(0, 0, yaw))
                repaint(toy, COLOURS[self._colour])
            toy.disable_gravity = name != self._animal
            toy.set_pose(pose)
            toy.set_linear_velocity(torch.zeros(3))
            toy.set_angular_velocity(torch.zeros(3))
        self.agent.reset(REST + np.append(rng.normal(0, 0.02, 5), 0.0).astype(np.float32))
        self._ask(rng)

    def _ask(self, state: np.random.RandomState) -> None:
        """Draw what could be asked of the scene; the last thing that is drawn, so that scenes are what they were."""
        rng = np.random.default_rng(state.randint(2**31))
        toys = [(colour, animal) for colour, animal, _ in self._toys_here()]
        self._asked = asked(toys, list(self._vessels_here()), self._own_goal(), rng)

    @property
    def toy(self) -> Any:
        """The toy animal of this episode."""
        return self.toys[self._animal]

    @property
    def instruction(self) -> str:
        """Language instruction of the episode."""
        return instruction(self._colour, self._animal)

    def after_control_step(self) -> None:
        """Count for how many control steps the toy has been lying in the bowl."""
        self._quiet_steps = self._quiet_steps + 1 if self._placed(self.toy, self.bowl) else 0

    def _placed(self, toy: Any, vessel: Any) -> bool:
        return self._in_vessel(toy, vessel) and speed(toy) < AT_REST and not self._grasps(toy)

    def _in_vessel(self, toy: Any, vessel: Any) -> bool:
        return self._distance(toy, vessel) < BOWL_RADIUS * 0.85 and bool(position(toy)[2] < BOWL_HEIGHT + 0.012)

    def _distance(self, toy: Any, vessel: Any) -> float:
        return float(np.hypot(*(position(toy) - position(vessel))[:2]))

    @property
    def grasped(self) -> bool:
        """Whether both jaws press on the toy."""
        return self._grasps(self.toy)

    def _grasps(self, actor: Any) -> bool:
        # ManiSkill's is_grasping looks through all contacts twice and costs as much as ten steps of the physics.
        toy = actor._objs[0]
        force = dict.fromkeys((self.agent.finger1_link.name, self.agent.finger2_link.name), np.zeros(3))
        for contact in self.scene.sub_scenes[0].get_contacts():
            first, second = (body.entity for body in contact.bodies)
            jaw = second if first == toy else first if second == toy else None
            if jaw is not None and jaw.name in force:
                impulse = np.sum([point.impulse for point in contact.points], axis=0)
                force[jaw.name] = force[jaw.name] + impulse * self.sim_freq
        return all(np.linalg.norm(newtons) >= GRASP_FORCE for newtons in force.values())

    @property
    def progress(self) -> float:
        """Simulator truth: how far the state is towards the goal, in [0, 1]; a function of the state, not of time.

        Reaching counts to 0.35, holding the toy 0.4, carrying it to the bowl up to 0.85, lying in the bowl but
        held or moving 0.9, done 1.
        """
        return self._progress_into(self.toy, self.bowl)

    def _progress_into(self, toy: Any, vessel: Any) -> float:
        if self._placed(toy, vessel):
            return 1.0
        if self._in_vessel(toy, vessel):
            return 0.9
        if self._grasps(toy):
            return 0.4 + 0.45 * float(np.clip(1 - (self._distance(toy, vessel) - 0.02) / 0.25, 0, 1))
        return 0.35 * self._reach(toy)

    def _progress_out(self, toy: Any, vessel: Any) -> float:
        """Out of a vessel: reaching counts to 0.35, holding 0.4, lifted out and held 0.85, on the table 1."""
        if self._grasps(toy):
            away = self._distance(toy, vessel) / (1.5 * BOWL_RADIUS)
            height = (float(position(toy)[2]) - 0.02) / BOWL_HEIGHT
            return 0.4 + 0.45 * float(np.clip(max(away, height), 0, 1))
        if self._distance(toy, vessel) > 1.15 * BOWL_RADIUS and position(toy)[2] < 0.03:
            return 1.0
        return 0.35 * self._reach(toy)

    def _reach(self, toy: Any) -> float:
        """How near the tool is to a toy: 1 at it, 0 at 27 cm and beyond."""
        tips = (self.agent.finger1_tip, self.agent.finger2_tip)
        tool = sum(tip._objs[0].entity_pose.p for tip in tips) / 2
        return float(np.clip(1 - (float(np.linalg.norm(tool - position(toy))) - 0.02) / 0.25, 0, 1))

    # --- other instructions for the scene ----------------------------------------------------------------------------

    def _toys_here(self) -> list[tuple[str, str, Any]]:
        """Return colour, animal and actor of each toy on the table."""
        return [(self._colour, self._animal, self.toy)]

    def _vessels_here(self) -> dict[str, Any]:
        """Return the vessels on the table by their names."""
        return {"bowl": self.bowl}

    def _own_goal(self) -> Goal:
        """Return the goal of the episode's instruction."""
        return Goal(0, "bowl")

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """What could be asked of the scene, the episode's own instruction first."""
        return tuple(instruction for instruction, _ in self._asked)

    def labels(self) -> list[tuple[float, float]]:
        """Return progress and done of each of ``instructions`` by the present state; NaN: the state does not tell.

        What lies in a vessel and still moves is not labelled as done or not: one image does not show it. "Out of the
        bowl" has no label while the toy is in another vessel.
        """
        return [NEVER if goal is None else self._label(goal) for _, goal in self._asked]

    def _label(self, goal: Goal) -> tuple[float, float]:
        toy, vessels = self._toys_here()[goal.toy][2], self._vessels_here()
        vessel = vessels[goal.vessel]
        if not goal.out:
            progress = self._progress_into(toy, vessel)
            moving = progress == 0.9 and not self._grasps(toy)
            return progress, UNKNOWN if moving else float(progress == 1.0)
        if any(self._in_vessel(toy, other) for other in vessels.values() if other is not vessel):
            return UNKNOWN, UNKNOWN
        progress = self._progress_out(toy, vessel)
        between = progress < 1.0 and not self._grasps(toy) and not self._in_vessel(toy, vessel)
        return (UNKNOWN, UNKNOWN) if between else (progress, float(progress == 1.0))

    def things(self) -> list[tuple[str, int, bool]]:
        """Return name, number in a segmentation, and whether it can be moved, of each toy and vessel."""
        toys = [(f"{colour} {animal}", int(toy.per_scene_id[0]), True) for colour, animal, toy in self._toys_here()]
        return toys + [(name, int(vessel.per_scene_id[0]), False) for name, vessel in self._vessels_here().items()]

    def where(self) -> list[int]:
        """Return what each of ``things`` is in: 0 nothing, k + 1 thing k, or held (``lrm_ros.sim.seen``)."""
        toys, vessels = self._toys_here(), list(self._vessels_here().values())

        def of(toy: Any) -> int:
            inside = [len(toys) + k + 1 for k, vessel in enumerate(vessels) if self._in_vessel(toy, vessel)]
            return HELD if self._grasps(toy) else inside[0] if inside else 0

        return [of(toy) for _, _, toy in toys] + [0] * len(vessels)

    def evaluate(self) -> dict[str, torch.Tensor]:
        """Simulator truth: is the toy in the bowl, released and at rest?"""
        return {"success": torch.tensor([self._quiet_steps >= REST_STEPS], device=self.device)}

    def _get_obs_extra(self, info: dict) -> dict:
        return {}
