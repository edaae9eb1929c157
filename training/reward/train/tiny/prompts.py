# SPDX-License-Identifier: Apache-2.0
"""Token ids and positions of the prompts that the tiny model's language model is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lrm_ros.reward.heads import HEADS
from lrm_ros.types import Frame, RewardQuery
from lrm_ros.versions import rope_index

_TASK = "lift the can"


class Prompts:
    """Token ids and positions of prompts with the answer, by head, task and number of images.

    The tiny tokenizer makes each fixed piece of a prompt one token, whatever stands beside it. So a prompt is built
    once for each head and number of images, and the tasks' tokens are put into it.
    """

    def __init__(self, processor: Any, model: Any) -> None:
        """Take the processor and the model whose token ids and position scheme are used."""
        self._processor, self._model = processor, model
        self._built: dict[tuple[str, int, bool], tuple[torch.Tensor, torch.Tensor, int, int]] = {}
        self._tokens: dict[str, torch.Tensor] = {}
        tokenizer = processor.tokenizer
        self.candidates = {
            name: [tokenizer(candidate)["input_ids"] for candidate in head.candidates] for name, head in HEADS.items()
        }
        if any(len(ids) != 1 for options in self.candidates.values() for ids in options):
            raise ValueError("every candidate answer must be one token of the tiny tokenizer")

    def get(self, head: str, task: str, images: int, goal: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return ids (L,), positions (3, L) and the place of the answer token, whatever the answer is."""
        key = (head, images, goal)
        if key not in self._built:
            self._built[key] = self._template(head, images, goal)
        ids, positions, start, answer = self._built[key]
        words = self.tokens(task)
        end, longer = start + len(self.tokens(_TASK)), len(words) - len(self.tokens(_TASK))
        places = positions[:, start : start + 1] + torch.arange(len(words))
        return (
            torch.cat([ids[:start], words, ids[end:]]),
            torch.cat([positions[:, :start], places, positions[:, end:] + longer], dim=1),
            answer + longer,
        )

    def _template(self, head: str, images: int, goal: bool) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        """Return ids and positions of the prompt of ``_TASK``, and the places of the task and the answer in it."""
        ids, positions = self.build(head, _TASK, images, goal)
        words = self.tokens(_TASK)
        starts = (ids.unfold(0, len(words), 1) == words).all(1).nonzero()[:, 0].tolist()
        if len(starts) != 1:
            raise ValueError(f"the prompt of head '{head}' must name the task in one place, not at {starts}")
        return ids, positions, starts[0], int((ids == self.candidates[head][0][0]).nonzero()[-1])

    def tokens(self, task: str) -> torch.Tensor:
        """Return the tokens (W,) of a task."""
        if task not in self._tokens:
            self._tokens[task] = torch.tensor(self._processor.tokenizer(task)["input_ids"])
        return self._tokens[task]

    def build(self, head: str, task: str, images: int, goal: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids (L,) and positions (3, L) as the processor makes them."""
        blank = Frame(0, "front", np.zeros((96, 96, 3), np.uint8))
        query = RewardQuery(task, head, (blank,) * (images - goal), blank if goal else None)
        messages = HEADS[head].messages(query)
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        answer = HEADS[head].answer(HEADS[head].values[0]) + self._processor.tokenizer.eos_token
        inputs = self._processor(text=[text + answer], images=[blank.image.copy()] * images, return_tensors="pt")
        positions = rope_index(self._model.model, inputs["input_ids"], inputs["image_grid_thw"])
        return inputs["input_ids"][0], positions[:, 0]
