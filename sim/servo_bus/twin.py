# SPDX-License-Identifier: Apache-2.0
"""The twin's arm behind the bus: ManiSkill's SO-100, its toy and its bowl, driven by the servos' firmware.

A drive's target is the joint's drive target, its gain the stiffness, its limit the force limit; a limp joint has no
stiffness and little damping, and gravity pulls at it. With LeRobot's gain (P_Coefficient 16) and full torque, all of
them are those of the twin's own controller. Physics steps at its own rate, 120 Hz, and costs less than 0.1 ms a step.

Angles are ManiSkill's (haosulab/ManiSkill: mani_skill/assets/robots/so100/so100.urdf), as the twin's policies know
them. The zero of each is the middle of its range, as LeRobot's degrees want it. Signs and zeros of the arm are those of
the published SO-101, too (TheRobotStudio/SO-ARM100: Simulation/SO101/so101_new_calib.urdf): with every joint in the
middle of its range, forward kinematics of both put all axes in the same directions, and elbow_flex and wrist_flex at
the same places in front of and above shoulder_lift (28.0 and 112.6, then 134.9 and 5.2 mm further). A growing gripper
angle opens both. ``config/so100_bus.yaml`` says it for an arm node.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.calibration import MOUNTINGS
from lrm_ros.sim.servo_bus.joints import Drive, Joint, JointState
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.sim.servo_bus.servo import GAIN
from lrm_ros.sim.twin.world import World

FULL_GAIN = GAIN * 16 / 32  # duty for a rad of error at the P_Coefficient that LeRobot writes
LIMP_DAMPING = (1.0, 1.0, 1.0, 0.5, 0.2, 0.05)  # N m s/rad, assumed: a limp arm sinks within about a second
SNAPSHOT = 14  # numbers that tell another process what to render


class TwinJoints:
    """``joints.Joints`` of a simulated world. Not thread-safe: hold the server's lock.

    Attributes:
        world: the twin; only this object moves it.
        joints: names and mechanical stops [rad].
        seed: of the scene.
        snapshot: (14,) seed, joint angles (6,) [rad], and the toy's position (3,) [m] and quaternion (4,), kept up to
            date. May be replaced by an array that another process sees, followed by :meth:`show`.
    """

    def __init__(self, world: World | None = None, seed: int = 0) -> None:
        """Take a world, or build that of the SO-100's contract, and set up the scene of a seed."""
        self.world = world or World()
        env = self.world.task_env
        for link in env.agent.robot._objs[0].links:
            link.disable_gravity = False
        self._motors = [joint._objs[0] for joint in env.agent.robot.active_joints]
        self.joints = tuple(
            Joint(name, *motor.limits[0].tolist())
            for name, motor in zip(self.world.contract.joints, self._motors, strict=True)
        )
        self._full = [(motor.stiffness, motor.damping, motor.force_limit) for motor in self._motors]
        self._step_s = 1 / env.sim_freq
        self._drives: tuple[Drive, ...] = ()
        self._ahead_s = 0.0
        self._steps = 0
        self.snapshot: NDArray[np.float64] = np.zeros(SNAPSHOT)
        self.scene(seed)

    def scene(self, seed: int, arm: bool = True) -> None:
        """Put toy and bowl where a seed says, and the arm to its rest pose, as by hand.

        Args:
            seed: of the scene.
            arm: else the arm stays where it is, and what drives it goes on.

        Raises:
            ValueError: the seed is below 0.
        """
        if seed < 0:
            raise ValueError(f"seed is {seed}; it is 0 or more")
        robot = self.world.task_env.agent.robot._objs[0]
        angles, speeds = robot.qpos.copy(), robot.qvel.copy()
        self.world.reset(seed)
        self.seed = seed
        if not arm:
            robot.set_qpos(angles)
            robot.set_qvel(speeds)
            self._see()
            return
        self._ahead_s, self._steps = 0.0, 0
        self._drives = tuple(Drive(float(angle), 0.0, 0.0) for angle in self.world.state)
        self._see()

    @property
    def instruction(self) -> str:
        """What is to be done in this scene."""
        return self.world.instruction

    @property
    def succeeded(self) -> bool:
        """Simulator truth: the toy lies in the bowl, released and at rest. For measurements only."""
        return self.world.succeeded

    def step(self, dt: float, drives: Sequence[Drive]) -> None:
        """Let ``dt`` seconds pass with the motors driven so; the world follows in steps of its own."""
        self._drives = tuple(drives)
        self._ahead_s += dt
        if self._ahead_s < self._step_s:
            return
        for motor, drive, full, limp in zip(self._motors, drives, self._full, LIMP_DAMPING, strict=True):
            stiffness, damping, force = full
            if drive.limit > 0:
                motor.set_drive_target(drive.target)
                motor.set_drive_properties(stiffness * drive.gain / FULL_GAIN, damping, force * drive.limit)
            else:
                motor.set_drive_properties(0.0, limp, force)
        env = self.world.task_env
        while self._ahead_s >= self._step_s:
            self._ahead_s -= self._step_s
            env.scene.step()
            self._steps += 1
            if self._steps % env._sim_steps_per_control == 0:
                env.after_control_step()
        self._see()

    def states(self) -> Sequence[JointState]:
        """Return each joint's state after the last step of the physics."""
        return self._states

    def show(self) -> None:
        """Write the snapshot."""
        toy = self.world.task_env.toy._objs[0].pose
        self.snapshot[:] = (self.seed, *(state.position for state in self._states), *toy.p, *toy.q)

    def _see(self) -> None:
        robot = self.world.task_env.agent.robot._objs[0]
        self._states = tuple(
            JointState(position, speed, self._effort(position, speed, drive, full))
            for position, speed, drive, full in zip(
                robot.qpos.tolist(), robot.qvel.tolist(), self._drives, self._full, strict=True
            )
        )
        self.show()

    @staticmethod
    def _effort(position: float, speed: float, drive: Drive, full: tuple[float, float, float]) -> float:
        """Share of the full force that a motor gives, -1 to 1."""
        stiffness, damping, force = full
        wanted = stiffness * drive.gain / FULL_GAIN * (drive.target - position) - damping * speed
        return max(-drive.limit, min(drive.limit, wanted / force))


def so100(joints: TwinJoints) -> Arm:
    """Return the twin's arm with servos, whose encoders stand anywhere."""
    return Arm(joints, MOUNTINGS)


def twin_of(server: Server) -> tuple[Arm, TwinJoints]:
    """Return the arm of a server that is the twin's.

    Raises:
        ValueError: it has none, or several.
    """
    found = [bus.arm for bus in server.buses.values() if isinstance(bus.arm.joints, TwinJoints)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} of these arms are the twin's; a scene needs one: start with the arm 'twin'")
    joints = found[0].joints
    assert isinstance(joints, TwinJoints)
    return found[0], joints


def set_scene(server: Server, seed: int) -> str:
    """Begin an episode between whatever a program does: toy and bowl where the seed says, the arm placed at rest.

    The arm is put there as by hand, not driven. A servo whose torque is on holds there until a goal comes, a limp one
    sinks. A program that goes on to send goals must first read where the arm is.

    Returns:
        What is to be done.

    Raises:
        ValueError: the seed is below 0, or no arm is the twin's.
    """
    with server.lock:
        arm, joints = twin_of(server)
        joints.scene(seed)
        for servo in arm.servos:
            servo.hold()
        arm.step(0.0)
        return joints.instruction


def set_toy(server: Server, seed: int) -> str:
    """Put toy and bowl where the seed says, as a person puts a scene back; the arm stays as it is, and driven.

    Returns:
        What is to be done.

    Raises:
        ValueError: the seed is below 0, or no arm is the twin's.
    """
    with server.lock:
        joints = twin_of(server)[1]
        joints.scene(seed, arm=False)
        return joints.instruction


def outcome(server: Server) -> bool:
    """Return whether the simulator's truth is success now.

    Raises:
        ValueError: no arm is the twin's.
    """
    with server.lock:
        return twin_of(server)[1].succeeded
