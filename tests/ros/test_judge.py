# SPDX-License-Identifier: Apache-2.0
"""The judge that asks the reward node: the engine's verdicts, every answer its own frame's, and never a guess."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from judge_desk import DT, TASK, Asker, noise_journal, shade  # type: ignore[import-not-found]

from lrm_ros import messages, topics
from lrm_ros.config import RewardConfig
from lrm_ros.nodes import reward
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.record.journal import read_journal
from lrm_ros.reward import engine
from lrm_ros.reward.engine import RewardEngine, episode_frames
from lrm_ros.reward.fake import FakeModel
from lrm_ros.ros import judge
from lrm_ros.ros.control import EpisodeError, Stopped
from lrm_ros.ros.reward_recorded import BATCH
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored, Verdict


@pytest.mark.parametrize("realtime", [False, True])
def test_verdicts_and_answers_are_the_engines_to_the_last_bit(spin, probe, tmp_path, realtime):
    episode = read_journal(noise_journal(tmp_path / "e.mcap"))
    frames = episode_frames(episode, "front")
    checked = frames[::3]
    offline = RewardEngine(RewardConfig(mode="completion", device="cpu"))
    expected = offline.judge(frames, TASK, "e")
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


def test_a_model_on_another_machine_is_asked_under_its_address_which_tells_no_token(spin, probe):
    from served import serving  # type: ignore[import-not-found]

    with serving(token="sesame") as url:
        address = url.replace("//", "//lrm:sesame@")
        spin.start(RewardNode(model=address, realtime=False))
        asker = Asker(spin, probe, model=address)
        answers = asker.completion([shade(1, 255), shade(2, 0)])
    assert [(answer.value, answer.model) for answer in answers] == [(1.0, url), (0.0, url)]


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
    raises: list[BaseException] = [type(error)(*error.args)]  # the parameter stays, its traceback would keep the node

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


def test_a_model_without_a_completion_head_is_found_before_anything_is_judged(spin, probe, monkeypatch):
    class Other(FakeModel):
        def score(self, queries, readout="forward"):
            return [Unscored(q.stamp_ns, q.head, "no adapter for head 'completion'") for q in queries]

    monkeypatch.setattr(reward, "load_model", lambda *_: Other())
    spin.start(RewardNode(model="fake", mode="progress", realtime=False))
    asker = Asker(spin, probe)
    with pytest.raises(EpisodeError, match="model 'fake' cannot judge episodes: no adapter for head 'completion'"):
        asker.ask(asker.judge.begin, shade(0, 0))


@pytest.mark.parametrize("own", [False, True])
def test_the_judge_loads_a_model_only_where_the_reward_nodes_is_another_one(spin, probe, monkeypatch, capsys, own):
    loaded = []
    monkeypatch.setattr(engine, "load_model", lambda name, *_: loaded.append(name) or FakeModel())
    monkeypatch.setattr(reward, "load_model", lambda *_: FakeModel())
    node = spin.start(RewardNode(model="meter" if own else "fake", mode="robometer" if own else "tri", realtime=False))
    asker = Asker(spin, probe)
    asker.ask(asker.judge.begin, shade(0, 0))
    says = "node 'reward' has model 'meter' in mode 'robometer', the judge is model 'fake': it is loaded here"
    assert loaded == ["fake"] * own and (says in capsys.readouterr().out) == own
    frames = [shade(step, 255) for step in range(6)]
    assert asker.ask(asker.judge.judge, frames, TASK, "e").score == 1.0
    assert [answer.value for answer in asker.completion(frames)] == [1.0] * 6
    assert node.diagnostics.total("recorded") == (0 if own else 1 + 4 + 6)


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


def test_several_cameras_judge_by_their_mean_whether_their_stamps_agree_or_not(spin, probe):
    spin.start(RewardNode(model="fake", realtime=False))
    asker = Asker(spin, probe, cameras=("front", "wrist"))
    for apart_ns in (0, 7):
        pairs = [(255, 255), (255, 0), (0, 0), (255, 255)]
        frames = []
        for step, (front, wrist) in enumerate(pairs):
            frames += [shade(step, front), replace(shade(step, wrist), camera="wrist", stamp_ns=step * DT + apart_ns)]
        answers = asker.completion(frames)
        assert [(a.stamp_ns // DT, a.value) for a in answers] == [(0, 1.0), (1, 0.5), (2, 0.0), (3, 1.0)]
        found = asker.ask(asker.judge.judge, frames, TASK, "e")
        assert found.score == 2.5 / 4 and found.keep
    lost = asker.ask(asker.judge.judge, frames[:-1], TASK, "e")
    assert not lost.keep and "1 of 4 frames unscored: camera 'wrist' has no frame of that time" in lost.reason
    one = [frames[0], frames[1], frames[2], frames[1]]  # a slower camera's frame is in two views
    assert [answer.value for answer in asker.completion(one)] == [1.0, 1.0]


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
