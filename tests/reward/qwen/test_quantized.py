# SPDX-License-Identifier: Apache-2.0
"""Weights in bfloat16, 8 and 4 bits: what is quantised and what is not, answers near the plain ones, LoRA on top."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import write  # type: ignore[import-not-found]

from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import find_model, split_load
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.bench import parity
from lrm_ros.types import HEADS, RewardQuery

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
KINDS = {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}
# Of a value: 8 bits round a weight to 1/127 of its row's largest, 4 bits to one of 16 steps of 64 weights' largest.
NEAR = {"8bit": 0.05, "4bit": 0.25}


def queries() -> list[RewardQuery]:
    return parity.queries_of(dict.fromkeys(HEADS, "put the red toy pig in the bowl"), 12, 96, 96)


def values_of(model: QwenRewardModel, asked: list[RewardQuery]) -> np.ndarray:
    return np.array([answer.value for answer in model.score(asked)])  # type: ignore[union-attr]


def linears(model: QwenRewardModel, part: str) -> Counter[str]:
    names = [type(m).__name__ for n, m in model.qwen.named_modules() if part in n and "Linear" in type(m).__name__]
    return Counter(names)


@needs_bitsandbytes
@pytest.mark.parametrize("load", ["8bit", "4bit"])
def test_the_language_model_alone_is_quantised_and_answers_nearly_as_before(load: str) -> None:
    plain, held = load_model("tiny", "cpu", "tri"), load_model(f"tiny?load={load}", "cpu", "tri")
    assert isinstance(plain, QwenRewardModel) and isinstance(held, QwenRewardModel)
    assert held.name == f"tiny?load={load}"
    layers = plain.qwen.config.text_config.num_hidden_layers
    assert linears(held, "language_model") == {KINDS[load]: 7 * layers}
    assert linears(held, "visual") == linears(plain, "visual") and linears(held, "lm_head") == {"Linear": 1}
    gaps = np.abs(values_of(held, queries()) - values_of(plain, queries()))
    assert 0 < gaps.max() < NEAR[load]


@needs_bitsandbytes
@pytest.mark.parametrize("load", ["8bit", "4bit"])
def test_adapters_of_three_heads_stand_on_a_quantised_base(load: str, tmp_path: Path) -> None:
    targets = r".*language_model.*\.(q_proj|v_proj|down_proj)"
    for seed, head in enumerate(HEADS):
        saved = ["visual"] if head == "progress" else None
        write(tmp_path / head, seed, target_modules=targets, modules_to_save=saved)
    plain, held = (QwenRewardModel(tmp_path, device="cpu", load=way) for way in ("", load))
    asked = queries()
    before, after = values_of(plain, asked), values_of(held, asked)
    assert np.abs(after - before).max() < NEAR[load]
    base = values_of(load_model(f"tiny?load={load}", "cpu", "tri"), asked)  # type: ignore[arg-type]
    assert np.abs(after - base).max() > 0.01, "the adapters have an effect"
    for head in HEADS:  # each by its own, whichever others are in the batch
        own = [place for place, query in enumerate(asked) if query.head == head]
        alone = values_of(held, [asked[place] for place in own])
        np.testing.assert_allclose(alone, after[own], atol=0.02)


def test_bf16_on_a_cpu_takes_half_the_memory_and_answers_nearly_as_float32() -> None:
    plain, held = load_model("tiny", "cpu", "tri"), load_model("tiny?load=bf16", "cpu", "tri")
    assert isinstance(plain, QwenRewardModel) and isinstance(held, QwenRewardModel)
    assert {parameter.dtype for parameter in held.model.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in plain.model.parameters()} == {torch.float32}
    assert 0 < np.abs(values_of(held, queries()) - values_of(plain, queries())).max() < 0.1


def test_what_cannot_be_loaded_so_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert split_load("runs/lrm?load=8bit") == ("runs/lrm", "8bit") and split_load("tiny") == ("tiny", "")
    assert split_load("http://a:1?jpeg=90") == ("http://a:1?jpeg=90", "")
    (tmp_path / "is it?").mkdir()
    assert find_model(str(tmp_path / "is it?")) == tmp_path / "is it?"
    with pytest.raises(
        ValueError, match=r"'\?load=3bit' is unknown; give \?load= with one of bf16, bf16-lora, 8bit, 4bit"
    ):
        load_model("tiny?load=3bit", "cpu")
    with pytest.raises(ValueError, match=r"'\?jpeg=90' is unknown"):
        load_model("tiny?jpeg=90", "cpu")
    with pytest.raises(FileNotFoundError, match=r"'tiny\?load=8bit' does not exist"):
        find_model("tiny?load=8bit")  # whoever does not ask how never drops it unseen
    with pytest.raises(ValueError, match="load is for an LRM"):
        load_model("tiny?load=8bit", "cpu", "topreward")
    monkeypatch.setattr("lrm_ros.reward.qwen.quantized.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lrm_ros\[quantize\]'"):
        load_model("tiny?load=4bit", "cpu")
