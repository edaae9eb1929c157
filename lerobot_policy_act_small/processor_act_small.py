# SPDX-License-Identifier: Apache-2.0
"""The processors of a new ``act_small`` policy; LeRobot looks for a function of this name in a module of this name."""

from __future__ import annotations

from typing import Any

from lerobot.policies.act.processor_act import make_act_pre_post_processors

from lerobot_policy_act_small.configuration_act_small import ActSmallConfig


def make_act_small_pre_post_processors(config: ActSmallConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """Return pre- and post-processor: those of ACT."""
    return make_act_pre_post_processors(config, dataset_stats)
