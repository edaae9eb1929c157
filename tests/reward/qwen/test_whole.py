# SPDX-License-Identifier: Apache-2.0
"""Every weight of a folder is used and every module of the model filled, or a line says what is wrong and the cure."""

import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import FRAME, POINTER, WEIGHTS, edit, refusal, rewrite, without
from safetensors.torch import load_file, save_file

from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import TINY_FOLDER, find_model
from lrm_ros.reward.qwen.weights import differences, header, stored
from lrm_ros.types import Reward, RewardQuery


@pytest.fixture
def whole(tmp_path) -> Path:
    return shutil.copytree(TINY_FOLDER, tmp_path / "whole")


def test_differences_are_counted_and_named():
    assert differences({"a": (1,), "b": (2, 3)}, {"a": (1,), "b": (2, 3), "c": (4,)}, {"c"}) == ""
    found = differences({"a": (1,), "b": (3, 2), "d": (1,)}, {"a": (1,), "b": (2, 3), "c": (4,)})
    assert found == "1 missing (c) and 1 unexpected (d) and 1 of another shape (b: [3, 2] instead of [2, 3])"


# ---- a whole model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("language_model.layers.2"), r"11 missing \(model.language_model.layers.2.input_layernorm.weight, "),
        (without("visual.blocks.1.attn.qkv.bias"), r"1 missing \(model.visual.blocks.1.attn.qkv.bias\)"),
        (lambda t: {**t, "value_head.weight": torch.ones(1)}, r"1 unexpected \(value_head.weight\)"),
        (
            lambda t: {**t, "model.language_model.norm.weight": torch.ones(7)},
            r"1 of another shape \(model.language_model.norm.weight: \[7\] instead of \[",
        ),
        (
            lambda t: {**t, "model.language_model.norm.weight": t["model.language_model.norm.weight"] * torch.nan},
            r"model.language_model.norm.weight is not finite; run 'hf download",
        ),
        (
            lambda t: {n: v * 0 if n.endswith("layers.0.mlp.up_proj.weight") else v for n, v in t.items()},
            r"layers.0.mlp.up_proj.weight is zero throughout, as after a broken download",
        ),
        (
            lambda t: {n: v.to(torch.int8) if n.endswith("down_proj.weight") else v for n, v in t.items()},
            r"stores \S+ as I8: quantised weights are not supported",
        ),
    ],
)
def test_a_model_that_is_not_whole_is_refused(whole, change, message):
    rewrite(whole / WEIGHTS, change)
    refusal(whole, message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_type_are_whole(whole, dtype):
    rewrite(whole / WEIGHTS, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    answer = load_model(str(whole), "cpu").score([RewardQuery("lift it", "completion", (FRAME,))])[0]
    assert isinstance(answer, Reward)


def test_an_output_layer_is_missed_only_where_it_is_not_tied(whole):
    load_model(str(whole), "cpu")
    assert "lm_head.weight" not in stored(whole)
    config = json.loads((whole / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (whole / "config.json").write_text(json.dumps(config))
    refusal(whole, r"1 missing \(lm_head.weight\)")


def split(folder: Path) -> dict[str, str]:
    """Write the weights in two files with an index; return its map."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        part = {name: value for name, value in tensors.items() if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_files_of_an_index_are_all_there_and_hold_what_it_says(whole):
    places = split(whole)
    load_model(str(whole), "cpu")
    second = whole / "model-00002-of-00002.safetensors"
    index = whole / "model.safetensors.index.json"
    moved = next(name for name in places if places[name] == second.name)
    edit(index, weight_map={**places, moved: "model-00001-of-00002.safetensors"})
    refusal(whole, f"says that {moved} is in 'model-00001-of-00002.safetensors', which does not hold it; run 'hf")
    edit(index, weight_map={name: file for name, file in places.items() if name != moved})
    refusal(whole, f"{second.name}' holds {moved}, which the index does not say")
    edit(index, weight_map={**places, moved: "../elsewhere.safetensors"})
    refusal(whole, "has no weight_map from weights to files beside it")
    edit(index, weight_map=places)
    shutil.copy(second, whole / "copy")
    second.write_text(POINTER)
    refusal(whole, f"{second.name}' is a pointer of Git LFS, not the file itself; run 'git lfs pull' in '{whole}'")
    second.unlink()
    refusal(whole, rf"names \S+{second.name}, which is not there \(1 of 2 files are missing\); the download is incompl")
    index.unlink()
    refusal(whole, r"has 'model-00001-of-00002.safetensors', but neither model.safetensors nor its index")


def test_weights_in_a_pickle_are_refused_with_the_way_to_convert_them(whole):
    tensors = load_file(whole / WEIGHTS)
    (whole / WEIGHTS).unlink()
    torch.save(tensors, whole / "pytorch_model.bin")
    line = refusal(
        whole, "has its weights as pytorch_model.bin; only safetensors are read: convert them with 'python -c"
    )
    code = line.split('python -c "')[1].split("\"' and copy")[0].replace('\\"', '"')
    exec(code, {})  # the cure works
    assert stored(Path(f"{whole}-safetensors")).keys() == tensors.keys()


@pytest.mark.parametrize("cut", [0, 4, 1000, 100_000, 4_500_000])
def test_weights_that_end_early_are_refused(whole, cut):
    (whole / WEIGHTS).write_bytes((whole / WEIGHTS).read_bytes()[:cut])
    refusal(whole, rf"{WEIGHTS}' holds no whole weights .*; download or copy it again")


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"],
)
@pytest.mark.parametrize("text", [POINTER, '{"cut": ', "[1]", "<html>not found</html>", "\xff\xfe", "[" * 100_000])
def test_settings_that_cannot_be_read_are_refused(whole, name, text):
    (whole / name).write_text(text, encoding="latin-1")
    expected = "run 'git lfs pull'" if text == POINTER else "download or copy it again"
    line = refusal(whole, f"{name}' .*{expected}")
    assert len(line) < 700


@pytest.mark.parametrize("part", [None, [], "x", 7])
@pytest.mark.parametrize("name", ["text_config", "vision_config"])
def test_a_configuration_without_a_part_is_refused(whole, name, part):
    edit(whole / "config.json", **{name: part})
    refusal(whole, rf"{name} is {re.escape(repr(part))}, not a dictionary; download or copy the file again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, r"no model can be made of the settings .*layers, but \d+ weights are stored"),
        ({"num_hidden_layers": 5}, r"\d+ missing \(model.language_model.layers.3"),
        ({"vocab_size": 10**9}, r"1 of another shape \(model.language_model.embed_tokens.weight"),
        ({"hidden_act": "none"}, "no model can be made of the settings"),
        ({"intermediate_size": -1}, "no model can be made of the settings|of another shape"),
        ({"num_attention_heads": 3}, "of another shape|no model can be made|cannot use the settings"),
    ],
)
def test_a_configuration_that_is_not_of_the_weights_is_refused(whole, change, message):
    edit(whole / "config.json", text_config=json.loads((whole / "config.json").read_text())["text_config"] | change)
    refusal(whole, message)


def test_a_quantised_model_is_refused(whole):
    edit(whole / "config.json", quantization_config={"quant_method": "fp8"})
    refusal(whole, "config.json' has a quantization_config; quantised weights are not supported: give the model in bf")


def test_no_name_is_no_folder():
    with pytest.raises(FileNotFoundError, match="model folder '' does not exist; use 'tiny'"):
        find_model("")


# ---- the processor ---------------------------------------------------------------------------------------------------


def no_template(folder):
    (folder / "chat_template.jinja").unlink()


def blind_template(folder):
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content[1].text }}{% endfor %}")


def broken_template(folder):
    (folder / "chat_template.jinja").write_text("{% for m in messages %}")


def other_vocabulary(folder):
    text = (folder / "tokenizer.json").read_text().replace("<|image_pad|>", "<|picture|>")
    (folder / "tokenizer.json").write_text(text)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (folder / name).write_text((folder / name).read_text().replace("<|image_pad|>", "<|picture|>"))


def other_place(folder):
    edit(folder / "config.json", image_token_id=3)


def settings(**values):
    return lambda folder: edit(folder / "preprocessor_config.json", **values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_template, r"chat template in '\S+' cannot be used .*; copy tokenizer"),
        (blind_template, r"chat template in '\S+' makes .* with 0 <\|image_pad\|> for the image"),
        (broken_template, r"chat template in '\S+' cannot be used .*; copy tokenizer"),
        (other_vocabulary, r"the tokenizer in '\S+' has <\|image_pad\|> at None, the model at \d+ .image_token_id"),
        (other_place, r"the tokenizer in '\S+' has <\|image_pad\|> at \d+, the model at 3 .image_token_id of its"),
        (settings(patch_size=14), r"image settings in '\S+': patch_size is 14, but the model's is 16"),
        (settings(merge_size=2), r"merge_size is 2, but the model's is 1"),
        (settings(do_normalize=False), r"are not Qwen3-VL's: rescaling, normalisation"),
        (settings(image_mean=[0.5, 0.5]), r"image settings in '\S+' cannot be used"),
        (settings(image_std=[0, 0, 0]), r"image settings in '\S+' (cannot be used|are not Qwen3-VL's)"),
        (settings(size={"shortest_edge": 10**12, "longest_edge": 10**13}), r"size is {.*'shortest_edge': 10000"),
    ],
)
def test_a_processor_that_is_not_the_models_is_refused(whole, change, message):
    change(whole)
    refusal(whole, message)


# ---- damaged at random -----------------------------------------------------------------------------------------------


def test_a_header_that_is_damaged_anywhere_is_refused_or_read_whole(whole):
    data = (whole / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", data[:8])[0] + 8
    names = header(whole / WEIGHTS)
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, size, 150):
        (whole / WEIGHTS).write_bytes(
            data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :]
        )
        try:
            found = header(whole / WEIGHTS)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert len(found) <= len(names)
    assert refused > 75


def test_settings_that_are_changed_anywhere_end_in_one_line_or_a_model(whole):
    rng = np.random.default_rng(0)
    values = [None, True, -1, 0, 7, 1.5, float("nan"), 10**12, "x", [], ["q"], {}, {"a": 1}]
    refused = 0
    for number in range(90):
        file = whole / ("config.json", "preprocessor_config.json", "tokenizer_config.json")[number % 3]
        before = file.read_text()
        changed = json.loads(before)
        part = changed
        while True:
            key = list(part)[int(rng.integers(len(part)))]
            if not isinstance(part[key], dict) or not part[key] or rng.random() < 0.2:
                break
            part = part[key]
        part[key] = values[int(rng.integers(len(values)))]
        file.write_text(json.dumps(changed))
        try:
            load_model(str(whole), "cpu")
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            assert "\n" not in str(error)
        file.write_text(before)
    assert 30 < refused < 90
