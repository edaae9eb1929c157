# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.sim.twin.world import World

DT_NS = 100_000_000


@pytest.fixture(scope="module")
def world():
    world = World()
    yield world
    world.close()


def test_the_same_seed_is_the_same_start_and_the_same_picture(world):
    def look(seed):
        world.reset(seed)
        return world.instruction, world.state, world.frame().image

    first, other, again = look(3), look(4), look(3)
    assert again[0] == first[0]
    np.testing.assert_array_equal(again[1], first[1])
    np.testing.assert_array_equal(again[2], first[2])
    assert (other[2] != first[2]).any() and (other[1] != first[1]).any()


def test_the_same_commands_after_the_same_seed_lead_to_the_same_arm_and_nearly_the_same_toy(world):
    ends = []
    for _ in range(2):
        world.reset(7)
        start = world.state
        for k in range(10):
            world.step(start + np.float32(0.02) * k)
        ends.append((world.state, world.task_env.toy.pose.p[0].cpu().numpy()))
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-5)
    # Contacts remember the episode before in their last digits.
    np.testing.assert_allclose(ends[0][1], ends[1][1], atol=1e-3)


def test_time_never_goes_back_and_a_frame_has_the_stamp_of_its_step(world):
    world.reset(0)
    begin = world.stamp_ns
    world.step(world.state)
    world.step(world.state)
    assert world.stamp_ns == begin + 2 * DT_NS and world.steps == 2
    observation = world.observe()
    assert observation.stamp_ns == observation.frames["front"].stamp_ns == world.stamp_ns
    assert observation.frames["front"].image.shape == (96, 96, 3)
    world.reset(0)
    assert world.stamp_ns == begin + 3 * DT_NS and world.steps == 0


def test_a_step_sends_the_limited_target_and_returns_it(world):
    world.reset(0)
    start, contract = world.state, RobotContract()
    sent = world.step(start + np.float32(9.0))
    expected = np.minimum(start + np.array(contract.max_step), np.array(contract.upper))
    np.testing.assert_allclose(sent, expected, atol=1e-6)
    for _ in range(40):
        sent = world.step(start + np.float32(9.0))
    np.testing.assert_allclose(sent, contract.upper, atol=1e-6)


@pytest.mark.parametrize("bad", [np.full(6, np.nan), np.zeros(5)], ids=["nan", "five joints"])
def test_a_bad_target_moves_nothing(world, bad):
    world.reset(0)
    before = world.state
    with pytest.raises(ValueError, match="joint"):
        world.step(bad)
    np.testing.assert_array_equal(world.state, before)
    assert world.steps == 0


def test_a_camera_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="square"):
        World(contract=RobotContract(cameras=(CameraSpec("front", 128, 96),)))


def test_a_step_is_that_of_maniskills_own_controller_to_the_bit():
    ours, theirs = World(), World()
    rng = np.random.default_rng(0)
    for world in (ours, theirs):
        world.reset(3, rebuild=True)
    for _ in range(12):
        sent = ours.step(ours.state + rng.normal(0, 0.1, 6).astype(np.float32))
        theirs.task_env._step_action(torch.from_numpy(sent))
        np.testing.assert_array_equal(ours.state, theirs.task_env.agent.robot.get_qpos()[0].numpy())
        np.testing.assert_array_equal(ours.task_env.toy.pose.p, theirs.task_env.toy.pose.p)
    ours.close()
    theirs.close()
