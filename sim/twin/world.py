# SPDX-License-Identifier: Apache-2.0
"""One simulated world: joint targets in, joint states and (on demand) camera frames out.

Rendering is the expensive part on a CPU, so ``step`` does not render; ``frame`` does. ``succeeded`` is the simulator's
truth and is for evaluation, reports and the labels of training data only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.robot.limits import limited
from lrm_ros.types import Frame, Observation

_SOFTWARE_VULKAN = Path("/usr/share/vulkan/icd.d/lvp_icd.json")


def use_software_vulkan() -> None:
    """Point Vulkan at Mesa's software driver when the machine has no GPU driver and the user chose none.

    Must run before SAPIEN is imported.

    Raises:
        RuntimeError: neither a GPU driver nor the software driver is installed.
    """
    if "VK_ICD_FILENAMES" in os.environ or "VK_DRIVER_FILES" in os.environ or Path("/dev/nvidiactl").exists():
        return
    if not _SOFTWARE_VULKAN.exists():
        raise RuntimeError("no Vulkan driver: run 'make setup', or 'lrm doctor' to see what is missing")
    os.environ["VK_ICD_FILENAMES"] = str(_SOFTWARE_VULKAN)


class World:
    """A ManiSkill task with one arm, driven by absolute joint targets at the control rate."""

    def __init__(
        self, task: str = "PlaceToyInBowl-v1", contract: RobotContract | None = None, desk: bool = False
    ) -> None:
        """Build the world.

        Args:
            task: name of a ManiSkill task, such as that of ``sim.twin.place_toy_in_bowl``.
            contract: joints, limits, cameras and control rate; the default is the SO-100's.
            desk: the contract's cameras are those of a desk, ``front`` and ``wrist`` on the gripper, of any size; else
                there is one, which is square.

        Raises:
            ValueError: the twin has no such camera.
        """
        use_software_vulkan()
        import gymnasium as gym

        import lrm_ros.sim.twin.place_toy_in_bowl
        import lrm_ros.sim.twin.sort_toys  # noqa: F401  (both register a task)

        self.contract = contract or RobotContract()
        self.camera = self.contract.cameras[0]
        if desk and (others := {camera.name for camera in self.contract.cameras} - {"front", "wrist"}):
            raise ValueError(f"camera '{min(others)}': the twin's desk has the cameras front and wrist")
        if not desk and self.camera.width != self.camera.height:
            raise ValueError(f"camera '{self.camera.name}': the twin renders square images, got {self.camera}")
        self._env: Any = gym.make(
            task,
            num_envs=1,
            obs_mode="none",
            sim_backend="physx_cpu",
            render_backend="gpu" if "VK_ICD_FILENAMES" not in os.environ else "cpu",
            control_mode="pd_joint_pos",
            image_size=self.camera.width,
            max_episode_steps=1_000_000,
            **({"desk": self.contract.cameras} if desk else {}),
        ).unwrapped
        self._last: NDArray[np.float32] = np.zeros(len(self.contract.joints), dtype=np.float32)
        self.steps = 0
        self._dt_ns = round(1e9 / self.contract.control_hz)
        self._stamp_ns = 0

    @property
    def task_env(self) -> Any:
        """The ManiSkill environment, for scripted experts and labels."""
        return self._env

    @property
    def stamp_ns(self) -> int:
        """Simulated time [ns]; never goes back, not even at a reset."""
        return self._stamp_ns

    @property
    def instruction(self) -> str:
        """Language instruction of the episode."""
        return self._env.instruction

    @property
    def succeeded(self) -> bool:
        """Simulator truth: the task is done. For evaluation and labels only."""
        return bool(self._env.evaluate()["success"][0])

    @property
    def state(self) -> NDArray[np.float32]:
        """Joint positions (D,) [rad]."""
        return self._env.agent.robot._objs[0].qpos.astype(np.float32)

    def reset(self, seed: int, rebuild: bool = False) -> None:
        """Start a new episode; the seed fixes scene and arm.

        What follows from the same actions may still differ in the last digits with what was simulated before, and
        after contacts visibly: PhysX keeps state of its own. With ``rebuild`` the scene is built anew (half a second):
        this episode and those after it are then the same to the bit, whatever was before.
        """
        self._env.reset(seed=int(seed), options={"reconfigure": True} if rebuild else None)
        self._last = self.state
        self.steps = 0
        self._stamp_ns += self._dt_ns

    def limit(self, target: NDArray) -> NDArray[np.float32]:
        """Return the target that is really sent: inside the joint limits and near the previous target.

        Raises:
            ValueError: the target is not finite or has the wrong number of joints.
        """
        return limited(target, self._last, self.contract)

    def step(self, target: NDArray) -> NDArray[np.float32]:
        """Move for one control step without rendering.

        Args:
            target: (D,) absolute joint positions [rad].

        Returns:
            (D,) the target that was sent after limits [rad].
        """
        sent = self.limit(target)
        # What ManiSkill's pd_joint_pos controller does to the simulator, without its tensors.
        for joint, angle in zip(self._env.agent.robot.active_joints, sent.tolist(), strict=True):
            joint._objs[0].set_drive_target(angle)
        for _ in range(self._env._sim_steps_per_control):
            self._env.scene.step()
        self._env.after_control_step()
        self._last = sent
        self.steps += 1
        self._stamp_ns += self._dt_ns
        return sent

    def frame(self, camera: str = "") -> Frame:
        """Render a camera now, by default the contract's first."""
        name = camera or self.camera.name
        self._env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
        sensor = self._env._sensors[name]
        sensor.capture()
        image = sensor.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"][0].cpu().numpy()
        return Frame(self._stamp_ns, name, np.ascontiguousarray(image))

    def segmentation(self) -> NDArray[np.int16]:
        """Return which actor each pixel of the last picture of the contract's first camera shows, (H, W)."""
        sensor = self._env._sensors[self.camera.name]
        picture = sensor.get_obs(rgb=False, depth=False, position=False, segmentation=True)["segmentation"]
        return picture[0, ..., 0].cpu().numpy()

    def place_arm(self, joints: NDArray) -> None:
        """Put the arm somewhere at once, at rest, without a control step.

        Args:
            joints: (D,) positions [rad].
        """
        self._env.agent.reset(np.asarray(joints, np.float32))
        self._last = self.state

    def observe(self) -> Observation:
        """Render and return everything a policy sees."""
        return Observation(self._stamp_ns, {self.camera.name: self.frame()}, self.state, self.instruction)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()
