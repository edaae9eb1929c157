# SPDX-License-Identifier: Apache-2.0
"""Every weight of an adapter is used and every module of its own filled, or a line says what is wrong and the cure."""

import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from model_folders import ADAPTER, FRAME, POINTER, WEIGHTS, edit, refusal, rewrite, without, write
from safetensors.torch import load_file

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.adapters import attach, read_adapter
from lrm_ros.reward.qwen.folder import qwen_config
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.reward.qwen.weights import load_checked
from lrm_ros.training.policy import judge
from lrm_ros.types import Frame, Reward, RewardQuery


@pytest.fixture
def whole(tmp_path) -> Path:
    return shutil.copytree(TINY_FOLDER, tmp_path / "whole")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def adapter(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "adapter")


def renamed(tensors):
    return {name.replace("model.language_model.layers", "model.layers"): value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            renamed,
            r"12 of its 20 weights have no place in the model \(e.g. base_model.model.model.layers.0.self_attn.q_p",
        ),
        (
            without("layers.1"),
            r"4 of the 20 weights that its modules have in the model are missing \(e.g. base_model.\S+.1",
        ),
        (without("lora_A"), r"10 of the 20 weights that its modules have in the model are missing"),
        (
            lambda t: {n: v[:3] if "layers.0.self_attn.q_proj.lora_A" in n else v for n, v in t.items()},
            r"1 of its 20 weights are of another shape \(e.g. \S+q_proj.lora_A.weight: \[3, \d+\] instead of \[4",
        ),
        (
            lambda t: {n: v * torch.inf if "lora_B" in n else v for n, v in t.items()},
            r"lora_B.weight is not finite; train",
        ),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused_alone_and_as_one_of_three(adapter, tmp_path, change, message):
    rewrite(adapter / ADAPTER, change)
    line = refusal(adapter, message)
    assert line.startswith(f"the adapter in '{adapter}'")
    for head in HEADS:
        write(tmp_path / "three" / head, seed=1)
    for head in HEADS:
        folder = shutil.copytree(tmp_path / "three", tmp_path / f"bad {head}")
        shutil.copytree(adapter, folder / head, dirs_exist_ok=True)
        assert refusal(folder, message).startswith(f"adapter '{head}' in '{folder / head}'")


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16, torch.float16])
def test_an_adapter_is_whole_in_whatever_type_it_and_its_base_are(tmp_path, base, own):
    folders = {head: write(tmp_path / head, modules_to_save=["visual"]) for head in ("progress", "completion")}
    for folder in folders.values():
        rewrite(folder / ADAPTER, lambda t: {name: value.to(own) for name, value in t.items()})
    model = load_checked(TINY_FOLDER, qwen_config(TINY_FOLDER), base)
    attach(model, [read_adapter(head, folder, alone=False) for head, folder in folders.items()])
    rewrite(folders["completion"] / ADAPTER, without("layers.1"))
    model = load_checked(TINY_FOLDER, qwen_config(TINY_FOLDER), base)
    with pytest.raises(ValueError, match="weights that its modules have in the model are missing"):
        attach(model, [read_adapter(head, folder, alone=False) for head, folder in folders.items()])


def test_an_adapter_for_another_size_is_refused(adapter):
    rewrite(adapter / ADAPTER, lambda t: {name: torch.ones(9, 9) for name in t})
    refusal(adapter, "20 of its 20 weights are of another shape")


def test_weights_of_an_adapter_in_a_pickle_are_read_or_refused(adapter):
    expected = QwenRewardModel(adapter, device="cpu").score([RewardQuery("lift it", "progress", (FRAME,))])[0]
    tensors = load_file(adapter / ADAPTER)
    (adapter / ADAPTER).unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    found = QwenRewardModel(adapter, device="cpu").score([RewardQuery("lift it", "progress", (FRAME,))])[0]
    assert isinstance(found, Reward) and isinstance(expected, Reward) and found.value == expected.value
    torch.save(renamed(tensors), adapter / "adapter_model.bin")
    refusal(adapter, "12 of its 20 weights have no place")
    for content in ((adapter / "adapter_model.bin").read_bytes()[:500], POINTER.encode()):
        (adapter / "adapter_model.bin").write_bytes(content)
        refusal(adapter, "adapter_model.bin' (holds no whole weights|is a pointer of Git LFS)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": None}, "peft_type is None; only 'LORA' can be read: if it is one, write"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only 'LORA'"),
        ({"use_dora": True}, "use_dora is True; DoRA is not supported: train without it, or merge"),
        ({"kasa_config": {"beta": 1}}, "kasa_config is {'beta': 1}; KaSA is not supported"),
        ({"layer_replication": [[0, 2]]}, r"layer_replication is \[\[0, 2\]\]; replicated layers"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changes the base"),
        ({"target_modules": ["none_of_them"]}, "cannot be attached to its base model"),
        ({"target_modules": 7}, "PEFT cannot use the settings|cannot be attached to its base model"),
        ({"r": "many"}, "PEFT cannot use the settings|cannot be attached to its base model"),
        ({"r": 8}, "of its 20 weights are of another shape"),
        ({"lora_alpha": None}, "adapter_config.json' has no lora_alpha, which PEFT writes; download or copy it again"),
        ({"lora_alpha": 0}, "lora_alpha 0 with r 4 scales its weights by 0"),
        ({"modules_to_save": ["lm_head"]}, "lacks the weight .*lm_head|1 of the 21 weights .* are missing"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is None; write the name or folder of the model"),
        ({"base_model_name_or_path": ""}, "base_model_name_or_path is ''; write the name or folder of the model"),
        ({"base_model_name_or_path": "/home/a/Qwen3-VL-8B"}, "trained on '/home/a/Qwen3-VL-8B', which is not here"),
    ],
)
def test_settings_of_an_adapter_that_cannot_be_done_are_refused(adapter, change, message):
    edit(adapter / "adapter_config.json", **change)
    refusal(adapter, message)


@pytest.mark.parametrize("text", [POINTER, "{broken", "[]"])
def test_settings_of_an_adapter_that_cannot_be_read_are_refused(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    refusal(adapter, "adapter_config.json' (is a pointer of Git LFS|is not JSON|holds a list)")


def test_settings_of_another_peft_are_ignored_with_a_note(adapter, caplog):
    expected = QwenRewardModel(adapter, device="cpu").score([RewardQuery("lift it", "progress", (FRAME,))])
    edit(adapter / "adapter_config.json", future_option=True, unset_option=None, peft_version="0.30.0")
    with caplog.at_level(logging.WARNING):
        found = QwenRewardModel(adapter, device="cpu").score([RewardQuery("lift it", "progress", (FRAME,))])
    assert [answer.value for answer in found] == [answer.value for answer in expected]
    (note,) = [record.getMessage() for record in caplog.records if record.name.startswith("lrm_ros")]
    assert re.search(r"ignored future_option, which PEFT \S+ does not know .written by PEFT 0.30.0", note)


def test_copies_of_the_merger_that_peft_015_stored_are_passed_over(tmp_path):
    folder = write(tmp_path / "a", modules_to_save=["visual"])
    expected = QwenRewardModel(folder, device="cpu").score([RewardQuery("lift it", "progress", (FRAME,))])
    edit(folder / "adapter_config.json", modules_to_save=["visual", "merger"])
    name = "base_model.model.model.visual{}.merger{}.norm.weight"
    copies = [
        name.format(".modules_to_save", ""),
        name.format("", ".original_module"),
        name.format("", ".modules_to_save"),
    ]
    rewrite(folder / ADAPTER, lambda t: {**t, **{copy: t[name.format("", "")] * 2 for copy in copies}})
    found = QwenRewardModel(folder, device="cpu").score([RewardQuery("lift it", "progress", (FRAME,))])
    assert [answer.value for answer in found] == [answer.value for answer in expected]
    edit(folder / "adapter_config.json", modules_to_save=["visual"])
    refusal(folder, "3 of its .* weights have no place in the model")


def test_adapters_may_differ_in_rank_and_modules(tmp_path):
    options = {"progress": {"r": 2}, "contrastive": {"target_modules": ["o_proj"]}, "completion": {"use_rslora": True}}
    for seed, (head, values) in enumerate(options.items()):
        write(tmp_path / "three" / head, seed, **values)
        shutil.copytree(tmp_path / "three" / head, tmp_path / head)
    queries = [
        RewardQuery("lift it", "progress", (FRAME,)),
        RewardQuery("lift it", "contrastive", (FRAME, Frame(1, "front", FRAME.image[::-1].copy()))),
        RewardQuery("lift it", "completion", (FRAME,)),
    ]
    found = load_model(str(tmp_path / "three"), "cpu", "tri").score(queries)
    alone = [QwenRewardModel(tmp_path / query.head, device="cpu").score([query])[0] for query in queries]
    assert [a.value for a in found] == pytest.approx([a.value for a in alone], abs=2e-5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules_to_save": ["lm_head"]}, "adapter 'completion' in .* changes .*lm_head.*, which adapters of several"),
        ({"modules_to_save": ["mlp"], "target_modules": ["q_proj"]}, "changes .*mlp, which adapters of several heads"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "(changes .*embed_tokens|carries weights of the base)"),
        ({"bias": "all"}, "bias is 'all', so it carries biases of the base model, which the other heads share"),
    ],
)
def test_what_several_adapters_cannot_have_each_for_itself_is_refused_but_not_of_one(tmp_path, options, message):
    write(tmp_path / "two" / "completion", **options)
    load_model(str(shutil.copytree(tmp_path / "two" / "completion", tmp_path / "one")), "cpu")
    write(tmp_path / "two" / "progress")
    refusal(tmp_path / "two", message)


def test_adapters_of_different_models_or_processors_are_refused(adapter, tmp_path):
    folder = tmp_path / "two"
    for head in ("progress", "completion"):
        shutil.copytree(adapter, folder / head)
        for file in TINY_FOLDER.iterdir():
            if file.name not in ("config.json", "README.md", WEIGHTS):
                shutil.copy(file, folder / head)
    load_model(str(folder), "cpu")
    edit(folder / "completion" / "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])
    refusal(folder, "hold processors that differ in image_mean .*, but all heads share one; remove")
    edit(folder / "completion" / "adapter_config.json", base_model_name_or_path="Qwen/Qwen3-VL-8B-Thinking")
    refusal(folder, "were trained on different models, 'tiny' and 'Qwen/Qwen3-VL-8B-Thinking'")


def test_weights_that_would_be_passed_over_are_refused(adapter, whole, tmp_path):
    folder = tmp_path / "two"
    for head in ("progress", "completion"):
        shutil.copytree(adapter, folder / head)
    refusal(
        folder, "has no adapter for head 'contrastive', which mode 'tri' asks, only for progress, completion", "tri"
    )
    refusal(folder, "has no adapter for head 'contrastive'", "contrastive")
    (folder / "progress" / "adapter_config.json").unlink()
    refusal(folder, f"progress/{ADAPTER}' has no adapter_config.json beside it, so head 'progress' would have no adap")
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    shutil.copytree(adapter, folder / "progress", dirs_exist_ok=True)
    refusal(folder, "holds an adapter for every head and another for 'progress'; move one of them elsewhere")
    shutil.copytree(adapter, whole, dirs_exist_ok=True)
    refusal(whole, "holds a whole model and an adapter; move one of them to a folder of its own")
    edit(shutil.copytree(adapter, tmp_path / "on it") / "adapter_config.json", base_model_name_or_path=str(whole))
    with pytest.raises(ValueError, match=f"'{whole}' holds an adapter beside the whole model that others were trained"):
        load_model(str(tmp_path / "on it"), "cpu")
    (whole / "adapter_config.json").unlink()
    (whole / ADAPTER).unlink()
    shutil.copytree(adapter, whole / "completion")
    refusal(whole, "holds a whole model and adapters on another, '.*tiny'; move one elsewhere")
    edit(whole / "completion" / "adapter_config.json", base_model_name_or_path=str(whole))
    load_model(str(whole), "cpu")


def test_a_command_ends_with_one_line_and_code_2(adapter, tmp_path, capsys):
    rewrite(adapter / ADAPTER, renamed)
    (tmp_path / "e.mcap").write_bytes(b"")
    assert judge.main(["--model", str(adapter), "--device", "cpu", str(tmp_path / "e.mcap")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the adapter in '") and said.count("\n") == 1
