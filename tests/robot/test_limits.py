# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.robot.limits import PLAUSIBLE_S, Plausibility, limited

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


@pytest.mark.parametrize("position", [(2.9, 0.2), (-2.9, 1.0), (0.0, -0.5), (None, 0.2)])
def test_an_arm_somewhat_outside_its_limits_is_believed(position):
    Plausibility(CONTRACT).check(position, 0.0)


@pytest.mark.parametrize(
    ("position", "says"),
    [
        ((60.0, 0.2), "joint arm is 60.0, its limits are -1 to 1 rad: does the driver publish degrees"),
        ((-3.2, 0.2), "joint arm is -3.2"),
        ((None, 100.0), "joint gripper is 100.0, its limits are 0 to 0.5 rad"),
    ],
)
def test_positions_far_outside_the_limits_are_of_another_unit(position, says):
    with pytest.raises(ValueError, match=says):
        Plausibility(CONTRACT).check(position, 0.0)


def test_the_time_of_good_positions_begins_anew_with_every_bad_one():
    plausibility = Plausibility(CONTRACT)
    for now_s, arm in ((0.0, 60.0), (4.0, -60.0)):
        with pytest.raises(ValueError, match="arm"):
            plausibility.check((arm, 0.0), now_s)
    with pytest.raises(ValueError, match="arm is -60"):
        plausibility.check((0.0, 0.0), 4.0 + 0.9 * PLAUSIBLE_S)
    plausibility.check((0.0, 0.0), 4.0 + PLAUSIBLE_S)


def test_nothing_moves_by_a_contract_without_limits():
    bare = dataclasses.replace(CONTRACT, lower=(), upper=(), max_step=())
    with pytest.raises(ValueError, match="has no limits and units, so no arm moves by it"):
        limited(np.zeros(2), np.zeros(2), bare)
    Plausibility(bare).check((1e6, 0.0), 0.0)  # of unknown units no number is wrong
