# SPDX-License-Identifier: Apache-2.0
"""The judge that asks the reward node: the engine's verdicts, every answer its own frame's, and never a guess."""

from __future__ import annotations

import math

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from judge_desk import DT, TASK, Asker, noise_journal, shade  # type: ignore[import-not-found]
from reward_desk import Desk, Slow  # type: ignore[import-not-found]
from std_msgs.msg import Header, String

from lrm_ros import messages, topics
from lrm_ros.config import RewardConfig
from lrm_ros.nodes import reward
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.record.journal import read_journal
from lrm_ros.reward.engine import RewardEngine, episode_frames
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.load import load_model
from lrm_ros.ros import judge, reward_recorded
from lrm_ros.ros.control import EpisodeError, Stopped
from lrm_ros.ros.reward_recorded import BATCH, recorded_image, recorded_query
from lrm_ros.topics import STREAM
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored, Verdict

OK, ERROR = b"\x00", b"\x02"


@pytest.mark.parametrize("realtime", [False, True])
def test_verdicts_and_answers_are_the_engines_to_the_last_bit(spin, probe, tmp_path, realtime):
    episode = read_journal(noise_journal(tmp_path / "e.mcap"))
    frames = episode_frames(episode, "front")
    checked = frames[::3]
    engine = RewardEngine(RewardConfig(mode="completion", device="cpu"))
    expected = engine.judge(frames, TASK, "e")
    answers = RewardEngine(RewardConfig(mode="completion", device="cpu")).score(
        [RewardQuery(TASK, "completion", (frame,)) for frame in checked]
    )
    spin.start(RewardNode(model="tiny", device="cpu", realtime=realtime))
    asker = Asker(spin, probe, model="tiny")
    assert asker.ask(asker.judge.judge, frames, TASK, "e") == expected
    assert math.isfinite(expected.score)
    found = asker.completion(checked)
    assert [(a.stamp_ns, a.value) for a in found] == [(a.stamp_ns, a.value) for a in answers]
    assert len({a.value for a in found}) > 1 and all(a.model == "tiny" for a in found)


def test_many_frames_go_in_batches_and_each_has_its_own_answer(spin, probe, monkeypatch):
    sizes: list[int] = []

    class Counting(FakeModel):
        def score(self, queries, readout="forward"):
            sizes.append(len(queries))
            return super().score(queries, readout)

    monkeypatch.setattr(reward, "load_model", lambda *_: Counting())
    spin.start(RewardNode(model="fake", realtime=False))
    asker = Asker(spin, probe)
    frames = [shade(step, 255 if step % 3 == 0 else 0) for step in range(2 * BATCH + 3)]
    answers = asker.completion(frames)
    assert [answer.stamp_ns // DT for answer in answers] == list(range(2 * BATCH + 3))
    assert [answer.value for answer in answers] == [float(step % 3 == 0) for step in range(2 * BATCH + 3)]
    assert sizes == [BATCH, BATCH, 3]


def test_a_batch_of_large_images_is_as_large_as_shared_memory_takes():
    def lengths(height: int, width: int, count: int) -> list[int]:
        image = np.zeros((height, width, 3), np.uint8)
        queries = [RewardQuery(TASK, "completion", (Frame(n, "front", image),)) for n in range(count)]
        return [len(batch) for batch in judge.batches(queries)]

    assert lengths(480, 640, 17) == [16, 1]
    assert lengths(1080, 1920, 6) == [4, 2]
    assert lengths(3000, 4000, 2) == [1, 1]
    assert lengths(8, 8, 0) == []


def test_what_needs_no_model_is_decided_without_asking(spin, probe):
    asker = Asker(spin, probe)  # there is no reward node
    blank = asker.judge.judge([shade(0, 255)], " ", "e")
    assert (blank.keep, blank.reason) == (False, "not judged: its task text is blank")
    assert asker.judge.judge([], TASK, "e").reason == "not judged: it has no frames"


def test_a_frame_the_model_cannot_score_is_unscored_and_its_episode_has_no_score(spin, probe, monkeypatch):
    class Odd(FakeModel):
        def score(self, queries, readout="forward"):
            answers = super().score(queries, readout)
            return [Unscored(a.stamp_ns, a.head, "odd") if a.stamp_ns == 2 * DT else a for a in answers]

    monkeypatch.setattr(reward, "load_model", lambda *_: Odd())
    spin.start(RewardNode(model="fake", realtime=False))
    asker = Asker(spin, probe)
    frames = [shade(step, 255) for step in range(4)]
    assert [type(answer) for answer in asker.completion(frames)] == [Reward, Reward, Unscored, Reward]
    found = asker.ask(asker.judge.judge, frames, TASK, "e")
    assert isinstance(found, Verdict) and not found.keep and math.isnan(found.score)
    assert found.reason == "not judged: 1 of 4 frames unscored: odd"


@pytest.mark.parametrize("error", [MemoryError("all is full"), SystemExit(3)], ids=repr)
def test_a_model_that_raises_leaves_no_verdict_and_the_next_query_is_judged(spin, probe, monkeypatch, error):
    raises: list[BaseException] = [error]

    class Broken(FakeModel):
        def score(self, queries, readout="forward"):
            if raises:
                raise raises.pop()
            return super().score(queries, readout)

    monkeypatch.setattr(reward, "load_model", lambda *_: Broken())
    spin.start(RewardNode(model="fake", realtime=True))
    asker = Asker(spin, probe)
    if isinstance(error, Exception):
        assert "MemoryError: all is full" in asker.completion([shade(0, 255)])[0].reason
    else:
        with pytest.raises(EpisodeError, match="not judged episode 'e': the reward model failed: SystemExit: 3"):
            asker.completion([shade(0, 255)])
    assert asker.completion([shade(1, 255)])[0].value == 1.0


# -- the reward node is not there, not active, another one -------------------------------------------------------------


def test_a_reward_node_that_is_not_there_is_named_with_its_cure(spin, probe):
    asker = Asker(spin, probe, find_s=0.0)
    with pytest.raises(EpisodeError, match=r"nobody hears .*'/reward/query'.*is node 'reward' running and configured"):
        asker.completion([shade(0, 0)])


def test_an_inactive_reward_node_refuses_with_its_cure_and_judges_when_it_is_active_again(spin, probe):
    node = spin.start(RewardNode(model="fake", realtime=False))
    asker = Asker(spin, probe)
    node.trigger_deactivate()
    with pytest.raises(EpisodeError, match="node 'reward' is not active: 'ros2 lifecycle set reward activate'"):
        asker.completion([shade(0, 255)])
    node.trigger_activate()
    assert asker.completion([shade(0, 255)])[0].value == 1.0


def test_another_model_than_the_runs_judge_is_refused(spin, probe):
    spin.start(RewardNode(model="fake", realtime=False))
    asker = Asker(spin, probe, model="tiny")
    with pytest.raises(EpisodeError, match=r"by model 'fake', the judge of this run is model 'tiny': .* model:=tiny"):
        asker.completion([shade(0, 255)])


def test_a_model_without_a_completion_head_is_found_by_the_check(spin, probe, monkeypatch):
    class Other(FakeModel):
        def score(self, queries, readout="forward"):
            return [Unscored(q.stamp_ns, q.head, "model 'fake' answers robometer") for q in queries]

    monkeypatch.setattr(reward, "load_model", lambda *_: Other())
    spin.start(RewardNode(model="fake", realtime=False))
    asker = Asker(spin, probe)
    with pytest.raises(EpisodeError, match="node 'reward' cannot judge episodes: model 'fake' answers robometer"):
        asker.ask(asker.judge.check, shade(0, 0))


def test_a_reward_node_restarted_between_batches_judges_the_next(spin, probe):
    node = spin.start(RewardNode(model="fake", realtime=False))
    asker = Asker(spin, probe)
    assert asker.completion([shade(0, 255)])[0].value == 1.0
    node.trigger_deactivate()
    node.trigger_cleanup()
    spin.until(lambda: not asker.judge._listeners())
    asker.begin(asker.judge.completion, [shade(1, 255)], TASK, "e")  # looks for it
    node.trigger_configure()
    node.trigger_activate()
    assert asker.end()[0].value == 1.0
    spin.executor.remove_node(node)
    spin.nodes.remove(node)
    node.close()
    spin.until(lambda: not asker.judge._listeners())
    spin.start(RewardNode(model="fake", realtime=True))
    assert asker.completion([shade(2, 0)])[0].value == 0.0


def test_a_reward_node_that_goes_while_it_judges_leaves_no_verdict(spin, probe, monkeypatch):
    node = spin.start(RewardNode(model="fake", realtime=False))
    monkeypatch.setattr(node._recorded, "_judge", lambda: node.diagnostics.count("begun"))
    asker = Asker(spin, probe)
    asker.begin(asker.judge.completion, [shade(1, 255)], TASK, "e")
    spin.until(lambda: node.diagnostics.total("begun"))
    node._recorded.close()  # it is killed: it says nothing any more
    node.trigger_deactivate()
    node.trigger_cleanup()
    with pytest.raises(EpisodeError, match="'reward' has gone or was configured anew while it judged episode 'e'"):
        asker.end()


# -- what is lost ------------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_an_error_and_not_a_verdict(spin, probe):
    def answer_all_but_one(query: DiagnosticArray) -> None:
        for status in query.status[1:]:
            stamp_ns = int(messages.status_values(status)["stamp_ns"])
            message = messages.from_rewards([Reward(stamp_ns, "completion", 1.0, "fake")], "recorded")
            message.header.frame_id = status.name
            answers.publish(message)

    answers = topics.RECORDED_REWARD.publisher(probe)
    topics.REWARD_QUERY.subscribe(probe, answer_all_but_one)
    topics.RECORDED.subscribe(probe, lambda _: None)
    asker = Asker(spin, probe, answer_s=1.0)
    with pytest.raises(EpisodeError, match="answered 2 of 3 frames of episode 'e', and nothing for 1 s"):
        asker.ask(asker.judge.judge, [shade(step, 255) for step in range(3)], TASK, "e")


def test_answers_of_another_query_or_to_other_frames_are_not_taken(spin, probe):
    def answer(query: DiagnosticArray) -> None:
        (status,) = query.status
        stamp_ns = int(messages.status_values(status)["stamp_ns"])
        for query_id, stamp, head, value in (
            ("another", stamp_ns, "completion", 0.1),
            (status.name, stamp_ns + 1, "completion", 0.2),
            (status.name, stamp_ns, "progress", 0.3),
            (status.name, stamp_ns, "completion", 0.4),
        ):
            message = messages.from_rewards([Reward(stamp, head, value, "fake")], "recorded")
            message.header.frame_id = query_id
            answers.publish(message)

    answers = topics.RECORDED_REWARD.publisher(probe)
    topics.REWARD_QUERY.subscribe(probe, answer)
    topics.RECORDED.subscribe(probe, lambda _: None)
    assert [answer.value for answer in Asker(spin, probe).completion([shade(5, 255)])] == [0.4]


def test_a_wait_for_answers_ends_with_the_control(spin, probe):
    asked: list[DiagnosticArray] = []
    topics.REWARD_QUERY.subscribe(probe, asked.append)
    topics.RECORDED.subscribe(probe, lambda _: None)
    asker = Asker(spin, probe)
    asker.begin(asker.judge.completion, [shade(0, 0)], TASK, "e")
    spin.until(lambda: asked)
    asker.control.stop()
    with pytest.raises(Stopped):
        asker.end()


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
    bad.encoding = "yuv422"
    raw.images.publish(recorded_image("good", shade(0, 255)))
    raw.images.publish(bad)
    assert "image encoding 'yuv422' is not supported" in raw.hears("bad")[0].message
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
