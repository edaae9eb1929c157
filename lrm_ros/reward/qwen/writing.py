# SPDX-License-Identifier: Apache-2.0
"""What a Qwen3-VL writes as the answer to queries, greedily, those of a head in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import too_long
from lrm_ros.reward.qwen.language import greedy, use_adapter
from lrm_ros.reward.qwen.prompts import question
from lrm_ros.reward.qwen.vision import patches_of
from lrm_ros.types import RewardQuery
from lrm_ros.versions import token_types


@dataclass(frozen=True)
class Written:
    """What was written, or why nothing was."""

    text: str = ""
    failure: str = ""


def write(model: Any, queries: Sequence[RewardQuery]) -> list[Written]:
    """Return what a ``QwenRewardModel`` writes for each query, in order."""
    import torch

    found = [Written()] * len(queries)
    processor, tokenizer = model.processor, model.processor.tokenizer
    for name, head in HEADS.items():
        group = [i for i, query in enumerate(queries) if query.head == name]
        if not group:
            continue
        if model.adapters:
            use_adapter(model.model, model.adapters[name])
        texts, images, fitting = [], [], []
        for i in group:
            shown = patches_of(processor.image_processor, [frame.image for frame in head.images(queries[i])])
            text = question(processor, queries[i], [grid for grid, _ in shown])
            length = len(tokenizer(text, verbose=False)["input_ids"]) + head.max_new_tokens
            if reason := too_long(tokenizer, length, queries[i].task):
                found[i] = Written(failure=reason)
                continue
            texts.append(text)
            images += shown
            fitting.append(i)
        if not fitting:
            continue
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
        output = model.model.generate(
            **tokens,
            **token_types(model.qwen.config, tokens.input_ids),
            pixel_values=torch.cat([patches for _, patches in images]).to(model.device),
            image_grid_thw=torch.tensor([grid for grid, _ in images], device=model.device),
            generation_config=greedy(model.qwen, head.max_new_tokens),
        )
        texts = processor.batch_decode(output[:, tokens.input_ids.shape[1] :], skip_special_tokens=True)
        for i, text in zip(fitting, texts, strict=True):
            found[i] = Written(text)
    return found
