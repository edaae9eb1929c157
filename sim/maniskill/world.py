# SPDX-License-Identifier: Apache-2.0
"""One of ManiSkill's own tasks on the CPU: its scripted expert and failures of it, images, and the state."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.instructions import NEVER, Instruction, around, own_label
from lrm_ros.sim.maniskill.arms import CLOSED, OPEN, PandaArm, SO100Arm, Waypoint
from lrm_ros.sim.maniskill.tasks import COLOURS, TASKS
from lrm_ros.sim.render.coarse import coarsen
from lrm_ros.sim.twin.world import use_software_vulkan

GRASP_FORCE = 0.5  # force on an object from which a finger holds it [N]
REST_SPEED = 0.04  # speed of the tool below which the SO-100 stands still [m/s]
FIELD_OF_VIEW = 0.75  # [rad]


class ManiSkillWorld:
    """A ManiSkill task whose arm is driven by absolute joint targets at 20 Hz."""

    so100 = False  # else a Panda

    def __init__(self, task: str, size: int = 96) -> None:
        """Build the world.

        Args:
            task: a name in ``lrm_ros.sim.maniskill.tasks.TASKS``.
            size: width and height of the pictures [pixels].
        """
        self.task = TASKS[task]
        self.so100 = task.endswith("SO100-v1")
        self._build(task, size)

    def _build(self, name: str, size: int) -> None:
        """Build ManiSkill's environment of a name."""
        use_software_vulkan()
        import gymnasium as gym
        import mani_skill.envs  # noqa: F401  (registers the tasks)

        from lrm_ros.sim.render.shaders import quick_shaders

        camera = {"width": size, "height": size, "fov": FIELD_OF_VIEW, "shader_config": quick_shaders()}
        self.task_env: Any = gym.make(
            name,
            num_envs=1,
            obs_mode="none",
            sim_backend="physx_cpu",
            render_backend="gpu" if "VK_ICD_FILENAMES" not in os.environ else "cpu",
            control_mode="pd_joint_pos",
            sensor_configs=camera,
            max_episode_steps=1_000_000,
            **({} if self.so100 else {"robot_uids": "panda"}),
        ).unwrapped
        self.fps = float(self.task_env.control_freq)
        self.instruction = ""
        self._texts: tuple[Instruction, ...] = ()
        self._motion = 0.0  # of the tool in the last control step [m]
        self.first: dict[str, NDArray[np.float64]] = {}
        agent = self.task_env.agent
        self.arm: PandaArm | SO100Arm = SO100Arm(agent) if self.so100 else PandaArm(agent)
        for link in agent.robot._objs[0].links:
            coarsen(link.entity, 0.008)

    def reset(self, seed: int) -> None:
        """Start a new episode; the seed fixes scene, camera, colour, instruction and noise.

        What follows from the same actions may still differ in the last digits (see ``twin.world.World.reset``).
        """
        rng = np.random.default_rng([seed, 2])
        self._noise_of = np.random.default_rng([seed, 3])
        self.task_env.reset(seed=int(seed))
        colour = str(rng.choice(list(COLOURS)))
        if self.task.painted:
            self._paint(self.task.painted, COLOURS[colour])
        if self.task.shown:
            getattr(self.task_env, self.task.shown).show_visual()
        self.instruction = str(rng.choice(self.task.instructions)).format(colour=colour)
        self._texts = around(
            self.instruction,
            [text.format(colour=colour) for text in self.task.instructions],
            np.random.default_rng([seed, 5]),
            colour if self.task.painted else "",
            list(COLOURS),
        )
        self._noise = rng.uniform(0.0, 0.006)
        self._look(np.array(self.task.eye) + rng.uniform(-0.02, 0.02, 3), np.array(self.task.target))
        self._begin()

    def _begin(self) -> None:
        """Take the arm as it stands, and remember where everything is."""
        self._send(self.arm.reset())  # without a step the contacts would still be those of the last episode
        self.arm.reset()
        self.first = {name: self.position(name) for name in self._actors()} | {"tool": self.arm.tool}

    # --- state ---------------------------------------------------------------------------------------------------

    def _actors(self) -> list[str]:
        from mani_skill.utils.structs.actor import Actor

        return [name for name, value in vars(self.task_env).items() if isinstance(value, Actor)]

    def position(self, name: str) -> NDArray[np.float64]:
        """Return an actor's position (3,) [m]; the name is the task's attribute, e.g. ``"cube"``."""
        return np.asarray(getattr(self.task_env, name)._objs[0].pose.p, np.float64)

    def rotation(self, name: str) -> NDArray[np.float64]:
        """Return an actor's rotation (3, 3)."""
        return getattr(self.task_env, name)._objs[0].pose.to_transformation_matrix()[:3, :3].astype(np.float64)

    def grasp_yaw(self, name: str) -> float:
        """Return the yaw nearest to the present one at which the fingers close on two faces of a lying box."""
        axis = self.rotation(name)[:, 0]
        quarter = math.pi / 2
        present = self.arm.now.yaw
        return present + (math.atan2(axis[1], axis[0]) - present + quarter / 2) % quarter - quarter / 2

    def is_grasping(self, name: str) -> bool:
        """Whether both fingers press on an actor, with half a newton or more."""
        # ManiSkill's is_grasping asks for more, the direction, and costs as much as three control steps.
        thing, agent = getattr(self.task_env, name)._objs[0], self.task_env.agent
        force = {link._objs[0].entity: np.zeros(3) for link in (agent.finger1_link, agent.finger2_link)}
        for contact in self.task_env.scene.sub_scenes[0].get_contacts():
            first, second = (body.entity for body in contact.bodies)
            finger = second if first == thing else first if second == thing else None
            if finger in force:
                impulse = np.sum([point.impulse for point in contact.points], axis=0)
                force[finger] = force[finger] + impulse * self.task_env.sim_freq
        return all(np.linalg.norm(newtons) >= GRASP_FORCE for newtons in force.values())

    @property
    def progress(self) -> float:
        """Progress in [0, 1]; see the task's function in ``lrm_ros.sim.maniskill.progress``."""
        return self.task.progress(self)

    @property
    def done(self) -> bool:
        """The task is done, by ManiSkill's own measure.

        Whether the SO-100 stands still is seen by its tool: a wrist that holds a cube never stops rolling in PhysX.
        """
        info = self.task_env.evaluate()
        if self.so100:
            return bool(info["is_obj_placed"][0]) and self._motion < REST_SPEED / self.fps
        return bool(info["success"][0])

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """What could be asked of the scene, the episode's own instruction first."""
        return self._texts

    def labels(self) -> list[tuple[float, float]]:
        """Return progress and done of each of ``instructions``; all but the own one cannot be done."""
        return [own_label(self.progress, self.done), *[NEVER] * (len(self._texts) - 1)]

    def things(self) -> list[tuple[str, int, bool]]:
        """Return nothing: what is where is not labelled here."""
        return []

    def where(self) -> list[int]:
        """Return nothing, as :meth:`things`."""
        return []

    # --- image ---------------------------------------------------------------------------------------------------

    def image(self) -> NDArray[np.uint8]:
        """Render the camera: (H, W, 3) uint8 RGB."""
        self.task_env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
        sensor = self.task_env._sensors["base_camera"]
        sensor.capture()
        image = sensor.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"][0].cpu().numpy()
        return np.ascontiguousarray(image)

    def segmentation(self) -> NDArray[np.int16]:
        """Return which actor each pixel of the last picture shows, (H, W)."""
        sensor = self.task_env._sensors["base_camera"]
        picture = sensor.get_obs(rgb=False, depth=False, position=False, segmentation=True)["segmentation"]
        return picture[0, ..., 0].cpu().numpy()

    def _look(self, eye: NDArray, target: NDArray) -> None:
        from mani_skill.utils import sapien_utils

        pose = sapien_utils.look_at(eye.astype(np.float32).tolist(), target.astype(np.float32).tolist())
        self.task_env._sensors["base_camera"].camera._render_cameras[0].local_pose = pose.sp

    def _paint(self, name: str, rgb: tuple[float, float, float]) -> None:
        import sapien

        entity = getattr(self.task_env, name)._objs[0]
        for shape in entity.find_component_by_type(sapien.render.RenderBodyComponent).render_shapes:
            shape.material.set_base_color([*rgb, 1.0])

    # --- motion --------------------------------------------------------------------------------------------------

    def expert(self, rng: np.random.Generator, miss: NDArray[np.float64]) -> Iterator[None]:
        """Do the task by the waypoints of ``lrm_ros.sim.maniskill.experts``."""
        for point in self.task.expert(self, miss):
            yield from self._go(point)

    def release(self, rng: np.random.Generator) -> Iterator[None]:
        """Open the gripper, then leave upwards."""
        now = self.arm.now
        yield from self._go(replace(now, opening=OPEN, steps=4))
        aside = np.append(rng.uniform(-0.05, 0.05, 2), rng.uniform(0.05, 0.12)) * self.arm.reach
        yield from self._go(replace(now, position=now.position + aside, opening=OPEN))
        yield from self.hold(int(rng.integers(4, 20)))

    def hold(self, steps: int) -> Iterator[None]:
        """Stay, keeping what is held."""
        yield from self._go(replace(self.arm.now, steps=steps))

    def random_motion(self, rng: np.random.Generator) -> Iterator[None]:
        """Move between random points above the table, at last about to the start."""
        (low, high), yaw = self.arm.box, self.arm.now.yaw
        goals = [*rng.uniform(low, high, (int(rng.integers(3, 6)), 3)), self.arm.tool + rng.uniform(-0.03, 0.03, 3)]
        for goal in goals:
            yield from self._go(Waypoint(goal, yaw + rng.uniform(-0.5, 0.5), float(rng.choice([CLOSED, OPEN]))))

    def _go(self, point: Waypoint) -> Iterator[None]:
        """Move the tool from where it was last sent to a waypoint.

        Raises:
            Unreachable: the arm cannot reach it.
        """
        joints = self.arm.joints
        for target in self.arm.path(point):
            noise = self._noise_of.normal(0.0, self._noise, joints) * (point.steps == 0)  # still while it waits
            self._send(np.append(target[:joints] + noise, target[joints]))
            yield

    def _send(self, target: NDArray) -> None:
        import torch

        before = self.arm.tool
        self.task_env._step_action(torch.from_numpy(target.astype(np.float32)))
        self._motion = float(np.linalg.norm(self.arm.tool - before))
