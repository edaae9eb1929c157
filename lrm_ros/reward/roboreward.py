# SPDX-License-Identifier: Apache-2.0
"""RoboReward: a Qwen3-VL that watches a video of the episode and says a score from 1 to 5.

The model cards of teetone/RoboReward-4B and -8B say to follow Qwen's own instructions for videos, so frames are
enlarged or shrunk as Qwen's ``qwen_vl_utils`` does (as in robometer/robometer:robometer/evals/baselines/roboreward.py,
without its detour through JPEG files).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.reward.qwen.language import greedy
from lrm_ros.reward.video import load_video_model, readings, resized, rewards, video_inputs
from lrm_ros.reward.video_heads import VIDEO_HEADS
from lrm_ros.types import Reward, RewardQuery, Unscored

TOKENS = (128, 768)  # of a frame of a video, qwen_vl_utils' VIDEO_MIN_TOKEN_NUM and VIDEO_MAX_TOKEN_NUM


class RoboReward:
    """RoboReward-4B or -8B."""

    def __init__(self, folder: Path, name: str = "", device: str = "auto", fps: float | None = None) -> None:
        """Load the model.

        Args:
            folder: its weights and processor.
            name: name of the model; the folder's if empty.
            device: torch device; ``auto`` takes the GPU when there is one.
            fps: frames a second; ``None``: by their stamps, as Large-Reward-Models does. Robometer's baseline says 1.

        Raises:
            FileNotFoundError: files are missing.
            ValueError: not a whole Qwen3-VL.
        """
        self.name, self.head, self._fps = name or folder.name, VIDEO_HEADS["roboreward"], fps
        self.model, self.processor = load_video_model(folder, device)

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Return (score - 1) / 4 for each query, in order: 0, 0.25, 0.5, 0.75 or 1."""
        return rewards(self.name, queries, readout, self._read, float)

    def replies(self, queries: Sequence[RewardQuery]) -> list[str]:
        """Return what the model says about each query, greedily."""
        import torch

        inputs = self.inputs(queries).to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(**inputs, generation_config=greedy(self.model, self.head.max_new_tokens))
        return self.processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)

    def inputs(self, queries: Sequence[RewardQuery]) -> Any:
        """Return the model's inputs: one user turn a query, the video before the text."""
        videos = self.processor.video_processor
        factor = videos.patch_size * videos.merge_size
        shown, texts = [], []
        for query in queries:
            shown.append(
                [replace(f, image=np.asarray(resized(f.image, factor, TOKENS))) for f in self.head.images(query)]
            )
            texts.append(
                self.processor.apply_chat_template(
                    self.head.messages(query), tokenize=False, add_generation_prompt=True
                )
            )
        return video_inputs(self.processor, texts, shown, self._fps, do_resize=False)

    def _read(self, queries: Sequence[RewardQuery]) -> list[float | Unscored]:
        return readings(self.name, self.head, queries, self._ask)

    def _ask(self, queries: list[RewardQuery]) -> list[float | str]:
        answers: list[float | str] = []
        for reply in self.replies(queries):
            value = self.head.parse(reply)
            answers.append(f"the reply cannot be read: {reply[:200]!r}" if value is None else value)
        return answers
