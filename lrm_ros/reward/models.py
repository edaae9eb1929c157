# SPDX-License-Identifier: Apache-2.0
"""Who answers reward queries: the interface, the loader by name, and the fake for tests of the graph."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lrm_ros.reward.heads import HEADS
from lrm_ros.types import Reward, RewardQuery, Unscored

TINY_FOLDER = Path(__file__).parent.parent / "models" / "tiny"
READOUTS = ("forward", "generate")


class RewardModel(Protocol):
    """Anything that answers reward queries in batches."""

    name: str

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Answer every query, in order; a query that got no answer is Unscored with the reason."""
        ...


def load_model(name: str, device: str = "auto") -> RewardModel:
    """Load a reward model.

    Args:
        name: ``tiny`` (shipped), ``fake`` (brightness; only for tests of the graph), a folder (a whole Qwen3-VL or
            LoRA adapters, see ``lrm_ros.reward.adapters``), or a Hugging Face name that is already in the local cache.
        device: torch device; ``auto`` takes the GPU when there is one.

    Raises:
        FileNotFoundError: the folder, the cached name, or files in it are missing; says how to get them.
        ValueError: the folder holds something else than a Qwen3-VL.
        RuntimeError: adapter weights that would have no effect.
    """
    if name == "fake":
        return FakeModel()
    from lrm_ros.reward.qwen import QwenRewardModel

    return QwenRewardModel(find_model(name), name=name, device=device)


def find_model(name: str) -> Path:
    """Return the folder behind a model name; downloads nothing.

    Raises:
        FileNotFoundError: no such folder, and no such name in the local Hugging Face cache.
    """
    if name == "tiny":
        return TINY_FOLDER
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"model folder '{name}' does not exist; use 'tiny' (shipped), an existing folder, or a Hugging Face name "
            "such as 'Qwen/Qwen3-VL-8B-Instruct'"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            f"model '{name}' is neither a folder nor in the local Hugging Face cache; on a machine with network run "
            f"'hf download {name} --local-dir FOLDER', copy FOLDER here and give its path"
        ) from None


class FakeModel:
    """Judges brightness, so that tests of the graph can predict every answer. It is no reward model.

    Brightness is the mean pixel of the judged frame over 255. Progress: brightness. Completion: 1 if brightness is at
    least 0.5, else 0. Contrastive: +1 if the later frame is brighter, -1 if darker; equally bright frames are Unscored.
    """

    name = "fake"

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Answer every query from the brightness of its frames."""
        return [self._score(query) for query in queries]

    def _score(self, query: RewardQuery) -> Reward | Unscored:
        start = time.perf_counter()
        try:
            HEADS[query.head].messages(query)
        except ValueError as error:
            return Unscored(query.stamp_ns, query.head, str(error))
        light = [float(frame.image.mean()) / 255 for frame in query.frames]
        if query.head == "progress":
            value = light[-1]
        elif query.head == "completion":
            value = float(light[-1] >= 0.5)
        elif light[1] == light[0]:
            return Unscored(query.stamp_ns, query.head, "the fake model sees two equally bright frames")
        else:
            value = 1.0 if light[1] > light[0] else -1.0
        return Reward(query.stamp_ns, query.head, value, self.name, time.perf_counter() - start)
