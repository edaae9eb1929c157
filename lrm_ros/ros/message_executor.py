# SPDX-License-Identifier: Apache-2.0
"""rclpy's single-threaded executor with a short way for messages, which are nearly all a node has to do.

For every message rclpy goes twice through everything a node owns, with new lists, a task and a coroutine each: 0.3 to
1 ms of CPU, more than most callbacks here take. Its EventsExecutor is no way out: a client call or a publication
from a second thread can stop both for ever (the caller holds Python's lock and waits for the middleware, whose thread
holds the middleware's and waits for Python's). Here the wait set is kept and messages are handed over directly;
services, clients, timers, guard conditions, waitables and tasks go rclpy's own way.

It uses names that rclpy keeps to itself: only ``lrm_ros.ros.executor`` may import it, which looks first whether they
are there, in the form in which they are used here. What is used here stands in the table there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
    TimeoutObject,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.utilities import timeout_sec_to_nsec

_ROUNDS = 16  # messages of one topic at a time, before anything else gets its turn
_WAITABLES_S = 0.5  # waitables (here: warnings about QoS that does not fit) are looked at this often [s]
_KINDS = ("subscription", "client", "service", "timer", "guard_condition")


class MessageExecutor(SingleThreadedExecutor):
    """Runs callbacks in the thread that spins; subscriptions' callbacks must be plain functions, not coroutines.

    When several topics have messages, one of each is handed over in turn, in the order in which the subscriptions were
    made.
    """

    def __init__(self) -> None:
        """Create an executor of the default context."""
        super().__init__()
        self._handles: dict[str, list[Any]] = {}
        self._known: list[Subscription[Any]] = []
        self._held = ExitStack()  # keeps the handles from being destroyed while they are waited on
        self._wait_set: Any = None
        self._stale = True  # entities were made or destroyed since the wait set was made
        self._over = False  # shut down
        self._looked_s = 0.0  # time.monotonic() of the last look at everything

    def wake(self) -> None:
        """Wake: an entity was made or destroyed, or a future is done; the wait set is made anew."""
        self._stale = True
        super().wake()

    def add_node(self, node: Node) -> bool:
        """Add a node, also while another thread spins."""
        added = super().add_node(node)
        self.wake()
        return added

    def remove_node(self, node: Node) -> None:
        """Let a node go, also while another thread spins."""
        super().remove_node(node)
        self.wake()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop and let go of what is waited on."""
        self._over = True
        self._held.close()
        return super().shutdown(timeout_sec)

    def _spin_once_impl(
        self, timeout_sec: float | TimeoutObject | None = None, wait_condition: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait, hand over the messages that are there, then do whatever else is ready."""
        if self._has_tasks():
            super()._spin_once_impl(timeout_sec, wait_condition)
            return
        if self._over or wait_condition():
            return
        seconds = timeout_sec.timeout if isinstance(timeout_sec, TimeoutObject) else timeout_sec
        others = self._receive(timeout_sec_to_nsec(seconds))
        if not others and time.monotonic() - self._looked_s < _WAITABLES_S:
            return
        self._looked_s = time.monotonic()
        while True:
            try:
                handler, _, _ = self.wait_for_ready_callbacks(0, None, wait_condition)
            except (TimeoutException, ShutdownException, ConditionReachedException):
                return
            handler()
            handler.result()  # raises what the callback raised

    def _has_tasks(self) -> bool:
        """Return whether a task can go on.

        rclpy up to 9.1.2 tries every unfinished task at every turn; later ones (10, and 7.1.9 of Jazzy) keep a queue of
        those whose future is done.
        """
        if hasattr(self, "_ready_tasks"):
            return bool(self._ready_tasks)
        return any(not task.done() for task, _, _ in self._tasks)

    def _receive(self, timeout_ns: int) -> bool:
        """Wait and call the callbacks of messages; returns whether anything else is ready.

        Args:
            timeout_ns: how long to wait [ns]; below 0: until something happens, or a look at everything is due.
        """
        if self._stale:
            self._stale = False  # before, so that a change meanwhile is not missed
            self._make_wait_set()
        wait_set = self._wait_set
        wait_set.clear_entities()
        for kind, handles in self._handles.items():
            add = getattr(wait_set, f"add_{kind}")
            for handle in handles:
                add(handle)
        longest = int(1e9 * _WAITABLES_S)
        wait_set.wait(longest if timeout_ns < 0 else min(timeout_ns, longest))
        if self._over:
            return False
        if not self.context.ok():
            raise ExternalShutdownException
        ready = {kind: wait_set.get_ready_entities(kind) for kind in _KINDS}
        for node in self.get_nodes():  # waiting has reset the guard conditions: rclpy looks at this instead
            for guard in node.guards:
                if guard.handle.pointer in ready["guard_condition"]:
                    guard._executor_triggered = True
        waiting = [known for known in self._known if known.handle.pointer in ready["subscription"]]
        for _ in range(_ROUNDS):
            waiting = [subscription for subscription in waiting if _take(subscription)]
            if not waiting:
                break
        return any(ready[kind] for kind in _KINDS[1:])

    def _make_wait_set(self) -> None:
        """Gather what the nodes own now; waitables are left to rclpy."""
        self._held.close()
        self._held = ExitStack()
        nodes = self.get_nodes()
        found = {
            "subscription": [entity for node in nodes for entity in node.subscriptions],
            "client": [entity for node in nodes for entity in node.clients],
            "service": [entity for node in nodes for entity in node.services],
            "timer": [entity for node in nodes for entity in node.timers],
            "guard_condition": [*(guard for node in nodes for guard in node.guards), self._guard, self._sigint_gc],
        }
        self._known = [entity for entity in found["subscription"] if self._holds(entity.handle)]
        self._handles = {"subscription": [entity.handle for entity in self._known]}
        for kind in _KINDS[1:]:
            self._handles[kind] = [e.handle for e in found[kind] if e is not None and self._holds(e.handle)]
        self._held.enter_context(self.context.handle)
        count = {kind: len(handles) for kind, handles in self._handles.items()}
        self._wait_set = rclpy_implementation.WaitSet(
            count["subscription"],
            count["guard_condition"],
            count["timer"],
            count["client"],
            count["service"],
            0,
            self.context.handle,
        )

    def _holds(self, handle: Any) -> bool:
        """Keep a handle; returns whether it is still there."""
        try:
            self._held.enter_context(handle)
        except InvalidHandle:
            return False
        return True


def _take(subscription: Subscription[Any]) -> bool:
    """Take one message and call the callback; returns whether there was one."""
    try:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    except InvalidHandle:
        return False
    if taken is None:
        return False
    if subscription._callback_type is Subscription.CallbackType.MessageOnly:
        subscription.callback(taken[0])
    else:
        subscription.callback(*taken)
    return True
