# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.robot.so100.kinematics import Unreachable, approach, forward, inverse

LOWER, UPPER = np.array(RobotContract().lower), np.array(RobotContract().upper)
REST = np.array([0.0, -1.2, 1.1, 1.2, 0.0])


def pitch_of(joints: np.ndarray) -> float:
    return math.asin(-approach(joints)[2])


@pytest.mark.parametrize("seed", range(5))
def test_inverse_undoes_forward(seed):
    rng = np.random.default_rng(seed)
    # In front of the arm and pointing down, where a task is.
    joints = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.6, 0.4), rng.uniform(-0.2, 0.8), 1.0, 0.0])
    position, pitch = forward(joints)[0], pitch_of(joints)
    found = inverse(position, pitch, 0.0, REST, LOWER, UPPER)
    np.testing.assert_allclose(forward(found)[0], position, atol=2e-3)
    assert pitch_of(found) == pytest.approx(pitch, abs=0.03)
    assert (found >= LOWER[:5]).all() and (found <= UPPER[:5]).all()


def test_frames_are_right_handed_and_pan_to_the_right_is_positive():
    straight, rotation = forward(REST)
    right, _ = forward(REST + np.array([0.3, 0, 0, 0, 0]))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert abs(straight[1]) < 0.02 and right[1] < straight[1] - 0.02
    assert np.linalg.norm(approach(REST)) == pytest.approx(1.0)


def test_the_roll_joint_is_set_and_not_solved_for():
    position = forward(REST)[0]
    found = inverse(position, pitch_of(REST), 0.4, REST, LOWER, UPPER)
    assert found[4] == 0.4
    np.testing.assert_allclose(forward(found)[0], position, atol=2e-3)


@pytest.mark.parametrize("position", [(0.9, 0.0, 0.1), (0.2, 0.0, 0.9), (0.0452, 0.0, -0.5)])
def test_a_place_out_of_reach_says_so_and_how_far(position):
    with pytest.raises(Unreachable, match=r"cannot reach .*nearest .*move the target closer"):
        inverse(np.array(position), math.pi / 2, 0.0, REST, LOWER, UPPER)
