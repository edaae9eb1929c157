# SPDX-License-Identifier: Apache-2.0
"""Robometer on a tiny Qwen3-VL with random weights, written as the published one is."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from journals import journal
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import Qwen3VLForConditionalGeneration
from video_models import CLIPS, TASK, asks, frames, small, values, write_robometer

from lrm_ros.reward.heads import HEADS, spread
from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.robometer import SPECIAL_TOKENS, Robometer
from lrm_ros.training.policy import judge
from lrm_ros.versions import token_types

QUERIES = asks("robometer", *CLIPS)


@pytest.fixture
def meter_folder(baseline_folders):
    return baseline_folders["robometer"]


@pytest.fixture
def meter(baselines) -> Robometer:
    assert isinstance(baselines["robometer"], Robometer)
    return baselines["robometer"]


def naive_reading(folder, task, clip, gate=torch.nn.functional.gelu):
    """The text by hand, the last of a Qwen3VLModel's hidden states as upstream, the heads from the file's numbers."""
    _, processor = small()
    for token in SPECIAL_TOKENS:
        processor.tokenizer.add_tokens(AddedToken(token, special=True))
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
    state = load_file(folder / "model.safetensors")
    pixels = processor.image_processor(
        images=[Image.fromarray(frame.image) for frame in clip], do_resize=False, return_tensors="pt"
    )
    shown = "".join(
        f"Picture {n}: <|vision_start|>{'<|image_pad|>' * (int(grid.prod()) // 4)}<|vision_end|><|prog_token|>"
        for n, grid in enumerate(pixels.image_grid_thw, start=1)
    )
    text = (
        f"<|im_start|>user\nThe task for the robot is '{task}'. Given the trajectory video, predict the task progress "
        "at each frame, how far along the robot is towards completing the task, a float between 0 and 1, where 0 is "
        "the starting state and 1 is when the task is completed. If the robot is not performing the same task, predict "
        f"0 progress.{shown}<|im_end|>\n"
    )
    ids = processor.tokenizer([text], return_tensors="pt").input_ids
    with torch.no_grad():
        seen = model.model(input_ids=ids, **pixels, **token_types(model.config, ids), output_hidden_states=True)
        hidden = seen.hidden_states[-1][0]
    places = [at for at, token in enumerate(ids[0].tolist()) if token == len(processor.tokenizer) - 1]
    assert len(places) == len(clip)
    out = {}
    for head in ("progress_head", "success_head"):
        values = []
        for place in places:
            x = hidden[place] @ state[f"{head}.0.weight"].T + state[f"{head}.0.bias"]
            x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
            x = gate(x * state[f"{head}.1.weight"] + state[f"{head}.1.bias"])
            values.append(state[f"{head}.4.weight"] @ x + state[f"{head}.4.bias"])
        out[head] = values
    progress = []
    for logits in out["progress_head"]:
        weights = np.exp(logits.double().numpy())
        progress.append(sum(weight * bin / 9 for bin, weight in enumerate(weights)) / weights.sum())
    success = [1 / (1 + np.exp(-float(logit))) for logit in out["success_head"]]
    return progress, success


def test_robometer_reads_its_heads_at_the_progress_tokens(meter, meter_folder):
    readings = meter.read(QUERIES[:3])
    for (task, clip), reading in zip(CLIPS[:3], readings, strict=True):
        progress, success = naive_reading(meter_folder, task, clip)
        np.testing.assert_allclose(reading.progress, progress, atol=1e-4)
        np.testing.assert_allclose(reading.success, success, atol=1e-4)
    scores = values(meter.score(QUERIES[:3]))
    assert scores == pytest.approx([reading.progress[-1] for reading in readings], abs=1e-6)
    assert np.std(np.concatenate([reading.progress for reading in readings])) > 0.01
    assert meter.name == str(meter_folder) and meter.head.max_frames == 8


def test_robometer_with_the_other_activation_reads_as_large_reward_models_does(meter_folder):
    task, clip = CLIPS[2]
    reading = Robometer(meter_folder, device="cpu", activation="silu").read(asks("robometer", (task, clip)))[0]
    progress, _ = naive_reading(meter_folder, task, clip, torch.nn.functional.silu)
    np.testing.assert_allclose(reading.progress, progress, atol=1e-4)
    assert np.abs(np.array(progress) - naive_reading(meter_folder, task, clip)[0]).max() > 1e-3
    with pytest.raises(ValueError, match="activation 'relu' is unknown; choose gelu or silu"):
        Robometer(meter_folder, device="cpu", activation="relu")


def test_robometer_sees_eight_frames_of_the_whole_episode(meter):
    task, clip = CLIPS[3]
    reading = meter.read(asks("robometer", (task, clip)))[0]
    assert len(reading.progress) == 8
    shown, newest = meter.read(asks("robometer", (task, spread(clip, 8)), (task, clip[-8:])))
    np.testing.assert_allclose(reading.progress, shown.progress, atol=1e-6)
    assert np.abs(reading.progress - newest.progress).max() > 1e-3


def test_robometer_sizes_images_by_qwens_rule_not_by_the_processors(meter):
    query = asks("robometer", (TASK, [*frames(0, 1, 480, 640), *frames(0, 1, 56, 104)]))
    grids = meter.inputs(query).image_grid_thw.tolist()
    assert grids == [[1, 30, 40], [1, 4, 6]]


@pytest.mark.parametrize("name", ["success_head.4.bias", "model.visual.blocks.1.mlp.linear_fc1.weight"])
def test_a_tensor_that_is_missing_is_named(meter_folder, tmp_path, name):
    folder = shutil.copytree(meter_folder, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"are not those of this model: 1 missing \({name}\)$"):
        Robometer(folder, device="cpu")


def test_a_tensor_that_is_not_expected_is_named(meter_folder, tmp_path):
    folder = shutil.copytree(meter_folder, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    save_file(state | {"similarity_head.0.bias": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 unexpected \(similarity_head.0.bias\)"):
        Robometer(folder, device="cpu")


def test_a_checkpoint_in_several_files_is_the_same_and_one_that_lacks_a_file_is_refused(meter, meter_folder, tmp_path):
    folder = shutil.copytree(meter_folder, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor its index"):
        Robometer(folder, device="cpu")
    parts = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {name: parts[i % 2] for i, name in enumerate(sorted(state))}
    for part in parts:
        save_file({n: v for n, v in state.items() if index[n] == part}, folder / part, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert values(Robometer(folder, device="cpu").score(QUERIES[:1])) == pytest.approx(
        values(meter.score(QUERIES[:1])), abs=1e-6
    )
    (folder / parts[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"names .*{parts[1]}, which is not there"):
        Robometer(folder, device="cpu")


def test_the_special_tokens_are_added_in_order_to_the_base_models_processor(meter, meter_folder, tmp_path):
    base = tmp_path / "base"
    small()[1].save_pretrained(base)
    folder = shutil.copytree(meter_folder, tmp_path / "copy")
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)
    for file in folder.glob("*processor_config.json"):
        file.unlink()
    (folder / "config.yaml").write_text(f"model: {{base_model_id: {base}}}\n")
    model = Robometer(folder, device="cpu")
    assert model.processor.tokenizer.convert_ids_to_tokens(range(model._token - 4, model._token + 1)) == [
        "<|split_token|>", "<|reward_token|>", "<|pref_token|>", "<|sim_token|>", "<|prog_token|>",
    ]  # fmt: skip
    assert values(model.score(QUERIES[:1])) == pytest.approx(values(meter.score(QUERIES[:1])), abs=1e-6)
    (folder / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no usable processor.*of 'Qwen/Qwen3-VL-4B-Instruct' into it"):
        Robometer(folder, device="cpu")


def test_robometer_checkpoints_of_another_kind_are_refused(meter_folder, tmp_path):
    with pytest.raises(ValueError, match=r"the special tokens must be \d+ to \d+, but the tokenizer has them at"):
        Robometer(write_robometer(tmp_path / "order", tokens=SPECIAL_TOKENS[::-1]), device="cpu")
    folder = shutil.copytree(meter_folder, tmp_path / "copy")
    for line, message in (
        ("use_per_frame_progress_token: false", "use_per_frame_progress_token is False; only True can be read"),
        ("progress_loss_type: l2", "progress_loss_type is 'l2'; only 'discrete' can be read"),
    ):
        (folder / "config.yaml").write_text(f"model:\n  {line}\n")
        with pytest.raises(ValueError, match=message):
            Robometer(folder, device="cpu")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a LoRA checkpoint of Robometer; merge it"):
        Robometer(folder, device="cpu")
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").write_text('{"type": "robometer"}')
    with pytest.raises(ValueError, match="describes a 'None' model; Robometer's own file describes a 'qwen3_vl'"):
        Robometer(folder, device="cpu")
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="hf download robometer/Robometer-4B"):
        Robometer(folder, device="cpu")


NO_ROBOMETER = (
    r"not a Robometer; give Robometer's weights \(robometer/Robometer-4B\), or use an LRM with mode completion"
)


@pytest.mark.parametrize("kind", ["an adapter a head", "one adapter", "whole"])
def test_an_lrm_is_refused_as_a_robometer_with_what_it_holds_and_the_cure(tmp_path, kind):
    folder = tmp_path / "lrm"
    if kind == "whole":
        shutil.copytree(TINY_FOLDER, folder)
    else:
        place = folder / "progress" if kind == "an adapter a head" else folder
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text("{}")
    what = "a Qwen3-VL without progress_head.*, e.g. an LRM" if kind == "whole" else "LoRA adapters, as an LRM does"
    with pytest.raises(ValueError, match=rf"^'{folder}' holds {re.escape(what)}, {NO_ROBOMETER}[^\n]*$"):
        load_model(str(folder), "cpu", "robometer")


NO_LRM = "not an LRM; use it in mode 'robometer': mode:=robometer of the reward node, --modes robometer of 'lrm reward"


@pytest.mark.parametrize("mode", [*HEADS, "tri", "roboreward", "topreward"])
def test_a_robometer_is_refused_in_every_other_mode_with_what_it_holds_and_the_cure(meter_folder, mode):
    what = re.escape("the weights of a Robometer (progress_head.*)")
    with pytest.raises(ValueError, match=rf"^'{meter_folder}' holds {what}, {NO_LRM}[^\n]*$"):
        load_model(str(meter_folder), "cpu", mode)


def test_a_robometer_in_several_files_its_adapter_and_adapters_on_it_are_refused_as_an_lrm(meter_folder, tmp_path):
    folder = shutil.copytree(meter_folder, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    heads = {name: value for name, value in state.items() if "_head." in name}
    rest = {name: value for name, value in state.items() if name not in heads}
    save_file(rest, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    save_file(heads, folder / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"^'{folder}' .*{NO_LRM}"):
        load_model(str(folder), "cpu")
    on_it = tmp_path / "on_it"
    (on_it / "completion").mkdir(parents=True)
    (on_it / "completion" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    with pytest.raises(ValueError, match=f"^'{folder}' .*{NO_LRM}"):
        load_model(str(on_it), "cpu")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "tiny"}))
    name = "base_model.model.progress_head.modules_to_save.0.bias"
    save_file({name: torch.zeros(1)}, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=f"^'{adapter}' .*{NO_LRM}"):
        load_model(str(adapter), "cpu")
    with pytest.raises(ValueError, match="is a LoRA checkpoint of Robometer; merge it"):
        load_model(str(adapter), "cpu", "robometer")


def test_a_roboreward_by_its_hugging_face_name_is_refused_as_an_lrm(monkeypatch):
    monkeypatch.setattr("lrm_ros.reward.load.find_model", lambda name: TINY_FOLDER)  # as if it were in the cache
    with pytest.raises(
        ValueError, match=r"^'teetone/RoboReward-4B' holds the weights of a RoboReward, not an LRM; use"
    ):
        load_model("teetone/RoboReward-4B", "cpu", "tri")


def test_lrm_judge_with_a_robometer_ends_with_2_and_one_line(meter_folder, tmp_path, capsys):
    journal(tmp_path / "a.mcap", [0, 255], True)
    assert judge.main([str(tmp_path), "--model", str(meter_folder), "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"error: '{meter_folder}' holds the weights of a Robometer")
    assert said.err.count("\n") == 1
