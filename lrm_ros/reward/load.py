# SPDX-License-Identifier: Apache-2.0
"""Load a reward model by its name."""

from __future__ import annotations

from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.models import RewardModel, find_model


def load_model(name: str, device: str = "auto") -> RewardModel:
    """Load a reward model.

    Args:
        name: ``tiny`` (shipped), ``fake`` (brightness; only for tests of the graph), a folder (a whole Qwen3-VL or
            LoRA adapters, see ``lrm_ros.reward.qwen.load``), or a Hugging Face name that is already in the local cache.
        device: torch device; ``auto`` takes the GPU when there is one.

    Raises:
        FileNotFoundError: the folder, the cached name, or files in it are missing; says how to get them.
        ValueError: the folder holds something else than a Qwen3-VL.
        RuntimeError: adapter weights that would have no effect.
    """
    if name == "fake":
        return FakeModel()
    from lrm_ros.reward.qwen.model import QwenRewardModel

    return QwenRewardModel(find_model(name), name=name, device=device)
