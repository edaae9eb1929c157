# SPDX-License-Identifier: Apache-2.0
"""TOPReward: how likely a stock Qwen3-VL finds it that the video shows the task being completed; nothing is trained.

The user's turn is the video and the start of a statement, cut off before its end mark; the task and "Decide whether the
above statement is True or not. The answer is: True" follow it. The reward is log P("True"), of that one token.
The forms differ upstream: the authors' default, Large-Reward-Models' server and lerobot write the statement like this;
Robometer's baseline closes the turn before "True" (robometer/robometer:robometer/evals/baselines/topreward.py). The
first form is used, and frames are sized by the stock processor.

In a run the log-probability is brought to [0, 1] by clip((log P + 25) / 20, 0, 1), as upstream's server does
(Large-Reward-Models:vlm_reward/vlm_reward_server.py, TOPREWARD_LOGP_LO/HI; its client still speaks of exp). The authors
scale by the minimum and maximum over an episode, which are not known before it ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrm_ros.reward.clips import Clip, answered, load_video_model, spread, video_inputs
from lrm_ros.types import Unscored

PREFIX = "The above video shows a robot manipulation trajectory that completes the following task: "
SUFFIX = " Decide whether the above statement is True or not. The answer is: True"
ANSWER = " True"
LOW, HIGH = -25.0, -5.0


class TopReward:
    """A stock Qwen3-VL asked by TOPReward's rule."""

    def __init__(
        self, folder: Path, name: str = "", device: str = "auto", fps: float | None = None, max_frames: int = 15
    ) -> None:
        """Load the model.

        Args:
            folder: weights and processor of a Qwen3-VL.
            name: name of the model; the folder's if empty.
            device: torch device; ``auto`` takes the GPU when there is one.
            fps: frames a second; ``None``: by their stamps. The authors sample videos at 2; upstream says 0.5 in a run
                (control rate / interval).
            max_frames: most frames of a clip (Large-Reward-Models:config/topreward.yaml).

        Raises:
            FileNotFoundError: files are missing.
            ValueError: not a whole Qwen3-VL, or its tokenizer splits the answer.
        """
        self.name, self.max_frames, self._fps = name or folder.name, max_frames, fps
        self.model, self.processor = load_video_model(folder, device)
        tokens = self.processor.tokenizer(ANSWER)["input_ids"]
        if len(tokens) != 1:
            raise ValueError(f"the tokenizer of '{folder}' splits '{ANSWER}' into {len(tokens)} tokens; one is scored")
        self._answer = tokens[0]

    def score(self, clips: Sequence[Clip]) -> list[float | Unscored]:
        """Return clip((log P + 25) / 20, 0, 1) for each clip, in order."""
        return [
            found if isinstance(found, Unscored) else min(1.0, max(0.0, (found - LOW) / (HIGH - LOW)))
            for found in self.log_probs(clips)
        ]

    def log_probs(self, clips: Sequence[Clip]) -> list[float | Unscored]:
        """Return log P("True") for each clip, in order; at most 0."""
        return answered("topreward", clips, self._ask)

    def inputs(self, clips: Sequence[Clip]) -> Any:
        """Return the model's inputs: the video, the statement about it, the answer."""
        content = [{"type": "video"}, {"type": "text", "text": PREFIX}]
        turn = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=False
        )
        start = turn.split(self.processor.tokenizer.eos_token)[0]
        shown = [spread(frames, self.max_frames) for _, frames in clips]
        return video_inputs(self.processor, [start + task + SUFFIX for task, _ in clips], shown, self._fps)

    def _ask(self, clips: list[Clip]) -> list[float | str]:
        import torch

        inputs = self.inputs(clips).to(self.model.device)
        if not bool((inputs.input_ids[:, -1] == self._answer).all()):
            raise ValueError(f"a prompt does not end with the token '{ANSWER}'")
        with torch.inference_mode():
            logits = self.model(**inputs, logits_to_keep=2).logits[:, 0]  # left padding: the answer is last
        values = logits.float().log_softmax(-1)[:, self._answer].tolist()
        return [value if math.isfinite(value) else f"the log-probability is {value}" for value in values]
