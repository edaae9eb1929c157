# SPDX-License-Identifier: Apache-2.0
"""Queries about noise, and what one plain transformers call a candidate answers to them."""

import itertools

import numpy as np
import torch

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

TASKS = ("put the red toy giraffe in the bowl", "put the blue toy walrus into the big green box")


def noise(seed: int, height: int = 96, width: int = 96) -> Frame:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Frame(seed, "front", np.kron(blocks, np.ones((8, 8, 1), np.uint8)))


def values_of(answers: list[Reward | Unscored]) -> list[float]:
    assert all(isinstance(answer, Reward) for answer in answers), answers
    return [answer.value for answer in answers if isinstance(answer, Reward)]


def value_of(answer: Reward | Unscored) -> float:
    return values_of([answer])[0]


def mixed_queries() -> list[RewardQuery]:
    frames = [noise(seed) for seed in range(4)]
    return [
        query
        for task in TASKS
        for a, b in itertools.pairwise(frames)
        for query in (
            RewardQuery(task, "contrastive", (a, b)),
            RewardQuery(task, "progress", (b,)),
            RewardQuery(task, "completion", (b,)),
            RewardQuery(task, "progress", (frames[0], b)),
            RewardQuery(task, "progress", (frames[0], b), goal=frames[3]),
        )
    ]


def plain(model: QwenRewardModel, query: RewardQuery, written: str = "") -> float:
    """One transformers call for each candidate answer: the whole text, log-probabilities of the candidate's tokens."""
    head = HEADS[query.head]
    if model.adapters:
        model.model.set_adapter(model.adapters[query.head])
    text = model.processor.apply_chat_template(head.messages(query), tokenize=False, add_generation_prompt=True)
    images = [frame.image for frame in head.images(query)]
    begun = text + (written or head.prefix)
    inputs = [model.processor(text=[begun + c], images=images, return_tensors="pt") for c in head.candidates]
    first = next(
        at
        for at in range(inputs[0].input_ids.shape[1])
        if len({int(i.input_ids[0, at]) for i in inputs}) > 1 or any(i.input_ids.shape[1] == at + 1 for i in inputs)
    )
    scores = []
    for item in inputs:
        with torch.inference_mode():
            log_probs = model.model(**item).logits[0].log_softmax(-1)
        ids = item.input_ids[0]
        scores.append(sum(float(log_probs[at - 1, ids[at]]) for at in range(first, len(ids))))
    weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
    return float(weights @ torch.tensor(head.values, dtype=torch.float64))
