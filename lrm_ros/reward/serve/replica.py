# SPDX-License-Identifier: Apache-2.0
"""One replica of the served model, in a process that Ray starts: the model behind its queue, asked by the server."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
from collections.abc import Callable, Sequence

from lrm_ros.config_serve import ServeConfig
from lrm_ros.errors import one_line
from lrm_ros.programs import exit_code
from lrm_ros.reward.batching import Answers, Batch, Batcher
from lrm_ros.reward.models import RewardModel
from lrm_ros.types import RewardQuery

LOAD_FAILED = "lrm-replica-load-failed"  # Ray gives the text of an error alone, in the midst of its own


class Replica:
    """The model and its queue."""

    def __init__(self, config: ServeConfig, load: Callable[[str, str, str], RewardModel], folder: str) -> None:
        """Load the model.

        Args:
            config: of the server.
            load: gives the model for (name, device, mode).
            folder: in which the server runs; the model's name may be a path from there.

        Raises:
            RuntimeError: it cannot be loaded; ``LOAD_FAILED``, the exit code and the reason between angle brackets.
        """
        with contextlib.suppress(OSError):  # another machine may not have it
            os.chdir(folder)
        self._batches: collections.deque[Batch] = collections.deque(maxlen=10_000)
        try:
            model = load(config.model, config.device, config.mode)
        except Exception as error:
            raise RuntimeError(f"<{LOAD_FAILED}:{exit_code(error)}:{one_line(error)}>") from None
        self._heads = tuple(sorted(getattr(model, "adapters", {}) or ()))
        self._batcher = Batcher(model, config.max_batch, config.max_waiting, self._batches.append)

    async def about(self) -> tuple[str, tuple[str, ...]]:
        """Return the model's name and the heads that have an adapter."""
        return self._batcher.name, self._heads

    async def judge(
        self, queries: Sequence[RewardQuery], readout: str, timeout_s: float
    ) -> tuple[Answers, list[Batch]]:
        """Return the answers, in order, and the calls of the model since the last reply; cancelled, none is asked.

        Args:
            queries: any mix of heads and tasks.
            readout: ``forward``, ``reason`` or ``generate``.
            timeout_s: what the model has not begun after so long is Unscored [s].
        """
        answers = await asyncio.wrap_future(self._batcher.submit(queries, readout, timeout_s))
        return answers, [self._batches.popleft() for _ in range(len(self._batches))]
