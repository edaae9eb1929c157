# SPDX-License-Identifier: Apache-2.0
"""Rows of the reward model's training: the prompt it is asked later, answers, preferences, reasoning."""

from __future__ import annotations

import pytest
from brightness import TASK, Example, examples_of, light  # type: ignore[import-not-found]

from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.train.examples.reasoning import template
from lrm_ros.training.reward.train.rows import answer_of, dpo_row, make_dataset, prompt_of, query_of, sft_row
from lrm_ros.training.reward.train.tiny.model import build_processor


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.mark.parametrize("head", HEADS)
def test_a_prompt_is_what_the_reward_model_is_asked_and_the_answer_ends_the_turn(head, processor):
    example = examples_of(head)[1]
    messages = HEADS[head].messages(query_of(example))
    assert prompt_of(example, processor) == processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    answer = answer_of(example, 1.0, None, processor)
    messages.append({"role": "assistant", "content": HEADS[head].answer(1.0)})
    whole = processor.apply_chat_template(messages, tokenize=False)
    assert prompt_of(example, processor) + answer + "\n" == whole


def test_a_label_that_is_no_answer_of_the_head_is_refused(processor):
    with pytest.raises(ValueError, match=r"label 0.25 is none of head 'progress'"):
        sft_row(Example("progress", TASK, (light(0), light(1)), 0.25), None, processor)


def test_reasoning_comes_before_the_label_and_must_not_say_another_one(processor):
    example = examples_of("progress")[1]
    text = sft_row(example, template, processor)["completion"]
    assert text == 'The current observation shows the finished task.\n\n{ "completion_progress": 1.0 }<|im_end|>'
    with pytest.raises(ValueError, match=r"reads as 0\.2, not as 1\.0"):
        sft_row(example, lambda example, value: 'I say { "completion_progress": 0.2 }.', processor)


def test_reasoning_that_is_longer_than_the_head_may_generate_loses_its_last_sentences(processor):
    example = examples_of("progress")[1]
    text = sft_row(example, lambda example, value: "First. " + "And so on. " * 60, processor)["completion"]
    tokens = len(processor.tokenizer(text)["input_ids"])
    assert 100 < tokens <= HEADS["progress"].max_new_tokens
    assert text.startswith("First. And so on.") and 'on.\n\n{ "completion' in text


def test_both_answers_of_a_preference_end_with_the_label_and_reason_for_it(processor):
    first, second = (dpo_row(example, template, processor) for example in examples_of("contrastive"))
    assert first["chosen"] == second["rejected"]
    assert first["chosen"].startswith("The scene in Image A is closer")
    assert first["chosen"].endswith('{ "more_complete_image": "ImageA')
    with pytest.raises(ValueError, match="11 answers; a preference needs two"):
        dpo_row(examples_of("progress")[0], None, processor)


def test_half_of_the_rows_get_reasoning_and_always_the_same_half(processor):
    examples = examples_of("progress") * 50
    runs = [make_dataset(examples, "progress", processor, template, 0.5, seed) for seed in (0, 0, 1)]
    reasoned = [["observation" in row["completion"] for row in data] for data in runs]
    assert 30 < sum(reasoned[0]) < 70 and reasoned[0] == reasoned[1] != reasoned[2]


def test_examples_of_another_head_and_no_examples_are_refused(processor):
    with pytest.raises(ValueError, match="no examples for head 'progress'"):
        make_dataset([], "progress", processor, None)
    with pytest.raises(ValueError, match="for head 'completion', the training is for 'progress'"):
        make_dataset(examples_of("completion"), "progress", processor, None)[0]
