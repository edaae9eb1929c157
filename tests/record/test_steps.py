# SPDX-License-Identifier: Apache-2.0
"""What an episode lacks is counted and named."""

import numpy as np
import pytest

from lrm_ros.record.steps import Steps
from lrm_ros.types import Frame

DT = 100_000_000


def recorded(states, sent, frames, oldest_s=0.15, frames_oldest_s: float | None = 0.5) -> Steps:
    steps = Steps(["front"], oldest_s, frames_oldest_s)
    for k in states:
        steps.add("state", round(k * DT), np.zeros(6))
    for k in sent:
        steps.add("sent", round(k * DT), np.zeros(6))
    for k in frames:
        steps.add("frame", Frame(round(k * DT), "front", np.zeros((8, 8, 3), np.uint8)))
    steps.add("rewards", [], "front")
    return steps


def steps(*inputs, **more) -> dict[str, str]:
    return recorded(*inputs, **more).faults()


def test_a_whole_episode_lacks_nothing():
    assert not steps(range(1, 21), range(1, 20), range(1, 21))


def test_messages_arrive_in_any_order_and_a_command_before_the_first_state_is_no_step():
    assert not steps(reversed(range(3, 21)), range(1, 20), range(1, 21))


@pytest.mark.parametrize(
    ("inputs", "topic", "says"),
    [
        ((range(0), range(1, 9), range(1, 9)), "joint_states", "not one joint state"),
        ((range(1, 9), range(1, 9), range(0)), "front/image_raw", "'front/image_raw': not one frame"),
        ((range(1, 9), range(0), range(1, 9)), "joint_command_sent", "not one command was sent"),
        (([1, 2, 3, 6, 7], range(1, 8), range(1, 8)), "joint_states", "1 of 7 steps have no joint state of the 0.15 s"),
        ((range(1, 21), range(1, 21), [1, 2, 12, 13, 18]), "front/image_raw", "4 of 20 steps have no frame of the 0.5"),
    ],
)
def test_what_is_missing_is_named(inputs, topic, says):
    found = steps(*inputs)
    assert set(found) == {topic} and says in found[topic]


def test_frames_are_not_counted_where_they_are_rendered_now_and_then():
    assert not steps(range(1, 21), range(1, 21), [1, 20], frames_oldest_s=None)


def test_small_gaps_are_counted():
    steps = recorded(range(1, 21), range(1, 21), [1, 2, 3, 6, 7, 8, 11, 12, *range(13, 21)])
    assert not steps.faults() and steps.gaps(0.1) == {"front/image_raw": 2}
