# SPDX-License-Identifier: Apache-2.0
"""How many floating point operations a training step of a LoRA head needs, counted from the model's shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

# Dense bfloat16 [TFLOP/s], without sparsity; NVIDIA's data sheets. The first name that the device's name holds counts.
PEAK_TFLOPS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("A100", 312.0),
)


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

    grids = batch["image_grid_thw"].numpy().astype(np.float64)
    patches = grids.prod(1)
    tower = qwen.model.visual
    frozen_v, trained_v = _linear(tower.blocks)
    mergers = sum(_linear(part)[0] + _linear(part)[1] for part in [tower.merger, *tower.deepstack_merger_list])
    stem = tower.patch_embed.proj.weight.numel()
    look = 2 * patches.sum() * (frozen_v + trained_v + stem + mergers / vision.spatial_merge_size**2)
    look += 4 * (patches**2 / grids[:, 0]).sum() * vision.hidden_size * vision.depth
    is_trained = any(p.requires_grad for p in tower.parameters())
    flops += look * (3 if is_trained else 1)
    return flops + (language + look if preference else 0.0)


def _linear(module: Any) -> tuple[int, int]:
    """Return the number of frozen and of trained weights of the linear layers of a module."""
    import torch

    weights = {id(m.weight): m.weight for m in module.modules() if isinstance(m, torch.nn.Linear)}.values()
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return sum(weight.numel() for weight in weights) - trained, trained
