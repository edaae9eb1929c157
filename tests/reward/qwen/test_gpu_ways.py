# SPDX-License-Identifier: Apache-2.0
"""What a GPU takes another way than a CPU does, on a CPU: the same numbers, or those of the stock functions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import write  # type: ignore[import-not-found]
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen import language
from lrm_ros.reward.qwen.lora import cast, linear
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.reward.qwen.vision import patches_of, turned
from lrm_ros.training.bench import parity
from lrm_ros.types import HEADS, Reward


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of three heads on every linear layer of tiny's language model."""
    place = tmp_path_factory.mktemp("adapters")
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    for seed, head in enumerate(HEADS):
        write(place / head, seed, target_modules=targets)
    return place


def values_of(model: QwenRewardModel, head: str = "") -> np.ndarray:
    """Answers of all heads in one batch, or of one head."""
    queries = parity.queries_of(dict.fromkeys(HEADS, "put the red toy pig in the bowl"), 12, 96, 96)
    answers = model.score([query for query in queries if head in ("", query.head)])
    assert all(isinstance(answer, Reward) for answer in answers)
    return np.array([answer.value for answer in answers])  # type: ignore[union-attr]


def test_patches_in_another_type_are_the_same_numbers_rounded() -> None:
    processor = QwenRewardModel(TINY_FOLDER, device="cpu").processor.image_processor
    sizes = ((96, 96), (96, 96), (64, 160), (40, 40), (480, 640))
    images = [np.random.default_rng(n).integers(0, 256, (*size, 3), dtype=np.uint8) for n, size in enumerate(sizes)]
    plain = patches_of(processor, images)
    for dtype in (torch.float32, torch.bfloat16):
        for (grid, patches), (other, made) in zip(plain, patches_of(processor, images, "cpu", dtype), strict=True):
            assert grid == other and made.dtype == dtype and torch.equal(patches.to(dtype), made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_towers_rotary_embedding_is_the_stock_functions(dtype: torch.dtype) -> None:
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    torch.manual_seed(0)
    made = torch.randn(2, 30, 3, 4, 72).to(dtype)
    angles = (6 * torch.rand(30, 36)).repeat(1, 2)
    expected = apply_rotary_pos_emb_vision(made[:, :, 0], made[:, :, 1], angles.cos(), angles.sin())
    for ours, stock in zip(turned(made[:, :, :2], angles.cos(), angles.sin()), expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), stock.float(), rtol=2**-8, atol=1e-6)  # a fused step rounds once


def test_the_norm_in_bfloat16_is_worked_out_in_float32() -> None:
    torch.manual_seed(0)
    values, weight = torch.randn(8, 50, 128).bfloat16(), torch.randn(128).bfloat16()
    stock = weight * rms_norm(values.float(), (128,), None, 1e-6).bfloat16()
    assert torch.equal(language._scaled(values, weight, 1e-6), stock)


def test_the_rotary_embedding_in_bfloat16_is_as_near_to_float32_as_the_stock_functions() -> None:
    torch.manual_seed(0)
    values, angles = torch.randn(2, 4, 30, 64).bfloat16(), (6 * torch.rand(1, 1, 30, 32)).repeat(1, 1, 1, 2)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    exact = language._rotate(values.float(), cos.float(), sin.float())
    stock = values * cos + torch.cat((-values[..., 32:], values[..., :32]), -1) * sin
    ours = language._rotate(values, cos, sin)
    assert (ours.float() - exact).abs().mean() <= (stock.float() - exact).abs().mean()


@torch.inference_mode()
def test_a_gpus_causal_mask_is_the_one_of_numbers() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, count, 16) for count in (5, 9, 9))
    seen = language.mask_of(5, 4, None, torch.device("cpu"))
    assert torch.equal(language.mask_of(5, 4, torch.tensor([0, 0]), torch.device("cpu"))[0, 0], seen)
    named = language.mask_of(5, 4, None, torch.device("cuda"))  # words, no tensor on a device
    given, said = (scaled_dot_product_attention(query, key, value, mask, scale=0.3) for mask in (seen, named))
    torch.testing.assert_close(given, said)


@pytest.mark.parametrize(("matrices", "near"), [(torch.float32, 0.0), (torch.bfloat16, 2**-6)])
def test_a_layer_with_an_adapter_is_pefts(folder: Path, matrices: torch.dtype, near: float) -> None:
    model = QwenRewardModel(folder, device="cpu", load="bf16")
    cast(model.model, matrices)
    torch.manual_seed(0)
    for head in HEADS:
        language.use_adapter(model.model, head)
        for name in ("self_attn.k_proj", "mlp.down_proj"):
            module = model.qwen.model.language_model.layers[0].get_submodule(name)
            values = torch.randn(2, 7, module.in_features).bfloat16()
            with torch.inference_mode():
                ours, pefts, base = linear(module, values), module(values), module.base_layer(values)
            assert ours.dtype == torch.bfloat16 and (pefts - base).abs().max() > 0.1, "the adapter has an effect"
            assert (ours - pefts).abs().max() <= near * pefts.abs().max()


def test_a_layer_that_does_more_than_add_one_adapter_is_left_to_peft(folder: Path) -> None:
    model = QwenRewardModel(folder, device="cpu", load="bf16")
    module = model.qwen.model.language_model.layers[0].self_attn.q_proj
    values = torch.randn(2, 3, module.in_features).bfloat16()
    with torch.inference_mode(), language.adapter_rows(model.model, ["progress", "completion"]):
        mixed = linear(module, values)
    for row, name in enumerate(("progress", "completion")):
        language.use_adapter(model.model, name)
        with torch.inference_mode():
            torch.testing.assert_close(mixed[row].float(), linear(module, values)[row].float(), rtol=0.02, atol=0.02)
    with torch.inference_mode(), model.model.disable_adapter():
        assert torch.equal(linear(module, values), module.base_layer(values))


def test_matrices_in_bfloat16_are_asked_for_by_name_and_answer_nearly_the_same(folder: Path) -> None:
    exact, plain, rounded = (
        load_model(f"{folder}{load}", "cpu", "tri") for load in ("", "?load=bf16", "?load=bf16-lora")
    )
    assert isinstance(exact, QwenRewardModel) and isinstance(plain, QwenRewardModel)
    assert isinstance(rounded, QwenRewardModel)
    assert {value.dtype for value in rounded.model.parameters()} == {torch.bfloat16}
    matrices = {value.dtype for name, value in plain.model.named_parameters() if ".lora_" in name}
    assert matrices == {torch.float32}
    for head in ("", *HEADS):
        expected = values_of(exact, head)
        assert np.abs(values_of(plain, head) - expected).max() < 0.1
        assert 0 < np.abs(values_of(rounded, head) - expected).max() < 0.1
