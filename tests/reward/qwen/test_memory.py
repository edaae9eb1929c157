# SPDX-License-Identifier: Apache-2.0
"""The memory of a published size: its weights are those of the model itself, its sum that which a GPU once took."""

from __future__ import annotations

import pytest
import torch

from lrm_ros.reward.qwen import memory
from lrm_ros.reward.qwen.sizes import SIZES
from lrm_ros.training.reward.train.qwen_sizes import config_of, full_size_processor


@pytest.mark.parametrize("size", list(SIZES))
def test_the_weights_are_counted_as_the_model_has_them(size: str) -> None:
    from transformers import Qwen3VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config_of(size, full_size_processor()))
    found = memory.weights_of(size)
    assert found.model == sum(parameter.numel() for parameter in model.parameters())
    assert found.vision == sum(parameter.numel() for parameter in model.model.visual.parameters())
    linear = [m for m in model.model.language_model.modules() if isinstance(m, torch.nn.Linear)]
    assert found.linear == sum(module.weight.numel() for module in linear)
    assert found.rows == sum(module.out_features for module in linear)
    assert found.adapter == sum(memory.RANK * (module.in_features + module.out_features) for module in linear)


def test_what_8b_took_on_a_gpu_is_what_is_computed() -> None:
    took = ((1, "bf16", 19.8), (32, "bf16", 25.0), (1, "bf16-lora", 18.9), (32, "bf16-lora", 23.4))
    for queries, load, measured in took:  # GiB, docs/benchmarks.md; torch's own count, without the context
        computed = memory.needed_gib("8b", load, queries) - memory.CONTEXT / memory.GIB
        assert computed == pytest.approx(measured, rel=0.05)


def test_fewer_bits_need_less_and_what_fits_follows_the_memory() -> None:
    for size in SIZES:
        needs = [memory.needed_gib(size, load, 8) for load in ("bf16", "bf16-lora", "8bit", "4bit")]
        assert needs == sorted(needs, reverse=True)
    assert memory.held_bytes("8b", "8bit", adapters=False) == 6945767424 + 4 * 1400832 + 2 * (1244967936 + 576388336)
    assert list(memory.what_fits(24, True)["8b"]) == ["bf16", "bf16-lora", "8bit", "4bit"]
    assert list(memory.what_fits(20, True)["8b"]) == ["8bit", "4bit"]
    assert list(memory.what_fits(14, True)["8b"]) == ["4bit"]
    assert memory.what_fits(11, True)["8b"] == {} and list(memory.what_fits(11, True)["4b"]) == ["8bit", "4bit"]
    assert set(memory.what_fits(3, True)) == set(SIZES) and not any(memory.what_fits(3, True).values())
