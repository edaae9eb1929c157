# SPDX-License-Identifier: Apache-2.0
"""What the server counts and times, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lrm_ros.reward.batching import Batch

if TYPE_CHECKING:
    from lrm_ros.reward.serve.replicas import Replicas

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """Begin at nothing; ``waiting`` says how many queries wait now."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = registry = CollectorRegistry()
        self.requests = Counter("lrm_requests", "answered requests", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "lrm_request_seconds",
            "from a request's head to its answer, its body's way included [s]",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.answers = Counter("lrm_answers", "answered queries", ["head", "outcome"], registry=registry)
        self.gone = Counter("lrm_clients_gone", "requests whose client went before its answer", registry=registry)
        self._batches = Counter("lrm_batches", "calls of the model", ["outcome"], registry=registry)
        self._batch_queries = Histogram(
            "lrm_batch_queries", "queries of a call of the model", buckets=_SIZES, registry=registry
        )
        self._batch_seconds = Histogram(
            "lrm_batch_seconds", "duration of a call of the model [s]", buckets=_SECONDS, registry=registry
        )
        Gauge("lrm_waiting_queries", "queries that wait", registry=registry).set_function(waiting)

    def batch(self, batch: Batch) -> None:
        """Count a call of the model; called by its thread."""
        self._batches.labels("failed" if batch.failed else "answered").inc()
        self._batch_queries.observe(batch.queries)
        self._batch_seconds.observe(batch.seconds)

    def count_replicas(self, replicas: Replicas) -> None:
        """Show how many replicas run."""
        from prometheus_client import Gauge

        gauge = Gauge("lrm_replicas", "replicas of the model that answer", registry=self.registry)
        gauge.set_function(lambda: replicas.running)

    def text(self) -> bytes:
        """Return everything, as Prometheus reads it."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
