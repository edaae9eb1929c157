# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.robot.limits import limited

CONTRACT = RobotContract(
    name="two", joints=("arm", "gripper"), lower=(-1.0, 0.0), upper=(1.0, 0.5), max_step=(0.25, 0.5)
)


@pytest.mark.parametrize(
    ("target", "last", "sent"),
    [
        ((0.2, 0.3), (0.1, 0.1), (0.2, 0.3)),
        ((0.9, 0.3), (0.1, 0.1), (0.35, 0.3)),
        ((-0.9, 0.3), (0.1, 0.1), (-0.15, 0.3)),
        ((5.0, -5.0), (0.9, 0.1), (1.0, 0.0)),
    ],
    ids=["within", "step up", "step down", "joint limits"],
)
def test_a_target_is_sent_inside_step_and_joint_limits(target, last, sent):
    result = limited(np.array(target), np.array(last), CONTRACT)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, sent, atol=1e-6)


def test_an_arm_outside_its_limits_comes_back_in_steps_and_never_goes_further_out():
    last = np.array([1.6, 0.1], np.float32)
    way = []
    for _ in range(4):
        last = limited(np.array([2.0, 0.1]), last, CONTRACT)
        way.append(float(last[0]))
    np.testing.assert_allclose(way, [1.35, 1.1, 1.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_is_refused_and_names_the_joint(bad):
    with pytest.raises(ValueError, match="gripper"):
        limited(np.array([0.0, bad]), np.zeros(2), CONTRACT)
    with pytest.raises(ValueError, match="last joint target is not finite: arm"):
        limited(np.zeros(2), np.array([bad, 0.0]), CONTRACT)


def test_a_wrong_number_of_joints_is_refused_and_names_them():
    with pytest.raises(ValueError, match="arm, gripper"):
        limited(np.zeros(3), np.zeros(2), CONTRACT)
