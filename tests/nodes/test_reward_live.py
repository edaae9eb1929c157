# SPDX-License-Identifier: Apache-2.0
"""The reward node in real time: the newest frame is judged, whatever the model does and whenever an episode ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from reward_desk import ERROR, LONG_S, OK, STALE, Desk, Slow  # type: ignore[import-not-found]

from lrm_ros import messages
from lrm_ros.nodes import reward
from lrm_ros.types import Frame, Reward, Unscored

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def slow(monkeypatch) -> Iterator[Slow]:
    model = Slow()
    monkeypatch.setattr(reward, "load_model", lambda *_: model)
    monkeypatch.setattr(reward, "END_S", 0.01)
    yield model
    model.go_on.release(1000)


def test_a_slow_model_judges_the_newest_frame_and_the_others_count_as_dropped(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    desk.show(0)
    desk.judges(0)
    desk.show(1, 2, 3, 4)
    slow.go_on.release()
    desk.judges(0, 4)
    desk.show(5)
    slow.go_on.release(2)
    desk.judges(0, 4, 5)
    desk.hears((0, OK), (4, OK), (5, OK))
    assert [desk.total(name) for name in ("frames", "judged", "dropped")] == [6, 3, 3]


def test_age_and_latency_of_what_was_judged_and_what_was_dropped_are_in_the_diagnostics(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    past_ns = desk.node.get_clock().now().nanoseconds - 2 * 10**9
    desk.images.publish(messages.from_frame(Frame(past_ns, "front", np.full((8, 8, 3), 9, np.uint8))))
    slow.go_on.release()
    spin.until(lambda: desk.rewards)
    values = messages.status_values(desk.node.diagnostics.status())
    assert 2.0 <= float(values["age_s"]) < 2.0 + LONG_S and float(values["age_ms_max"]) >= 2000
    assert float(values["model_ms_max"]) >= 0 and values["judged"] == "1"


def test_frames_in_between_repeat_the_newest_reward_and_there_is_none_before_the_first(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=3)
    desk.show(0)
    desk.judges(0)
    desk.show(1, 2)
    assert desk.rewards == []
    slow.go_on.release()
    desk.hears((0, OK))
    desk.show(3)
    desk.judges(0, 3)
    desk.show(4, 5)
    desk.hears((0, OK), (0, STALE), (0, STALE))
    slow.go_on.release()
    desk.hears((0, OK), (0, STALE), (0, STALE), (3, OK))
    assert desk.total("dropped") == 0


def test_reset_during_an_inference_is_prompt_and_the_old_episode_is_judged_to_its_last_frame(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=3)
    desk.show(0)
    desk.judges(0)
    desk.show(1, 2)
    assert "last frame of the old one is being judged" in desk.reset()
    desk.show(10)  # must not take the place of the last frame
    slow.go_on.release()
    desk.judges(0, 2)
    slow.go_on.release()
    desk.judges(0, 2, 10)
    desk.show(11)
    desk.hears((0, OK), (2, OK))  # frame 11 repeats none of the episode before
    slow.go_on.release()
    desk.hears((0, OK), (2, OK), (10, OK))
    desk.show(12)
    desk.hears((0, OK), (2, OK), (10, OK), (10, STALE))
    assert desk.total("dropped") == 0


@pytest.mark.parametrize("resets", [1, 3])
def test_a_last_frame_that_waits_is_judged_once(spin, probe, slow, resets):
    desk = Desk(spin, probe, slow)
    desk.show(0)
    desk.judges(0)
    desk.show(1)
    replies = [desk.reset() for _ in range(resets)]
    assert ["is being judged" in reply for reply in replies] == [True] + [False] * (resets - 1)
    desk.show(10)
    slow.go_on.release(3)
    desk.hears((0, OK), (1, OK), (10, OK))
    assert slow.asked == [0, 1, 10] and desk.total("dropped") == 0


def test_a_last_frame_that_is_judged_or_was_is_not_judged_again(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    desk.show(0)
    desk.judges(0)
    assert desk.reset() == "new episode"
    slow.go_on.release()
    desk.hears((0, OK))
    assert desk.reset() == "new episode"
    desk.show(10)
    desk.judges(0, 10)


def test_a_frame_that_waits_is_dropped_for_a_later_last_frame(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=2)
    desk.show(0)
    desk.judges(0)
    desk.show(2, 3, 4)
    desk.show(5)
    assert "being judged" in desk.reset()
    slow.go_on.release(2)
    desk.hears((0, OK), (5, OK))
    assert slow.asked == [0, 5]
    assert desk.total("dropped") == 1


@pytest.mark.parametrize(
    "error",
    [TypeError("no tensor"), KeyError("pixels"), MemoryError("no memory"), RuntimeError("CUDA"), SystemExit(3)],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_model_raises_is_unscored_with_the_reason_and_the_next_frame_is_judged(spin, probe, slow, error):
    desk = Desk(spin, probe, slow, mode="tri")
    slow.go_on.release(2)
    desk.show(0)
    spin.until(lambda: len(desk.rewards) == 1)
    slow.raises = error
    desk.show(1)
    spin.until(lambda: len(desk.rewards) == 2)
    answers = messages.to_rewards(desk.rewards[1])
    assert {answer.head for answer in answers} == {"contrastive", "progress", "completion", "tri"}
    for answer in answers:
        assert isinstance(answer, Unscored) and type(error).__name__ in answer.reason and str(error) in answer.reason
    assert desk.total("unscored") == 2 + 4  # the first frame has no contrastive, so no tri
    slow.raises = None
    slow.go_on.release()
    desk.show(2, light=200)
    spin.until(lambda: len(desk.rewards) == 3)
    answers = messages.to_rewards(desk.rewards[2])
    assert all(isinstance(answer, Reward) for answer in answers), answers
    assert desk.node.active and not desk.node.diagnostics.faults


def test_a_model_that_answers_too_little_is_unscored(spin, probe, slow, monkeypatch):
    desk = Desk(spin, probe, slow)
    monkeypatch.setattr(slow, "score", lambda queries, readout: [])
    desk.show(0)
    desk.hears((0, ERROR))
    assert "0 answers to 1 queries" in desk.rewards[0].status[0].message


def test_what_the_node_itself_does_wrong_while_it_judges_is_a_fault_until_it_judges_again(spin, probe, monkeypatch):
    desk = Desk(spin, probe, model="fake")
    monkeypatch.setattr(desk.node._engine, "step", lambda *_: 1 / 0)
    desk.show(0)
    desk.hears((0, ERROR))
    assert "ZeroDivisionError" in desk.node.diagnostics.faults["judging"]
    monkeypatch.undo()
    desk.show(1)
    spin.until(lambda: len(desk.rewards) == 2)
    assert desk.rewards[1].status[0].level == OK and not desk.node.diagnostics.faults


def test_a_node_that_is_stopped_during_an_inference_publishes_nothing_more_and_runs_again(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=2)
    desk.show(0)
    desk.judges(0)
    desk.show(1, 2)
    desk.reset()  # more that waits
    assert desk.node.trigger_deactivate() == SUCCESS
    slow.go_on.release()
    spin.until(lambda: not desk.node._live._worker.busy)
    assert slow.asked == [0] and desk.node.trigger_activate() == SUCCESS
    desk.show(10)
    desk.judges(0, 10)
    slow.go_on.release()
    desk.hears((10, OK))


def test_a_node_that_is_cleaned_up_during_an_inference_is_configured_again_only_when_that_has_ended(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    desk.show(0)
    desk.judges(0)
    assert desk.node.trigger_deactivate() == desk.node.trigger_cleanup() == SUCCESS
    assert desk.node.trigger_configure() == FAILURE
    assert "still judges a frame" in desk.node.diagnostics.faults["configure"]
    worker = desk.node._unended._worker
    slow.go_on.release()
    assert worker.stop(LONG_S)
    assert desk.node.trigger_configure() == desk.node.trigger_activate() == SUCCESS
    spin.until(lambda: desk.images.get_subscription_count() and probe.count_publishers("reward"))
    slow.go_on.release()
    desk.show(10)
    desk.hears((10, OK))
    assert not desk.node.diagnostics.faults


def test_a_node_is_shut_down_during_an_inference(spin, probe, slow):
    desk = Desk(spin, probe, slow)
    desk.show(0)
    desk.judges(0)
    assert desk.node.trigger_shutdown() == SUCCESS
    worker = desk.node._unended._worker
    slow.go_on.release()
    assert worker.stop(LONG_S) and desk.rewards == []


def test_a_parameter_set_at_run_time_counts_for_the_next_frame_and_not_for_the_one_that_is_judged(spin, probe, slow):
    desk = Desk(spin, probe, slow, interval=10)
    desk.show(0)
    desk.judges(0)
    desk.node.set_parameters([Parameter("mode", value="completion")])
    desk.show(1, 2)
    slow.go_on.release(2)
    desk.hears((0, OK), (1, OK))
    assert [message.status[0].name for message in desk.rewards] == ["progress", "completion"]
    desk.show(3)
    desk.hears((0, OK), (1, OK), (1, STALE))


def _told(spin, probe, realtime: bool) -> list[tuple[int, list[tuple[str, int, str]]]]:
    """What a node says of two episodes whose frames come one by one."""
    desk = Desk(spin, probe, mode="tri", interval=2, model="fake", realtime=realtime)
    told = 0
    for first in (0, 10):
        for step in range(first, first + 6):
            desk.show(step, light=10 * step)
            told += 1
            spin.until(lambda: len(desk.rewards) == told)  # noqa: B023
        desk.reset()
        told += 1
        spin.until(lambda: len(desk.rewards) == told)  # noqa: B023
    desk.node.close()
    spin.nodes.remove(desk.node)
    return [
        (
            messages.to_ns(m.header.stamp),
            [(s.name, s.level, messages.status_values(s).get("value", s.message)) for s in m.status],
        )
        for m in desk.rewards
    ]


def test_a_model_that_keeps_up_says_the_same_in_real_time_as_in_lock_step(spin, probe):
    live = _told(spin, probe, realtime=True)
    assert live == _told(spin, probe, realtime=False)
    assert len(live) == 14 and {level for _, answers in live for _, level, _ in answers} == {OK, ERROR, STALE}
