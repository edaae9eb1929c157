# SPDX-License-Identifier: Apache-2.0
"""What an arm is, real or simulated, and the one server in front of it, which sends targets and holds.

Only the server sends an arm anything. It finds the point of a command that a moment asks for, limits it by what was
sent before, refuses a command that is not of now, and holds. No rclpy here: ``lrm_ros.ros.arm_topics`` puts a server on
the topics of a node.
"""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.robot.limits import Plausibility, limited
from lrm_ros.types import ActionChunk

# A command may be this far from now [s]: the stamp of one that is further ahead is of another clock, and one whose last
# point was due longer ago answers a scene that is no longer there.
AHEAD_S = 1.0
LATE_S = 1.0


class NotSent(ConnectionError):
    """The arm was not sent a target: it has the one before."""


class Arm(Protocol):
    """What moves: joints in the order of the robot contract, SI units."""

    def read(self) -> tuple[int, NDArray[np.float32]]:
        """Return (stamp [ns], (D,) measured joint positions [rad]) of the newest joint state."""
        ...

    def send(self, target: NDArray[np.float32]) -> None:
        """Go to (D,) absolute joint positions [rad], inside the limits already; raises NotSent if it is not sent."""
        ...


class ArmServer:
    """Turns commands into what an arm is sent, one target at a time.

    Attributes:
        sent: (D,) what was sent last [rad]; before anything was sent: the joint state at :meth:`start`.
    """

    def __init__(self, arm: Arm, contract: RobotContract) -> None:
        """Take an arm where it is.

        Args:
            arm: whom to send to.
            contract: joints, joint limits, step limits and control period.
        """
        self._arm, self._contract = arm, contract
        self._dt_ns = round(1e9 * contract.dt_s)
        self.start()

    def start(self) -> None:
        """Begin an episode, or come back after a break: the arm is where it is and older commands mean nothing."""
        self._start_ns, self.sent = self._arm.read()
        self._chunk: ActionChunk | None = None
        self._held: NDArray[np.float32] = self.sent
        self._plausibility = Plausibility(self._contract)

    # -- commands ----------------------------------------------------------------------------------------------------

    def accept(self, chunk: ActionChunk, now_ns: int) -> ActionChunk | None:
        """Return a command with the stamp it is executed with, ``None`` if it was stamped before :meth:`start`.

        Args:
            chunk: stamp 0 means now.
            now_ns: time of the arm's clock [ns].

        Raises:
            ValueError: it is not of now, or it or one shortly before cannot be in radians; says what to do.
        """
        for action in chunk.actions.tolist():
            self._plausibility.check(action, time.monotonic())
        if not chunk.stamp_ns:
            return ActionChunk(now_ns, chunk.actions, chunk.dt_s)
        ahead_s = (chunk.stamp_ns - now_ns) / 1e9
        if ahead_s > AHEAD_S:
            raise ValueError(
                f"its stamp is {ahead_s:.1f} s ahead of the arm's time; stamp it with the joint state it answers, "
                "run its node with use_sim_time, or leave the stamp zero"
            )
        if chunk.stamp_ns < self._start_ns:
            return None
        late_s = -ahead_s - len(chunk.actions) * chunk.dt_s
        if late_s > LATE_S:
            raise ValueError(
                f"its last point was due {late_s:.1f} s ago; the policy or the network is too slow for the control "
                "rate, or the clocks of two hosts differ"
            )
        return chunk

    def follow(self, chunk: ActionChunk) -> None:
        """Make an accepted command the one that :meth:`step` follows; not if the arm has begun anew since then."""
        if chunk.stamp_ns >= self._start_ns:
            self._chunk = chunk

    # -- what is sent ------------------------------------------------------------------------------------------------

    def send(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """Send one target through the limiter and return what was sent (D,) [rad].

        Args:
            target: (D,) [rad].

        Raises:
            ValueError: a wrong number of joints or a value that is not finite; nothing was sent.
            NotSent: the arm has what it was sent before, and so has :attr:`sent`.
        """
        target = limited(target, self.sent, self._contract)
        self._arm.send(target)
        self.sent = self._held = target
        return self.sent

    def step(self, now_ns: int) -> tuple[NDArray[np.float32], bool]:
        """Send what is due now; after the last point of a command the arm is held there.

        Point k of a command stamped t is for the control step at t + k dt.

        Returns:
            (D,) what was sent [rad], and whether it was for the last point of the command that is followed.
        """
        last = False
        target = self._held
        if self._chunk is not None:
            end = len(self._chunk.actions) - 1
            k = round((now_ns - self._chunk.stamp_ns) / self._dt_ns)
            target, last = self._chunk.actions[min(max(k, 0), end)], k == end
        sent = self.send(target)
        self._held = target  # a target that is further away than one step is still to be reached
        return sent, last

    def drop(self) -> None:
        """Forget the command; what was sent last is what :meth:`step` sends from now on."""
        self._chunk, self._held = None, self.sent

    def hold(self, measured: bool = False) -> NDArray[np.float32]:
        """Forget the command and send the arm to stay; cannot be a no-op. Returns what was sent (D,) [rad].

        Args:
            measured: where the arm is (overload, collision), not where it was last sent.
        """
        self.drop()
        return self.send(self._arm.read()[1] if measured else self.sent)
