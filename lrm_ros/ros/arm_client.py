# SPDX-License-Identifier: Apache-2.0
"""What a node asks of an arm: motion by ``joint_command``, and the hold, which every path that promises one ends in.

The other side of ``lrm_ros.ros.arm_topics``. What it publishes is in order, from whichever thread: nothing that was
begun before a hold moves the arm after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.robot.arm import AHEAD_S, LATE_S
from lrm_ros.ros.base import LrmNode
from lrm_ros.types import ActionChunk

DELIVER_S = 0.2  # a node that ends waits so long until the arm has the hold [s]


class ArmClient:
    """Publishes ``joint_command`` for a node and follows ``joint_command_sent``.

    Attributes:
        asked: the last command, ``None`` since a hold or before the first.
        sent: (stamp [ns], (D,) target [rad]) of what the arm was sent last; ``None``: not heard of yet.
    """

    def __init__(self, node: LrmNode[Any]) -> None:
        """Create the publisher."""
        self._node = node
        self._command = topics.JOINT_COMMAND.publisher(node)
        self._lock = threading.Lock()
        self._holds = 0
        self._begun_s = 0.0  # steady time when the arm is at the first point of the last command [s]
        self._measured: NDArray[np.float32] | None = None
        self.asked: ActionChunk | None = None
        self.sent: tuple[int, NDArray[np.float32]] | None = None

    # -- what is known of the arm ------------------------------------------------------------------------------------

    def on_sent(self, message: JointTrajectory) -> None:
        """Take what the arm was sent.

        Raises:
            ValueError: a message that cannot be used.
        """
        chunk = messages.to_chunk(message, self._node.contract.joints, self._node.contract.dt_s)
        self.sent = (chunk.stamp_ns, chunk.actions[0])

    def on_state(self, position: NDArray[np.float32]) -> None:
        """Take where the arm is, (D,) [rad]; only good values, so that a hold can rely on the last of them."""
        self._measured = position

    # -- what is asked of it -----------------------------------------------------------------------------------------

    @property
    def holds(self) -> int:
        """How many holds there were: who begins to think of a motion notes it and gives it to :meth:`ask`."""
        return self._holds

    def ask(self, chunk: ActionChunk, holds: int, announce: Callable[[], None] | None = None) -> bool:
        """Ask for a motion.

        Args:
            chunk: targets, stamped with the observation they answer.
            holds: :attr:`holds` when that observation was taken.
            announce: called just before, if the motion is asked for.

        Returns:
            False if the arm was to hold since then: nothing is asked for.
        """
        with self._lock:
            if holds != self._holds:
                return False
            if announce is not None:
                announce()
            self.asked, self._begun_s = chunk, time.monotonic() - self._late_s(chunk)
            self._command.publish(messages.from_chunk(chunk, self._node.contract.joints))
        return True

    def _late_s(self, chunk: ActionChunk) -> float:
        """Return how long ago the first point of a command was due [s]: the arm goes by its stamp.

        Zero means now. A stamp of another clock says nothing: with one the arm begins now, if it obeys at all.
        """
        if not chunk.stamp_ns:
            return 0.0
        late_s = (self._node.get_clock().now().nanoseconds - chunk.stamp_ns) / 1e9
        return late_s if -AHEAD_S < late_s < len(chunk.actions) * chunk.dt_s + LATE_S else 0.0

    def drop(self) -> None:
        """Let nothing that is being thought of be asked for; the arm goes on as it was asked to."""
        with self._lock:
            self._holds += 1
            self.asked = None

    def hold(self, deliver_s: float = 0.0) -> bool:
        """Make the arm stay at the target it was sent last, whatever was asked of it or is being thought of.

        An arm that does not say what it was sent stays at the point of the last command that is due by its stamp, and
        one that this node has asked for nothing stays where it is. The stamp is zero, which means now: a hold needs no
        clock and no fresh state.

        Args:
            deliver_s: wait up to so long until the arm has it [s], as a node must that ends.

        Returns:
            False if nothing is known of the arm at all; then this node has asked it for nothing either.
        """
        node = self._node
        with self._lock:
            target = self._stay()
            self._holds += 1
            self.asked = None
            if target is None:
                return False
            chunk = ActionChunk(0, target[None], node.contract.dt_s)
            self._command.publish(messages.from_chunk(chunk, node.contract.joints))
        node.diagnostics.count("holds")
        if deliver_s > 0:
            self._command.wait_for_all_acked(Duration(seconds=deliver_s))
        return True

    def _stay(self) -> NDArray[np.float32] | None:
        """Return the target (D,) [rad] at which the arm is to stay."""
        if self.sent is not None:
            return self.sent[1]
        if self.asked is not None:
            due = int((time.monotonic() - self._begun_s) / self.asked.dt_s)
            return self.asked.actions[min(max(due, 0), len(self.asked.actions) - 1)]
        return self._measured
