# SPDX-License-Identifier: Apache-2.0
"""TOPReward: how likely a stock Qwen3-VL finds it that the video shows the task being completed; nothing is trained.

The user's turn is the video and the start of a statement, cut off before its end mark; the task and "Decide whether the
above statement is True or not. The answer is: True" follow it. The reward is log P("True"), of that one token.
The forms differ upstream: the authors' default, Large-Reward-Models' server and lerobot write the statement like this;
Robometer's baseline closes the turn before "True" (robometer/robometer:robometer/evals/baselines/topreward.py). The
first form is used, and frames are sized by the stock processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrm_ros.reward.video import load_video_model, readings, rewards, video_inputs
from lrm_ros.reward.video_heads import VIDEO_HEADS, topreward_value
from lrm_ros.types import Reward, RewardQuery, Unscored


class TopReward:
    """A stock Qwen3-VL asked by TOPReward's rule."""

    def __init__(self, folder: Path, name: str = "", device: str = "auto", fps: float | None = None) -> None:
        """Load the model.

        Args:
            folder: weights and processor of a Qwen3-VL.
            name: name of the model; the folder's if empty.
            device: torch device; ``auto`` takes the GPU when there is one.
            fps: frames a second; ``None``: by their stamps. The authors sample videos at 2; upstream says 0.5 in a run
                (control rate / interval).

        Raises:
            FileNotFoundError: files are missing.
            ValueError: not a whole Qwen3-VL, or its tokenizer splits the answer.
        """
        self.name, self.head, self._fps = name or folder.name, VIDEO_HEADS["topreward"], fps
        self.model, self.processor = load_video_model(folder, device)
        (answer,) = self.head.candidates
        tokens = self.processor.tokenizer(answer)["input_ids"]
        if len(tokens) != 1:
            raise ValueError(f"the tokenizer of '{folder}' splits '{answer}' into {len(tokens)} tokens; one is scored")
        self._answer, self._token = answer, tokens[0]

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> list[Reward | Unscored]:
        """Return clip((log P + 25) / 20, 0, 1) for each query, in order."""
        return rewards(self.name, queries, readout, self.log_probs, topreward_value)

    def log_probs(self, queries: Sequence[RewardQuery]) -> list[float | Unscored]:
        """Return log P("True") for each query, in order; at most 0."""
        return readings(self.name, self.head, queries, self._ask)

    def inputs(self, queries: Sequence[RewardQuery]) -> Any:
        """Return the model's inputs: the video, the statement about it, the answer."""
        end, texts = self.processor.tokenizer.eos_token, []
        for query in queries:
            turn = self.processor.apply_chat_template(
                self.head.messages(query), tokenize=False, add_generation_prompt=False
            )
            texts.append(turn.rsplit(end, 1)[0] + self._answer)
        return video_inputs(self.processor, texts, [self.head.images(query) for query in queries], self._fps)

    def _ask(self, queries: list[RewardQuery]) -> list[float | str]:
        import torch

        inputs = self.inputs(queries).to(self.model.device)
        if not bool((inputs.input_ids[:, -1] == self._token).all()):
            raise ValueError(f"a prompt does not end with the token '{self._answer}'")
        with torch.inference_mode():
            logits = self.model(**inputs, logits_to_keep=2).logits[:, 0]  # left padding: the answer is last
        values = logits.float().log_softmax(-1)[:, self._token].tolist()
        return [value if math.isfinite(value) else f"the log-probability is {value}" for value in values]
