# SPDX-License-Identifier: Apache-2.0
"""What a baseline says about the episodes of many worlds: the judged frames of each so far, all worlds in one batch."""

from __future__ import annotations

from collections.abc import Mapping

from lrm_ros.config import RefineConfig
from lrm_ros.reward.baselines import Baseline, load_baseline
from lrm_ros.types import Frame, Unscored


class BaselineRewards:
    """Keeps the judged frames of every running episode and asks the baseline about all of them."""

    def __init__(self, config: RefineConfig, baseline: Baseline | None = None) -> None:
        """Load the baseline.

        Args:
            config: ``reward`` (which baseline), ``baseline`` (its weights), ``scale``, ``device``.
            baseline: who answers; loaded if not given.

        Raises:
            ValueError: ``baseline`` is not set, or weights of something else.
            FileNotFoundError: the weights are not here.
        """
        self._kind, self._scale = config.reward, config.scale
        self._baseline = baseline or load_baseline(config.reward, config.baseline, config.device)
        self._episodes: dict[str, list[Frame]] = {}

    def reset(self, stream: str) -> None:
        """Begin a new episode of a world."""
        self._episodes[stream] = []

    def step(self, frames: Mapping[str, Frame], tasks: Mapping[str, str]) -> dict[str, float]:
        """Add the next judged frame of each world and return the scaled reward of its episode so far.

        Raises:
            RuntimeError: a world got no answer; says which and why.
        """
        for stream, frame in frames.items():
            self._episodes[stream].append(frame)
        answers = self._baseline.score([(tasks[stream], self._episodes[stream]) for stream in frames])
        rewards = {}
        for stream, answer in zip(frames, answers, strict=True):
            if isinstance(answer, Unscored):
                raise RuntimeError(
                    f"world {stream}: {self._kind} gave no answer: {answer.reason}; mend it and resume the run"
                )
            rewards[stream] = self._scale * answer
        return rewards
