# SPDX-License-Identifier: Apache-2.0
"""An executor for real nodes in a test's own process."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections.abc import Callable
from typing import ClassVar


class Spinner:
    """An executor for real nodes in process: ``spin.add(node)``, then ``spin.until(predicate)``."""

    _before: ClassVar[weakref.WeakKeyDictionary] = weakref.WeakKeyDictionary()  # nodes of tests that are over: names

    def __init__(self) -> None:
        import rclpy

        from lrm_ros.ros.base import set_transport
        from lrm_ros.ros.executor import make_executor

        set_transport()
        gc.collect()  # what still holds the nodes of the test before, which would be seen beside those of this one
        held = sorted(self._before.values())
        assert not held or getattr(sys, "last_value", None), (  # the traceback of a test that failed holds its nodes
            f"something holds nodes {held} of a test before, e.g. the traceback of an exception that is kept: others "
            "see them"
        )
        rclpy.init()
        self.executor = make_executor(rclpy.logging.get_logger("tests"))
        self.nodes: list = []
        self._names: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # a destroyed node does not say its own

    def add(self, node):
        """Add a node; it is destroyed at the end of the test. Returns it."""
        self.executor.add_node(node)
        self.nodes.append(node)
        self._names[node] = node.get_name()
        return node

    def start(self, node):
        """Add a lifecycle node, configure and activate it; fails the test if that fails."""
        from rclpy.lifecycle import TransitionCallbackReturn

        self.add(node)
        own = (node.get_name(), node.get_namespace())
        here = sum((one.get_name(), one.get_namespace()) == own for one in self.nodes)
        seen_s = time.monotonic() + 25.0  # one that the test before has killed is seen for 20 s
        self.until(lambda: node.get_node_names_and_namespaces().count(own) <= here or time.monotonic() > seen_s)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        return node

    def until(self, predicate: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
        """Spin until ``predicate()`` is true; fail after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not predicate():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what or predicate}"
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, node, service_type, name: str, request=None, seconds: float = 30.0):
        """Call a service from ``node`` and return the response."""
        client = node.create_client(service_type, name)
        self.until(client.service_is_ready, seconds, f"service {name}")
        future = client.call_async(request or service_type.Request())
        self.until(future.done, seconds, f"answer of {name}")
        node.destroy_client(client)
        return future.result()

    def collect(self, node, message_type, topic: str, qos=100) -> list:
        """Subscribe and return the (growing) list of received messages."""
        received: list = []
        node.create_subscription(message_type, topic, received.append, qos)
        return received

    def close(self) -> None:
        """Close the nodes, so that their threads end, and the context, whose 70 MB of memory a thread would keep."""
        import rclpy

        for node in self.nodes:
            self.executor.remove_node(node)
            getattr(node, "close", node.destroy_node)()
            self._before[node] = self._names[node]
        self.executor.shutdown()
        rclpy.try_shutdown()
