# SPDX-License-Identifier: Apache-2.0
"""Layers by oneDNN give what torch's own give, and are torch's own where it has no such product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lrm_ros.reward.qwen import product

GELU = "gelu_pytorch_tanh"


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 32)


def _plain(layer: nn.Module, values: torch.Tensor, then: str = "") -> torch.Tensor:
    result = layer(values)
    return nn.functional.gelu(result, approximate="tanh") if then else result


@pytest.mark.parametrize("then", ["", GELU])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (3, 5, 48), (2, 3, 4, 48)])
def test_a_layer_is_the_stock_one_whatever_the_shape(layer, shape, then):
    values = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(product.linear(layer, values, then), _plain(layer, values, then))
        turned = torch.randn(*shape[:-1], 96)[..., ::2]
        torch.testing.assert_close(product.linear(layer, turned, then), _plain(layer, turned, then))


def test_this_torch_has_it():
    """Else a CPU's answers are right, and slow: look for the name that torch gives it now."""
    assert product._onednn() is not None or not torch.backends.mkldnn.is_available()


def test_training_other_types_and_layers_with_hooks_are_left_as_they_are(layer):
    values = torch.randn(5, 48)
    product.linear(layer, values, GELU).sum().backward()
    assert layer.weight.grad is not None
    seen = []
    with torch.inference_mode():
        half = layer.bfloat16()
        assert torch.equal(product.linear(half, values.bfloat16()), half(values.bfloat16()))
        layer.float().register_forward_hook(lambda *_: seen.append(1))
        product.linear(layer, values)
    assert seen


def test_a_torch_without_it_or_with_another_one_of_that_name_keeps_its_own(layer, monkeypatch):
    values = torch.randn(5, 48)

    class Other:
        def __init__(self, call):
            if call is not None:
                self._linear_pointwise = call

    for call in (None, lambda values, *_: values, lambda values, weight, *_: values @ weight.t()):
        product._onednn.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(torch.ops, "mkldnn", Other(call))
            assert product._onednn() is None
            with torch.inference_mode():
                assert torch.equal(product.linear(layer, values), layer(values))
        product._onednn.cache_clear()
