# SPDX-License-Identifier: Apache-2.0
"""RoboReward: a Qwen3-VL that watches a video of the episode and says a score from 1 to 5.

The prompt is that of the model cards of teetone/RoboReward-4B and -8B; the reward is (score - 1) / 4. The cards say to
follow Qwen's own instructions for videos, so frames are enlarged or shrunk as Qwen's ``qwen_vl_utils`` does (as in
robometer/robometer:robometer/evals/baselines/roboreward.py, without its detour through JPEG files).

Large-Reward-Models' server and Robometer's baseline read a reply without "ANSWER: n" differently: the first digit from
1 to 5 counts for one, the last for the other. Here it counts if both are the same, else the clip is Unscored (they
give the lowest reward).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.reward.clips import Clip, answered, load_video_model, resized, spread, video_inputs
from lrm_ros.reward.qwen.language import greedy
from lrm_ros.types import Unscored

PROMPT = (
    "Given the task, assign a discrete progress score reward (1,2,3,4,5) for the robot in the video in the format: "
    "ANSWER: <score>\n"
    "Rubric for end-of-episode progress (judge only the final state without time limits):\n"
    "1 - No Success: Final state shows no goal-relevant change for the command.\n"
    "2 - Minimal Progress: Final state shows a small but insufficient change toward the goal.\n"
    "3 - Partial Completion: The final state shows good progress toward the goal but violates more than one "
    "requirement or a major requirement.\n"
    "4 - Near Completion: Final state is correct in region and intent but misses a single minor requirement.\n"
    "5 - Perfect Completion: Final state satisfies all requirements.\n\n"
    "Task: {task}"
)
TOKENS = (128, 768)  # of a frame of a video, qwen_vl_utils' VIDEO_MIN_TOKEN_NUM and VIDEO_MAX_TOKEN_NUM
_MAX_NEW_TOKENS = 128
_ANSWER = re.compile(r"ANSWER:\s*([1-5])(?!\.?\d)", re.IGNORECASE)
_DIGIT = re.compile(r"(?<![\w.-])[1-5](?!\w|\.\d)")


def parse(text: str) -> int | None:
    """Return the score from 1 to 5 of a reply, ``None`` if it cannot be read."""
    match = _ANSWER.search(text)
    if match:
        return int(match.group(1))
    digits = _DIGIT.findall(text)
    return int(digits[0]) if digits and digits[0] == digits[-1] else None


class RoboReward:
    """RoboReward-4B or -8B."""

    def __init__(
        self, folder: Path, name: str = "", device: str = "auto", fps: float | None = None, max_frames: int = 16
    ) -> None:
        """Load the model.

        Args:
            folder: its weights and processor.
            name: name of the model; the folder's if empty.
            device: torch device; ``auto`` takes the GPU when there is one.
            fps: frames a second; ``None``: by their stamps, as Large-Reward-Models does. Robometer's baseline says 1.
            max_frames: most frames of a clip (Large-Reward-Models:config/roboreward.yaml).

        Raises:
            FileNotFoundError: files are missing.
            ValueError: not a whole Qwen3-VL.
        """
        self.name, self.max_frames, self._fps = name or folder.name, max_frames, fps
        self.model, self.processor = load_video_model(folder, device)

    def score(self, clips: Sequence[Clip]) -> list[float | Unscored]:
        """Return (score - 1) / 4 for each clip, in order: 0, 0.25, 0.5, 0.75 or 1."""
        return answered("roboreward", clips, self._ask)

    def replies(self, clips: Sequence[Clip]) -> list[str]:
        """Return what the model says about each clip, greedily."""
        import torch

        inputs = self.inputs(clips).to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(**inputs, generation_config=greedy(self.model, _MAX_NEW_TOKENS))
        return self.processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)

    def inputs(self, clips: Sequence[Clip]) -> Any:
        """Return the model's inputs: one user turn a clip, the video before the text."""
        videos = self.processor.video_processor
        factor = videos.patch_size * videos.merge_size
        shown, texts = [], []
        for task, frames in clips:
            picked = spread(frames, self.max_frames)
            shown.append([replace(f, image=np.asarray(resized(f.image, factor, TOKENS))) for f in picked])
            content = [{"type": "video"}, {"type": "text", "text": PROMPT.format(task=task)}]
            turn = [{"role": "user", "content": content}]
            texts.append(self.processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        return video_inputs(self.processor, texts, shown, self._fps, do_resize=False)

    def _ask(self, clips: list[Clip]) -> list[float | str]:
        answers: list[float | str] = []
        for reply in self.replies(clips):
            score = parse(reply)
            answers.append(f"the reply cannot be read: {reply[:200]!r}" if score is None else (score - 1) / 4)
        return answers
