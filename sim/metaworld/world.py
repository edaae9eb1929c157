# SPDX-License-Identifier: Apache-2.0
"""One Meta-World task on the CPU: its scripted policy and failures of it, images, and progress from the state."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.behaviour import TOUCH_PROGRESS, approach_progress
from lrm_ros.sim.instructions import NEVER, Instruction, around, own_label
from lrm_ros.sim.metaworld.tasks import TASKS

MAX_STEPS = 180  # control steps the policy has; a tenth more than the slowest needs in 19 of 20 episodes
REACHED = 0.05  # distance of the fingers to the object from which they touch it, about [m]
MOVED_PROGRESS = 0.95  # progress just before the task is done


def use_headless_mujoco() -> None:
    """Let MuJoCo render without a screen, in software where there is no GPU driver.

    Must run before MuJoCo is imported; settings of the user's are kept.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    if os.environ["MUJOCO_GL"] == "egl" and not Path("/dev/nvidiactl").exists():
        os.environ.setdefault("EGL_PLATFORM", "surfaceless")
        os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", "0")


class MetaWorldWorld:
    """A Meta-World task with its scripted policy, driven by displacements of the hand at 80 Hz."""

    def __init__(self, task: str, size: int = 96) -> None:
        """Build the world.

        Args:
            task: a name in ``lrm_ros.sim.metaworld.tasks.TASKS``.
            size: width and height of the pictures [pixels].

        Raises:
            ImportError: ``metaworld`` is not installed.
        """
        use_headless_mujoco()
        try:
            import mujoco
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
            from metaworld.policies import ENV_POLICY_MAP
        except ImportError as error:
            raise ImportError(f"Meta-World tasks need 'pip install metaworld packaging' ({error})") from error
        if os.environ["MUJOCO_GL"] == "egl":  # MuJoCo reads it when it is imported, and ManiSkill may have done that
            from mujoco import egl, gl_context

            gl_context.GLContext = egl.GLContext
        self.task = TASKS[task]
        self._env: Any = ALL_V3_ENVIRONMENTS[task]()
        self._policy = ENV_POLICY_MAP[task]()
        # The goal goes into the observation, and each seed draws a new scene; reset(seed) ignores its argument.
        self._env._partially_observable = False
        del self._env.sawyer_observation_space
        self._env._set_task_called = True
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._door = task == "door-open-v3"
        self.fps = 1.0 / self._env.dt
        self.instruction = ""
        self._texts: tuple[Instruction, ...] = ()
        self._mujoco = mujoco
        self._env.model.vis.quality.offsamples = 0  # anti-aliasing would cost half of the rendering time
        self._renderer = mujoco.Renderer(self._env.model, size, size)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._camera = mujoco.MjvCamera()
        atexit.register(_close, weakref.ref(self._renderer))

    def reset(self, seed: int) -> None:
        """Start a new episode; the seed fixes scene, camera and instruction."""
        rng = np.random.default_rng([seed, 2])
        self.instruction = str(rng.choice(self.task.instructions))
        self._texts = around(self.instruction, self.task.instructions, np.random.default_rng([seed, 5]))
        self._env.seed(seed)
        self._env.reset()
        self._mujoco.mj_forward(self._env.model, self._env.data)  # some resets leave the sites where they were
        self._observation = self._env._get_obs()
        _, self._info = self._env.evaluate_state(self._observation, np.zeros(4, np.float32))
        self._noise = rng.uniform(0.0, 0.1)
        self._effort = -1.0
        self._start = self._distances()
        self._camera.lookat = np.array([-0.04, 0.68, 0.10]) + rng.uniform(-0.02, 0.02, 3)
        self._camera.distance = rng.uniform(0.88, 0.96)
        self._camera.azimuth = 125 + rng.uniform(-4, 4)
        self._camera.elevation = -32 + rng.uniform(-3, 3)

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

    def segmentation(self) -> NDArray[np.int16]:
        """Return which body each pixel shows, (H, W).

        Raises:
            NotImplementedError: it is not rendered; ``things`` names nothing to look for.
        """
        raise NotImplementedError("Meta-World's pictures have no segmentation")

    def image(self) -> NDArray[np.uint8]:
        """Render the camera: (H, W, 3) uint8 RGB."""
        self._renderer.update_scene(self._env.data, self._camera)
        return self._renderer.render()

    @property
    def done(self) -> bool:
        """The task is done, by Meta-World's own measure."""
        return bool(self._info["success"])

    @property
    def progress(self) -> float:
        """Progress in [0, 1], relative to the start of the episode.

        Up to 0.4 for the fingers' way to the object, up to 0.55 more for the object's way to the target
        (``obj_to_target``: of a drawer, button or handle the way it still has to go), 1 when the task is done.
        """
        if self.done:
            return 1.0
        (hand, left), (hand_start, left_start) = self._distances(), self._start
        moved = approach_progress(left, left_start, self.task.enough)
        if not self.task.reach:
            return MOVED_PROGRESS * moved
        reached = approach_progress(hand, hand_start, REACHED)
        return TOUCH_PROGRESS * reached + (MOVED_PROGRESS - TOUCH_PROGRESS) * moved

    def _distances(self) -> tuple[float, float]:
        """Distance of the fingers to the object and of the object to its target [m]."""
        hand = float(np.linalg.norm(self._env.tcp_center - self._env._get_pos_objects()[:3]))
        if self._door:  # this task reports no distance
            return hand, float(abs(self._observation[4] - self._env._target_pos[0]))
        return hand, float(self._info["obj_to_target"])

    def _step(self, action: NDArray) -> None:
        self._effort = float(np.clip(action[3], -1, 1))
        action = np.clip(action, -1, 1).astype(np.float32)
        self._observation, _, _, _, self._info = self._env.step(action)

    def expert(self, rng: np.random.Generator, miss: NDArray[np.float64]) -> Iterator[None]:
        """Follow the scripted policy until the task is done, then stay, or go on pressing what springs back."""
        left = MAX_STEPS
        while left > 0:
            left -= 1
            if self.done and not self.task.springs:
                yield from self.hold(int(rng.integers(5, 14)))
                return
            if self.done:
                left = min(left, 20)
            seen = self._observation.copy()
            seen[4:7] += miss
            action = np.clip(np.asarray(self._policy.get_action(seen), np.float64), -1, 1)
            action[:3] += rng.normal(0, self._noise, 3)
            self._step(action)
            yield

    def release(self, rng: np.random.Generator) -> Iterator[None]:
        """Open the gripper, then leave upwards."""
        aside = rng.uniform(-0.5, 0.5, 2)
        for step in range(int(rng.integers(36, 60))):
            self._step(np.array([*aside, 1.0, -1.0]) if step > 9 else np.array([0.0, 0.0, 0.0, -1.0]))
            yield

    def hold(self, steps: int) -> Iterator[None]:
        """Stay, keeping what is held."""
        for _ in range(steps * 2):
            self._step(np.array([0.0, 0.0, 0.0, self._effort]))
            yield

    def random_motion(self, rng: np.random.Generator) -> Iterator[None]:
        """Move between random points above the table, at last about to the start."""
        low, high = np.array([-0.3, 0.45, 0.12]), np.array([0.3, 0.85, 0.4])
        goals = [
            *rng.uniform(low, high, (int(rng.integers(3, 6)), 3)),
            self._observation[:3] + rng.uniform(-0.06, 0.06, 3),
        ]
        for goal in goals:
            effort = rng.choice([-1.0, 1.0])
            for _ in range(int(rng.integers(18, 36))):
                self._step(np.append(10 * (goal - self._observation[:3]), effort))
                yield


def _close(renderer: weakref.ref[Any]) -> None:
    """Free a renderer at exit; MuJoCo itself does it too late, when EGL is gone, and complains."""
    alive = renderer()
    if alive is not None:
        alive.close()
