# SPDX-License-Identifier: Apache-2.0
"""Replicas of the served model on Ray Serve, in place of the one queue and model of a server without.

The server stays the one front: it hands each request's queries, decoded, to the deployment's handle, in parts of a
batch, and Ray Serve to the replica of which fewest are waited for. A replica has its own queue, which makes batches
and knows the deadline. What was asked of a replica that died is asked of another one, until its deadline.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from lrm_ros.config_serve import ServeConfig
from lrm_ros.reward.batching import Answers, Batch, Full
from lrm_ros.reward.models import READOUTS, RewardModel
from lrm_ros.reward.serve.ray_cluster import Cluster
from lrm_ros.reward.serve.replica import LOAD_FAILED, Replica
from lrm_ros.types import RewardQuery, Unscored

log = logging.getLogger("lrm_ros.serve")
_DEATHS = 3  # replicas that die while the same queries are asked: then these are not asked again
_PAUSE_S = 0.1  # before another replica is asked [s]
_LATE_S = 10.0  # a replica that does not answer may at least take so long after a deadline [s]
_LOAD_LOOK_S, _LOOK_S = 0.5, 2.0  # between two looks at how many replicas run, while they load and later [s]


class Replicas:
    """The replicas of a server; takes requests as a :class:`~lrm_ros.reward.batching.Batcher` does.

    Attributes:
        name: of the model.
        heads: that have an adapter.
        running: replicas that answer now.
        max_waiting: most queries that wait or are being judged.
    """

    def __init__(
        self,
        config: ServeConfig,
        load: Callable[[str, str, str], RewardModel],
        on_batch: Callable[[Batch], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Know nothing yet.

        Args:
            config: of the server.
            load: gives the model for (name, device, mode), in a replica's process: a function of a module.
            on_batch: called after each call of a model, when the answers have come.
            on_failure: called if Ray fails for good after the start.
        """
        self.name, self.heads, self.running = config.model, (), 0
        self.max_waiting = config.max_waiting
        self._config, self._load = config, load
        self._on_batch, self._on_failure = on_batch, on_failure
        self._loop = asyncio.new_event_loop()
        self._handle: Any = None
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._waiting, self._closed = 0, False
        self._idle = threading.Condition(self._lock)
        self._seconds_a_query = 0.0
        self._begun, self._stop = threading.Event(), threading.Event()
        # Ray's processes end with the thread that started it, so this one lives until they are to end.
        self._thread = threading.Thread(target=self._work, name="ray", daemon=True)

    def start(self) -> bool:
        """Start Ray and the replicas, and wait until they answer; returns whether they do: not after ``close``.

        Raises:
            ValueError: Ray Serve is missing, too few GPUs, or the model cannot be loaded.
            RuntimeError: the model cannot be loaded for another reason.
            ConnectionError: no Ray.
        """
        with self._lock:
            if self._closed:
                return False
            self._thread.start()
        self._begun.wait()
        if self._failure is not None:
            raise self._failure
        return self._handle is not None

    @property
    def waiting(self) -> int:
        """How many queries wait or are being judged."""
        return self._waiting

    def submit(self, queries: Sequence[RewardQuery], readout: str, timeout_s: float) -> Future[Answers]:
        """Ask the replicas; arguments and errors as those of ``Batcher.submit``."""
        if readout not in READOUTS:
            raise ValueError(f"unknown readout '{readout}'; choose one of {', '.join(READOUTS)}")
        count = len(queries)
        if count > self.max_waiting:
            raise ValueError(f"{count} queries at once; {self.max_waiting} is the most that may wait")
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the queue of model '{self.name}' is closed")
            if self._waiting + count > self.max_waiting:
                retry = max(0.1, self._waiting * self._seconds_a_query / max(1, self.running))
                raise Full(self._waiting, self.max_waiting, retry)
            self._waiting += count
        future = asyncio.run_coroutine_threadsafe(self._judge(list(queries), readout, timeout_s), self._loop)
        future.add_done_callback(lambda _: self._done(count))
        return future

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, answer what waits for so long at most [s], then end the replicas and Ray.

        Returns:
            Whether Ray has ended.
        """
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: not self._waiting, timeout_s)
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s + 50.0)  # Ray that is being started cannot be interrupted
        return not self._thread.is_alive()

    def _done(self, count: int) -> None:
        with self._lock:
            self._waiting -= count
            self._idle.notify_all()

    # ---- the loop's thread -------------------------------------------------------------------------------------------

    async def _judge(self, queries: list[RewardQuery], readout: str, timeout_s: float) -> Answers:
        """Return the answers to a request, asked in parts of a batch, side by side."""
        size, deadline_s = self._config.max_batch, time.monotonic() + timeout_s
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        found = await asyncio.gather(*(self._ask(part, readout, deadline_s, timeout_s) for part in parts))
        return [answer for answers in found for answer in answers]

    async def _ask(self, queries: list[RewardQuery], readout: str, deadline_s: float, timeout_s: float) -> Answers:
        """Return the answers to a part, of whichever replica lives to give them."""
        from ray.exceptions import RayActorError, RayTaskError

        deaths = 0
        while (left_s := deadline_s - time.monotonic()) > 0:
            if deaths == _DEATHS:
                return _unscored(queries, f"{deaths} replicas died while they were asked this")
            response = self._handle.judge.remote(queries, readout, left_s)
            try:
                try:
                    async with asyncio.timeout(left_s):
                        await response._to_object_ref()  # a replica has taken it; its own queue knows the deadline
                    async with asyncio.timeout(deadline_s - time.monotonic() + max(_LATE_S, timeout_s)):
                        answers, batches = await response
                except BaseException:
                    response.cancel()
                    raise
            except TimeoutError:
                break
            except RayActorError as error:
                deaths += 1
                log.warning("a replica died; %d queries are asked of another (%s)", len(queries), type(error).__name__)
                await asyncio.sleep(_PAUSE_S)
                continue
            except RayTaskError as error:
                return _unscored(queries, f"a replica failed: {error.cause!r}")
            for batch in batches:
                self._seconds_a_query = 0.7 * self._seconds_a_query + 0.3 * batch.seconds / batch.queries
                self._on_batch(batch)
            return answers
        return _unscored(queries, f"not judged within {timeout_s:g} s: {self._waiting} queries waited")

    def _work(self) -> None:
        """Start Ray, serve until asked to stop, end Ray."""
        cluster: Cluster | None = None
        try:
            cluster = Cluster(self._config)
            self._handle = self._deployed(cluster)
            if self._handle is not None:
                asyncio.set_event_loop(self._loop)
                self._loop.run_until_complete(self._serve(cluster))
        except Exception as error:
            self._failure = error
            if self._begun.is_set():
                self._on_failure(error)
        finally:
            self.running = 0
            if cluster is not None:
                cluster.close()
            self._begun.set()
            self._loop.close()

    def _deployed(self, cluster: Cluster) -> Any:
        """Start the replicas; returns their handle when they have loaded the model, None if asked to stop before."""
        handle = cluster.deploy(Replica, self._config, self._load, os.getcwd())
        while not self._stop.wait(_LOAD_LOOK_S):
            state, said, self.running = cluster.state()
            if failed := re.search(rf"<{LOAD_FAILED}:(\d):(.*?)>(?:\s|$)", said, re.S):
                raise (ValueError if failed[1] == "2" else RuntimeError)(failed[2])
            if state in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise RuntimeError(f"the replicas cannot be started: {' '.join(said.split())[-600:]}")
            if state == "RUNNING":
                self.name, self.heads = handle.about.remote().result(timeout_s=60.0)
                return handle
        return None

    async def _serve(self, cluster: Cluster) -> None:
        """Count the replicas that run until asked to stop; the requests' coroutines run beside this one."""
        self._begun.set()
        failures, look_s = 0, time.monotonic() + _LOOK_S
        while not self._stop.is_set():
            await asyncio.sleep(0.1)
            if time.monotonic() < look_s:
                continue
            look_s = time.monotonic() + _LOOK_S
            try:
                _, _, self.running = await asyncio.to_thread(cluster.state)
                failures = 0
            except Exception as error:
                failures += 1
                if failures > 5:
                    raise RuntimeError(f"Ray does not answer: {type(error).__name__}: {error}") from error
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1.0) if tasks else None


def _unscored(queries: Sequence[RewardQuery], reason: str) -> Answers:
    return [Unscored(query.stamp_ns, query.head, reason) for query in queries]
