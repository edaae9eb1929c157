# SPDX-License-Identifier: Apache-2.0
"""An arm's server on the topics of its node: ``joint_command`` in, ``joint_command_sent`` and ``joint_states`` out.

Used by the node of every arm, the twin's among them. The node says when to step; commands that cannot be used are a
fault in its diagnostics and move nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.robot.arm import ArmServer
from lrm_ros.ros.base import LrmNode
from lrm_ros.types import ActionChunk

# Commands come from two nodes if their numbers, which each publisher counts for itself, went back so often in so long
# [s] while there were two. Each back and forth between them is one.
BACK, BACK_S = 2, 5.0


class ArmTopics:
    """Listens to commands once :meth:`listen` was called; publishes what the node tells it."""

    def __init__(
        self,
        node: LrmNode[Any],
        server: ArmServer,
        now_ns: Callable[[], int],
        take: Callable[[ActionChunk], None],
        refusal: Callable[[], str] = lambda: "",
        states: bool = True,
    ) -> None:
        """Create the publishers.

        Args:
            node: whose topics these are.
            server: in front of the arm.
            now_ns: time of the arm's clock [ns].
            take: called with each command that is to be executed.
            refusal: says why no command is executed now (e-stop); empty: commands are.
            states: whether the node publishes joint states; false: its driver does.
        """
        self._node, self._server, self._now_ns, self._take = node, server, now_ns, take
        self._refusal = refusal
        self._states = topics.JOINT_STATES.publisher(node) if states else None
        self._sent = topics.JOINT_COMMAND_SENT.publisher(node)
        self._number = 0  # of the newest command among those of its publisher
        self._back_s: deque[float] = deque(maxlen=BACK)  # when the numbers went back
        # Of the newest command: it had a stamp; it was a hold, of who had commanded before it.
        self._stamped = self._held = False

    def listen(self, realtime: bool = True) -> None:
        """Subscribe to ``joint_command`` of any publisher; in lock-step nothing may be lost: of reliable ones."""
        (topics.JOINT_COMMAND.hear if realtime else topics.JOINT_COMMAND.subscribe)(self._node, self._on_command)

    def _on_command(self, message: JointTrajectory, info: Mapping[str, Any]) -> None:
        node = self._node
        if not node.active:
            node.diagnostics.count("ignored")
            return
        try:
            if reason := self._refusal():
                raise ValueError(reason)
            self._check_one_commands(info["publication_sequence_number"], message)
            chunk = messages.to_chunk(message, node.contract.joints, node.contract.dt_s)
            accepted = self._server.accept(chunk, self._now_ns())
        except ValueError as error:
            node.diagnostics.count("rejected")
            node.diagnostics.fault("joint_command", f"a command was not executed: {error}")
            return
        node.diagnostics.recovered("joint_command", "commands are good again")
        if accepted is None:
            node.diagnostics.count("ignored")
        else:
            self._take(accepted)

    def _check_one_commands(self, number: int | None, command: JointTrajectory) -> None:
        """Check the number that its publisher gave a command.

        Args:
            number: ``None``: the middleware does not number.
            command: it. Another node may go on after a hold, which is one point from now on: who sent that after
                stamped commands of its own has let go. Two that send holds in turn with others have not.

        Raises:
            ValueError: two nodes command the arm in turn; names them.
        """
        now_s, before, self._number = time.monotonic(), self._number, number or 0
        stamped, held = self._stamped, self._held
        self._stamped = messages.to_ns(command.header.stamp) > 0
        self._held = not self._stamped and len(command.points) == 1 and (stamped or held) and number == before + 1
        if number is not None and number <= before and not held:
            nodes = self._node.get_publishers_info_by_topic(topics.JOINT_COMMAND.name)
            if len(nodes) > 1:  # not one that was started again
                self._back_s.append(now_s)
        if len(self._back_s) == BACK and now_s - self._back_s[0] < BACK_S:
            nodes = self._node.get_publishers_info_by_topic(topics.JOINT_COMMAND.name)
            names = ", ".join(sorted({node.node_name for node in nodes}))
            raise ValueError(
                f"several nodes command the arm at the same time ({names}); stop or deactivate all but one"
            )

    def publish_state(self, stamp_ns: int, position: NDArray[np.float32]) -> None:
        """Publish joint positions (D,) [rad], unless the driver does."""
        if self._states is None:
            return
        self._states.publish(messages.from_state(stamp_ns, self._node.contract.joints, position))

    def publish_sent(self, stamp_ns: int, target: NDArray[np.float32]) -> None:
        """Publish what the arm was sent at a moment, (D,) [rad] after limits."""
        chunk = ActionChunk(stamp_ns, target[None], self._node.contract.dt_s)
        self._sent.publish(messages.from_chunk(chunk, self._node.contract.joints))
