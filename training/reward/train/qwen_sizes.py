# SPDX-License-Identifier: Apache-2.0
"""Models of the published sizes of Qwen3-VL with random weights, where no weights can be downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrm_ros.reward.qwen.folder import text_settings
from lrm_ros.reward.qwen.sizes import SIZES as SIZES


def config_of(size: str, processor: Any) -> Any:
    """Return the ``Qwen3VLConfig`` of a published size.

    Args:
        size: ``"8b"``, ``"4b"`` or ``"2b"``.
        processor: gives the ids of the image tokens; its tokenizer may be smaller than the vocabulary.
    """
    from transformers import Qwen3VLConfig

    vision, text = SIZES[size]
    token_id = processor.tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        vision_config={**vision, "out_hidden_size": text["hidden_size"]},
        text_config=text_settings(text, Path(__file__)),
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=text["tie_word_embeddings"],
    )


def random_model(size: str, processor: Any, device: str, seed: int = 0) -> Any:
    """Return a model of a published size with random weights, in bfloat16 on a GPU; nothing is downloaded."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    with torch.device(device):
        return Qwen3VLForConditionalGeneration._from_config(config_of(size, processor), dtype=torch.bfloat16)


def full_size_processor() -> Any:
    """Return a processor that cuts images as the published one does (its defaults), with the tiny model's tokenizer."""
    from lrm_ros.training.reward.train.tiny.model import build_processor

    processor = build_processor()
    images = processor.image_processor
    images.patch_size, images.merge_size, images.temporal_patch_size = 16, 2, 2
    images.size = {"shortest_edge": 65536, "longest_edge": 16777216}
    return processor
