# SPDX-License-Identifier: Apache-2.0
"""Worlds in Ray actors do what worlds in processes do, and say who died."""

import numpy as np
import pytest

from lrm_ros.sim.vector.worlds import EpisodeRules, VectorWorlds

REST = np.array([0.0, -1.2, 1.1, 1.2, 0.0, 0.2], np.float32)
RULES = EpisodeRules(max_steps=12, judge_every=5)


def play(worlds: VectorWorlds) -> list:
    """Two chunks, the second over the end of the episode."""
    chunks = [np.tile(REST + 0.1 * world, (8, 1)).astype(np.float32) for world in range(2)]
    return [worlds.reset([[1, 2], [3, 4]], rebuild=True), worlds.step(chunks), worlds.step(chunks)]


def test_worlds_on_a_cluster_are_those_of_this_machine_to_the_bit():
    with VectorWorlds(2, RULES, processes=1) as here:
        expected = play(here)
    with VectorWorlds(2, RULES, processes=2, ray="local") as there:
        found = play(there)
        for one, other in zip(expected[0], found[0], strict=True):
            np.testing.assert_array_equal(one.frames["front"].image, other.frames["front"].image)
        for round_here, round_there in zip(expected[1:], found[1:], strict=True):
            for one, other in zip(round_here, round_there, strict=True):
                np.testing.assert_array_equal(one.sent, other.sent)
                np.testing.assert_array_equal(one.progress, other.progress)
                np.testing.assert_array_equal(one.observation.state, other.observation.state)
                assert [place for place, _ in one.judged] == [place for place, _ in other.judged]
                for (_, mine), (_, yours) in zip(one.judged, other.judged, strict=True):
                    np.testing.assert_array_equal(mine.image, yours.image)
        end = found[2][1]
        assert end.done and end.final_observation is not None
        np.testing.assert_array_equal(end.judged[-1][1].image, end.final_observation.frames["front"].image)
        there._workers._ray.kill(there._workers._actors[1])
        with pytest.raises(RuntimeError, match="the Ray actor of worlds 1 to 1 died"):
            play(there)
    with pytest.raises(RuntimeError, match="the worlds are closed"):
        there.reset([[1], [2]])


def test_a_cluster_gives_an_actor_a_cpu_and_is_not_waited_for(monkeypatch):
    ray = pytest.importorskip("ray")

    class Idle:  # an actor without worlds
        def __init__(self, *_):
            pass

        def ready(self):
            return True

    monkeypatch.setattr("lrm_ros.sim.vector.ray_actors._Actor", Idle)
    monkeypatch.setattr("lrm_ros.sim.vector.ray_actors.TIMEOUT_S", 1.0)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(RuntimeError, match="3 Ray actors need a CPU each, the cluster has 2 free; set processes"):
            VectorWorlds(4, RULES, processes=3, ray="auto")
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})  # the learner's own machine does not count
        with VectorWorlds(4, RULES, ray="auto") as worlds:
            assert [len(own) for own in worlds._workers._ranges] == [2, 2]
            with pytest.raises(RuntimeError, match="1 Ray actors need a CPU each, the cluster has 0 free"):
                VectorWorlds(1, RULES, ray="auto")
    finally:
        ray.shutdown()


def test_a_task_that_does_not_exist_is_named():
    with pytest.raises(RuntimeError, match="NoSuchTask"):
        VectorWorlds(1, RULES, processes=1, task="NoSuchTask-v1", ray="local")


def test_a_cluster_that_is_not_there_is_named():
    with pytest.raises(RuntimeError, match=r"no Ray cluster at '127.0.0.1:9' \(.*start one with 'ray start --head'"):
        VectorWorlds(1, RULES, processes=1, ray="127.0.0.1:9")
