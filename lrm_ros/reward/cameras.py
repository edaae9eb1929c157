# SPDX-License-Identifier: Apache-2.0
"""Several cameras that judge one scene: the mean of their answers; one that is unscored makes it unscored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lrm_ros.config import RewardConfig
from lrm_ros.reward.engine import Held
from lrm_ros.types import Reward, Unscored


def together(helds: Mapping[str, Held], config: RewardConfig) -> Held:
    """Return what holds for a scene, with the stamp of the first camera's frame.

    Args:
        helds: camera -> what holds for its frame; the first of ``config.cameras`` is there, others may lack.
        config: the cameras, the mode and the scale.
    """
    first = helds[config.cameras[0]]
    if len(config.cameras) == 1:
        return first
    answers = {head: _mean(head, helds, config, answer.stamp_ns) for head, answer in first.answers.items()}
    active = answers[config.mode]
    return Held(answers, config.scale * active.value if isinstance(active, Reward) else None, first.fresh)


def _mean(head: str, helds: Mapping[str, Held], config: RewardConfig, stamp_ns: int) -> Reward | Unscored:
    found: list[Reward] = []
    for camera in config.cameras:
        if camera not in helds:
            return Unscored(stamp_ns, head, f"camera '{camera}' has no frame of that time")
        answer = helds[camera].answers[head]
        if isinstance(answer, Unscored):
            return Unscored(stamp_ns, head, f"camera '{camera}': {answer.reason}")
        found.append(answer)
    masses = [answer.mass for answer in found if answer.mass is not None]
    value = float(np.mean([answer.value for answer in found]))
    latency_s = max(answer.latency_s for answer in found)
    return Reward(stamp_ns, head, value, found[0].model, latency_s, min(masses, default=None))
