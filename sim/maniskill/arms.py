# SPDX-License-Identifier: Apache-2.0
"""The arms of ManiSkill tasks: forward kinematics of the tool, and joint targets towards a waypoint.

ManiSkill plans with mplib, which crashes with numpy 2; these follow lines by inverse kinematics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.robot.so100 import kinematics
from lrm_ros.robot.so100.kinematics import Unreachable

OPEN, CLOSED = 1.0, 0.0


@dataclass(frozen=True)
class Waypoint:
    """Target pose of the tool, which is between the fingers' pads.

    Attributes:
        position: (3,) [m], world frame.
        yaw: direction in which the fingers close, in the horizontal plane [rad].
        tilt: angle of the gripper from straight down, forwards (away from the base) [rad].
        opening: 0 closed ... 1 open.
        steps: control steps; 0: as speed allows.
    """

    position: NDArray[np.float64]
    yaw: float
    opening: float
    tilt: float = 0.0
    steps: int = 0


class PandaArm:
    """A Franka Panda that points down, moved along straight lines of its tool.

    Attributes:
        joints: number of joints without the gripper.
        now: where the tool was last sent.
        hover: height above an object from which it descends [m].
        grip_height: height above an object's centre at which it grasps [m].
        box: corners of the space to move in without touching anything (2, 3) [m].
        reach: how far it leaves an object it lets go of, relative to a Panda.
    """

    joints, hover, grip_height, reach = 7, 0.10, 0.0, 1.0
    box = np.array([[-0.18, -0.16, 0.10], [0.08, 0.16, 0.25]])
    speed = 0.014  # of the tool [m a control step]
    turn = 0.09  # of the tool [rad a control step]

    def __init__(self, agent: Any) -> None:
        """Take ManiSkill's agent ``panda``."""
        self._robot: Any = agent.robot._objs[0]
        self._link: Any = agent.tcp._objs[0]
        self._model: Any = self._robot.create_pinocchio_model()
        self._index = self._robot.links.index(self._link)
        self._low, self._high = self._robot.qlimits[: self.joints].T.astype(np.float64)

    def reset(self) -> NDArray[np.float32]:
        """Start where the arm is; returns the target (8,) that keeps it there with the gripper open."""
        self._angles = self._robot.qpos.astype(np.float64)[: self.joints]
        self.now = Waypoint(self.tool, self._yaw(), OPEN)
        return np.append(self._angles, 1.0).astype(np.float32)

    @property
    def tool(self) -> NDArray[np.float64]:
        """Where an object between the fingers would be (3,) [m]."""
        return np.asarray(self._link.entity_pose.p, np.float64)

    def _yaw(self) -> float:
        closing = self._link.entity_pose.to_transformation_matrix()[:3, 1]
        return math.atan2(closing[1], closing[0])

    def path(self, point: Waypoint) -> Iterator[NDArray[np.float64]]:
        """Yield joint targets (8,) along a straight line of the tool, the last one ManiSkill's gripper action.

        Raises:
            Unreachable: a point of the line is out of reach.
        """
        start, base = self.now, self._robot.pose.inv()
        point = replace(point, yaw=_nearest(point.yaw, start.yaw))
        way = float(np.linalg.norm(point.position - start.position))
        turns = max(abs(point.yaw - start.yaw), abs(point.tilt - start.tilt))
        for part in _parts(point.steps or max(1, math.ceil(max(way / self.speed, turns / self.turn)))):
            self.now = _between(start, point, part)
            self._angles = self._inverse(base * _tool_pose(self.now))
            yield np.append(self._angles, 2 * self.now.opening - 1)  # ManiSkill scales this joint's action to [-1, 1]

    def _inverse(self, pose: Any) -> NDArray[np.float64]:
        """Return the joints (7,) for a tool pose in the base's frame, near the present ones.

        Raises:
            Unreachable: no solution within the joints' limits.
        """
        found, _, _ = self._model.compute_inverse_kinematics(
            self._index,
            pose,
            initial_qpos=np.append(self._angles, [0.04, 0.04]),
            active_qmask=[1] * 7 + [0] * 2,
            max_iterations=100,
        )
        self._model.compute_forward_kinematics(found)
        miss = float(np.linalg.norm(self._model.get_link_pose(self._index).p - pose.p))
        angles = np.asarray(found, np.float64)[: self.joints]
        if miss > 0.004 or (angles < self._low).any() or (angles > self._high).any():
            raise Unreachable(f"the Panda cannot bring its tool to {np.round(pose.p, 3).tolist()} m from its base")
        return angles


class SO100Arm:
    """An SO-100, moved on straight lines in joint space, tilted where it cannot reach straight down.

    Attributes are those of :class:`PandaArm`. Its gripper motor gets a limited torque, as in the twin; ManiSkill's
    squeezes a cube out of the jaws.
    """

    joints, hover, grip_height, reach = 5, 0.06, 0.006, 0.5
    box = np.array([[-0.56, -0.08, 0.05], [-0.44, 0.08, 0.14]])
    speed = 0.05  # of a joint [rad a control step]
    grip = (-0.85, 0.45)  # gripper joint closed and open [rad]

    def __init__(self, agent: Any) -> None:
        """Take ManiSkill's agent ``so100``."""
        self._robot: Any = agent.robot._objs[0]
        self._robot.active_joints[-1].set_drive_properties(10.0, 1.0, 1.0, "force")
        self._low, self._high = self._robot.qlimits[: self.joints].T.astype(np.float64)

    def reset(self) -> NDArray[np.float32]:
        """Start where the arm is; returns the target (6,) that keeps it there with the gripper open [rad]."""
        self._angles = self._robot.qpos.astype(np.float64)[: self.joints]
        self.now = Waypoint(self.tool, self._yaw(self._angles), OPEN)
        return np.append(self._angles, self.grip[1]).astype(np.float32)

    @property
    def tool(self) -> NDArray[np.float64]:
        """Where an object between the jaws would be (3,) [m]."""
        return self._robot.pose.p + kinematics.forward(self._robot.qpos)[0]

    @staticmethod
    def _yaw(angles: NDArray) -> float:
        closing = kinematics.forward(angles)[1][:, 0]
        return math.atan2(closing[1], closing[0])

    def path(self, point: Waypoint) -> Iterator[NDArray[np.float64]]:
        """Yield joint targets (6,) [rad].

        Raises:
            Unreachable: the waypoint is out of reach.
        """
        start, angles = self.now, self._angles
        point = replace(point, yaw=_nearest(point.yaw, start.yaw))
        delta = self._inverse(point) - angles
        for part in _parts(point.steps or max(2, math.ceil(float(np.abs(delta).max()) / self.speed))):
            self._angles, self.now = angles + part * delta, _between(start, point, part)
            yield np.append(self._angles, self.grip[0] + self.now.opening * (self.grip[1] - self.grip[0]))

    def _inverse(self, point: Waypoint) -> NDArray[np.float64]:
        """Return the joints (5,) for a waypoint.

        Raises:
            Unreachable: not even with a tilted gripper.
        """
        target, roll, angles = point.position - self._robot.pose.p, self._angles[4], self._angles
        for tilt in (0.0, 0.2, 0.4, 0.6):
            try:
                for _ in range(3):  # the closing direction depends on the roll that is looked for
                    angles = kinematics.inverse(target, math.pi / 2 - tilt, roll, self._angles, self._low, self._high)
                    present = self._yaw(angles)
                    roll += _nearest(point.yaw, present) - present
                return angles
            except Unreachable:
                if tilt == 0.6:
                    raise
        return angles


def _parts(steps: int) -> NDArray[np.float64]:
    """Return the parts of the way done after each step, the last one 1."""
    return (np.arange(steps) + 1) / steps


def _nearest(yaw: float, present: float) -> float:
    """Return the yaw nearest to the present one that differs by half turns: a gripper has no front."""
    return present + (yaw - present + math.pi / 2) % math.pi - math.pi / 2


def _between(start: Waypoint, end: Waypoint, part: float) -> Waypoint:
    """Return a waypoint between two; the gripper moves in the first half."""
    return Waypoint(
        start.position + part * (end.position - start.position),
        start.yaw + part * (end.yaw - start.yaw),
        start.opening + min(1.0, 2 * part) * (end.opening - start.opening),
        start.tilt + part * (end.tilt - start.tilt),
    )


def _tool_pose(point: Waypoint) -> Any:
    """Return the ``sapien.Pose`` of a Panda's tool at a waypoint."""
    import sapien

    closing, down = np.array([math.cos(point.yaw), math.sin(point.yaw), 0.0]), np.array([0.0, 0.0, -1.0])
    sine, cosine = math.sin(point.tilt), math.cos(point.tilt)
    forwards = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    matrix = np.eye(4)
    matrix[:3, :3] = forwards @ np.stack([np.cross(closing, down), closing, down], axis=1)
    matrix[:3, 3] = point.position
    return sapien.Pose(matrix)
