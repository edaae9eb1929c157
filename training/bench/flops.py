# SPDX-License-Identifier: Apache-2.0
"""How many floating point operations a LoRA head's query and training step need, counted from the model's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Dense bfloat16 [TFLOP/s], without sparsity; NVIDIA's data sheets. The first name that the device's name holds counts.
PEAK_TFLOPS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("A100", 312.0),
)

READ = 2  # tokens of a prompt whose logits are read: the answer's start and its first token


def peak_tflops(device_name: str) -> float | None:
    """Return a GPU's peak rate of dense bfloat16 products [TFLOP/s], ``None`` if it is not in the table."""
    return next((peak for name, peak in PEAK_TFLOPS if name in device_name), None)


def step_flops(model: Any, batch: dict[str, Any], preference: bool) -> float:
    """Return the operations of one batch, forward and backward, as the method needs them.

    Counted: products of the linear layers and of attention (half of it where it is causal), a multiply-add as two. The
    backward pass of frozen layers costs one forward pass (gradients of activations only), of trained ones two.
    Recomputation by gradient checkpointing is not counted: it is not progress.

    Args:
        model: a PeftModel of a Qwen3-VL.
        batch: what the trainer's collator gives; of preference pairs, chosen and rejected one below the other.
        preference: DPO, which adds a forward pass of the reference model.
    """
    qwen = model.get_base_model()
    text, vision = qwen.config.text_config, qwen.config.vision_config
    frozen, trained = _linear(qwen.model.language_model)
    lengths = batch["attention_mask"].sum(1).numpy().astype(np.float64)
    tokens = lengths.sum()
    labels = batch["labels"] != -100 if "labels" in batch else batch["completion_mask"] == 1
    head = 2.0 * int(labels.sum()) * qwen.lm_head.weight.numel()
    attention = 2.0 * (lengths**2).sum() * text.num_attention_heads * text.head_dim * text.num_hidden_layers
    language = 2 * tokens * frozen + attention + head
    backward = 2 * tokens * frozen + 2 * attention + head
    flops = language + backward + (2 + 4) * tokens * trained

    tower = qwen.model.visual
    look = _look(tower, vision, batch["image_grid_thw"].numpy().astype(np.float64))
    is_trained = any(p.requires_grad for p in tower.parameters())
    flops += look * (3 if is_trained else 1)
    return flops + (language + look if preference else 0.0)


def query_flops(
    model: Any, adapter: str, length: float, grids: Sequence[tuple[int, int, int]], constant: float = 0
) -> float:
    """Return the operations of the forward read-out of one query, as it needs them (a multiply-add is two).

    What is not needed is not counted: the part of the prompt that was worked out before, and in the last layer all but
    keys and values of the tokens that are not read.

    Args:
        model: a PeftModel of a Qwen3-VL.
        adapter: the one that answers.
        length: tokens of the prompt, visual ones included; 0: nothing but the images.
        grids: (t, h, w) patches of each image that goes through the vision tower for it.
        constant: tokens at the prompt's start whose keys and values are there.
    """
    import torch

    qwen = model.get_base_model()
    text, visual = qwen.config.text_config, qwen.model.visual
    layers = text.num_hidden_layers
    weights = late = 0  # of all linear layers; of those of the last layer that work on what is read alone
    for name, module in qwen.model.language_model.named_modules():
        if isinstance(module, torch.nn.Linear) and (".lora_" not in name or name.endswith(f".{adapter}")):
            weights += module.weight.numel()
            if name.startswith(f"layers.{layers - 1}.") and ".k_proj" not in name and ".v_proj" not in name:
                late += module.weight.numel()
    spots, new = min(length, READ), length - constant
    width = 2.0 * text.num_attention_heads * text.head_dim
    attention = width * ((layers - 1) * (length**2 - constant**2) + 2 * spots * length)
    language = 2.0 * (new * weights - (new - spots) * late) + attention + 2.0 * spots * qwen.lm_head.weight.numel()
    tower = getattr(visual, "original_module", visual)  # an adapter's copy is of the same shape
    return language + _look(tower, qwen.config.vision_config, np.array(grids, np.float64).reshape(-1, 3))


def _look(tower: Any, vision: Any, grids: NDArray[np.float64]) -> float:
    """Return the operations of the vision tower on images of (t, h, w) patches, ``grids`` (N, 3)."""
    patches = grids.prod(1)
    blocks = sum(_linear(tower.blocks))
    mergers = sum(sum(_linear(part)) for part in [tower.merger, *tower.deepstack_merger_list])
    stem = tower.patch_embed.proj.weight.numel()
    look = 2 * patches.sum() * (blocks + stem + mergers / vision.spatial_merge_size**2)
    return float(look + 4 * (patches**2 / grids[:, 0]).sum() * vision.hidden_size * vision.depth)


def _linear(module: Any) -> tuple[int, int]:
    """Return the number of frozen and of trained weights of the linear layers of a module."""
    import torch

    weights = {id(m.weight): m.weight for m in module.modules() if isinstance(m, torch.nn.Linear)}.values()
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return sum(weight.numel() for weight in weights) - trained, trained
