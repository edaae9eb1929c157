# SPDX-License-Identifier: Apache-2.0
"""Moves the gripper of an arm with a URDF in a straight line: changes of its place -> joint positions, by Newton."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ArmConfig
from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.robot.urdf import LinkPoints, Urdf

TIP, WRIST = "gripperframe", "wrist"  # links: between the jaws, and where the hand begins
_TURNS, _NEAR_M, _STEP_RAD = 12, 1e-4, 1e-5
_DAMPING = 1e-4  # keeps a stretched arm from turning wildly [m^2]


class Place:
    """Where the gripper is, and how the joints move it; pitch of the hand, roll and gripper stay.

    Forward is the horizontal axis of the root link along which the arm reaches with all joints at 0; all in metres.
    """

    def __init__(self, urdf: Urdf, joints: Sequence[str], lower: Sequence[float], upper: Sequence[float]) -> None:
        """Prepare.

        Args:
            urdf: the arm's; has links ``TIP`` and ``WRIST``.
            joints: names in the order of positions (D,); the last two are the hand's roll and the gripper.
            lower: limits [rad].
            upper: limits [rad].
        """
        self._points = LinkPoints(urdf, joints, (TIP, WRIST))
        self._lower, self._upper = np.array(lower, np.float64), np.array(upper, np.float64)
        tip = self._points(np.zeros(len(joints)))[0]
        axis = int(abs(tip[1]) > abs(tip[0]))
        forward = np.sign(tip[axis]) * np.eye(3)[axis]
        up = np.array([0.0, 0.0, 1.0])
        self._axes = np.stack([forward, np.cross(up, forward), up])  # (3, 3), rows in the root link

    def _seen(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (..., 4) for (..., D): the tip's place [m], and how much it is above the wrist (the pitch) [m]."""
        points = self._points(q)  # (..., 2, 3)
        return np.concatenate([points[..., 0, :], points[..., :1, 2] - points[..., 1:, 2]], axis=-1)

    def moved(self, positions: NDArray, change: NDArray) -> NDArray[np.float32]:
        """Return joint positions (D,) [rad] at which the gripper is moved by (3,) forward, left, up [m].

        Raises:
            Unreachable: not with these joints.
        """
        q = np.array(positions, np.float64)
        wanted = self._seen(q)
        wanted[:3] += np.asarray(change, np.float64) @ self._axes
        free = len(q) - 2  # the roll of the hand and the gripper stay
        for _ in range(_TURNS):
            off = wanted - self._seen(q)
            if np.abs(off).max() < _NEAR_M:
                return q.astype(np.float32)
            turned = q + _STEP_RAD * np.eye(len(q))[:free]  # (D - 2, D)
            jacobian = ((self._seen(turned) - self._seen(q)) / _STEP_RAD).T  # (4, D - 2)
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + _DAMPING * np.eye(4), off)
            q[:free] = np.clip(q[:free] + step, self._lower[:free], self._upper[:free])
        raise Unreachable(f"the gripper cannot go on that way: {np.abs(off[:3]).max() * 1e3:.0f} mm are out of reach")


def place_of(section: ArmConfig | None, contract: RobotContract) -> Place | None:
    """Return where the gripper of an arm is; ``None`` without a URDF, or one without links ``TIP`` and ``WRIST``."""
    if section is None or not section.urdf:
        return None
    urdf = Urdf(section.urdf)
    known = {TIP, WRIST} <= set(urdf.links)
    return Place(urdf, contract.joints, contract.lower, contract.upper) if known else None
