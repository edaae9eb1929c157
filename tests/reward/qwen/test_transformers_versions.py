# SPDX-License-Identifier: Apache-2.0
"""Answers are those of transformers 4.57.6 (tests/data/answers.json), whichever version runs and wrote the folders.

tests/data/transformers_5 holds what transformers 5.5.4 writes beside the shipped model's weights.
"""

import copy
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from answers import (
    FILE,
    adapter_answers,
    baseline_answers,
    queries,
    read_baselines,
    reward_answers,
    write_adapter,
)

from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.folder import has_processor, load_processor, qwen_config, rope_of, save_processor
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.reward.train.qwen_sizes import SIZES, config_of
from lrm_ros.training.reward.train.tiny.model import SIZES as TINY_SIZES
from lrm_ros.training.reward.train.tiny.model import TEXT, VISION, build_model, build_processor
from lrm_ros.versions import warmup_of

FIVE = Path(__file__).parents[2] / "data" / "transformers_5"
ROPE = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True}


def write_form(folder: Path, form: str) -> Path:
    """Write the rotary settings of a folder's config.json in one of the forms that are about."""
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    rope = {**text.pop("rope_scaling", {}), **text.pop("rope_parameters", {})}
    theta = rope.pop("rope_theta", None) or text.pop("rope_theta")
    if form == "4.57":
        text |= {"rope_scaling": rope, "rope_theta": theta}
    elif form == "5":
        text |= {"rope_parameters": {**rope, "rope_theta": theta}}
    elif form == "half converted":
        text |= {"rope_scaling": rope, "rope_parameters": {"rope_theta": theta}}
    elif form == "5, tied outside only":
        text |= {"rope_parameters": {**rope, "rope_theta": theta}}
        del text["tie_word_embeddings"]
    elif form == "4.57, tied inside only":
        text |= {"rope_scaling": rope, "rope_theta": theta}
        config["tie_word_embeddings"] = False
    else:
        raise ValueError(form)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def expected():
    torch.set_num_threads(1)
    return json.loads(FILE.read_text())


def check(found, expected):
    assert found["ids"] == expected["ids"]
    np.testing.assert_allclose(found["pixels"], expected["pixels"], atol=1e-6)
    np.testing.assert_allclose(found["forward"], expected["forward"], atol=1e-5)
    assert found["generate"] == pytest.approx(expected["generate"], abs=1e-5)


def test_the_expected_answers_depend_on_what_is_seen_and_asked(expected):
    values = expected["tiny"]["forward"]
    assert len(set(values)) == len(queries()) and np.std(values) > 0.1
    assert len(set(expected["tiny"]["generate"])) >= 3


@pytest.mark.parametrize("form", ["4.57", "5", "half converted", "5, tied outside only", "4.57, tied inside only"])
def test_a_model_answers_as_it_did_whatever_the_form_of_its_configuration(form, expected, tmp_path):
    check(reward_answers(write_form(shutil.copytree(TINY_FOLDER, tmp_path / "m"), form)), expected["tiny"])


def test_a_folder_that_transformers_5_wrote_answers_as_the_shipped_one(expected, tmp_path):
    folder = shutil.copytree(FIVE, tmp_path / "five")
    shutil.copy(TINY_FOLDER / "model.safetensors", folder)
    assert isinstance(json.loads((folder / "tokenizer_config.json").read_text())["extra_special_tokens"], list)
    check(reward_answers(folder), expected["tiny"])


def test_a_folder_that_the_installed_transformers_wrote_answers_as_the_shipped_one(expected, tmp_path):
    from transformers import Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(TINY_FOLDER, config=qwen_config(TINY_FOLDER))
    model.save_pretrained(tmp_path)
    load_processor(TINY_FOLDER).save_pretrained(tmp_path)
    check(reward_answers(tmp_path), expected["tiny"])


@pytest.mark.parametrize("form", ["4.57", "5", "half converted"])
def test_the_base_of_an_adapter_is_read_in_every_form(form, expected, tmp_path):
    base = write_form(shutil.copytree(TINY_FOLDER, tmp_path / "base"), form)
    write_adapter(tmp_path / "adapter", base)
    np.testing.assert_allclose(adapter_answers(tmp_path / "adapter"), expected["adapter"], atol=1e-5)
    assert np.abs(np.array(expected["adapter"]) - expected["tiny"]["forward"]).max() > 0.01


@pytest.mark.parametrize("files", [TINY_FOLDER, FIVE])
def test_an_adapters_own_processor_is_used_whichever_version_wrote_it(files, expected, tmp_path):
    write_adapter(tmp_path / "adapter", TINY_FOLDER)
    for file in files.iterdir():
        if file.name not in ("config.json", "model.safetensors", "README.md"):
            shutil.copy(file, tmp_path / "adapter")
    model = QwenRewardModel(tmp_path / "adapter", device="cpu")
    assert Path(model.processor.tokenizer.name_or_path) == tmp_path / "adapter"
    np.testing.assert_allclose(adapter_answers(tmp_path / "adapter"), expected["adapter"], atol=1e-5)


def test_the_baselines_answer_as_they_did_whatever_the_form_of_their_configuration(expected, tmp_path):
    found = baseline_answers(tmp_path)
    for form in ("as saved", "4.57", "5", "half converted"):
        if form != "as saved":
            for name in ("top", "meter"):
                write_form(tmp_path / name, form)
            found = read_baselines(tmp_path)
        np.testing.assert_allclose(found["topreward"], expected["topreward"], atol=1e-4)  # logarithms of 1e-3
        assert found["roboreward"] == expected["roboreward"]
        for reading, other in zip(found["robometer"], expected["robometer"], strict=True):
            np.testing.assert_allclose(reading, other, atol=1e-5)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rope_parameters": {"rope_theta": 5e6}},
            r"text_config.rope_parameters.rope_theta is 5000000.0, but text_config.rope_theta is 10000.0; keep the one",
        ),
        (
            {"rope_parameters": {**ROPE, "mrope_section": [5, 5, 6]}},
            r"rope_parameters.mrope_section is \[5, 5, 6\], but text_config.rope_scaling.mrope_section is \[6, 5, 5\]",
        ),
        (
            {"rope_theta": None},
            "rope_theta in text_config or its rope_parameters is None, not a positive number; write",
        ),
        ({"rope_theta": "10000"}, "rope_theta .* is '10000', not a positive number; write the one"),
        ({"rope_theta": True}, "rope_theta .* is True, not a positive number"),
        (
            {"rope_scaling": [6, 5, 5]},
            r"text_config.rope_scaling is \[6, 5, 5\], not a dictionary; copy the file again",
        ),
        ({"rope_scaling": None}, r"mrope_section is \(24, 20, 20\); it must be .* half of head_dim 32; write those"),
        ({"rope_scaling": {**ROPE, "mrope_section": ["6", 5, 5]}}, r"mrope_section is \['6', 5, 5\]; it must be three"),
        ({"rope_scaling": {**ROPE, "rope_type": "spiral"}}, "transformers cannot use .*'spiral'.*; write those"),
        ({"rope_scaling": {**ROPE, "rope_type": "linear"}}, "transformers cannot use .*factor.*; write those"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; a Qwen3-VL has none: remove it"),
    ],
)
def test_settings_that_clash_or_cannot_be_used_are_refused_in_a_line(change, message, tmp_path):
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as refusal:
        QwenRewardModel(folder, device="cpu")
    assert str(refusal.value).startswith(f"'{folder / 'config.json'}': ") and "\n" not in str(refusal.value)


def test_a_configuration_without_a_language_model_is_refused(tmp_path):
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "text_config": None}))
    with pytest.raises(ValueError, match="text_config is None, not a dictionary; download or copy the file again"):
        QwenRewardModel(folder, device="cpu")


def test_the_older_words_for_rotary_settings_are_read():
    old = {"rope_theta": 5000000, "rope_scaling": {"type": "mrope", "mrope_section": [24, 20, 20]}}
    both = {**old, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]}}
    for text in (old, both):
        assert rope_of(text, Path("config.json")) == {
            "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20],
        }  # fmt: skip


def test_image_settings_of_two_versions_that_differ_are_refused(tmp_path):
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "m")
    shutil.copy(FIVE / "processor_config.json", folder)
    load_processor(folder)
    new = json.loads((FIVE / "processor_config.json").read_text())
    new["image_processor"]["patch_size"] = 14
    (folder / "processor_config.json").write_text(json.dumps(new))
    with pytest.raises(
        FileNotFoundError, match=r"preprocessor_config.json': patch_size is 16, but in processor_config"
    ):
        QwenRewardModel(folder, device="cpu")


def test_a_processor_without_a_tokenizer_is_refused(tmp_path):
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "m")
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"no usable processor .it has neither tokenizer.json nor vocab.json"):
        QwenRewardModel(folder, device="cpu")


def test_a_processor_is_found_by_its_files_and_saved_without_older_ones(tmp_path):
    assert has_processor(TINY_FOLDER) and has_processor(FIVE) and not has_processor(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "Qwen3VLProcessor"}')
    assert not has_processor(tmp_path)  # 4.57 may write that beside preprocessor_config.json
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "added_tokens.json"):
        (tmp_path / name).write_text('{"patch_size": 14}')
    processor = load_processor(TINY_FOLDER)
    save_processor(processor, tmp_path)
    assert all("14" not in file.read_text() for file in tmp_path.glob("*processor_config.json"))
    assert load_processor(tmp_path).image_processor.patch_size == 16 and has_processor(tmp_path)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "steps"), [(0.0, 0), (0.03, 6), (0.031, 7), (1.0, 200)])
def test_the_share_of_steps_with_a_rising_rate(share, steps, tmp_path):
    from transformers import TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **warmup_of(share))
    assert arguments.get_warmup_steps(200) == steps == math.ceil(200 * share)


def test_weights_that_are_cut_off_are_refused(tmp_path):
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "m")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(ValueError, match=r"model.safetensors' holds no whole weights .*; download or copy it again"):
        QwenRewardModel(folder, device="cpu")


def test_a_model_that_is_built_leaves_the_settings_as_they_are():
    before = copy.deepcopy((TEXT, SIZES))
    processor = build_processor()
    theta = {**TEXT, "rope_theta": 77.0}
    for settings, expected in ((TEXT, 1e4), (theta, 77.0), (TEXT, 1e4)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(TINY_SIZES, "tiny", (VISION, settings))
            turns = build_model(processor).model.language_model.rotary_emb.inv_freq
        assert float(turns[-1]) == pytest.approx(expected ** (-15 / 16))
    config_of("4b", processor)
    assert before == (TEXT, SIZES)
