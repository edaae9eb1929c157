# SPDX-License-Identifier: Apache-2.0
"""A person's hand on an input device moves the target; a leader arm does only once it stands where the arm does."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract, TeleopConfig
from lrm_ros.robot.devices.input_thread import InputThread
from lrm_ros.robot.devices.lerobot_input import Motion
from lrm_ros.robot.so100.jog import Jog
from lrm_ros.robot.so100.kinematics import Unreachable

STALE_S = 0.5  # a device that says nothing for longer leads no more [s]
# No hand turns a leader's joint by both so much and so fast: an encoder that was misread, or passed its zero.
LEAP_RAD, LEAP_RAD_S = 0.5, 20.0


class Hand:
    """Between a device that is read in its thread and the target of the arm.

    Attributes:
        leads: whether a leader's joints are the target now.
        fault: why the device cannot be used; empty: it can.
        held: whether its take-over button is held; ``None``: it has none, or the device is gone.
    """

    def __init__(
        self, thread: InputThread, jog: Jog, contract: RobotContract, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take a device.

        Args:
            thread: reads it.
            jog: holds the target.
            contract: joints and limits of the arm.
            clock: seconds, of a clock that does not go back.
        """
        self._thread, self._jog, self._clock = thread, jog, clock
        self._names = contract.joints
        self._lower, self._upper = np.array(contract.lower, np.float32), np.array(contract.upper, np.float32)
        self.leads, self.fault = False, ""
        self.held: bool | None = None
        self._off, self._came_s = "", clock()
        # When a leader was read last [s], and its joints [rad].
        self._before: tuple[float, NDArray[np.float32]] | None = None

    def let_go(self) -> None:
        """Lead no more; a leader must stand where the arm does before it leads again."""
        self.leads, self._off, self._before = False, "", None

    def follow(self, pose: NDArray[np.float32] | None, config: TeleopConfig) -> tuple[tuple[str, ...], str]:
        """Take what the hand has done, and move the target.

        Args:
            pose: (D,) where the arm was sent last [rad]; ``None``: it may not be moved now.
            config: how near a leader must be.

        Returns:
            The events of its buttons, and why the target could not be moved, empty if it could.
        """
        motion = self._thread.take(STALE_S)
        now_s = self._clock()
        if motion is None:
            if now_s - self._came_s > STALE_S:
                self.fault = self._thread.fault or f"it has said nothing for more than {STALE_S:g} s"
                self._lose()
            return (), ""
        self._came_s, self.fault, self.held = now_s, "", motion.held
        if pose is None or (self.leads and self._jog.target is None):
            self.let_go()
        if pose is None:
            return motion.events, ""
        try:
            if motion.joints is not None:
                self._refuse_leap(motion.joints, now_s)
                self._lead(motion.joints, pose, config.align)
            else:
                self._move(motion, pose)
        except (Unreachable, ValueError) as error:
            return motion.events, str(error)
        return motion.events, ""

    def _lose(self) -> None:
        """Let the arm stay where it was sent, for the device is gone."""
        if self.leads:
            self._jog.stop()
        self.let_go()
        self.held = None  # a button that is not held when it is back was not let go by the person

    def _refuse_leap(self, joints: NDArray[np.float32], now_s: float) -> None:
        """Let the arm stay where it was sent, and raise ValueError, if no hand has moved a leader like this."""
        before, self._before = self._before, (now_s, joints)
        if not self.leads or before is None:
            return
        change = joints - before[1]
        worst = int(np.argmax(np.abs(change)))
        if abs(change[worst]) > max(LEAP_RAD, LEAP_RAD_S * (now_s - before[0])):
            self._jog.stop()
            self.let_go()
            raise ValueError(
                f"the leader's {self._names[worst]} leapt by {change[worst]:+.2f} rad: the arm holds until the leader "
                "stands where it does; if it leaps again, look at that servo's cable and calibrate the leader anew"
            )

    def _lead(self, joints: NDArray[np.float32], pose: NDArray[np.float32], align: float) -> None:
        wanted = np.clip(joints, self._lower, self._upper)
        if not self.leads:
            off = wanted - pose
            worst = int(np.argmax(np.abs(off)))
            if abs(off[worst]) > align:
                self._off = f"{self._names[worst]} is {off[worst]:+.2f} rad off"
                return
            self.leads, self._off = True, ""
            self._jog.start(pose)
        self._jog.lead(wanted)

    def _move(self, motion: Motion, pose: NDArray[np.float32]) -> None:
        if not (motion.change.any() or motion.gripper):
            return
        if self._jog.target is None:
            self._jog.start(pose)
        if motion.gripper:
            self._jog.gripper(motion.gripper)
        if motion.change.any():
            self._jog.move(motion.change)

    def status(self) -> str:
        """Return what the person should know, for the status line; empty: nothing."""
        if self.fault:
            return f"input: {self.fault}"
        if self.leads:
            return "leader leads"
        return f"move the leader to the arm: {self._off}" if self._off else ""
