# SPDX-License-Identifier: Apache-2.0
"""The reward models the paper compares with, by name: RoboReward, Robometer and TOPReward.

The published weights were never run here: nothing can be downloaded where this was written. The tests run tiny models
of the same class, file layout and vocabulary order with random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lrm_ros.reward.clips import Clip
from lrm_ros.reward.models import find_model
from lrm_ros.reward.robometer import Robometer
from lrm_ros.reward.roboreward import RoboReward
from lrm_ros.reward.topreward import TopReward
from lrm_ros.types import Unscored

# Each baseline and the weights its authors published. TOPReward has none of its own: it reads a stock model.
PUBLISHED = {
    "roboreward": "teetone/RoboReward-8B",
    "robometer": "robometer/Robometer-4B",
    "topreward": "Qwen/Qwen3-VL-8B-Instruct",
}
BASELINES = tuple(PUBLISHED)


class Baseline(Protocol):
    """A reward model that watches an episode so far."""

    name: str
    max_frames: int

    def score(self, clips: Sequence[Clip]) -> list[float | Unscored]:
        """Return a reward in [0, 1] for each clip, in order."""
        ...


def load_baseline(kind: str, name: str, device: str = "auto") -> Baseline:
    """Load a baseline.

    Args:
        kind: one of ``BASELINES``.
        name: folder of its weights, or a Hugging Face name that is already in the local cache.
        device: torch device; ``auto`` takes the GPU when there is one.

    Raises:
        ValueError: an unknown kind, no name, or weights of something else.
        FileNotFoundError: the folder, the cached name, or files in it are missing; says how to get them.
    """
    if kind not in PUBLISHED:
        raise ValueError(f"baseline '{kind}' is unknown; choose one of {', '.join(BASELINES)}")
    if not name:
        raise ValueError(
            f"baseline '{kind}' needs weights: a folder, or a Hugging Face name in the local cache such as "
            f"'{PUBLISHED[kind]}'"
        )
    folder = find_model(name)
    if kind == "roboreward":
        return RoboReward(folder, name, device)
    if kind == "robometer":
        return Robometer(folder, name, device)
    return TopReward(folder, name, device)
