# SPDX-License-Identifier: Apache-2.0
"""The published sizes of Qwen3-VL, to build models with random weights where no weights can be downloaded.

Sizes of 2B and 8B: pytorch/torchtitan:torchtitan/experiments/qwen3_vl/__init__.py (0375bb6), which loads the published
checkpoints. 4B: language model of Qwen3-4B, vision tower of 2B (amdrajeevp1/onnxruntime-genai:examples/python/
qwen3-vl-4b/md-files/QWEN3_VL_VISION_ARCHITECTURE.md). The test counts the parameters: 2.13, 4.44 and 8.77 billion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrm_ros.reward.qwen.folder import text_settings

_SMALL_TOWER: dict[str, Any] = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
    "hidden_act": "gelu_pytorch_tanh",
}
_LARGE_TOWER = {
    **_SMALL_TOWER,
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}
_TEXT: dict[str, Any] = {
    "vocab_size": 151936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 5e6,
    "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-6,
}


def _text(hidden: int, layers: int, intermediate: int, heads: int, tied: bool) -> dict[str, Any]:
    return {
        **_TEXT,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
    }


# size -> (vision tower, language model)
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "8b": (_LARGE_TOWER, _text(4096, 36, 12288, 32, False)),
    "4b": (_SMALL_TOWER, _text(2560, 36, 9728, 32, True)),
    "2b": (_SMALL_TOWER, _text(2048, 28, 6144, 16, True)),
}


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
