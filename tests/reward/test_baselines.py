# SPDX-License-Identifier: Apache-2.0
"""What the models of the video heads have in common: RoboReward, Robometer and TOPReward."""

import functools

import numpy as np
import pytest
import torch
from video_models import CLIPS, ROBO_CLIPS, SECOND, TASK, asks, frames, values

from lrm_ros.reward.heads import HEADS, spread
from lrm_ros.reward.load import load_model
from lrm_ros.reward.robometer import Robometer
from lrm_ros.reward.topreward import TopReward
from lrm_ros.reward.video_heads import VIDEO_HEADS
from lrm_ros.types import HEADS as NAMES
from lrm_ros.types import VIDEO_HEADS as VIDEO_NAMES
from lrm_ros.types import RewardQuery, Unscored


def test_frames_are_spread_over_the_whole_episode():
    stamps = [frame.stamp_ns // SECOND - 5 for frame in spread(CLIPS[3][1], 8)]
    assert stamps == [0, 2, 5, 8, 10, 13, 16, 19]
    assert spread(CLIPS[0][1], 4) == CLIPS[0][1] and spread(CLIPS[0][1], 1) == CLIPS[0][1][-1:]


def test_what_cannot_be_loaded_is_named_with_the_cure(tmp_path):
    with pytest.raises(ValueError, match=r"mode 'gvl' is unknown; choose one of .*, roboreward, robometer, topreward$"):
        load_model("tiny", mode="gvl")
    for kind, example in (("robometer", "robometer/Robometer-4B"), ("roboreward", "teetone/RoboReward-8B")):
        with pytest.raises(ValueError, match=f"baseline '{kind}' needs weights: a folder, or .* such as '{example}'"):
            load_model("", mode=kind)
        with pytest.raises(FileNotFoundError, match="hf download some/model --local-dir FOLDER"):
            load_model("some/model", mode=kind)
    with pytest.raises(ValueError, match=r"spans 1 frames.*the shipped 'tiny' sees single images only"):
        load_model("tiny", "cpu", "topreward")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds LoRA adapters, as an LRM does; .* or use an LRM with mode completion"):
        load_model(str(tmp_path), "cpu", "roboreward")


@pytest.fixture(params=VIDEO_NAMES)
def each(request, baselines):
    """Every model with queries that it can answer."""
    head = request.param
    return baselines[head], asks(head, *(ROBO_CLIPS if head == "roboreward" else CLIPS))


def test_the_heads_are_those_that_a_query_may_name_and_only_three_are_of_the_lrm():
    assert tuple(HEADS) == NAMES and tuple(VIDEO_HEADS) == VIDEO_NAMES
    for name, head in VIDEO_HEADS.items():
        assert head.name == name and head.video and not any(one.video for one in HEADS.values())
        query = RewardQuery(TASK, name, tuple(CLIPS[3][1]))
        assert head.images(query) == spread(CLIPS[3][1], head.max_frames) and query.stamp_ns == 24 * SECOND
    with pytest.raises(ValueError, match=r"unknown reward head 'gvl'; choose one of .*, topreward"):
        RewardQuery(TASK, "gvl", tuple(CLIPS[0][1]))


def test_an_answer_does_not_depend_on_the_batch(each):
    model, queries = each
    read = model.log_probs if isinstance(model, TopReward) else lambda asked: values(model.score(asked))
    together = read(queries)
    np.testing.assert_allclose(together, [read([query])[0] for query in queries], atol=1e-4)
    np.testing.assert_allclose(together[::-1], read(queries[::-1]), atol=1e-4)
    assert np.std(together) > 1e-3


def test_an_answer_says_of_which_frame_and_head_it_is_and_who_gave_it(each):
    model, queries = each
    for query, answer in zip(queries, model.score(queries), strict=True):
        assert (answer.stamp_ns, answer.head, answer.model) == (query.frames[-1].stamp_ns, model.head.name, model.name)
        assert answer.latency_s > 0 and 0 <= answer.value <= 1
    with pytest.raises(ValueError, match="unknown readout 'backward'; choose one of forward, reason, generate"):
        model.score(queries, "backward")


def test_queries_that_cannot_be_asked_are_unscored_and_the_others_answered(each):
    model, queries = each
    other = next(head for head in VIDEO_NAMES if head != model.head.name)
    clip = queries[0].frames
    goal = RewardQuery(TASK, model.head.name, clip, goal=clip[0])
    found = model.score([*asks(other, (TASK, clip)), queries[0], *asks("completion", (TASK, clip[:1])), goal])
    lacks = f"model '{model.name}' answers {model.head.name}; head '{{}}' needs its own weights"
    assert [answer.reason for answer in found if isinstance(answer, Unscored)] == [
        lacks.format(other),
        lacks.format("completion"),
        f"head '{model.head.name}' takes no goal image; only 'progress' does",
    ]
    assert found[0].head == other and found[0].stamp_ns == clip[-1].stamp_ns
    assert found[1].value == pytest.approx(values(model.score(queries[:1]))[0], abs=1e-4) and model.score([]) == []


@pytest.mark.parametrize("head", VIDEO_NAMES)
def test_a_query_without_a_task_or_a_frame_is_refused(head):
    with pytest.raises(ValueError, match="the task text is empty"):
        RewardQuery(" ", head, tuple(CLIPS[0][1]))
    with pytest.raises(ValueError, match=f"head '{head}' needs at least one frame"):
        RewardQuery(TASK, head, ())


def test_the_lrm_has_no_answer_for_a_video_head_and_its_other_queries_are_answered():
    model = load_model("tiny", "cpu")
    clip = CLIPS[0][1]
    queries = [query for head in VIDEO_NAMES for query in asks(head, (TASK, clip))]
    for readout in ("forward", "generate"):
        *found, done = model.score([*queries, *asks("completion", (TASK, clip[:1]))], readout)
        assert [answer.reason for answer in found if isinstance(answer, Unscored)] == [
            f"model 'tiny' answers contrastive, progress, completion; head '{head}' needs its own weights"
            for head in VIDEO_NAMES
        ]
        assert done.value == pytest.approx(values(model.score(asks("completion", (TASK, clip[:1])), readout))[0])


def test_no_memory_is_a_reason_not_a_reward(each, monkeypatch):
    model, queries = each
    part = model.qwen if isinstance(model, Robometer) else model.model

    @functools.wraps(part.forward)  # transformers reads its arguments
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(part, "forward", full)
    found = model.score(queries[:2])
    assert all(isinstance(answer, Unscored) and "Tried to allocate 2 GiB" in answer.reason for answer in found)


def test_a_value_that_is_not_finite_is_unscored(baselines, monkeypatch):
    top, meter = baselines["topreward"], baselines["robometer"]
    for parameter in (meter.progress_head[-1].bias, top.model.model.language_model.norm.weight):
        monkeypatch.setattr(parameter, "data", parameter.data * float("nan"))
    for model in (top, meter):
        found = model.score(asks(model.head.name, CLIPS[0]))[0]
        assert isinstance(found, Unscored) and "nan" in found.reason


def test_stamps_that_run_backwards_and_mixed_sizes_are_refused_and_their_neighbours_answered(baselines):
    top, clip = baselines["topreward"], CLIPS[0][1]
    mixed = [*frames(0, 1), *frames(0, 1, 64, 64)]
    backwards, good, sizes = top.score(asks("topreward", (TASK, clip[::-1]), CLIPS[0], (TASK, mixed)))
    assert isinstance(backwards, Unscored)
    assert "stamps run backwards: [0, -1000, -2000, -3000] ms" in backwards.reason
    assert isinstance(sizes, Unscored) and "frames of a clip differ in size" in sizes.reason
    assert values([good]) == pytest.approx(values(top.score(asks("topreward", CLIPS[0]))), abs=1e-6)
