# SPDX-License-Identifier: Apache-2.0
"""Joint states in parts, with more joints, in another unit: what comes out of them, or which joint is named."""

import numpy as np
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.robot.joint_states import JointStates

CONTRACT = RobotContract()
JOINTS = list(CONTRACT.joints)
DT = 100_000_000
Q = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6]


@pytest.fixture
def states() -> JointStates:
    return JointStates(CONTRACT)


def test_joints_are_found_by_name_among_others_in_any_order(states):
    order = [3, 0, 5, 1, 4, 2]
    names = ["wheel_left", *(JOINTS[i] for i in order), "wheel_right"]
    state = states.add(DT, names, [900.0, *(Q[i] for i in order), -900.0], 0.0)
    assert state.dtype == np.float32
    np.testing.assert_allclose(state, Q, atol=1e-6)


def test_parts_make_up_a_state_with_the_newest_position_of_every_joint(states):
    assert states.add(DT, JOINTS[:5], Q[:5], 0.0) is None
    np.testing.assert_allclose(states.add(DT + 1, JOINTS[5:], Q[5:], 0.0), Q, atol=1e-6)
    newer = [value + 0.1 for value in Q]
    np.testing.assert_allclose(states.add(2 * DT, JOINTS[:5], newer[:5], 0.1), [*newer[:5], Q[5]], atol=1e-6)
    np.testing.assert_allclose(states.add(2 * DT, JOINTS[5:], newer[5:], 0.1), newer, atol=1e-6)


def test_three_parts_and_one_joint_in_two_of_them(states):
    assert states.add(DT, JOINTS[:2], Q[:2], 0.0) is None
    assert states.add(DT, JOINTS[1:4], Q[1:4], 0.0) is None
    np.testing.assert_allclose(states.add(DT, JOINTS[4:], Q[4:], 0.0), Q, atol=1e-6)


def test_a_message_of_other_joints_only_is_no_new_state(states):
    assert states.add(DT, JOINTS, Q, 0.0) is not None
    assert states.add(DT + 1, ["wheel_left", "wheel_right"], [900.0, -900.0], 0.0) is None
    assert not states.lacking()
    with pytest.raises(ValueError, match=r"lacks joint shoulder_pan, .* it has .*wheel_left"):
        for k in range(2, 20):
            assert states.add(k * DT, ["wheel_left", "wheel_right"], [900.0, -900.0], 0.0) is None


def test_a_part_that_stops_is_named_and_the_old_position_is_not_used(states):
    states.add(DT, JOINTS, Q, 0.0)
    seen = [states.add(k * DT, JOINTS[:5], Q[:5], 0.0) for k in range(2, 7)]
    assert all(state is not None for state in seen)
    with pytest.raises(ValueError, match=r"lacks joint gripper; it has .*shoulder_pan.*contract's joint names"):
        for k in range(7, 20):
            assert states.add(k * DT, JOINTS[:5], Q[:5], 0.0) is None
    assert k == 13, "too old at 7, and still at 13"
    np.testing.assert_allclose(states.add(14 * DT, JOINTS[5:], Q[5:], 0.0), Q, atol=1e-6)


def test_a_joint_that_never_comes_is_named(states):
    assert not states.lacking()
    assert states.add(DT, JOINTS[1:], Q[1:], 0.0) is None
    assert "lacks joint shoulder_pan" in states.lacking()


@pytest.mark.parametrize("scale", [60.0, -60.0, 100.0])
def test_another_unit_is_named_at_the_first_message_also_of_a_part(states, scale):
    with pytest.raises(ValueError, match=rf"joint gripper is {scale}, its limits are -1.1 to 1.1 rad: .*degrees\?"):
        states.add(DT, JOINTS[5:], [scale], 0.0)


def test_it_is_not_forgiven_because_all_joints_pass_zero_but_after_some_time(states):
    with pytest.raises(ValueError, match="shoulder_pan is 60"):
        states.add(DT, JOINTS, [60.0, 0, 0, 0, 0, 0], 10.0)
    for now_s in (10.1, 12.0, 14.9):
        with pytest.raises(ValueError, match="shoulder_pan is 60"):
            states.add(round(now_s * 1e9), JOINTS, [0.0] * 6, now_s)
    assert states.add(16 * 10**9, JOINTS, [0.0] * 6, 15.1) is not None


@pytest.mark.parametrize(
    ("names", "positions", "says"),
    [
        (JOINTS, [0.0, float("nan"), 0.0, 0.0, 0.0, 0.0], "shoulder_lift = nan; check the arm's encoders"),
        (JOINTS, [0.0, float("inf"), 0.0, 0.0, 0.0, 0.0], "shoulder_lift = inf"),
        (JOINTS, [0.0] * 5, "5 positions for 6 names"),
        (JOINTS, [], "0 positions for 6 names; its driver must publish the position of each joint"),
        ([], [0.0] * 6, "6 positions for 0 names"),
        ([*JOINTS, JOINTS[0]], [*Q, 0.9], "joint shoulder_pan more than once in a message"),
    ],
)
def test_numbers_that_cannot_be_used_are_named(states, names, positions, says):
    with pytest.raises(ValueError, match=says):
        states.add(DT, names, positions, 0.0)


def test_joints_that_are_not_the_contracts_may_have_no_position(states):
    assert states.add(DT, ["wheel_left", "wheel_right"], [], 0.0) is None
    np.testing.assert_allclose(states.add(DT, JOINTS, Q, 0.0), Q, atol=1e-6)
