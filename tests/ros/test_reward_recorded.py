# SPDX-License-Identifier: Apache-2.0
"""Queries about recorded frames to the reward node: what is refused, and that the live rewards do not notice."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from judge_desk import TASK, Asker, noise_journal, shade  # type: ignore[import-not-found]
from reward_desk import Desk, Slow  # type: ignore[import-not-found]
from std_msgs.msg import Header, String

from lrm_ros import messages, topics
from lrm_ros.nodes import reward
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.record.journal import read_journal
from lrm_ros.reward.engine import episode_frames
from lrm_ros.reward.load import load_model
from lrm_ros.ros import reward_recorded
from lrm_ros.ros.control import EpisodeError
from lrm_ros.ros.reward_recorded import BATCH, recorded_image, recorded_query
from lrm_ros.topics import STREAM

OK, ERROR = b"\x00", b"\x02"


class Raw:
    """Who asks without the judge."""

    def __init__(self, spin, probe) -> None:
        self.images, self.queries = topics.RECORDED.publisher(probe), topics.REWARD_QUERY.publisher(probe)
        self.answers: list[DiagnosticArray] = spin.collect(
            probe, DiagnosticArray, "reward/recorded/reward", topics.RECORDED_REWARD.qos
        )
        self.spin = spin
        spin.until(lambda: self.images.get_subscription_count() and self.queries.get_subscription_count())

    def hears(self, query_id: str) -> list:
        """The answers to a query, once there is one."""
        self.spin.until(lambda: any(m.header.frame_id == query_id for m in self.answers))
        return [status for m in self.answers if m.header.frame_id == query_id for status in m.status]


def test_a_query_whose_frames_do_not_come_is_refused(spin, probe, monkeypatch):
    monkeypatch.setattr(reward_recorded, "_LOST", 1)
    node = spin.start(RewardNode(model="fake", realtime=False))
    raw = Raw(spin, probe)
    frames = [shade(step, 255) for step in range(3)]
    raw.images.publish(recorded_image("a", frames[1]))
    raw.queries.publish(recorded_query("a", frames, TASK))
    (status,) = raw.hears("a")
    assert (status.level, status.name, status.message) == (ERROR, "query", "1 of its 3 frames came, and no more in 1 s")
    assert not node._recorded._frames and not node._recorded._waiting


def test_queries_that_are_none_are_refused_with_the_reason(spin, probe):
    node = spin.start(RewardNode(model="fake", realtime=False))
    raw = Raw(spin, probe)
    many = [shade(step, 0) for step in range(BATCH + 1)]
    two = recorded_query("b", many[:2], TASK)
    two.status[1].name = "c"
    odd = recorded_query("o", many[:1], TASK)
    odd.status[0].values[0].value = "soon"
    first = recorded_query("f", many[:1], TASK)
    first.header.frame_id = "first"
    for query_id, query, reason in (
        ("m", recorded_query("m", many, TASK), f"about {BATCH + 1} frames of 1 ids is not answered: ask about 1 to 16"),
        ("b", two, "about 2 frames of 2 ids"),
        ("o", odd, "stamp_ns 'soon'"),
        ("t", recorded_query("t", many[:1], " "), "task ' ' is not judged"),
        ("f", first, "query 'first' is not answered: this node answers 'recorded'"),
        ("", DiagnosticArray(header=Header(frame_id="recorded")), "about 0 frames"),
    ):
        raw.queries.publish(query)
        (status,) = raw.hears(query_id)
        assert status.name == "query" and reason in status.message
        assert reason in node.diagnostics.faults["query"]
    raw.images.publish(recorded_image("g", many[0]))
    raw.queries.publish(recorded_query("g", many[:1], TASK))
    assert raw.hears("g")[0].name == "completion" and not node.diagnostics.faults


def test_a_frame_that_cannot_be_read_refuses_its_query_alone(spin, probe):
    spin.start(RewardNode(model="fake", realtime=False))
    raw = Raw(spin, probe)
    bad = recorded_image("bad", shade(1, 0))
    bad.encoding = "32FC1"
    raw.images.publish(recorded_image("good", shade(0, 255)))
    raw.images.publish(bad)
    assert "'32FC1' is a depth image" in raw.hears("bad")[0].message
    raw.queries.publish(recorded_query("good", [shade(0, 255)], TASK))
    assert raw.hears("good")[0].name == "completion"


def test_a_query_that_waits_when_the_node_is_deactivated_is_refused(spin, probe):
    node = spin.start(RewardNode(model="fake", realtime=False))
    raw = Raw(spin, probe)
    raw.queries.publish(recorded_query("a", [shade(0, 0)], TASK))
    spin.until(lambda: node._recorded._waiting)
    node.trigger_deactivate()
    assert "not active" in raw.hears("a")[0].message and not node._recorded._waiting


# -- beside the live rewards -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("realtime", [False, True])
def test_live_rewards_are_the_same_with_and_without_a_judge_between_them(spin, probe, monkeypatch, tmp_path, realtime):
    tiny = load_model("tiny", "cpu", "tri")
    monkeypatch.setattr(reward, "load_model", lambda *_: tiny)
    frames = episode_frames(read_journal(noise_journal(tmp_path / "e.mcap", 8)), "front")
    images, tasks = topics.IMAGE_RAW.of("front").publisher(probe), topics.TASK.publisher(probe)
    heard = spin.collect(probe, DiagnosticArray, "reward", STREAM)
    asker = Asker(spin, probe, model="tiny")
    node = spin.start(RewardNode(model="tiny", mode="tri", interval=2, realtime=realtime))
    tasks.publish(String(data=TASK))
    spin.until(lambda: node._task == TASK and images.get_subscription_count())

    def episode(judged: bool) -> list:
        tiny._seen = {}
        node._forget()
        del heard[:]
        for number, frame in enumerate(frames, 1):
            images.publish(messages.from_frame(frame))
            spin.until(lambda number=number: len(heard) == number)
            if judged:
                kept = tiny._seen
                asker.ask(asker.judge.judge, frames[::-1], TASK, "e")
                assert tiny._seen is kept, "what the next contrastive answer shows again is still encoded"
        return [
            (messages.to_ns(m.header.stamp), status.name, status.level, status.message, value)
            for m in heard
            for status in m.status
            for value in [messages.status_values(status).get("value")]
        ]

    without = episode(judged=False)
    assert episode(judged=True) == without
    assert len(heard) == len(frames) and sum(row[4] is not None for row in without) > len(frames)


def test_in_real_time_one_batch_at_most_is_between_two_live_frames(spin, probe, monkeypatch):
    slow = Slow()
    monkeypatch.setattr(reward, "load_model", lambda *_: slow)
    monkeypatch.setattr(reward, "END_S", 0.01)
    desk = Desk(spin, probe, slow)
    try:
        desk.show(0)
        desk.judges(0)
        raw = Raw(spin, probe)
        for number, query_id in enumerate(("a", "b")):
            raw.images.publish(recorded_image(query_id, shade(100 + number, 255)))
            raw.queries.publish(recorded_query(query_id, [shade(100 + number, 255)], TASK))
        spin.until(lambda: len(desk.node._recorded._due) == 2)
        desk.show(1)
        slow.go_on.release()
        desk.judges(0, 100)
        slow.go_on.release()
        desk.judges(0, 100, 1)  # before the second batch
        slow.go_on.release(2)
        desk.judges(0, 100, 1, 101)
        assert raw.hears("a")[0].level == raw.hears("b")[0].level == OK
        desk.hears((0, OK), (1, OK))
        assert desk.total("dropped") == 0 and desk.total("judged") == 2
    finally:
        slow.go_on.release(1000)


def test_a_batch_that_runs_when_the_node_is_cleaned_up_is_not_answered_and_nothing_breaks(spin, probe, monkeypatch):
    slow = Slow()
    monkeypatch.setattr(reward, "load_model", lambda *_: slow)
    monkeypatch.setattr(reward, "END_S", 0.01)
    desk = Desk(spin, probe, slow)
    try:
        asker = Asker(spin, probe)
        asker.begin(asker.judge.completion, [shade(1, 255)], TASK, "e")
        desk.judges(1)
        worker = desk.node._live._worker
        desk.node.trigger_deactivate()
        desk.node.trigger_cleanup()
        slow.go_on.release()
        assert worker.stop(60)
        with pytest.raises(EpisodeError, match="has gone or was configured anew while it judged"):
            asker.end()
        assert "judging" not in desk.node.diagnostics.faults
    finally:
        slow.go_on.release(1000)
