# SPDX-License-Identifier: Apache-2.0
"""What a node says about itself on ``/diagnostics``: rates, drops, latencies, faults; logs only on changes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from lrm_ros import topics


class Diagnostics:
    """Counters, latencies and faults of one node, published once a second.

    Counters appear as total and as rate [1/s]; latencies as p50, p95 and maximum [ms] over the last 1000 samples.
    Callable from any thread. A fault is logged once when it appears and once when it is gone.
    """

    def __init__(self, node: Node) -> None:
        """Publish for ``node`` from now on."""
        self._node = node
        self._publisher = topics.DIAGNOSTICS.publisher(node)
        self._counts: dict[str, int] = {}
        self._published: dict[str, int] = {}
        self._latencies: dict[str, deque[float]] = {}
        self._values: dict[str, Any] = {}
        self._faults: dict[str, str] = {}
        self._since = time.monotonic()
        # Wall time on purpose: a stopped simulation clock must not silence the diagnostics.
        self._timer = node.create_timer(1.0, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def count(self, name: str, n: int = 1) -> None:
        """Add ``n`` to a counter, e.g. ``frames`` or ``dropped``."""
        self._counts[name] = self._counts.get(name, 0) + n

    def total(self, name: str) -> int:
        """Return a counter (0 if it never counted)."""
        return self._counts.get(name, 0)

    def latency(self, name: str, seconds: float) -> None:
        """Add a latency sample [s]."""
        self._latencies.setdefault(name, deque(maxlen=1000)).append(seconds)

    def value(self, name: str, value: Any) -> None:
        """Show a value as it is."""
        self._values[name] = value

    def fault(self, key: str, message: str, log: bool = True) -> bool:
        """Report that something is wrong; logs an error when ``key`` is new. Returns whether it is new."""
        new = key not in self._faults
        self._faults[key] = message
        if new and log:
            self._node.get_logger().error(message)
        return new

    def recovered(self, key: str, message: str) -> None:
        """Clear the fault ``key``; logs ``message`` if it was set."""
        if self._faults.pop(key, None) is not None:
            self._node.get_logger().info(message)

    @property
    def faults(self) -> dict[str, str]:
        """The current faults by key."""
        return dict(self._faults)

    def status(self) -> DiagnosticStatus:
        """Return the node's status; OK without faults, else ERROR with their messages."""
        now = time.monotonic()
        span = max(now - self._since, 1e-6)
        values: dict[str, Any] = {}
        for name, count in list(self._counts.items()):
            values[name] = count
            values[f"{name}_per_s"] = f"{(count - self._published.get(name, 0)) / span:.2f}"
            self._published[name] = count
        for name, samples in list(self._latencies.items()):
            p50, p95, top = np.percentile(list(samples), (50, 95, 100)) * 1e3
            values |= {f"{name}_ms_p50": f"{p50:.2f}", f"{name}_ms_p95": f"{p95:.2f}", f"{name}_ms_max": f"{top:.2f}"}
        values |= self._values
        self._since = now
        faults = list(self._faults.values())
        return DiagnosticStatus(
            level=DiagnosticStatus.ERROR if faults else DiagnosticStatus.OK,
            name=self._node.get_fully_qualified_name(),
            message="; ".join(faults) or "ok",
            hardware_id="",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def publish(self) -> None:
        """Publish the status now (the timer calls it once a second)."""
        array = DiagnosticArray(status=[self.status()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
