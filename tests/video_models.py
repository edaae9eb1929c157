# SPDX-License-Identifier: Apache-2.0
"""Tiny models of the video heads with random weights, written as the published ones are, and what they are asked."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from answers import TEMPLATE
from safetensors.torch import save_file
from tokenizers import AddedToken

from lrm_ros.reward.robometer import HEADS, SPECIAL_TOKENS
from lrm_ros.reward.roboreward import RoboReward
from lrm_ros.reward.video_heads import ROBOREWARD_PROMPT
from lrm_ros.training.reward.train.tiny.model import VISION, build_model, build_processor
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored
from lrm_ros.versions import token_types

TASK, OTHER = "put the red toy pig in the bowl", "open the drawer"
SECOND = 10**9


def frames(seed: int, count: int, height: int = 96, width: int = 96) -> list[Frame]:
    """Random blocks, a frame a second."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    images = blocks.repeat(8, axis=1).repeat(8, axis=2)
    return [Frame(5 * SECOND + i * SECOND, "front", image) for i, image in enumerate(images)]


def asks(head: str, *clips: tuple[str, Sequence[Frame]]) -> list[RewardQuery]:
    """A query about each (task, frames)."""
    return [RewardQuery(task, head, tuple(clip)) for task, clip in clips]


def values(answers: Sequence[Reward | Unscored]) -> list[float]:
    """The values of answers, of which there must be one to each query."""
    assert all(isinstance(answer, Reward) for answer in answers), answers
    return [answer.value for answer in answers if isinstance(answer, Reward)]


CLIPS = [(TASK, frames(0, 4)), (OTHER, frames(1, 1)), (TASK, frames(2, 3)), (OTHER, frames(3, 20))]
ROBO_CLIPS = [(TASK, frames(10, 4)), (TASK, frames(11, 3)), (OTHER, frames(12, 1))]
ROBO = asks("roboreward", *ROBO_CLIPS)


def small(words: tuple[str, ...] = ()):
    """A tiny Qwen3-VL whose visual tokens span two frames, as those of the published sizes do, and its processor."""
    processor = build_processor()
    processor.chat_template = TEMPLATE
    for pictures in (processor.image_processor, processor.video_processor):
        pictures.temporal_patch_size = pictures.merge_size = 2
    processor.video_processor.size = {"shortest_edge": 4096, "longest_edge": 25165824}
    processor.tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VISION, "temporal_patch_size", 2)
        patch.setitem(VISION, "spatial_merge_size", 2)
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


def write_roboreward(folder):
    """A model that says "ANSWER: 5" to clips that look like the first, "ANSWER: 2" to those like the second.

    Rows of its output layer are the hidden states at the end of these prompts; states after the norm are equally long,
    so the reply is that of the nearest.
    """
    model, processor = small(("ANSWER: 5", "ANSWER: 2", *ROBOREWARD_PROMPT.split("{task}")[:1]))
    save(model, processor, folder)
    token = processor.tokenizer.convert_tokens_to_ids
    untuned = RoboReward(folder, device="cpu")
    with torch.no_grad():
        output = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=False)
        output.weight.zero_()
        for query, answer in zip(ROBO[:2], ("ANSWER: 5", "ANSWER: 2"), strict=True):
            inputs = untuned.inputs([query])
            output.weight[token(answer)] = model.model(**inputs).last_hidden_state[0, -1]
            inputs["input_ids"] = torch.cat([inputs.input_ids, torch.tensor([[token(answer)]])], 1)
            inputs["attention_mask"] = torch.ones_like(inputs.input_ids)
            inputs.update(token_types(model.config, inputs.input_ids))
            output.weight[token("<|im_end|>")] += model.model(**inputs).last_hidden_state[0, -1] / 2
    model.lm_head = output
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    return save(model, processor, folder)
