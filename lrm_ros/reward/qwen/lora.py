# SPDX-License-Identifier: Apache-2.0
"""A linear layer with one LoRA adapter, on a base that is not float32, in fewer passes over its result than PEFT's.

PEFT multiplies by B, scales, adds and rounds one after another, each over the whole result: on a GPU with a batch that
takes longer than the products. Here the product with A, which is narrow, is scaled. Matrices in float32 are multiplied
in float32 and added as before, bit for bit if the scale is a power of two; matrices in the base's type are added within
the product, which rounds once instead of three times.
"""

from __future__ import annotations

from typing import Any

from lrm_ros.reward.qwen.product import linear as plain


def linear(module: Any, values: Any) -> Any:
    """Return what a layer makes of values (..., inputs): (..., outputs).

    Args:
        module: a torch Linear, PEFT's with any adapters, or what else stands in its place.
        values: in the base's type.
    """
    import torch
    from torch.nn.functional import linear as product

    name = _only(module)
    if name is None:
        return plain(module, values)
    result = module.base_layer(values)
    first, second = module.lora_A[name].weight, module.lora_B[name].weight
    if first.dtype == result.dtype:
        inner = product(values, first).flatten(0, -2)
        result.view(-1, result.shape[-1]).addmm_(inner, second.t(), alpha=module.scaling[name])
    else:
        with torch.autocast(values.device.type, enabled=False):
            inner = product(values.to(first.dtype), first) * module.scaling[name]
            result.add_(product(inner, second))  # added in the wider type, rounded once
    return result


def _only(module: Any) -> str | None:
    """Return the name of the one adapter that a layer adds; ``None`` if it does anything else than this module can."""
    import torch

    if type(module) is torch.nn.Linear:
        return None
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or type(module.base_layer) is not torch.nn.Linear or torch.is_grad_enabled():
        return None
    if module._forward_pre_hooks or module.disable_adapters or module.merged or len(module.active_adapters) != 1:
        return None  # PEFT gives a mixed batch its adapters by hooks
    name = module.active_adapters[0]
    if name not in module.lora_A or name in module.lora_variant or module.base_layer.weight.dtype == torch.float32:
        return None
    first, second = module.lora_A[name], module.lora_B[name]
    plain = isinstance(first, torch.nn.Linear) and first.bias is None and second.bias is None
    return name if plain and not (module.training or module.fan_in_fan_out) else None


def cast(model: Any, dtype: Any) -> None:
    """Round the LoRA matrices of a PeftModel to a torch dtype, in place."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(dtype)
