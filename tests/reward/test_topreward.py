# SPDX-License-Identifier: Apache-2.0
"""TOPReward on a tiny Qwen3-VL with random weights."""

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration
from video_models import CLIPS, asks, save, small, values

from lrm_ros.reward.heads import spread
from lrm_ros.reward.topreward import TopReward
from lrm_ros.versions import token_types


@pytest.fixture
def top_folder(baseline_folders):
    return baseline_folders["topreward"]


@pytest.fixture
def top(baselines) -> TopReward:
    assert isinstance(baselines["topreward"], TopReward)
    return baselines["topreward"]


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
    found = top.log_probs(asks("topreward", *CLIPS[:2]))
    assert found[0] == pytest.approx(naive_log_prob(top_folder, task, clip, [0, 1, 2, 3]), abs=1e-4)
    assert found[1] == pytest.approx(naive_log_prob(top_folder, other, [*single, *single], [0, 0]), abs=1e-4)
    paced = TopReward(top_folder, device="cpu", fps=2.0)
    expected = naive_log_prob(top_folder, task, clip, [0, 0.5, 1, 1.5])
    assert paced.log_probs(asks("topreward", (task, clip)))[0] == pytest.approx(expected, abs=1e-4)
    assert abs(found[0] - expected) > 1e-3  # the times are read


def test_topreward_scales_the_log_probability_to_0_and_1(top, monkeypatch):
    monkeypatch.setattr(TopReward, "log_probs", lambda self, queries: [-30.0, -25.0, -20.0, -5.0, -0.1])
    assert values(top.score(asks("topreward", CLIPS[0]) * 5)) == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_topreward_shows_at_most_15_frames(top):
    task, clip = CLIPS[3]
    whole, shown = asks("topreward", (task, clip), (task, spread(clip, 15)))
    assert top.log_probs([whole])[0] == pytest.approx(top.log_probs([shown])[0], abs=1e-6)
    assert top.inputs([whole]).video_grid_thw[0, 0] == 8


def test_topreward_needs_true_to_be_one_token(tmp_path):
    with pytest.raises(ValueError, match="splits ' True' into 5 tokens; one is scored"):
        TopReward(save(*small(), tmp_path), device="cpu")
