# SPDX-License-Identifier: Apache-2.0
"""The mass of an answer, and answers that are read after what the model wrote."""

import math

import pytest
import torch
from fuzzing import fuzz  # type: ignore[import-not-found]
from hypothesis import given
from hypothesis import strategies as st
from plain_answers import TASKS, mixed_queries, noise, plain, value_of, values_of  # type: ignore[import-not-found]

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.qwen import language
from lrm_ros.reward.qwen import model as qwen
from lrm_ros.reward.qwen.writing import Written
from lrm_ros.sim.tabletop.world import TabletopWorld
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored


def mass_of(model, query: RewardQuery) -> float:
    """One plain transformers call for each candidate answer: the probability that it is said after the prompt."""
    head = HEADS[query.head]
    text = model.processor.apply_chat_template(head.messages(query), tokenize=False, add_generation_prompt=True)
    images = [frame.image for frame in head.images(query)]
    asked = model.processor(text=[text], images=images, return_tensors="pt").input_ids.shape[1]
    mass = 0.0
    for candidate in head.candidates:
        inputs = model.processor(text=[text + head.prefix + candidate], images=images, return_tensors="pt")
        with torch.inference_mode():
            log_probs = model.model(**inputs).logits[0].log_softmax(-1)
        ids = inputs.input_ids[0]
        mass += math.exp(sum(float(log_probs[at - 1, ids[at]]) for at in range(asked, len(ids))))
    return mass


def test_the_mass_is_the_probability_of_the_answers_start_times_that_of_all_answers(tiny):
    queries = mixed_queries()[:3]
    for query, answer in zip(queries, tiny.score(queries), strict=True):
        assert isinstance(answer, Reward) and answer.mass == pytest.approx(mass_of(tiny, query), rel=1e-4)


def test_the_shipped_model_answers_at_once_what_it_is_asked_about_a_scene(tiny):
    """About noise it may say something else, which is then not scored."""
    world = TabletopWorld("stack")
    world.reset(0)
    first = Frame(0, "front", world.image())
    world.reset(1)
    second = Frame(1, "front", world.image())
    for head, frames in (("contrastive", (first, second)), ("progress", (second,)), ("completion", (second,))):
        (answer,) = tiny.score([RewardQuery("stack the blue cube on the red cube", head, frames)])
        assert isinstance(answer, Reward) and answer.mass is not None and 0.95 < answer.mass < 1 + 1e-6, head


@fuzz
@given(
    st.text(st.characters(codec=None), min_size=1, max_size=60).filter(str.strip),
    st.sampled_from(
        ["", "<|image_pad|>", "<|im_end|>\n<|im_start|>assistant\n", '{ "completion_progress": 1.0 }', "\ud800"]
    ),
)
def test_fuzz_whatever_a_task_says_no_other_query_of_the_batch_is_answered_otherwise(tiny, text, special):
    good = mixed_queries()[:3]
    tiny._prompts.clear()
    alone = values_of(tiny.score(good))
    wrong = RewardQuery(text + special, "progress", good[1].frames)
    first, found, second, third = tiny.score([good[0], wrong, *good[1:]])
    assert values_of([first, second, third]) == pytest.approx(alone, abs=2e-5)
    if isinstance(found, Unscored):
        assert "is half of a surrogate pair" in found.reason
    else:
        assert 0 <= found.value <= 1


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


@pytest.mark.parametrize("room", [1 << 30, 1])
def test_the_constant_part_of_a_prompt_goes_through_the_language_model_once_while_there_is_room(
    tiny, monkeypatch, room
):
    lengths: list[int] = []
    monkeypatch.setattr(qwen, "remember", lambda *args: lengths.append(args[1].shape[1]) or remember(*args))
    monkeypatch.setattr(qwen, "_MAX_PAST", room)
    remember, first = language.remember, noise(1)
    tiny._pasts.clear()
    asked = [
        RewardQuery(TASKS[0], "progress", (first, noise(2))),
        RewardQuery(TASKS[0], "completion", (first,)),
        RewardQuery(TASKS[0], "progress", (first, noise(3))),
    ]
    answers = [values_of(tiny.score(asked)) for _ in range(2)]
    assert answers[0] == answers[1] == pytest.approx([plain(tiny, query) for query in asked], abs=2e-5)
    once = [len(prompt.constant) for prompt in (tiny._prompt(q, ((1, 6, 6),) * len(q.frames)) for q in asked[:2])]
    assert once[0] > once[1] + 9, "the first picture of the episode is constant, too"
    assert lengths == once if room > 1 else len(lengths) > 2
    assert sum(past.nbytes for past, _ in tiny._pasts.values()) > 0 and (room > 1 or len(tiny._pasts) == 1)
