# SPDX-License-Identifier: Apache-2.0
"""The published sizes of Qwen3-VL, as the settings of their vision towers and language models.

Sizes of 2B and 8B: pytorch/torchtitan:torchtitan/experiments/qwen3_vl/__init__.py (0375bb6), which loads the published
checkpoints. 4B: language model of Qwen3-4B, vision tower of 2B (amdrajeevp1/onnxruntime-genai:examples/python/
qwen3-vl-4b/md-files/QWEN3_VL_VISION_ARCHITECTURE.md). The test counts the parameters: 2.13, 4.44 and 8.77 billion.
"""

from __future__ import annotations

from typing import Any

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
