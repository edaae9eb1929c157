# SPDX-License-Identifier: Apache-2.0
"""Exploration: a sideways offset that holds, fades, and leaves pitch, roll and gripper alone."""

import numpy as np
import pytest

from lrm_ros.config import PolicyConfig, RobotContract
from lrm_ros.robot.so100.explore import Exploration, draw_offset, explored
from lrm_ros.robot.so100.kinematics import approach, forward, shift
from lrm_ros.types import ActionChunk

POSE = np.array([0.2, 0.1, 0.3, 1.2, 0.1, 0.3], np.float32)
OFFSET = np.array([0.02, -0.03, 0.0])


def test_a_shift_moves_the_gripper_to_a_millimetre_and_keeps_pitch_roll_and_gripper():
    moved = shift(POSE, OFFSET)
    np.testing.assert_allclose(forward(moved)[0] - forward(POSE)[0], OFFSET, atol=1e-3)
    assert approach(moved)[2] == pytest.approx(approach(POSE)[2], abs=5e-3)
    np.testing.assert_array_equal(moved[4:], POSE[4:])


def test_the_offset_is_whole_then_fades_then_is_gone():
    chunk = ActionChunk(1_000_000_000, np.tile(POSE, (10, 1)), 0.1)
    moved = explored(chunk, OFFSET, begin_ns=1_000_000_000, hold_s=0.35, fade_s=0.4)
    reached = np.array([forward(a)[0][0] - forward(POSE)[0][0] for a in moved.actions]) / OFFSET[0]
    np.testing.assert_allclose(reached, [1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0], atol=0.05)
    np.testing.assert_array_equal(moved.actions[8:], chunk.actions[8:])


def test_without_exploration_the_chunk_is_the_policys_own():
    chunk = ActionChunk(0, np.tile(POSE, (3, 1)), 0.1)
    assert explored(chunk, draw_offset(0.0, 1, 1), 0, 1.0, 1.0) is chunk


def test_offsets_lie_in_the_plane_with_the_given_spread_and_repeat():
    offsets = np.array([draw_offset(0.025, 7, n) for n in range(2000)])
    assert (offsets[:, 2] == 0).all()
    np.testing.assert_allclose(offsets[:, :2].std(axis=0), 0.025, rtol=0.1)
    np.testing.assert_array_equal(draw_offset(0.025, 7, 3), offsets[3])


SEVEN = tuple(f"joint_{k}" for k in range(7))


@pytest.mark.parametrize(
    "contract",
    [
        RobotContract("panda", SEVEN, (-3.0,) * 7, (3.0,) * 7, (0.3,) * 7),
        RobotContract("koch"),  # joints of the same names, another arm
        RobotContract(joints=tuple(reversed(RobotContract().joints))),
    ],
)
def test_another_arm_is_never_moved_by_the_kinematics_of_this_one(contract):
    exploration = Exploration()
    with pytest.raises(ValueError, match=r"of 'so100' only .* is '\w+'.*explore_std to 0"):
        exploration.begin(PolicyConfig(explore_std=0.02), contract)
    exploration.begin(PolicyConfig(explore_std=0.0), contract)
    chunk = ActionChunk(0, np.zeros((3, len(contract.joints)), np.float32), 0.1)
    assert exploration.moved(chunk, PolicyConfig()) is chunk
