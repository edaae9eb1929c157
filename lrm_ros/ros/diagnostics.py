# SPDX-License-Identifier: Apache-2.0
"""What a node says about itself on ``/diagnostics``: rates, drops, latencies, faults; logs only on changes."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from lrm_ros import topics

SETTLED_S = 5.0  # a fault is told to be gone once it has been for so long [s]
SUMMARY_S = 10.0  # while one comes and goes, this often at most a line says how many times [s]

Tell = Callable[[str], None]


@dataclass
class _Told:
    """What has been said about a fault that is there, or not gone for long."""

    message: str
    tell: Tell
    at_s: float  # since when ``again`` counts
    kinds: set[str] = field(default_factory=set)  # messages that were told, without their numbers
    again: int = 0  # how often it has come again
    gone_s: float | None = None  # since when it is gone; None: it is there
    good: str = ""
    tell_good: Tell | None = None


class Diagnostics:
    """Counters, latencies and faults of one node, published once a second.

    Counters appear as total and as rate [1/s]; latencies as p50, p95 and maximum [ms] over the last 1000 samples.
    Callable from any thread. A fault is logged once when it appears and once when it has been gone for ``SETTLED_S``.
    One that comes and goes in between is a line with a count, at most every ``SUMMARY_S``. What is published
    is always the faults of the moment; counter ``faults`` tells how often one has appeared.
    """

    def __init__(self, node: Node, now: Callable[[], float] = time.monotonic) -> None:
        """Publish for ``node`` from now on.

        Args:
            node: whose diagnostics these are.
            now: steady time [s].
        """
        self._node = node
        self.now = now
        self._lock = threading.Lock()
        self._told: dict[str, _Told] = {}
        self._publisher = topics.DIAGNOSTICS.publisher(node)
        self._counts: dict[str, int] = {}
        self._published: dict[str, int] = {}
        self._latencies: dict[str, deque[float]] = {}
        self._values: dict[str, Any] = {}
        self._faults: dict[str, str] = {}
        self._since = now()
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

    def fault(self, key: str, message: str, tell: Tell | None = None) -> bool:
        """Report that something is wrong.

        Args:
            key: what it concerns; one fault a key.
            message: names the thing, the value and the cure. Other numbers do not make it another message.
            tell: says the lines about it; default: the node's log, as errors.

        Returns:
            Whether the fault was not there just before.
        """
        with self._lock:
            new = key not in self._faults
            self._faults[key] = message
            if not new:
                return False
            told = self._told.setdefault(key, _Told(message, self._error, self.now()))
            told.message, told.tell, told.gone_s = message, tell or self._error, None
            kind = re.sub(r"\d+(\.\d+)?", "", message)
            known = kind in told.kinds
            told.kinds.add(kind)
            told.again += known
        self.count("faults")
        if not known:
            told.tell(message)
        return True

    def recovered(self, key: str, message: str, tell: Tell | None = None) -> None:
        """Clear the fault ``key`` if it is there.

        Args:
            key: as given to :meth:`fault`.
            message: that it is gone; said once it has been for ``SETTLED_S``.
            tell: says it; default: the node's log.
        """
        with self._lock:
            if self._faults.pop(key, None) is not None:
                told = self._told[key]
                told.gone_s, told.good, told.tell_good = self.now(), message, tell or self._info

    def _tell(self) -> None:
        """Say what is due: of faults that come and go how often, and that one is gone."""
        due: list[tuple[Tell, str]] = []
        with self._lock:
            now = self.now()
            for key, told in list(self._told.items()):
                times = f"it came and went {told.again} time{'s' * (told.again > 1)} in {now - told.at_s:.0f} s"
                if told.gone_s is not None and now - told.gone_s >= SETTLED_S:
                    assert told.tell_good is not None
                    due.append((told.tell_good, f"{told.good}; {times}: {told.message}" if told.again else told.good))
                    del self._told[key]
                elif told.again and now - told.at_s >= SUMMARY_S:
                    due.append((told.tell, f"{told.message}; {times}"))
                    told.again, told.at_s = 0, now
        for tell, text in due:
            tell(text)

    def _error(self, text: str) -> None:
        self._node.get_logger().error(text)

    def _info(self, text: str) -> None:
        self._node.get_logger().info(text)

    @property
    def faults(self) -> dict[str, str]:
        """The current faults by key."""
        return dict(self._faults)

    def status(self) -> DiagnosticStatus:
        """Return the node's status; OK without faults, else ERROR with their messages."""
        now = self.now()
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
        """Publish the status now and log what is due (the timer calls it once a second)."""
        self._tell()
        array = DiagnosticArray(status=[self.status()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
