# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lrm_ros.sim.twin.expert import KINDS, behaviour_targets, expert_targets, random_walk
from lrm_ros.sim.twin.world import World


@pytest.fixture(scope="module")
def world():
    world = World()
    yield world
    world.close()


def test_the_expert_succeeds_and_progress_rises_to_one(world):
    successes = 0
    for seed in range(5):
        world.reset(seed)
        progress = [world.task_env.progress]
        for target in expert_targets(world):
            world.step(target)
            progress.append(world.task_env.progress)
        assert all(0.0 <= value <= 1.0 for value in progress)
        assert progress[0] < 0.36
        assert not world.succeeded or progress[-1] == 1.0
        successes += world.succeeded
    assert successes >= 4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "success"])
def test_a_failure_fails_and_its_progress_stays_in_range(world, kind):
    world.reset(11)
    values = []
    for target in behaviour_targets(world, kind, np.random.default_rng(2)):
        world.step(target)
        values.append(world.task_env.progress)
    assert min(values) >= 0.0 and max(values) <= 1.0
    # The way back does not always find the toy again; what counts is that the labels are those of the state.
    assert kind == "reversed" or (not world.succeeded and values[-1] < 1.0)


def test_a_random_walk_is_smooth_and_the_same_for_the_same_seed():
    start = np.zeros(6, np.float32)
    way = random_walk(start, np.random.default_rng(1), steps=30)
    assert way.shape == (30, 6)
    assert np.abs(np.diff(np.vstack([start, way]), axis=0)).max() < 0.25
    np.testing.assert_array_equal(way, random_walk(start, np.random.default_rng(1), steps=30))
