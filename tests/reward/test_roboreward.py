# SPDX-License-Identifier: Apache-2.0
"""RoboReward on a tiny Qwen3-VL that has learned two replies."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from video_models import ROBO, ROBO_CLIPS, TASK, values

from lrm_ros.reward.roboreward import RoboReward
from lrm_ros.reward.video_heads import VIDEO_HEADS, parse_roboreward
from lrm_ros.types import Unscored


@pytest.fixture
def robo_folder(baseline_folders):
    return baseline_folders["roboreward"]


@pytest.fixture
def robo(baselines) -> RoboReward:
    assert isinstance(baselines["roboreward"], RoboReward)
    return baselines["roboreward"]


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
    assert parse_roboreward(reply) == (None if score is None else (score - 1) / 4)


def test_roboreward_is_the_said_score_less_one_by_four(robo):
    assert robo.replies(ROBO[:2]) == ["ANSWER: 5", "ANSWER: 2"]
    assert values(robo.score(ROBO[:2])) == [1.0, 0.25]


def test_roboreward_asks_with_the_video_before_the_prompt_of_the_model_card(robo, monkeypatch):
    monkeypatch.setattr(robo.processor.video_processor, "size", {"shortest_edge": 4096, "longest_edge": 4096})
    inputs = robo.inputs(ROBO[:2])
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
    monkeypatch.setattr(robo, "head", dataclasses.replace(robo.head, max_new_tokens=2))
    monkeypatch.setattr(robo.model.lm_head.weight, "data", torch.zeros_like(robo.model.lm_head.weight.data))
    found = robo.score(ROBO[:1])[0]
    assert isinstance(found, Unscored) and found.reason.startswith("the reply cannot be read: '")
    assert found.stamp_ns == ROBO_CLIPS[0][1][-1].stamp_ns and found.head == "roboreward"


def test_roboreward_weights_that_lack_a_tensor_are_refused(robo_folder, tmp_path):
    folder = shutil.copytree(robo_folder, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing \(lm_head.weight\)"):
        RoboReward(folder, device="cpu")


@pytest.mark.parametrize("value", VIDEO_HEADS["roboreward"].values)
def test_every_candidate_answer_is_read_back_as_its_value(value):
    head = VIDEO_HEADS["roboreward"]
    assert head.parse(head.answer(value)) == value
    assert len(head.candidates) == len(head.values) and (head.low, head.high) == (0.0, 1.0)
