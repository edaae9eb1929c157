# SPDX-License-Identifier: Apache-2.0
"""Streams judged by a video head: live by the engine, and as the reward of a refinement."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, String
from std_srvs.srv import Trigger
from video_models import CLIPS, OTHER, TASK, asks, frames, values

from lrm_ros import messages
from lrm_ros.config import RewardConfig
from lrm_ros.config_refine import RefineConfig
from lrm_ros.nodes.reward import RewardNode
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.fake import FakeModel
from lrm_ros.sim.vector.rewards import REWARDS, WorldRewards
from lrm_ros.sim.vector.worlds import ChunkResult
from lrm_ros.topics import IMAGE, LATCHED, STREAM
from lrm_ros.types import VIDEO_HEADS, Frame, Observation, Reward, Unscored

# ---- live -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", VIDEO_HEADS)
def test_the_engine_live_gives_what_the_offline_query_gives(head, baselines):
    """Of 20 frames every second is judged, and the last; the values are to the bit those of the whole queries."""
    model = baselines[head]
    clip = CLIPS[3][1]
    engine = RewardEngine(RewardConfig(mode=head, interval=2, scale=3.0), model)
    helds = [engine.step({"front": frame}, OTHER, ["front"] if frame is clip[-1] else [])["front"] for frame in clip]
    judged = [*range(0, 20, 2), 19]
    offline = [values(model.score(asks(head, (OTHER, [clip[i] for i in judged if i <= at]))))[0] for at in judged]
    assert [at for at, held in enumerate(helds) if held.fresh] == judged
    assert values([helds[at].answers[head] for at in judged]) == offline
    assert [helds[at].answers[head].stamp_ns for at in judged] == [clip[at].stamp_ns for at in judged]
    assert [helds[at].signal for at in judged] == [3 * value for value in offline]
    assert helds[1].answers[head] is helds[0].answers[head]
    engine.reset("front")
    again = engine.step({"front": clip[7]}, OTHER)["front"].answers[head]
    assert values([again]) == values(model.score(asks(head, (OTHER, [clip[7]]))))


def test_a_model_without_a_completion_head_judges_no_episode(baselines):
    engine = RewardEngine(RewardConfig(mode="robometer"), baselines["robometer"])
    clip = CLIPS[0][1]
    lacks = "answers robometer; head 'completion' needs its own weights"
    verdict = engine.judge(clip, TASK, "e")
    assert not verdict.keep and np.isnan(verdict.score) and lacks in verdict.reason
    done = engine.completion({"front": clip[0]}, TASK)["front"]
    assert isinstance(done, Unscored) and lacks in done.reason


@pytest.mark.parametrize("head", VIDEO_HEADS)
def test_a_video_head_judges_the_episode_so_far_and_begins_anew_at_reset(head, spin, probe, baselines):
    model = baselines[head]
    node = spin.start(RewardNode(mode=head, model=model.name, device="cpu", interval=2, scale=2.0, realtime=False))
    images = probe.create_publisher(Image, "front/image_raw", IMAGE)
    tasks = probe.create_publisher(String, "task", LATCHED)
    rewards = spin.collect(probe, DiagnosticArray, "reward", STREAM)
    tasks.publish(String(data=TASK))
    spin.until(lambda: images.get_subscription_count() and node._task and probe.count_publishers("reward"))
    plot = spin.collect(probe, Float32, f"reward/{head}", STREAM)
    clip = frames(10, 6)

    def said(*shown: int) -> float:
        (answer,) = model.score(asks(head, (TASK, [clip[i] for i in shown])))
        assert isinstance(answer, Reward), answer
        return answer.value

    for frame in clip[:4]:
        images.publish(messages.from_frame(frame))
    spin.until(lambda: len(rewards) == 4)
    # A frame's reward is that of the episode up to the frame judged last, whose stamp it carries.
    assert [messages.to_ns(message.header.stamp) for message in rewards] == [clip[i].stamp_ns for i in (0, 0, 2, 2)]
    ok, held = DiagnosticStatus.OK, DiagnosticStatus.STALE
    assert [[(s.name, s.level) for s in m.status] for m in rewards] == [[(head, lv)] for lv in (ok, held, ok, held)]
    answers = [messages.to_rewards(message)[0] for message in rewards]
    assert [a.value for a in answers if isinstance(a, Reward)] == pytest.approx(
        [said(0), said(0), said(0, 2), said(0, 2)], abs=1e-6
    )
    assert spin.call(probe, Trigger, "reward/reset").success
    spin.until(lambda: len(rewards) == 5)
    (answer,) = messages.to_rewards(rewards[4])
    assert isinstance(answer, Reward) and (answer.stamp_ns, answer.model) == (clip[3].stamp_ns, model.name)
    assert answer.value == pytest.approx(said(0, 2, 3), abs=1e-6)
    spin.until(lambda: node._plots[head].get_subscription_count())
    images.publish(messages.from_frame(clip[5]))
    spin.until(lambda: len(rewards) == 6 and plot and plot[-1].data == pytest.approx(2 * said(5), abs=1e-6))


# ---- as reward of a refinement --------------------------------------------------------------------------------------


def observation(frame: Frame, task: str) -> Observation:
    return Observation(frame.stamp_ns, {"front": frame}, np.zeros(6, np.float32), task)


def chunk_result(judged, then, task, steps=8, ended=False) -> ChunkResult:
    """Steps of which some are judged: place -> frame; ``then`` is seen next."""
    final = observation(judged[max(judged)], task) if ended else None
    still = np.zeros(steps, np.float32)
    return ChunkResult(
        np.zeros((steps, 6), np.float32), np.append(still, 0), still > 0, tuple(judged.items()), ended, ended, final,
        observation(then, task), 0,
    )  # fmt: skip


@pytest.mark.parametrize("kind", VIDEO_HEADS)
def test_two_worlds_are_paid_what_the_baseline_says_of_each_episode_so_far(kind, baselines, baseline_folders):
    model, folder = baselines[kind], baseline_folders[kind]

    def say(*clips):
        return [2 * value for value in values(model.score(asks(kind, *clips)))]

    rewards = WorldRewards(RefineConfig(reward=kind, baseline=str(folder), scale=2.0, device="cpu"), FakeModel())
    one, two, new = frames(10, 4), frames(11, 3), frames(12, 1)
    assert rewards.rules.judge_every == 10
    rewards.begin([observation(one[0], TASK), observation(two[0], OTHER)])
    first, second = rewards.score([chunk_result({2: one[1], 7: one[2]}, one[2], TASK), chunk_result({}, two[0], OTHER)])
    said = say(*[(TASK, one[:n]) for n in (1, 2, 3)])
    np.testing.assert_allclose(first, [said[0]] + [said[1]] * 5 + [said[2]] * 2, atol=2e-4)
    held = say((OTHER, two[:1]))[0]
    np.testing.assert_allclose(second, [held] * 8, atol=2e-4)
    last = chunk_result({8: two[1]}, new[0], OTHER, ended=True)
    first, second = rewards.score([chunk_result({4: one[3]}, one[3], TASK), last])
    said += say((TASK, one))
    np.testing.assert_allclose(first, [said[2]] * 3 + [said[3]] * 5, atol=2e-4)
    np.testing.assert_allclose(second, [held] * 7 + say((OTHER, two[:2])), atol=2e-4)
    # World 2 began anew: its first frame alone is what counts, and the fake judge of the end is still another.
    _, second = rewards.score([chunk_result({}, one[3], TASK), chunk_result({}, new[0], OTHER)])
    np.testing.assert_allclose(second, say((OTHER, new)) * 8, atol=2e-4)
    assert rewards.stats.episodes == 1 and rewards.stats.p_done == [float(two[1].image.mean() >= 127.5)]
    assert rewards.stats.queries == 7 + 1


def test_a_baseline_that_gives_no_answer_stops_the_run(baseline_folders):
    folder = baseline_folders["topreward"]
    rewards = WorldRewards(RefineConfig(reward="topreward", baseline=str(folder), device="cpu"), FakeModel())
    clip = frames(0, 2)
    rewards.begin([observation(clip[1], TASK)])
    with pytest.raises(RuntimeError, match=r"world 0: topreward gave no answer: .*run backwards.*resume the run"):
        rewards.score([chunk_result({1: clip[0]}, clip[0], TASK)])


def test_a_refinement_without_the_baselines_weights_is_refused():
    assert REWARDS[-3:] == VIDEO_HEADS
    for kind in VIDEO_HEADS:
        with pytest.raises(ValueError, match=f"baseline '{kind}' needs weights"):
            WorldRewards(RefineConfig(reward=kind), FakeModel())
