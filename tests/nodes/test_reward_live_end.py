# SPDX-License-Identifier: Apache-2.0
"""The reward node in real time at the end of an episode, of whose last frame the recorder lacks the reward."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from reward_desk import OK, STALE, Desk, Slow  # type: ignore[import-not-found]

from lrm_ros import messages
from lrm_ros.nodes import reward
from lrm_ros.types import Unscored


@pytest.fixture
def slow(monkeypatch) -> Iterator[Slow]:
    model = Slow()
    monkeypatch.setattr(reward, "load_model", lambda *_: model)
    monkeypatch.setattr(reward, "END_S", 0.01)
    yield model
    model.go_on.release(1000)


def test_the_last_frame_of_an_episode_is_judged_when_the_recorder_asks_and_later_ones_go_on(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=3)
    desk.show(0)
    desk.judges(0)
    desk.show(1, 2)
    desk.ends(2)
    desk.show(3)  # due: must not take the place of the last one
    slow.go_on.release(3)
    desk.hears((0, OK), (2, OK), (3, OK))
    assert desk.total("dropped") == 0
    assert desk.reset() == "new episode" and slow.asked == [0, 2, 3]


def test_the_last_frame_may_have_been_followed_by_others(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    desk.show(0)
    desk.judges(0)
    desk.show(1, 2)  # 2 takes the place of 1
    desk.ends(1)
    slow.go_on.release(3)
    desk.hears((0, OK), (1, OK), (2, OK))


def test_a_last_frame_that_waits_or_is_judged_is_not_judged_twice(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    desk.show(0)
    desk.judges(0)
    desk.ends(0)
    desk.show(1)
    desk.ends(1)
    slow.go_on.release(9)
    desk.hears((0, OK), (1, OK))
    assert slow.asked == [0, 1] and desk.reset() == "new episode"


def test_a_last_frame_that_comes_after_the_end_is_judged_when_it_comes(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=5)
    desk.show(0)
    desk.judges(0)
    desk.ends(2)
    desk.show(1, 2, 3)
    slow.go_on.release(2)
    desk.judges(0, 2)
    spin.until(lambda: len(desk.rewards) == 2)
    assert [messages.to_ns(m.header.stamp) // 100_000_000 for m in desk.rewards] == [0, 2]


def test_a_last_frame_that_cannot_be_judged_any_more_is_unscored(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=2)
    slow.go_on.release(9)
    desk.show(0)
    desk.hears((0, OK))
    desk.show(1)
    desk.hears((0, OK), (0, STALE))
    desk.show(2)
    desk.hears((0, OK), (0, STALE), (2, OK))
    desk.ends(1)
    spin.until(lambda: len(desk.rewards) == 4)
    (answer,) = messages.to_rewards(desk.rewards[3])
    assert isinstance(answer, Unscored) and answer.stamp_ns == 100_000_000 and "a later frame" in answer.reason
    desk.ends(-1)
    spin.until(lambda: len(desk.rewards) == 5)
    assert "too long ago" in messages.to_rewards(desk.rewards[4])[0].reason


def test_a_clock_that_goes_back_in_an_episode_leaves_no_frame_unjudged(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    slow.go_on.release(9)
    for step in (50, 1, 2):  # a camera that was started again, a bag that is played again
        desk.show(step)
        desk.judges(*(50, 1, 2)[: desk.sent])
    desk.hears((50, OK), (1, OK), (2, OK))
