# SPDX-License-Identifier: Apache-2.0
"""How much memory a Qwen3-VL of a published size takes as a reward model, computed from its settings.

Weights: every layer's, held as ``lrm_ros.reward.qwen.quantized`` says, and three LoRA adapters of rank 64, progress
with a vision tower of its own, as they are published. Work: what a batch of queries holds at its fullest moment, in the
language model's widest layer, and the constant parts of prompts that are kept. It was compared with what one H200 took
(8B in bfloat16: 19.8 GiB for one query, 25.0 for 32; with LoRA matrices in bfloat16, too, 18.9 and 23.4;
docs/benchmarks.md); quantised models and other sizes were not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lrm_ros.reward.qwen.quantized import LOADS
from lrm_ros.reward.qwen.sizes import SIZES

GIB = 2**30
RANK = 64
HEADS = 3
PROMPT, LONGEST = 374, 723  # tokens of the completion and of the contrastive query of 640x480 images
QUERIES = 8  # of a batch that is meant when nothing else is said
CONTEXT = 0.5 * GIB  # of CUDA or of Python with its libraries [bytes]
_KEPT = 2**30  # of prompts' constant parts (model.py, _MAX_PAST) [bytes]
_BLOCK = 64  # weights that share a scale in NF4
_SCALE = 4  # bytes of a scale


@dataclass(frozen=True)
class Weights:
    """How many weights a model has, by what happens to them.

    Attributes:
        linear: of the language model's linear layers, which can be quantised.
        rows: of these layers: outputs, each with a scale of its own in 8 bits.
        rest: embedding, output layer and norms of the language model.
        vision: of the vision tower.
        adapter: of the LoRA matrices of one head.
    """

    linear: int
    rows: int
    rest: int
    vision: int
    adapter: int

    @property
    def model(self) -> int:
        """Weights of the model without adapters."""
        return self.linear + self.rest + self.vision


def weights_of(size: str) -> Weights:
    """Return the weights of a published size, ``"8b"``, ``"4b"`` or ``"2b"``."""
    vision, text = SIZES[size]
    width, layers, head = text["hidden_size"], text["num_hidden_layers"], text["head_dim"]
    shapes = _shapes(text)
    norms = layers * (2 * width + 2 * head) + width
    embedding = text["vocab_size"] * width
    return Weights(
        linear=layers * sum(rows * columns for rows, columns in shapes),
        rows=layers * sum(rows for rows, _ in shapes),
        rest=embedding * (1 if text["tie_word_embeddings"] else 2) + norms,
        vision=_tower(vision, width),
        adapter=layers * RANK * sum(rows + columns for rows, columns in shapes),
    )


def _shapes(text: dict[str, Any]) -> list[tuple[int, int]]:
    """Return outputs and inputs of each linear layer of a block of the language model."""
    width, inner = text["hidden_size"], text["intermediate_size"]
    queries, keys = (text[name] * text["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    attention = [(queries, width), (keys, width), (keys, width), (width, queries)]
    return [*attention, (inner, width), (inner, width), (width, inner)]


def _tower(vision: dict[str, Any], out: int) -> int:
    """Return the weights of a vision tower."""
    width, inner, merged = vision["hidden_size"], vision["intermediate_size"], vision["spatial_merge_size"] ** 2
    stem = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2 * width + width
    attention = 3 * width * (width + 1) + width * (width + 1)
    block = 4 * width + attention + 2 * width * inner + inner + width  # two norms, attention, two layers
    wide = merged * width
    merger = wide * wide + wide + wide * out + out
    deep = len(vision["deepstack_visual_indexes"])
    norms = 2 * width + deep * 2 * wide
    return stem + vision["num_position_embeddings"] * width + vision["depth"] * block + (1 + deep) * merger + norms


def held_bytes(size: str, load: str, plain: int = 2, adapters: bool = True) -> float:
    """Return what the weights of a model take [bytes].

    Args:
        size: a published one.
        load: of ``LOADS``, but the empty one.
        plain: bytes of a weight that is not quantised: 2 on a GPU, 4 on a CPU unless ``load`` says bfloat16.
        adapters: with those of three heads, in float32 but for ``bf16-lora``, and the vision tower of progress.
    """
    found = weights_of(size)
    linear = {
        "bf16": 2.0 * found.linear,
        "bf16-lora": 2.0 * found.linear,
        "8bit": found.linear + _SCALE * found.rows,
        "4bit": found.linear * (0.5 + _SCALE / _BLOCK),
    }[load]
    held = linear + plain * (found.rest + found.vision)
    lora = 2 if load == "bf16-lora" else 4
    return held + (HEADS * lora * found.adapter + plain * found.vision if adapters else 0)


def work_bytes(size: str, queries: int, plain: int = 2) -> float:
    """Return what a batch of queries takes beside the weights [bytes].

    Args:
        size: a published one.
        queries: of the batch; each contrastive, about two 640x480 images: the longest.
        plain: bytes of a number, 2 on a GPU.
    """
    _vision, text = SIZES[size]
    tokens = queries * LONGEST
    inner, width = text["intermediate_size"], text["hidden_size"]
    key = 2 * text["num_key_value_heads"] * text["head_dim"]
    # In the widest place of a layer: residual and normalised states, gate, up and their product; a LoRA matrix in
    # float32 takes its input and gives its output so.
    layer = tokens * ((2 * width + 3 * inner) * plain + 4 * (inner + width))
    features = tokens * width * plain * 4  # of the images: embedded, and three DeepStack levels
    logits = min(512, 2 * queries) * text["vocab_size"] * 4 * 2
    kept = min(_KEPT, tokens * text["num_hidden_layers"] * key * plain)
    return layer + features + logits + kept


def needed_gib(size: str, load: str, queries: int, plain: int = 2) -> float:
    """Return what serving a model takes in all [GiB]."""
    return (held_bytes(size, load, plain) + work_bytes(size, queries, plain) + CONTEXT) / GIB


def what_fits(memory_gib: float, gpu: bool, queries: int = QUERIES) -> dict[str, dict[str, float]]:
    """Return, by size and ``load``, what is needed [GiB], only where it fits.

    Args:
        memory_gib: that is free.
        gpu: of a GPU; else of the machine, where what is not quantised is float32 unless ``load`` says bfloat16.
        queries: of a batch.
    """
    found: dict[str, dict[str, float]] = {}
    for size in SIZES:
        loads = filter(None, LOADS)
        needs = {load: needed_gib(size, load, queries, 2 if gpu or load.startswith("bf16") else 4) for load in loads}
        found[size] = {load: need for load, need in needs.items() if need <= memory_gib}
    return found
