# SPDX-License-Identifier: Apache-2.0
"""Jogging: small changes of joints or of the gripper's place, added up to the next joint target."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.robot.limits import limited
from lrm_ros.robot.place import Place
from lrm_ros.robot.so100.kinematics import ARM_JOINTS, Unreachable, approach, forward, inverse, require_so100


class Jog:
    """The target that key presses move; it never runs further ahead of the last command than the limiter allows.

    Attributes:
        target: (D,) what the next command asks for [rad]; ``None`` before :meth:`start`.
    """

    def __init__(self, contract: RobotContract, place: Place | None = None) -> None:
        """Jog the arm of ``contract``; ``place``: how the joints of another arm than the SO-100 move its gripper."""
        self._contract, self._place = contract, place
        self.target: NDArray[np.float32] | None = None
        self._last: NDArray[np.float32] = np.zeros(0, np.float32)
        self._pose: tuple[NDArray[np.float64], float] | None = None  # position [m] and pitch [rad] kept over moves

    def start(self, state: NDArray) -> None:
        """Start from the arm's state, (D,) [rad]."""
        self.target = self._last = np.array(state, dtype=np.float32)
        self._pose = None

    def stop(self) -> None:
        """Clear the target: others may move the arm."""
        self.target = None

    def command(self) -> NDArray[np.float32] | None:
        """Return the target (D,) [rad] as the next command, ``None`` if there is none; another thread may stop it."""
        target = self.target
        if target is not None:
            self._last = target
        return target

    def joint(self, index: int, change: float) -> None:
        """Move one joint by ``change`` [rad]."""
        wanted = self._started().copy()
        wanted[index] += change
        self.target, self._pose = limited(wanted, self._last, self._contract), None

    def lead(self, wanted: NDArray[np.float32]) -> None:
        """Move the target towards (D,) joint positions [rad], as far as the limiter allows in one command."""
        self._started()
        self.target, self._pose = limited(wanted, self._last, self._contract), None

    def gripper(self, change: float) -> None:
        """Move the gripper, the last joint, by ``change`` [rad]; positive opens."""
        wanted = self._started().copy()
        wanted[-1] += change
        self.target = limited(wanted, self._last, self._contract)

    def move(self, change: NDArray) -> None:
        """Move the gripper's place by (3,) [m] in the arm's base frame; pitch and roll stay.

        Raises:
            Unreachable: out of reach, or only with another posture of the arm.
            ValueError: not started, or an arm whose kinematics are unknown.
        """
        target, contract = self._started(), self._contract
        pose = None
        if self._place is None:
            wanted, pose = self._so100(target, change)
        else:
            wanted = self._place.moved(target, change)
        turn = np.abs(wanted - target)
        if (turn > np.array(contract.max_step, np.float32)).any():
            joint = int(np.argmax(turn))
            raise Unreachable(
                f"going on that way would turn {contract.joints[joint]} by {turn[joint]:.1f} rad at once; "
                "go another way or use the joint keys"
            )
        self.target = limited(wanted, self._last, contract)
        # Cut by the limiter: the next move starts from where the target really is.
        self._pose = pose if np.allclose(self.target, wanted, atol=1e-6) else None

    def _so100(
        self, target: NDArray[np.float32], change: NDArray
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.float64], float]]:
        """Return the SO-100's joint positions (D,) [rad], and the place [m] and pitch [rad] that they are of."""
        contract = self._contract
        require_so100(contract, "Cartesian jog", "use the joint keys")
        if self._pose is None:
            down = -float(approach(target)[2])
            self._pose = forward(target)[0], math.asin(max(-1.0, min(1.0, down)))
        position, pitch = self._pose[0] + np.asarray(change, dtype=np.float64), self._pose[1]
        arm = inverse(
            position, pitch, float(target[ARM_JOINTS - 1]), target, np.array(contract.lower), np.array(contract.upper)
        )
        return np.append(arm, target[ARM_JOINTS:]).astype(np.float32), (position, pitch)

    def _started(self) -> NDArray[np.float32]:
        if (target := self.target) is None:
            raise ValueError("no joint_states yet, so nothing moves; is the arm's or the twin's node running?")
        return target
