# SPDX-License-Identifier: Apache-2.0
"""One input of a node: its subscription, made and made anew as the publishers of the topic offer it, and its stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.subscription import Subscription

from lrm_ros.ros.stream import Stream
from lrm_ros.topics import Topic


class Input:
    """A topic as a node hears it; see ``lrm_ros.ros.streams``.

    Attributes:
        topic: which.
        take: hands a message over; returns whether it was complete.
        stream: what is known of its messages.
        stamped: its stamps are those of now.
        cause: name of the topic that it must follow, empty: none.
        subscription: the one of now.
    """

    subscription: Subscription[Any]

    def __init__(
        self,
        node: Node,
        topic: Topic,
        take: Callable[[Any], bool],
        stream: Stream,
        realtime: bool,
        depth: int,
        stamped: bool,
        cause: str,
    ) -> None:
        """Subscribe to nothing yet.

        Args:
            node: whose executor calls.
            topic: as in the class.
            take: as in the class.
            stream: as in the class.
            realtime: hear any publisher; false: nothing may be lost, so reliable ones only.
            depth: so many messages wait.
            stamped: as in the class.
            cause: as in the class.
        """
        self.topic, self.take, self.stream, self.stamped, self.cause = topic, take, stream, stamped, cause
        self._node, self._realtime, self._depth = node, realtime, depth
        self._reliable = True

    def subscribe(self, callback: Callable[[Input, Any, Any], None]) -> None:
        """Subscribe.

        Args:
            callback: called with this, each message, and what the middleware says of it.
        """
        self._callback = callback
        self._make()
        self.adapt()

    def adapt(self) -> None:
        """Look at the publishers, and subscribe anew if they offer something else."""
        name, stream = self.topic.name, self.stream
        every = self._node.get_publishers_info_by_topic(self.topic.name)
        kind = self.topic.message_type
        wanted = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        found = [info for info in every if info.topic_type == wanted]  # of others the middleware delivers nothing
        stream.mistyped = ", ".join(sorted({f"{i.node_name} as {i.topic_type}" for i in every if i not in found}))
        stream.wanted = wanted
        # The name of a node is known a moment after its topics.
        stream.publishers = sorted({i.node_name if not i.node_name.startswith("_NODE_") else "a node" for i in found})
        stream.offered = len(found)
        best_effort = [i.node_name for i in found if i.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT]
        if self._realtime:
            if found and self._reliable == bool(best_effort):
                self._reliable = not best_effort
                self._node.destroy_subscription(self.subscription)
                self._make()
        elif best_effort:
            stream.set(
                "offer",
                f"'{name}' is published best effort by {', '.join(best_effort)}; in lock-step nothing may be lost: let "
                "it publish reliably, or run this node with realtime:=true",
            )
        else:
            stream.clear("offer")

    def take_waiting(self) -> tuple[Any, Any] | None:
        """Take one message that waits, with what the middleware says of it; ``None``: there is none."""
        with self.subscription.handle:
            return self.subscription.handle.take_message(self.subscription.msg_type, False)

    def _make(self) -> None:
        self.subscription = self.topic.subscribe_as_offered(
            self._node, lambda message, info: self._callback(self, message, info), self._reliable, self._depth
        )
