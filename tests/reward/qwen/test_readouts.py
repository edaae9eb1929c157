# SPDX-License-Identifier: Apache-2.0
"""The mass of an answer, and answers that are read after what the model wrote."""

import math

import pytest
import torch
from plain_answers import mixed_queries, plain, value_of  # type: ignore[import-not-found]

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.load import load_model
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.reward.qwen.writing import Written
from lrm_ros.types import Reward, Unscored


@pytest.fixture(scope="module")
def tiny() -> QwenRewardModel:
    torch.set_num_threads(1)
    model = load_model("tiny", "cpu")
    assert isinstance(model, QwenRewardModel)
    return model


def test_the_mass_is_the_probability_of_the_answers_start_times_that_of_all_answers(tiny):
    for query, answer in zip(mixed_queries()[:3], tiny.score(mixed_queries()[:3]), strict=True):
        head = HEADS[query.head]
        text = tiny.processor.apply_chat_template(head.messages(query), tokenize=False, add_generation_prompt=True)
        images = [frame.image for frame in head.images(query)]
        asked = tiny.processor(text=[text], images=images, return_tensors="pt").input_ids.shape[1]
        mass = 0.0
        for candidate in head.candidates:
            inputs = tiny.processor(text=[text + head.prefix + candidate], images=images, return_tensors="pt")
            with torch.inference_mode():
                log_probs = tiny.model(**inputs).logits[0].log_softmax(-1)
            ids = inputs.input_ids[0]
            mass += math.exp(sum(float(log_probs[at - 1, ids[at]]) for at in range(asked, len(ids))))
        assert isinstance(answer, Reward) and answer.mass == pytest.approx(mass, rel=1e-4)
        assert 0.95 < mass < 1, "it was trained to answer at once"


def test_reason_reads_the_probabilities_after_what_the_model_wrote(tiny, monkeypatch):
    query = mixed_queries()[1]
    said = iter(['The toy moves.\n\n{ "completion_progress": 0.3 }', "The toy", '{"completion_progress":"1'])
    monkeypatch.setattr(
        "lrm_ros.reward.qwen.model.write", lambda model, queries: [Written(next(said)) for _ in queries]
    )
    first, second, third = tiny.score([query] * 3, "reason")
    assert value_of(first) == pytest.approx(plain(tiny, query, 'The toy moves.\n\n{ "completion_progress": '), abs=2e-5)
    assert isinstance(second, Unscored) and second.reason == "it wrote no answer: 'The toy'"
    assert value_of(third) == pytest.approx(plain(tiny, query, '{"completion_progress":"'), abs=2e-5)
