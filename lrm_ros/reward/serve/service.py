# SPDX-License-Identifier: Apache-2.0
"""The served model: loads while the server already answers, then judges what requests ask, with their cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lrm_ros.config_serve import ServeConfig
from lrm_ros.reward.batching import Answers, Batcher, Full
from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import RewardModel, trusted
from lrm_ros.reward.serve.metrics import Metrics
from lrm_ros.reward.serve.replicas import Replicas
from lrm_ros.types import Reward, RewardQuery

T = TypeVar("T")
_DECODERS = 4  # threads


class Refused(Exception):
    """A request that is not answered, with the status and the reason why.

    Attributes:
        status: of HTTP.
        headers: of the answer.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        """Say why."""
        super().__init__(reason)
        self.status, self.headers = status, headers or {}


class Gone(Exception):
    """The client has gone; nobody reads an answer."""


class Service:
    """Loads the model in a thread and asks it through a :class:`Batcher`, or its replicas through Ray Serve.

    Attributes:
        config: what is served.
        batcher: whom to ask; None while the model is being loaded.
        metrics: of the requests and of the calls of the model, those of all replicas together.
        heads: that have an adapter.
    """

    def __init__(
        self,
        config: ServeConfig,
        load: Callable[[str, str, str], RewardModel] = load_model,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """Know nothing yet.

        Args:
            config: what to serve.
            load: gives the model for (name, device, mode).
            on_failure: called if it cannot be loaded.
        """
        self.config = config
        self.batcher: Batcher | Replicas | None = None
        self.metrics = Metrics(lambda: self.batcher.waiting if self.batcher else 0)
        self._replicas: Replicas | None = None
        if config.replicas:
            self._replicas = Replicas(config, load, self.metrics.batch, on_failure)
            self.metrics.count_replicas(self._replicas)
        self.heads: tuple[str, ...] = ()
        self._load, self._on_failure = load, on_failure
        self._decoders = ThreadPoolExecutor(_DECODERS, "decoder")
        self._thread = threading.Thread(target=self._begin, name="load", daemon=True)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def _begin(self) -> None:
        config = self.config
        try:
            if self._replicas is not None:
                if self._replicas.start():
                    self.heads, self.batcher = self._replicas.heads, self._replicas
                return
            model = self._load(config.model, config.device, config.mode)
        except Exception as error:
            self._on_failure(error)
            return
        self.heads = tuple(sorted(getattr(model, "adapters", {}) or ()))
        self.batcher = Batcher(model, config.max_batch, config.max_waiting, self.metrics.batch)

    def close(self, timeout_s: float) -> None:
        """Answer what waits, for so long at most [s]."""
        asked = self._replicas or self.batcher
        if asked is not None:
            asked.close(timeout_s)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def decode(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what takes a core's time in a thread, and the server goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    async def judge(
        self,
        queries: Sequence[RewardQuery],
        readout: str,
        timeout_s: float,
        disconnected: Callable[[], Coroutine[Any, Any, None]],
    ) -> Answers:
        """Return the answers to a request's queries.

        Args:
            queries: any mix of heads and tasks.
            readout: ``forward``, ``reason`` or ``generate``.
            timeout_s: what the model has not begun after so long is Unscored [s].
            disconnected: returns when the client has gone.

        Raises:
            Refused: the model is not loaded yet (503), too much waits (429), or it is more than may ever wait (422).
            Gone: the client went; what was not asked yet will not be.
        """
        if self.batcher is None:
            raise Refused(503, f"model '{self.config.model}' is being loaded", {"Retry-After": "5"})
        try:
            future = self.batcher.submit(queries, readout, min(timeout_s, self.config.timeout_s))
        except Full as error:
            raise Refused(429, str(error), {"Retry-After": str(max(1, round(error.retry_after_s)))}) from error
        except ValueError as error:
            raise Refused(422, str(error)) from error
        except RuntimeError as error:
            raise Refused(503, str(error)) from error
        answered: asyncio.Future[Any] = asyncio.wrap_future(future)
        gone = asyncio.create_task(disconnected())
        try:
            await asyncio.wait({answered, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                future.cancel()  # at once: the next batch may begin before this loop goes on
                self.metrics.gone.inc()
                raise Gone
            answers = [trusted(answer, self.config.min_mass) for answer in answered.result()]
        finally:
            answered.cancel()
            gone.cancel()
        for answer in answers:
            self.metrics.answers.labels(answer.head, "scored" if isinstance(answer, Reward) else "unscored").inc()
        return answers
