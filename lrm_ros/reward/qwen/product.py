# SPDX-License-Identifier: Apache-2.0
"""Linear layers on a CPU by oneDNN, which takes the widest instructions that the CPU has.

torch's own products in float32 are MKL's, which on AMD's CPUs leaves AVX-512 unused: 2.4 times as slow. In other types,
on a GPU and in training a layer is what it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# transformers' name of a function that follows a layer, and what oneDNN calls it.
_FUNCTIONS: dict[str, tuple[str, list[Any], str]] = {"": ("none", [], ""), "gelu_pytorch_tanh": ("gelu", [], "tanh")}


def linear(module: Any, values: Any, then: str = "") -> Any:
    """Return what a layer makes of values (..., inputs): (..., outputs), equal but for the last bits of a sum.

    Args:
        module: a torch Linear, or what an adapter has put in its place.
        values: in the layer's type.
        then: transformers' name of a function that is applied to the result: ``gelu_pytorch_tanh``, or none.
    """
    import torch

    if type(module) is not torch.nn.Linear or module._forward_pre_hooks or module._forward_hooks:
        return _then(module(values), then)
    return product(values, module.weight, module.bias, then)


def product(values: Any, weight: Any, bias: Any, then: str = "") -> Any:
    """Return values (..., inputs) times the transpose of a weight (outputs, inputs) plus a bias (outputs,) or None."""
    import torch

    here = values.device.type == "cpu" and values.dtype == weight.dtype == torch.float32
    if not here or torch.is_grad_enabled() or (fast := _onednn()) is None:
        return _then(torch.nn.functional.linear(values, weight, bias), then)
    return fast(values, weight, bias, *_FUNCTIONS[then])


def _then(values: Any, then: str) -> Any:
    """Apply a function to what a layer gave."""
    from torch.nn.functional import gelu

    return gelu(values, approximate="tanh") if then else values


@functools.cache
def _onednn() -> Callable[..., Any] | None:
    """Return oneDNN's product, None where this torch has none that gives what torch's own gives.

    torch keeps its name to itself (its compiler calls it), so it is tried once before it is used.
    """
    import torch

    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return None
    generator = torch.Generator().manual_seed(0)
    values, weight, bias = (torch.randn(shape, generator=generator) for shape in ((2, 5, 48), (32, 48), (32,)))
    try:
        call: Callable[..., Any] = torch.ops.mkldnn._linear_pointwise
        with torch.inference_mode():
            for then, words in _FUNCTIONS.items():
                for added in (bias, None):
                    expected = _then(torch.nn.functional.linear(values, weight, added), then)
                    torch.testing.assert_close(call(values, weight, added, *words), expected)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError, AssertionError):
        return None
    return call
