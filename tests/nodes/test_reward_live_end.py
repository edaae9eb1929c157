# SPDX-License-Identifier: Apache-2.0
"""The reward node in real time at the end of an episode, of whose last frame the recorder lacks the reward."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from reward_desk import OK, STALE, Desk, Slow  # type: ignore[import-not-found]

from lrm_ros import messages
from lrm_ros.nodes import reward


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


def test_a_last_frame_that_was_not_due_is_judged_after_a_later_one_and_does_not_hold(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=2)
    slow.go_on.release(9)
    desk.show(0)
    desk.hears((0, OK))
    desk.show(1)
    desk.hears((0, OK), (0, STALE))
    desk.show(2)
    heard = [(0, OK), (0, STALE), (2, OK)]
    desk.hears(*heard)
    desk.ends(1)
    desk.hears(*heard, (1, OK))
    desk.show(3)
    desk.hears(*heard, (1, OK), (2, STALE))
    desk.ends(1)  # again: it has been judged
    desk.ends(-1)
    spin.until(lambda: len(desk.rewards) == 6)
    assert "too long ago" in messages.to_rewards(desk.rewards[5])[0].reason
    assert slow.asked == [0, 2, 1]


def test_a_last_frame_that_is_judged_late_is_compared_with_the_one_before_it(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=2, mode="contrastive")
    slow.go_on.release(9)
    for step, light in enumerate((50, 100, 200)):
        desk.show(step, light=light)
        spin.until(lambda wanted=step + 1: len(desk.rewards) == wanted)
    desk.ends(1)
    spin.until(lambda: len(desk.rewards) == 4)
    desk.show(3)
    desk.show(4, light=150)
    spin.until(lambda: len(desk.rewards) == 6)
    answers = [messages.to_rewards(message)[0] for message in desk.rewards if message.status[0].level == OK]
    values = [(answer.stamp_ns // 100_000_000, answer.value) for answer in answers]
    assert values == [(2, 1.0), (1, 1.0), (4, -1.0)]  # 1 beside 0, and 4 beside 2


def test_a_clock_that_goes_back_in_an_episode_leaves_no_frame_unjudged(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    slow.go_on.release(9)
    for step in (50, 1, 2):  # a camera that was started again, a bag that is played again
        desk.show(step)
        desk.judges(*(50, 1, 2)[: desk.sent])
    desk.hears((50, OK), (1, OK), (2, OK))
