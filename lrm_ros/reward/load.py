# SPDX-License-Identifier: Apache-2.0
"""Load a reward model by name and mode.

The published weights of RoboReward, Robometer and TOPReward were never run here: nothing can be downloaded where this
was written. The tests run tiny models of the same class, file layout and vocabulary order with random weights.
"""

from __future__ import annotations

from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.models import MODES, RewardModel, find_model, split_load
from lrm_ros.types import HEADS, VIDEO_HEADS

# The weights that the authors of each video head published. TOPReward has none of its own: it reads a stock model.
PUBLISHED = {
    "roboreward": "teetone/RoboReward-8B",
    "robometer": "robometer/Robometer-4B",
    "topreward": "Qwen/Qwen3-VL-8B-Instruct",
}


def load_model(name: str, device: str = "auto", mode: str = "completion") -> RewardModel:
    """Load a reward model.

    Args:
        name: ``tiny`` (shipped), ``fake`` (brightness; only for tests of the graph), a folder (a whole Qwen3-VL or
            LoRA adapters, see ``lrm_ros.reward.qwen.load``; for a video head its weights), a Hugging Face name that
            is already in the local cache, each perhaps with ``?load=`` (how an LRM's weights are held; see
            ``lrm_ros.reward.qwen.quantized``), or ``http://HOST:PORT`` of a reward server (``lrm serve``, or
            upstream's), or ``openai:NAME@URL`` of an OpenAI-compatible one.
        device: torch device; ``auto`` takes the GPU when there is one.
        mode: one of ``MODES``. A video head has a model of its own; all others share one.

    Raises:
        FileNotFoundError: the folder, the cached name, or files in it are missing; says how to get them.
        ValueError: an unknown mode, a video head without a name, a folder that holds something else, or half a model.
    """
    if mode not in MODES:
        raise ValueError(f"reward mode '{mode}' is unknown; choose one of {', '.join(MODES)}")
    if name == "fake":
        return FakeModel()
    if name.startswith(("http://", "https://")):
        from lrm_ros.reward.remote import RemoteModel

        return RemoteModel(name)
    if name.startswith("openai:"):
        from lrm_ros.reward.openai_model import OpenAiModel

        return OpenAiModel(name)
    plain, load = split_load(name)
    if mode not in VIDEO_HEADS:
        from lrm_ros.reward.qwen.model import QwenRewardModel

        model = QwenRewardModel(find_model(plain), name=name, device=device, load=load)
        lacks = [
            head for head in (HEADS if mode == "tri" else (mode,)) if model.adapters and head not in model.adapters
        ]
        if lacks:
            raise ValueError(
                f"model '{name}' has no adapter for head '{lacks[0]}', which mode '{mode}' asks, only for "
                f"{', '.join(model.adapters)}; add '{lacks[0]}/' or choose another mode"
            )
        return model
    if load:
        raise ValueError(f"model '{name}': load is for an LRM; the weights of {mode} are loaded as they are")
    if not name:
        raise ValueError(
            f"baseline '{mode}' needs weights: a folder, or a Hugging Face name in the local cache such as "
            f"'{PUBLISHED[mode]}'"
        )
    folder = find_model(name)
    if mode == "roboreward":
        from lrm_ros.reward.roboreward import RoboReward

        return RoboReward(folder, name, device)
    if mode == "robometer":
        from lrm_ros.reward.robometer import Robometer

        return Robometer(folder, name, device)
    from lrm_ros.reward.topreward import TopReward

    return TopReward(folder, name, device)
