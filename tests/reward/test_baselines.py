# SPDX-License-Identifier: Apache-2.0
"""RoboReward, Robometer and TOPReward on tiny Qwen3-VLs with random weights, written as the published ones are."""

import functools
import json
import shutil

import numpy as np
import pytest
import torch
from answers import TEMPLATE
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import Qwen3VLForConditionalGeneration

from lrm_ros.config import RefineConfig
from lrm_ros.reward import roboreward
from lrm_ros.reward.baselines import BASELINES, load_baseline
from lrm_ros.reward.clips import spread
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.robometer import HEADS, SPECIAL_TOKENS, Robometer
from lrm_ros.reward.roboreward import RoboReward, parse
from lrm_ros.reward.topreward import TopReward
from lrm_ros.sim.vector.rewards import REWARDS, WorldRewards
from lrm_ros.sim.vector.worlds import Stretch
from lrm_ros.training.reward.train.tiny.model import VISION, build_model, build_processor
from lrm_ros.types import Frame, Observation, Unscored
from lrm_ros.versions import token_types

TASK, OTHER = "put the red toy pig in the bowl", "open the drawer"
SECOND = 10**9


def frames(seed: int, count: int, height: int = 96, width: int = 96) -> list[Frame]:
    """Random blocks, a frame a second."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    images = blocks.repeat(8, axis=1).repeat(8, axis=2)
    return [Frame(5 * SECOND + i * SECOND, "front", image) for i, image in enumerate(images)]


CLIPS = [(TASK, frames(0, 4)), (OTHER, frames(1, 1)), (TASK, frames(2, 3)), (OTHER, frames(3, 20))]


def small(words: tuple[str, ...] = ()):
    """A tiny Qwen3-VL whose visual tokens span two frames, as those of the published sizes do, and its processor."""
    processor = build_processor()
    processor.chat_template = TEMPLATE
    processor.image_processor.temporal_patch_size = processor.video_processor.temporal_patch_size = 2
    processor.video_processor.size = {"shortest_edge": 4096, "longest_edge": 25165824}
    processor.tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VISION, "temporal_patch_size", 2)
        patch.setitem(VISION, "deepstack_visual_indexes", [0, 2])
        model = build_model(processor).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.0 if "norm" in name else 3.0)
    return model, processor


def save(model, processor, folder):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


# ---- what they share -----------------------------------------------------------------------------------------------


def test_frames_are_spread_over_the_whole_episode():
    stamps = [frame.stamp_ns // SECOND - 5 for frame in spread(CLIPS[3][1], 8)]
    assert stamps == [0, 2, 5, 8, 10, 13, 16, 19]
    assert spread(CLIPS[0][1], 4) == CLIPS[0][1] and spread(CLIPS[0][1], 1) == CLIPS[0][1][-1:]


def test_what_cannot_be_loaded_is_named_with_the_cure(tmp_path):
    with pytest.raises(ValueError, match="baseline 'gvl' is unknown; choose one of roboreward, robometer, topreward"):
        load_baseline("gvl", "tiny")
    for kind, example in (("robometer", "robometer/Robometer-4B"), ("roboreward", "teetone/RoboReward-8B")):
        with pytest.raises(ValueError, match=f"baseline '{kind}' needs weights: a folder, or .* such as '{example}'"):
            load_baseline(kind, "")
        with pytest.raises(FileNotFoundError, match="hf download some/model --local-dir FOLDER"):
            load_baseline(kind, "some/model")
    with pytest.raises(ValueError, match=r"spans 1 frames.*the shipped 'tiny' sees single images only"):
        load_baseline("topreward", "tiny", "cpu")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds adapters; this baseline is a whole Qwen3-VL"):
        load_baseline("roboreward", str(tmp_path), "cpu")


# ---- TOPReward -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def top_folder(tmp_path_factory):
    torch.set_num_threads(1)
    return save(*small((" True",)), tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def top(top_folder) -> TopReward:
    model = load_baseline("topreward", str(top_folder), "cpu")
    assert isinstance(model, TopReward)
    return model


def naive_log_prob(folder, task, clip, times):
    """The whole text by hand, one plain forward pass, the last token's log-probability."""
    _, processor = small((" True",))
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
    images = [frame.image for frame in clip]
    pixels = processor.video_processor(
        videos=[torch.tensor(np.stack(images)).permute(0, 3, 1, 2)], do_sample_frames=False, return_tensors="pt"
    )
    tokens = int(pixels.video_grid_thw[0, 1:].prod()) // 4
    video = "".join(
        f"<{time:.1f} seconds><|vision_start|>{'<|video_pad|>' * tokens}<|vision_end|>"
        for time in np.reshape(times, (-1, 2)).mean(1)
    )
    text = (
        f"<|im_start|>user\n{video}The above video shows a robot manipulation trajectory that completes the following "
        f"task: {task} Decide whether the above statement is True or not. The answer is: True"
    )
    ids = processor.tokenizer([text], return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            pixel_values_videos=pixels.pixel_values_videos,
            video_grid_thw=pixels.video_grid_thw,
            **token_types(model.config, ids),
        ).logits
    assert processor.tokenizer.decode(ids[0, -1]) == " True"
    return float(logits[0, -2].log_softmax(-1)[ids[0, -1]])


def test_topreward_is_the_log_probability_of_true_after_the_statement(top, top_folder):
    (task, clip), (other, single) = CLIPS[:2]
    found = top.log_probs([(task, clip), (other, single)])
    assert found[0] == pytest.approx(naive_log_prob(top_folder, task, clip, [0, 1, 2, 3]), abs=1e-4)
    assert found[1] == pytest.approx(naive_log_prob(top_folder, other, [*single, *single], [0, 0]), abs=1e-4)
    paced = TopReward(top_folder, device="cpu", fps=2.0)
    expected = naive_log_prob(top_folder, task, clip, [0, 0.5, 1, 1.5])
    assert paced.log_probs([(task, clip)])[0] == pytest.approx(expected, abs=1e-4)
    assert abs(found[0] - expected) > 1e-3  # the times are read


def test_topreward_scales_the_log_probability_to_0_and_1(top, monkeypatch):
    monkeypatch.setattr(TopReward, "log_probs", lambda self, clips: [-30.0, -25.0, -20.0, -5.0, -0.1])
    assert top.score([]) == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_topreward_shows_at_most_15_frames(top):
    task, clip = CLIPS[3]
    assert top.log_probs([(task, clip)])[0] == pytest.approx(top.log_probs([(task, spread(clip, 15))])[0], abs=1e-6)
    assert top.inputs([(task, clip)]).video_grid_thw[0, 0] == 8


def test_topreward_needs_true_to_be_one_token(tmp_path):
    with pytest.raises(ValueError, match="splits ' True' into 5 tokens; one is scored"):
        TopReward(save(*small(), tmp_path), device="cpu")


# ---- Robometer -----------------------------------------------------------------------------------------------------


def write_robometer(folder, tokens=SPECIAL_TOKENS, settings=""):
    """A checkpoint with the names of robometer/Robometer-4B, as robometer/robometer saves it: no language head."""
    folder.mkdir(exist_ok=True)
    model, processor = small()
    base = len(processor.tokenizer)
    processor.tokenizer.add_tokens(list(tokens), special_tokens=True)
    torch.manual_seed(1)
    model.resize_token_embeddings(base + len(SPECIAL_TOKENS), mean_resizing=False)
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    size = model.config.text_config.hidden_size
    for head, out in zip(HEADS, (10, 1, 1), strict=True):
        state |= {
            f"{head}.0.weight": torch.randn(size // 2, size) / 4,
            f"{head}.0.bias": torch.randn(size // 2),
            f"{head}.1.weight": 1 + torch.randn(size // 2) / 4,
            f"{head}.1.bias": torch.randn(size // 2) / 4,
            f"{head}.4.weight": torch.randn(out, size // 2) / 4,
            f"{head}.4.bias": torch.randn(out),
        }
    state["frame_pool_attn.weight"] = torch.randn(1, size)
    save_file({name: value.clone() for name, value in state.items()}, folder / "model.safetensors")
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "config.yaml").write_text(settings or "model: {use_per_frame_progress_token: true}\n")
    return folder


@pytest.fixture(scope="module")
def meter_folder(tmp_path_factory):
    torch.set_num_threads(1)
    return write_robometer(tmp_path_factory.mktemp("meter"))


@pytest.fixture(scope="module")
def meter(meter_folder) -> Robometer:
    model = load_baseline("robometer", str(meter_folder), "cpu")
    assert isinstance(model, Robometer)
    return model


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
    readings = meter.read(CLIPS[:3])
    for (task, clip), reading in zip(CLIPS[:3], readings, strict=True):
        progress, success = naive_reading(meter_folder, task, clip)
        np.testing.assert_allclose(reading.progress, progress, atol=1e-4)
        np.testing.assert_allclose(reading.success, success, atol=1e-4)
    scores = meter.score(CLIPS[:3])
    assert scores == pytest.approx([reading.progress[-1] for reading in readings], abs=1e-6)
    assert np.std(np.concatenate([reading.progress for reading in readings])) > 0.01
    assert meter.name == str(meter_folder) and meter.max_frames == 8


def test_robometer_with_the_other_activation_reads_as_large_reward_models_does(meter_folder):
    task, clip = CLIPS[2]
    reading = Robometer(meter_folder, device="cpu", activation="silu").read([(task, clip)])[0]
    progress, _ = naive_reading(meter_folder, task, clip, torch.nn.functional.silu)
    np.testing.assert_allclose(reading.progress, progress, atol=1e-4)
    assert np.abs(np.array(progress) - naive_reading(meter_folder, task, clip)[0]).max() > 1e-3
    with pytest.raises(ValueError, match="activation 'relu' is unknown; choose gelu or silu"):
        Robometer(meter_folder, device="cpu", activation="relu")


def test_robometer_sees_eight_frames_of_the_whole_episode(meter):
    task, clip = CLIPS[3]
    reading = meter.read([(task, clip)])[0]
    assert len(reading.progress) == 8
    np.testing.assert_allclose(reading.progress, meter.read([(task, spread(clip, 8))])[0].progress, atol=1e-6)
    assert np.abs(reading.progress - meter.read([(task, clip[-8:])])[0].progress).max() > 1e-3


def test_robometer_sizes_images_by_qwens_rule_not_by_the_processors(meter):
    grids = meter.inputs([(TASK, [*frames(0, 1, 480, 640), *frames(0, 1, 56, 104)])]).image_grid_thw.tolist()
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
    assert Robometer(folder, device="cpu").score(CLIPS[:1]) == pytest.approx(meter.score(CLIPS[:1]), abs=1e-6)
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
    assert model.score(CLIPS[:1]) == pytest.approx(meter.score(CLIPS[:1]), abs=1e-6)
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
    (folder / "config.json").write_text('{"type": "robometer"}')
    with pytest.raises(ValueError, match="describes a 'None' model; Robometer's own file describes a 'qwen3_vl'"):
        Robometer(folder, device="cpu")
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="hf download robometer/Robometer-4B"):
        Robometer(folder, device="cpu")
    with pytest.raises(ValueError, match=r"missing \(frame_pool_attn.weight, .*\.\.\.\)$"):
        Robometer(shutil.copytree(TINY_FOLDER, tmp_path / "stock"), device="cpu")


# ---- RoboReward ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("ANSWER: 4", 4),
        ("The pig is in the bowl.\nanswer:5", 5),
        ("ANSWER: 2. Only 1 of 3 steps", 2),
        ("ANSWER: 3\nANSWER: 5", 3),
        ("ANSWER: 15", None),
        ("ANSWER: 0", None),
        ("ANSWER: 4.5", None),
        ("ANSWER: 4.", 4),
        ("4", 4),
        ("Score 4, yes, 4!", 4),
        ("3/5", None),
        ("1.5", None),
        ("-3", None),
        ("ANSWER: <score>", None),
        ("", None),
    ],
)
def test_roborewards_reply_is_read_only_if_it_can_be(reply, score):
    assert parse(reply) == score


@pytest.fixture(scope="module")
def robo_folder(tmp_path_factory):
    """A model that says "ANSWER: 5" to clips that look like the first, "ANSWER: 2" to those like the second.

    Rows of its output layer are the hidden states at the end of these prompts; states after the norm are equally long,
    so the reply is that of the nearest.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("robo")
    model, processor = small(("ANSWER: 5", "ANSWER: 2", *roboreward.PROMPT.split("{task}")[:1]))
    save(model, processor, folder)
    token = processor.tokenizer.convert_tokens_to_ids
    untuned = RoboReward(folder, device="cpu")
    with torch.no_grad():
        output = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=False)
        output.weight.zero_()
        for clip, answer in zip(ROBO_CLIPS[:2], ("ANSWER: 5", "ANSWER: 2"), strict=True):
            inputs = untuned.inputs([clip])
            output.weight[token(answer)] = model.model(**inputs).last_hidden_state[0, -1]
            inputs["input_ids"] = torch.cat([inputs.input_ids, torch.tensor([[token(answer)]])], 1)
            inputs["attention_mask"] = torch.ones_like(inputs.input_ids)
            inputs.update(token_types(model.config, inputs.input_ids))
            output.weight[token("<|im_end|>")] += model.model(**inputs).last_hidden_state[0, -1] / 2
    model.lm_head = output
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    return save(model, processor, folder)


ROBO_CLIPS = [(TASK, frames(10, 4)), (TASK, frames(11, 3)), (OTHER, frames(12, 1))]


@pytest.fixture(scope="module")
def robo(robo_folder) -> RoboReward:
    model = load_baseline("roboreward", str(robo_folder), "cpu")
    assert isinstance(model, RoboReward)
    return model


def test_roboreward_is_the_said_score_less_one_by_four(robo):
    assert robo.replies(ROBO_CLIPS[:2]) == ["ANSWER: 5", "ANSWER: 2"]
    assert robo.score(ROBO_CLIPS[:2]) == [1.0, 0.25]


def test_roboreward_asks_with_the_video_before_the_prompt_of_the_model_card(robo, monkeypatch):
    monkeypatch.setattr(robo.processor.video_processor, "size", {"shortest_edge": 4096, "longest_edge": 4096})
    inputs = robo.inputs(ROBO_CLIPS[:2])
    # 128 tokens a frame at least, whatever the processor would do.
    assert inputs.video_grid_thw.tolist() == [[2, 24, 24], [2, 24, 24]]
    text = robo.processor.decode(inputs.input_ids[1]).replace("<|video_pad|>", "")
    assert text.removeprefix("<|endoftext|>" * text.count("<|endoftext|>")).startswith(
        "<|im_start|>user\n<0.5 seconds><|vision_start|><|vision_end|><2.0 seconds><|vision_start|><|vision_end|>"
        "Given the task, assign a discrete progress score reward (1,2,3,4,5) for the robot in the video in the format: "
        "ANSWER: <score>\nRubric"
    )
    assert text.endswith(f"satisfies all requirements.\n\nTask: {TASK}<|im_end|>\n<|im_start|>assistant\n")


def test_a_reply_that_cannot_be_read_is_unscored(robo, monkeypatch):
    monkeypatch.setattr(roboreward, "_MAX_NEW_TOKENS", 2)
    monkeypatch.setattr(robo.model.lm_head.weight, "data", torch.zeros_like(robo.model.lm_head.weight.data))
    found = robo.score(ROBO_CLIPS[:1])[0]
    assert isinstance(found, Unscored) and found.reason.startswith("the reply cannot be read: '")
    assert found.stamp_ns == ROBO_CLIPS[0][1][-1].stamp_ns and found.head == "roboreward"


def test_roboreward_weights_that_lack_a_tensor_are_refused(robo_folder, tmp_path):
    folder = shutil.copytree(robo_folder, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing \(lm_head.weight\)"):
        RoboReward(folder, device="cpu")


# ---- all three -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=BASELINES)
def each(request, top, meter, robo):
    """Every baseline with clips it can score."""
    return {"topreward": (top, CLIPS), "robometer": (meter, CLIPS), "roboreward": (robo, ROBO_CLIPS)}[request.param]


def test_an_answer_does_not_depend_on_the_batch(each):
    model, clips = each
    read = model.log_probs if isinstance(model, TopReward) else model.score
    together = read(clips)
    np.testing.assert_allclose(together, [read([clip])[0] for clip in clips], atol=1e-4)
    np.testing.assert_allclose(together[::-1], read(clips[::-1]), atol=1e-4)
    assert np.std(together) > 1e-3


def test_clips_that_cannot_be_asked_are_unscored_and_the_others_answered(each):
    model, clips = each
    found = model.score([(" ", clips[0][1]), clips[0], (TASK, [])])
    assert [answer.reason for answer in found if isinstance(answer, Unscored)] == [
        "the task text is empty", "the clip has no frames",
    ]  # fmt: skip
    assert found[1] == pytest.approx(model.score(clips[:1])[0], abs=1e-4) and model.score([]) == []


def test_no_memory_is_a_reason_not_a_reward(each, monkeypatch):
    model, clips = each
    part = model.qwen if isinstance(model, Robometer) else model.model

    @functools.wraps(part.forward)  # transformers reads its arguments
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(part, "forward", full)
    found = model.score(clips[:2])
    assert all(isinstance(answer, Unscored) and "Tried to allocate 2 GiB" in answer.reason for answer in found)


def test_a_value_that_is_not_finite_is_unscored(top, meter, monkeypatch):
    for parameter in (meter.progress_head[-1].bias, top.model.model.language_model.norm.weight):
        monkeypatch.setattr(parameter, "data", parameter.data * float("nan"))
    for model in (top, meter):
        found = model.score(CLIPS[:1])[0]
        assert isinstance(found, Unscored) and "nan" in found.reason


def test_stamps_that_run_backwards_and_mixed_sizes_are_refused(top):
    found = top.score([(TASK, CLIPS[0][1][::-1])])[0]
    assert isinstance(found, Unscored) and "stamps run backwards: [0, -1000, -2000, -3000] ms" in found.reason
    found = top.score([(TASK, [*frames(0, 1), *frames(0, 1, 64, 64)])])[0]
    assert isinstance(found, Unscored) and "frames of a clip differ in size" in found.reason


# ---- as reward of a refinement -------------------------------------------------------------------------------------


def observation(frame: Frame, task: str) -> Observation:
    return Observation(frame.stamp_ns, {"front": frame}, np.zeros(6, np.float32), task)


def stretch(judged, then, task, steps=8, ended=False) -> Stretch:
    """Steps of which some are judged: place -> frame; ``then`` is seen next."""
    final = observation(judged[max(judged)], task) if ended else None
    still = np.zeros(steps, np.float32)
    return Stretch(
        np.zeros((steps, 6), np.float32), np.append(still, 0), still > 0, tuple(judged.items()), ended, ended, final,
        observation(then, task), 0,
    )  # fmt: skip


def test_two_worlds_are_paid_what_the_baseline_says_of_each_episode_so_far(each, top_folder, meter_folder, robo_folder):
    model, _ = each
    kind = {TopReward: "topreward", Robometer: "robometer", RoboReward: "roboreward"}[type(model)]
    folder = {"topreward": top_folder, "robometer": meter_folder, "roboreward": robo_folder}[kind]
    rewards = WorldRewards(RefineConfig(reward=kind, baseline=str(folder), scale=2.0, device="cpu"), FakeModel())
    one, two, new = frames(10, 4), frames(11, 3), frames(12, 1)
    assert rewards.rules.judge_every == 10
    rewards.begin([observation(one[0], TASK), observation(two[0], OTHER)])
    first, second = rewards.score([stretch({2: one[1], 7: one[2]}, one[2], TASK), stretch({}, two[0], OTHER)])
    said = [2 * value for value in model.score([(TASK, one[:n]) for n in (1, 2, 3)])]
    np.testing.assert_allclose(first, [said[0]] + [said[1]] * 5 + [said[2]] * 2, atol=2e-4)
    held = 2 * model.score([(OTHER, two[:1])])[0]
    np.testing.assert_allclose(second, [held] * 8, atol=2e-4)
    last = stretch({8: two[1]}, new[0], OTHER, ended=True)
    first, second = rewards.score([stretch({4: one[3]}, one[3], TASK), last])
    said.append(2 * model.score([(TASK, one)])[0])
    np.testing.assert_allclose(first, [said[2]] * 3 + [said[3]] * 5, atol=2e-4)
    np.testing.assert_allclose(second, [held] * 7 + [2 * model.score([(OTHER, two[:2])])[0]], atol=2e-4)
    # World 2 began anew: its first frame alone is what counts, and the fake judge of the end is still another.
    _, second = rewards.score([stretch({}, one[3], TASK), stretch({}, new[0], OTHER)])
    np.testing.assert_allclose(second, [2 * model.score([(OTHER, new)])[0]] * 8, atol=2e-4)
    assert rewards.tally.episodes == 1 and rewards.tally.judged == [float(two[1].image.mean() >= 127.5)]
    assert rewards.tally.queries == 7 + 1


def test_a_baseline_that_gives_no_answer_stops_the_run(top_folder):
    rewards = WorldRewards(RefineConfig(reward="topreward", baseline=str(top_folder), device="cpu"), FakeModel())
    clip = frames(0, 2)
    rewards.begin([observation(clip[1], TASK)])
    with pytest.raises(RuntimeError, match=r"world 0: topreward gave no answer: .*run backwards.*resume the run"):
        rewards.score([stretch({1: clip[0]}, clip[0], TASK)])


def test_a_refinement_without_the_baselines_weights_is_refused():
    assert REWARDS[-3:] == BASELINES
    for kind in BASELINES:
        with pytest.raises(ValueError, match=f"baseline '{kind}' needs weights"):
            WorldRewards(RefineConfig(reward=kind), FakeModel())
