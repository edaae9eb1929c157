# SPDX-License-Identifier: Apache-2.0
"""The defaults of what a person has a part in: the blind comparison, and the keys that answer its questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lrm_ros import seeds
from lrm_ros.config_files import option as _opt


def _fix(*default_help_range: Any) -> Any:
    """Return a field that takes effect when the node is configured; it is refused at run time."""
    return _opt(*default_help_range, fixed=True)


@dataclass(frozen=True)
class AnswerConfig:
    """The answer node: a person's keys for the questions of other nodes."""

    rate_hz: float = _fix(20.0, "how often keys are looked for [Hz]", 0.1, 1000.0)


@dataclass(frozen=True)
class TrialConfig:
    """The trial node: a blind comparison of policies by a person (paper V, 60 trials)."""

    policies: tuple[str, ...] = _fix((), "folders of two or more policies")
    run: str = _fix("runs/trial", "folder of the answers; an interrupted comparison goes on there")
    starts: int = _fix(30, "trials of each policy", 1, 10_000)
    same_starts: bool = _fix(True, "every policy meets the same starts, one after the other; false: starts of its own")
    seconds: float = _fix(20.0, "time after which the policy is stopped [s]", 0.1, 3600.0)
    first_seed: int = _fix(seeds.HELD_OUT.first, "in the twin: seed of the first start", 0, seeds.LIMIT - 1)
    start_speed: float = _fix(0.5, "speed of the way back to the first trial's pose [rad/s]; 0: it stays", 0.0, 3.0)
    model: str = _fix("tiny", "reward model of the judge; the reward node's is asked if it is the same")
    judge_frames: int = _fix(4, "judge a trial by the mean p(done) of its last frames", 1, 1_000_000)
    judge_threshold: float = _fix(0.5, "a success, for the judge, when that mean is at least this", 0.0, 1.0)
