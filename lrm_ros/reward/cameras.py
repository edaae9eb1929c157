# SPDX-License-Identifier: Apache-2.0
"""Several cameras that judge one scene: the mean of their answers; one that is unscored makes it unscored."""

from __future__ import annotations

from collections.abc import Mapping

from lrm_ros.config import RewardConfig
from lrm_ros.reward.engine import Held
from lrm_ros.reward.views import mean
from lrm_ros.types import Reward


def together(helds: Mapping[str, Held], config: RewardConfig) -> Held:
    """Return what holds for a scene, with the stamp of the first camera's frame.

    Args:
        helds: camera -> what holds for its frame; the first of ``config.cameras`` is there, others may lack.
        config: the cameras, the mode and the scale.
    """
    first = helds[config.cameras[0]]
    if len(config.cameras) == 1:
        return first
    answers = {
        head: mean(
            {camera: held.answers[head] for camera, held in helds.items()}, config.cameras, head, answer.stamp_ns
        )
        for head, answer in first.answers.items()
    }
    active = answers[config.mode]
    return Held(answers, config.scale * active.value if isinstance(active, Reward) else None, first.fresh)
