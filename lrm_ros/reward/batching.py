# SPDX-License-Identifier: Apache-2.0
"""Batches in front of a reward model: what many callers ask while it is busy is its next batch.

A thread owns the model. It never waits for company: a query that comes while the model is idle is asked at once, and
those that come meanwhile are asked together. The most urgent request (earliest deadline) goes first; one with many
queries is asked in parts and holds up no other. A request whose deadline has passed, or whose caller has gone, is not
asked. One query that makes the model fail spoils no other: each request of such a batch is asked by itself, and a
request that fails alone, query by query.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from lrm_ros.reward.models import READOUTS, RewardModel
from lrm_ros.types import Reward, RewardQuery, Unscored

Answers = list[Reward | Unscored]


class Full(RuntimeError):
    """The queue takes no more queries now.

    Attributes:
        retry_after_s: about when there will be room [s], from the newest batches.
    """

    def __init__(self, waiting: int, limit: int, retry_after_s: float) -> None:
        """Say how many queries wait."""
        super().__init__(
            f"{waiting} queries wait and {limit} is the most; ask again in {retry_after_s:.1f} s, or start more servers"
        )
        self.retry_after_s = retry_after_s


@dataclass(eq=False)
class _Request:
    """Queries of one caller, in parts asked and answered."""

    queries: Sequence[RewardQuery]
    readout: str
    deadline_s: float  # on the monotonic clock
    timeout_s: float
    future: Future[Answers]
    taken: int = 0  # queries that a batch has taken
    answers: Answers = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """What one call of the model was, for whoever counts.

    Attributes:
        queries: how many it was asked.
        seconds: how long it took [s].
        failed: whether it raised.
    """

    queries: int
    seconds: float
    failed: bool


class Batcher:
    """A reward model behind a queue; itself a ``RewardModel`` whose ``score`` may be called by many threads at once."""

    def __init__(
        self,
        model: RewardModel,
        max_batch: int = 32,
        max_waiting: int = 1024,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        """Start the thread.

        Args:
            model: who answers; asked by that thread alone.
            max_batch: most queries of one call of it.
            max_waiting: most queries that wait; more are refused (``Full``).
            on_batch: called after each call of the model, by the thread; must not raise.
        """
        if max_batch < 1 or max_waiting < 1:
            raise ValueError(f"max_batch ({max_batch}) and max_waiting ({max_waiting}) must be at least 1")
        self.name = model.name
        self.max_waiting = max_waiting
        self._model, self._max_batch, self._on_batch = model, max_batch, on_batch
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, _Request]] = []
        self._order = itertools.count()
        self._waiting = 0
        self._seconds_a_query = 0.0  # of the newest batches
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many queries wait for the model."""
        return self._waiting

    def submit(
        self, queries: Sequence[RewardQuery], readout: str = "forward", timeout_s: float = math.inf
    ) -> Future[Answers]:
        """Queue a request.

        Args:
            queries: any mix of heads and tasks.
            readout: ``forward``, ``reason`` or ``generate``.
            timeout_s: queries that the model has not begun after so long are Unscored [s].

        Returns:
            The answers, in order, when they are all there. Cancelled, no further query of it is asked.

        Raises:
            Full: too many queries wait.
            ValueError: unknown read-out, or more queries than may ever wait.
            RuntimeError: closed.
        """
        if readout not in READOUTS:
            raise ValueError(f"unknown readout '{readout}'; choose one of {', '.join(READOUTS)}")
        if len(queries) > self.max_waiting:
            raise ValueError(f"{len(queries)} queries at once; {self.max_waiting} is the most that may wait")
        future: Future[Answers] = Future()
        if not queries:
            future.set_result([])
            return future
        request = _Request(list(queries), readout, time.monotonic() + timeout_s, timeout_s, future)
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the queue of model '{self.name}' is closed")
            if self._waiting + len(queries) > self.max_waiting:
                retry = max(0.1, self._waiting * self._seconds_a_query)
                raise Full(self._waiting, self.max_waiting, retry)
            self._waiting += len(queries)
            heapq.heappush(self._heap, (request.deadline_s, next(self._order), request))
            self._changed.notify()
        return future

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> Answers:
        """Answer every query, in order, with those of other callers; blocks. Raises what ``submit`` does."""
        return self.submit(queries, readout).result()

    def close(self, timeout_s: float) -> bool:
        """Take nothing more and answer what waits, but at most for so long [s]; the rest is Unscored.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            left, self._heap = [request for _, _, request in self._heap], []
            self._waiting = 0
        for request in left:
            self._end(request, "the server stops")
        return not self._thread.is_alive()

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._heap or self._closed)
                if not self._heap:
                    return
                parts = self._take()
            if parts:
                self._ask(parts)

    def _take(self) -> list[tuple[_Request, Sequence[RewardQuery]]]:
        """Take the next batch from the queue: the most urgent requests of one read-out."""
        parts: list[tuple[_Request, Sequence[RewardQuery]]] = []
        others: list[tuple[float, int, _Request]] = []
        room, readout, now = self._max_batch, "", time.monotonic()
        while self._heap and room:
            entry = heapq.heappop(self._heap)
            request = entry[2]
            left = len(request.queries) - request.taken
            if request.future.cancelled():
                self._waiting -= left
                continue
            if request.deadline_s <= now:
                self._waiting -= left
                self._end(request, f"not judged within {request.timeout_s:g} s: {self._waiting} queries waited")
                continue
            if readout and request.readout != readout:
                others.append(entry)
                continue
            readout = request.readout
            part = request.queries[request.taken : request.taken + room]
            request.taken += len(part)
            room -= len(part)
            self._waiting -= len(part)
            parts.append((request, part))
            if request.taken < len(request.queries):
                others.append(entry)
        for entry in others:
            heapq.heappush(self._heap, entry)
        return parts

    def _ask(self, parts: list[tuple[_Request, Sequence[RewardQuery]]]) -> None:
        """Ask the model one batch and hand out the answers."""
        readout = parts[0][0].readout
        together = [query for _, part in parts for query in part]
        try:
            answers = self._call(together, readout)
        except Exception as error:
            if len(together) == 1:
                query = together[0]
                reason = f"model '{self.name}' failed: {type(error).__name__}: {error}"
                self._give(parts[0][0], [Unscored(query.stamp_ns, query.head, reason)])
                return
            for request, part in parts:
                pieces = [part] if len(parts) > 1 else [[query] for query in part]
                for piece in pieces:
                    self._ask([(request, piece)])
            return
        for request, part in parts:
            self._give(request, answers[: len(part)])
            answers = answers[len(part) :]

    def _call(self, queries: Sequence[RewardQuery], readout: str) -> Answers:
        started, failed = time.perf_counter(), True
        try:
            answers = self._model.score(queries, readout)
            if len(answers) != len(queries):
                raise ValueError(f"{len(answers)} answers to {len(queries)} queries")
            failed = False
        finally:
            seconds = time.perf_counter() - started
            self._seconds_a_query = 0.7 * self._seconds_a_query + 0.3 * seconds / len(queries)
            self._on_batch(Batch(len(queries), seconds, failed))
        return answers

    def _give(self, request: _Request, answers: Answers) -> None:
        """Add answers to a request, which is done when it has all."""
        request.answers += answers
        if len(request.answers) == len(request.queries):
            _set(request.future, request.answers)

    def _end(self, request: _Request, reason: str) -> None:
        """End a request whose other queries are not asked any more."""
        rest = request.queries[len(request.answers) :]
        _set(request.future, request.answers + [Unscored(query.stamp_ns, query.head, reason) for query in rest])


def _set(future: Future[Answers], answers: Answers) -> None:
    """Set a result, unless whoever wanted it has gone or has been told otherwise."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(answers)
