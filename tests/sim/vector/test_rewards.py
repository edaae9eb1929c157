# SPDX-License-Identifier: Apache-2.0
"""What a control step is worth: held answers of the reward model, the simulator's reward, queries that fail."""

from typing import Any

import numpy as np
import pytest
from observations import TASK, observation  # type: ignore[import-not-found]

from lrm_ros.config import RewardConfig
from lrm_ros.config_refine import RefineConfig
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.fake import FakeModel
from lrm_ros.sim.vector.rewards import WorldRewards, engine_config
from lrm_ros.sim.vector.worlds import ChunkResult
from lrm_ros.types import Unscored


def chunk_result(
    judged: dict[int, int],
    steps: int = 8,
    ended: bool = False,
    progress: Any = None,
    success: Any = None,
    next_light: int = 0,
) -> ChunkResult:
    """Steps of which some are judged: place -> brightness."""
    frames = tuple((place, observation(light, place).frames["front"]) for place, light in judged.items())
    final = observation(next(reversed(judged.values()), 0), steps) if ended else None
    return ChunkResult(
        np.zeros((steps, 6), np.float32),
        np.zeros(steps + 1, np.float32) if progress is None else np.array(progress, np.float32),
        np.zeros(steps, bool) if success is None else np.array(success),
        frames,
        ended,
        ended,
        final,
        observation(next_light, 1000),
        0,
    )


def rewards_of(mode: str, **settings: Any) -> WorldRewards:
    return WorldRewards(RefineConfig(reward=mode, **settings), FakeModel())


def test_progress_is_held_until_the_next_judged_frame_and_belongs_to_its_own_world():
    rewards = rewards_of("progress")
    rewards.begin([observation(51), observation(102)])
    first, second = rewards.score([chunk_result({}), chunk_result({2: 153})])
    np.testing.assert_allclose(first, [0.2] * 8, rtol=1e-6)
    np.testing.assert_allclose(second, [0.4] + [0.6] * 7, rtol=1e-6)
    first, second = rewards.score([chunk_result({2: 255}, next_light=0), chunk_result({})])
    np.testing.assert_allclose(first, [0.2] + [1.0] * 7, rtol=1e-6)
    np.testing.assert_allclose(second, [0.6] * 8, rtol=1e-6)


def test_every_progress_query_is_asked_as_the_settings_say():
    asked: list[tuple[str, list[int], str]] = []

    class Listening(FakeModel):
        def score(self, queries, readout="forward"):
            asked.extend((q.head, [int(f.image[0, 0, 0]) for f in q.frames], readout) for q in queries)
            return super().score(queries, readout)

    settings = RefineConfig(reward="progress", initial_image=True, readout="reason")
    rewards = WorldRewards(settings, Listening())
    rewards.begin([observation(51)])
    rewards.score([chunk_result({2: 102, 4: 255}, 4, ended=True, next_light=153)])
    rewards.score([chunk_result({2: 204})])
    shown = [frames for head, frames, _ in asked if head == "progress"]
    assert shown == [[51, 51], [51, 102], [51, 255], [153, 153], [153, 204]], "each with its own episode's first frame"
    assert {readout for *_, readout in asked} == {"reason"}
    kept = engine_config(RefineConfig(contrastive="sign", completion="binary", min_mass=0.2))
    assert (kept.contrastive, kept.completion, kept.min_mass) == ("sign", "binary", 0.2)


def test_an_episodes_last_frame_counts_and_the_next_episode_begins_with_its_own():
    rewards = rewards_of("progress", scale=10.0)
    rewards.begin([observation(51)])
    np.testing.assert_allclose(
        rewards.score([chunk_result({2: 102, 4: 255}, 4, ended=True, next_light=153)])[0], [2, 4, 4, 10], rtol=1e-6
    )
    np.testing.assert_allclose(rewards.score([chunk_result({})])[0], [6.0] * 8, rtol=1e-6)
    assert rewards.stats.episodes == 1 and rewards.stats.p_done == [1.0]


def test_shaped_progress_is_paid_when_it_changes():
    rewards = rewards_of("progress", shaped=True)
    rewards.begin([observation(51)])
    np.testing.assert_allclose(
        rewards.score([chunk_result({2: 153, 6: 102})])[0], [0, 0.4, 0, 0, 0, -0.2, 0, 0], atol=1e-6
    )
    with pytest.raises(ValueError, match="no meaning for reward 'tri'"):
        rewards_of("tri", shaped=True)


def test_contrastive_has_nothing_to_say_before_its_second_frame_and_tri_waits_for_it():
    rewards = rewards_of("contrastive")
    rewards.begin([observation(51)])
    np.testing.assert_allclose(rewards.score([chunk_result({4: 102})])[0], [0, 0, 0, 1, 1, 1, 1, 1])
    tri = rewards_of("tri")
    tri.begin([observation(51)])
    expected = (1 + 0.8 + 1) / 3
    np.testing.assert_allclose(tri.score([chunk_result({4: 204})])[0], [0] * 3 + [expected] * 5, rtol=1e-6)
    assert tri.stats.queries == 6


def test_rewards_are_those_of_the_engine_on_the_same_frames():
    rewards, engine = rewards_of("tri"), RewardEngine(RewardConfig(mode="tri", interval=1), FakeModel())
    lights = [51, 90, 200, 120]
    rewards.begin([observation(lights[0])])
    engine.step({"a": observation(lights[0]).frames["front"]}, TASK)
    for light in lights[1:]:
        held = engine.step({"a": observation(light).frames["front"]}, TASK)["a"]
        assert rewards.score([chunk_result({1: light})])[0][0] == pytest.approx(held.signal)


def test_the_simulators_reward_is_its_progress_and_one_for_the_task():
    rewards = rewards_of("env")
    assert rewards.rules.judge_every == 0
    rewards.begin([observation()])
    done = chunk_result({}, 3, progress=[0.2, 0.3, 0.3, 1.0], success=[False, False, True])
    np.testing.assert_allclose(rewards.score([done])[0], [0.1, 0.0, 1.7], atol=1e-6)
    again = chunk_result({}, 2, progress=[1, 1, 1], success=[True, True])
    np.testing.assert_allclose(rewards.score([again])[0], [0, 0], atol=1e-6)


@pytest.mark.parametrize("mode", ["env", "completion"])
def test_no_episode_ends_because_the_simulator_says_that_the_task_is_done(mode):
    assert not rewards_of(mode).rules.stop_at_success


class Broken(FakeModel):
    """Gives no answer."""

    def score(self, queries, readout="forward"):
        return [Unscored(query.stamp_ns, query.head, "the line is cut") for query in queries]


@pytest.mark.parametrize("mode", ["progress", "completion", "contrastive", "tri"])
def test_a_query_that_fails_ends_the_run_and_says_why(mode):
    rewards = WorldRewards(RefineConfig(reward=mode), Broken())
    with pytest.raises(RuntimeError, match=r"world 0: the reward model gave no answer: the line is cut"):
        rewards.begin([observation()])
        rewards.score([chunk_result({2: 100})])


def test_an_unknown_reward_is_named():
    with pytest.raises(ValueError, match="reward 'happiness' is unknown; choose one of env, contrastive"):
        rewards_of("happiness")
