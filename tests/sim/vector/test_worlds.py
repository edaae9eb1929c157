# SPDX-License-Identifier: Apache-2.0
"""Several twins in processes: each keeps its own count, the end of an episode is seen before the reset."""

import os
import signal

import numpy as np
import pytest

from lrm_ros.sim.twin.world import World
from lrm_ros.sim.vector.worlds import EpisodeRules, VectorWorlds

REST = np.array([0.0, -1.2, 1.1, 1.2, 0.0, 0.2], np.float32)


@pytest.fixture(scope="module")
def worlds():
    with VectorWorlds(3, EpisodeRules(max_steps=14, judge_every=5), chunk=8, processes=2) as vector:
        yield vector


def chunk(length: int = 8, pan: float = 0.0) -> np.ndarray:
    return np.tile(REST + np.array([pan, 0, 0, 0, 0, 0], np.float32), (length, 1))


def test_worlds_are_what_a_single_world_with_the_same_seed_is(worlds):
    observations = worlds.reset([[11], [12], [13]])
    results = worlds.step([chunk(pan=0.1 * i) for i in range(3)])
    world = World()
    for i, (observation, result) in enumerate(zip(observations, results, strict=True)):
        world.reset(11 + i)
        np.testing.assert_array_equal(world.frame().image, observation.frames["front"].image)
        np.testing.assert_array_equal(world.state, observation.state)
        assert world.instruction == observation.task
        sent = [world.step(target) for target in chunk(pan=0.1 * i)]
        np.testing.assert_array_equal(sent, result.sent)
        np.testing.assert_allclose(world.state, result.observation.state, atol=1e-5)
        assert result.progress[-1] == pytest.approx(world.task_env.progress, abs=1e-4)
        assert not result.done and len(result.progress) == 9 and len(result.success) == 8
    world.close()


def test_frames_are_judged_at_every_kth_step_of_the_episode_and_at_its_end(worlds):
    worlds.reset([[1, 2], [3, 4], [5, 6]])
    first = worlds.step([chunk(), chunk(3), chunk()])
    assert [[place for place, _ in result.judged] for result in first] == [[5], [], [5]]
    second = worlds.step([chunk(), chunk()], worlds=[0, 1])  # steps 9 to 14 and 4 to 11; world 2 stands still
    assert [place for place, _ in second[0].judged] == [2, 6] and len(second[0].sent) == 6
    assert second[0].done and second[0].truncated and second[0].seed == 2
    assert [place for place, _ in second[1].judged] == [2, 7] and not second[1].done
    third = worlds.step([chunk(), chunk(), chunk()])
    assert [result.done for result in third] == [False, True, True]
    assert third[0].judged[0][0] == 5  # world 0 counts from its own reset


def test_the_end_of_an_episode_is_seen_before_the_reset(worlds):
    worlds.reset([[1, 2], [3], [5]])
    worlds.step([chunk(pan=0.5), chunk(), chunk()])
    end = worlds.step([chunk(pan=0.5), chunk(), chunk()])[0]
    assert end.final_observation is not None and end.final_observation.state[0] == pytest.approx(0.5, abs=0.1)
    assert end.observation.state[0] == pytest.approx(0.0, abs=0.1)
    np.testing.assert_array_equal(end.judged[-1][1].image, end.final_observation.frames["front"].image)
    assert end.final_observation.stamp_ns < end.observation.stamp_ns
    assert not np.array_equal(end.final_observation.frames["front"].image, end.observation.frames["front"].image)


def test_a_wrong_chunk_is_refused_and_says_which_world(worlds):
    worlds.reset([[1], [2], [3]])
    with pytest.raises(ValueError, match="world 1: the actions are not finite"):
        worlds.step([chunk(), chunk() * np.nan, chunk()])
    with pytest.raises(ValueError, match=r"world 2: a chunk must be \(1 to 8, 6\), got shape \(9, 6\)"):
        worlds.step([chunk(), chunk(), chunk(9)])
    with pytest.raises(ValueError, match="3 worlds need a chunk each, got 2"):
        worlds.step([chunk(), chunk()])
    with pytest.raises(ValueError, match="a list of seeds each"):
        worlds.reset([[1], [2]])


@pytest.mark.parametrize("idle", [False, True])
def test_a_process_that_dies_is_named(idle):
    with VectorWorlds(1, EpisodeRules(), processes=1) as vector:
        vector.reset([[1]])
        process = vector._workers._processes[0][1]
        os.kill(process.pid, signal.SIGKILL)
        if idle:
            process.join()
        with pytest.raises(RuntimeError, match="worlds 0 to 0 died with code -9"):
            vector.step([chunk()])


def test_a_task_that_does_not_exist_is_named():
    with pytest.raises(RuntimeError, match="NoSuchTask"):
        VectorWorlds(1, EpisodeRules(), task="NoSuchTask-v1")
    with pytest.raises(ValueError, match="at least 1"):
        VectorWorlds(0, EpisodeRules())
