# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lrm_ros.reward.heads import HEADS, parse_completion, parse_contrastive, parse_progress
from lrm_ros.types import Frame, RewardQuery

TASK = "put the toy giraffe in the bowl"


def shade(light: int) -> Frame:
    return Frame(light, "front", np.full((4, 4, 3), light, np.uint8))


def written(query: RewardQuery) -> str:
    """The user turn with every image as <N>, N its brightness."""
    (message,) = HEADS[query.head].messages(query)
    assert message["role"] == "user"
    return "".join(
        part["text"] if part["type"] == "text" else f"<{part['image'][0, 0, 0]}>" for part in message["content"]
    )


def test_the_contrastive_prompt_is_upstreams_word_for_word():
    assert written(RewardQuery(TASK, "contrastive", (shade(1), shade(2)))) == (
        "Task: Compare the completion progress.\n\nThe task is: put the toy giraffe in the bowl.\n\nYou are given:\n"
        "- Later observation (Image A): <1>\n- Later observation (Image B): <2>\n\n"
        "Question: Which of Image A or Image B is closer to completing the task?\n"
        'Select one value from the following list:\n["ImageA", "ImageB"]\n\n'
        "Please provide a step-by-step visual analysis first, and then output your answer in the following JSON format:"
        '\n{ "more_complete_image": "selected_value" }'
    )


def test_the_progress_prompt_is_upstreams_word_for_word():
    assert written(RewardQuery(TASK, "progress", (shade(2),))) == (
        "Task: Estimate the completion progress.\nThe task is: put the toy giraffe in the bowl\nYou are given:\n"
        "- Current observation: <2>\n\n"
        "Question: Based on the task description, estimate the completion progress as a value between 0.0 and 1.0.\n"
        "Select one value from the following list:\n[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]\n\n"
        "Definitions:\n- 0.0: Task has just started.\n"
        "- 0.1 - 0.9: Intermediate progress steps (assess how close to completion).\n- 1.0: Task is Finished.\n"
        'Output your answer in the following JSON format:\n{ "completion_progress": selected_value }'
    )


def test_the_progress_prompt_with_goal_and_first_frame_shows_goal_initial_current():
    assert written(RewardQuery(TASK, "progress", (shade(1), shade(2)), goal=shade(3))) == (
        "Task: Estimate the completion progress.\nThe task is: put the toy giraffe in the bowl\nYou are given:\n"
        "- Goal Standard: <3>\n- Initial observation: <1>\n- Current observation: <2>\n\n"
        "Question: Compare the Current Observation with the Goal Standard. Estimate the completion progress as a value "
        "between 0.0 and 1.0.\n"
        "Select one value from the following list:\n[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]\n\n"
        "Definitions:\n- 0.0: Task has just started.\n"
        "- 0.1 - 0.9: Intermediate progress steps (assess visual distance to Goal).\n- 1.0: Task is Finished.\n"
        'Output your answer in the following JSON format:\n{ "completion_progress": selected_value }'
    )


def test_the_completion_prompt_is_upstreams_with_its_segments_stripped():
    assert written(RewardQuery(TASK, "completion", (shade(1),))) == (
        "Task: Whether the task has been completed.\n\nThe task is: put the toy giraffe in the bowl\n\nYou are given:\n"
        "- Current observation:<1>Has the task been completed?\nOutput your answer in the following JSON format:\n"
        '{ "task_completed": "yes" or "no" }'
    )


def test_images_come_in_the_order_in_which_the_prompt_shows_them():
    goal, first, now = shade(3), shade(1), shade(2)
    query = RewardQuery(TASK, "progress", (first, now), goal)
    assert HEADS["progress"].images(query) == [goal, first, now]


@pytest.mark.parametrize(("head", "count"), [("contrastive", 1), ("completion", 2), ("progress", 3)])
def test_a_wrong_number_of_frames_is_refused(head, count):
    with pytest.raises(ValueError, match=f"head '{head}' needs .* frame"):
        HEADS[head].messages(RewardQuery(TASK, head, (shade(1),) * count))


def test_a_goal_image_is_refused_by_the_other_heads():
    with pytest.raises(ValueError, match="takes no goal image"):
        HEADS["completion"].messages(RewardQuery(TASK, "completion", (shade(1),), goal=shade(2)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('The arm is nearer. { "more_complete_image": "ImageB" }', 1.0),
        ('{ "more_complete_image": "ImageA" }', -1.0),
        ('{ "analysis": "ImageA looks {odd" "more_complete_image" : "ImageB"', 1.0),
        ('{ "more_complete_image": "Image B" } so ImageA', -1.0),
        ("ImageB is better than ImageA", -1.0),
        ("ImageA is worse than ImageB", 1.0),
        ("both are the same", None),
        ("", None),
    ],
)
def test_contrastive_answers_are_read_as_upstream_does_but_no_answer_is_none(text, value):
    assert parse_contrastive(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{ "completion_progress": 0.4 }', 0.4),
        ('{ "completion_progress": "0.7" }', 0.7),
        ('{ "completion_progress": 1.7 }', 1.0),
        ('{ "completion_progress": -0.2 }', 0.0),
        ('first { "completion_progress": 0.3 } then { "completion_progress": 0.9 }', 0.3),
        ('"completion_progress": 0.6, and so on', 0.6),
        ("I would say 0.25 of it", 0.25),
        ("Progress: .8", 0.8),
        ("score 70", 1.0),
        ('{ "completion_progress": "NA" }', None),
        ('{ "completion_progress": na', None),
        ('{ "completion_progress": NaN }', None),
        ('{ "completion_progress": true }', None),
        ("no idea", None),
        ("", None),
    ],
)
def test_progress_answers_are_read_as_upstream_does_but_no_number_is_none(text, value):
    assert parse_progress(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{ "task_completed": "yes" }', 1.0),
        ('{ "task_completed": "no" }', 0.0),
        ('{ "task_completed": "no" } wait { "task_completed" : "YES" }', 1.0),
        ("Yes, it lies there", 1.0),
        ("not yet", 0.0),
        ("yes and no", None),
        ("the bowl", None),
        ("", None),
    ],
)
def test_completion_answers_are_read_as_upstream_does_but_no_word_is_none(text, value):
    assert parse_completion(text) == value


@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
def test_every_candidate_answer_is_read_back_as_its_value(head):
    assert len(head.candidates) == len(head.values)
    assert min(head.values) == head.low and max(head.values) == head.high
    for value in head.values:
        assert head.parse(head.answer(value)) == value


def test_an_answer_is_the_nearest_candidate():
    assert HEADS["progress"].answer(0.26) == '{ "completion_progress": 0.3 }'
    assert HEADS["completion"].answer(1.0) == '{ "task_completed": "yes" }'
