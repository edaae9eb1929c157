# SPDX-License-Identifier: Apache-2.0
"""Examples of the three heads whose answer is brightness, and an untrained model, for the tests of LoRA training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lrm_ros.training.reward.train.config import LrmTrainConfig
from lrm_ros.training.reward.train.tiny.model import build_model, build_processor

TASK = "put the red toy pig in the bowl"
FAST = LrmTrainConfig(
    lora_r=8, lora_alpha=16, lora_dropout=0.0, train_vision=(), sft_learning_rate=5e-3, dpo_learning_rate=2e-3,
    warmup_ratio=0.0, schedule="constant", batch_size=2, gradient_accumulation=1, max_steps=16, reasoning="none",
    save_steps=100, eval_examples=0, workers=0,
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    head: str
    task: str
    images: tuple[np.ndarray, ...]
    value: float
    kind: str = "demonstration"


def light(brightness: float, size: int = 96) -> np.ndarray:
    return np.full((size, size, 3), round(40 + 170 * brightness), np.uint8)


def examples_of(head: str) -> list[Example]:
    """The brighter the further: two examples whose answers differ."""
    if head == "contrastive":
        return [Example(head, TASK, (light(0.5 - v / 2), light(0.5 + v / 2)), v) for v in (-1.0, 1.0)]
    if head == "progress":
        return [Example(head, TASK, (light(0), light(v)), v) for v in (0.0, 1.0)]
    return [Example(head, TASK, (light(v),), v) for v in (0.0, 1.0)]


def write_untrained(folder: Path) -> str:
    """Write an untrained model whose answers depend on what it sees; return its folder."""
    torch.set_num_threads(1)
    processor = build_processor()
    model = build_model(processor, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
