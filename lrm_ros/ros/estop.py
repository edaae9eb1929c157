# SPDX-License-Identifier: Apache-2.0
"""The e-stop: what the node of an arm owns, and what the nodes that move the arm hear of it.

Anyone stops the arm by ``true`` on topic ``estop``; the arm's node says on topic ``stopped`` whether it is stopped.
They are two topics, for a latched ``true`` of one program must not be overwritten by the node's own state, and a node
that heard itself could stop itself again after a release. Nothing on a topic releases: only service ``~/release`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.timer import Timer
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from lrm_ros import topics
from lrm_ros.errors import one_line
from lrm_ros.ros.base import LrmNode

# An arm's node that starts says that it is not stopped before it hears that it is: a release has lasted so long [s].
RELEASED_S = 1.0
RELEASE = "when it is safe, release it: lrm estop --release"


class EStop:
    """Latches, makes the arm hold at once and refuses commands until it is released.

    To be made with its node and not when that is configured: it works in every state and survives a cleanup. A node
    that starts anew is not stopped, unless a program that runs still offers its ``true``.

    Attributes:
        latched: whether the arm is stopped.
        reason: who or what stopped it.
    """

    def __init__(self, node: LrmNode[Any], hold: Callable[[], None], resume: Callable[[], None]) -> None:
        """Listen to ``estop``, offer ``~/estop`` and ``~/release``, publish ``stopped``.

        Args:
            node: of the arm.
            hold: makes the arm hold, called at once, in the callback; raises if it may not. Without an arm: nothing.
            resume: called at a release: older commands mean nothing now.
        """
        self._node, self._hold, self._resume = node, hold, resume
        self.latched, self.reason = False, ""
        self._trouble = ""  # why the arm may not hold
        self._stopped = topics.STOPPED.publisher(node)
        topics.ESTOP.subscribe(node, self._on_estop)
        topics.ESTOP.subscribe_as_offered(node, self._on_estop, reliable=False, depth=1)  # also of one not in the graph
        self._service = node.create_service(Trigger, "~/estop", self._on_stop)
        node.create_service(Trigger, "~/release", self._on_release)
        self._stopped.publish(Bool(data=False))

    def refusal(self) -> str:
        """Return why no command is executed, empty if none is refused."""
        if not self.latched:
            return ""
        may_move = f", but may not hold: {self._trouble}" if self._trouble else ""
        return f"the arm is stopped by {self.reason}{may_move}; {RELEASE}"

    def stop(self, reason: str) -> bool:
        """Stop the arm; returns whether it holds.

        One that could not be told to hold is refused commands all the same, and told again by the next stop.

        Args:
            reason: who or what, for people: "the arm is stopped by REASON".
        """
        if self.latched and not self._trouble:
            return True
        if not self.latched:
            self.latched, self.reason = True, reason
            self._node.diagnostics.count("estops")
        try:
            self._hold()
            self._trouble = ""
        except Exception as error:
            self._trouble = one_line(error)
        self._stopped.publish(Bool(data=True))
        self._node.diagnostics.fault("estop", self.refusal())
        return not self._trouble

    def hear(self) -> None:
        """Take the stops that have come; for a transition that moves the arm, in which no executor calls."""
        for subscription in self._node.subscriptions:
            if subscription.callback == self._on_estop:
                with subscription.handle:
                    while (
                        taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)
                    ) is not None:
                        self._on_estop(taken[0])
        with self._service.handle:
            request, header = self._service.handle.service_take_request(Trigger.Request)
        if header is not None:
            self._service.send_response(self._on_stop(request, Trigger.Response()), header)

    def release(self) -> None:
        """Take commands again; nothing moves before a new one comes.

        What the arm's node raises in ``resume`` is raised; the arm stays stopped then.
        """
        if not self.latched:
            return
        self._resume()
        self.latched, self.reason, self._trouble = False, "", ""
        self._stopped.publish(Bool(data=False))
        self._node.diagnostics.recovered("estop", "the e-stop was released")

    def _on_estop(self, message: Bool) -> None:
        if message.data:
            self.stop("topic 'estop'")

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.stop(f"service '{self._node.get_name()}/estop'")
        response.message = f"stopped by {self.reason}" if response.success else self.refusal()
        return response

    def _on_release(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        was = self.latched
        try:
            self.release()
        except Exception as error:  # it stays stopped
            response.success, response.message = False, f"the arm stays stopped: {one_line(error)}"
            self._node.get_logger().error(response.message)
            return response
        response.success, response.message = True, "released" if was else "it was not stopped"
        return response


class StopWatch:
    """What a node that moves or records an arm knows of its e-stop.

    Attributes:
        stopped: whether the arm is stopped.
    """

    def __init__(self, node: LrmNode[Any], on_change: Callable[[bool], None], lasting_s: float = 0.0) -> None:
        """Listen to ``stopped``.

        Args:
            node: who listens.
            on_change: called when the arm is stopped (true) or released.
            lasting_s: how long a release must have lasted to be one [s].
        """
        self.stopped, self._on_change = False, on_change
        self._release: Timer | None = None
        if lasting_s:
            self._release = node.create_timer(lasting_s, self._released, clock=Clock(clock_type=ClockType.STEADY_TIME))
            self._release.cancel()
        topics.STOPPED.subscribe(node, self._on_stopped)

    def _on_stopped(self, message: Bool) -> None:
        if self._release is not None:
            self._release.cancel()
        if message.data == self.stopped:
            return
        if not message.data and self._release is not None:
            self._release.reset()
            return
        self.stopped = message.data
        self._on_change(message.data)

    def _released(self) -> None:
        assert self._release is not None
        self._release.cancel()
        self.stopped = False
        self._on_change(False)
