# SPDX-License-Identifier: Apache-2.0
"""The simple arm: first-order motion, gravity, stops and what is in the way."""

from __future__ import annotations

import pytest

from lrm_ros.sim.servo_bus.joints import NO_LOAD_SPEED, SO101, Drive, Joint, SimpleJoints

LIMP = Drive(0.0, 0.0, 0.0)


def one(weight: float = 0.0) -> SimpleJoints:
    return SimpleJoints([Joint("lift", -1.0, 2.0, -0.9, weight)])


def run(joints: SimpleJoints, seconds: float, drive: Drive) -> None:
    for _ in range(round(seconds / 0.001)):
        joints.step(0.001, [drive])


def test_a_motor_reaches_its_target_as_a_first_order_system():
    joints = one()
    joints.place("lift", 0.0)
    run(joints, 1 / (6 * NO_LOAD_SPEED), Drive(0.1, 6.0, 1.0))  # one time constant
    assert joints.states()[0].position == pytest.approx(0.1 * (1 - 1 / 2.718), rel=0.02)
    run(joints, 1.0, Drive(0.1, 6.0, 1.0))
    assert joints.states()[0].position == pytest.approx(0.1)


def test_no_motor_is_faster_than_its_duty():
    joints = one()
    joints.place("lift", 0.0)
    run(joints, 0.1, Drive(2.0, 100.0, 0.5))
    assert joints.states()[0].velocity == pytest.approx(0.5 * NO_LOAD_SPEED)


def test_gravity_pulls_a_limp_joint_to_its_rest_and_a_driven_one_off_its_target():
    joints = one(weight=0.3)
    joints.place("lift", 1.0)
    run(joints, 0.1, LIMP)
    assert -NO_LOAD_SPEED < joints.states()[0].velocity < 0
    run(joints, 5.0, LIMP)
    assert joints.states()[0].position == pytest.approx(-0.9, abs=1e-3)
    run(joints, 5.0, Drive(1.0, 6.0, 1.0))
    state = joints.states()[0]
    assert state.position == pytest.approx(1.0 - 0.3 / 6.0, abs=1e-3)
    assert (state.effort, state.velocity) == (pytest.approx(0.3, abs=1e-3), pytest.approx(0.0, abs=1e-3))
    run(joints, 5.0, Drive(1.0, 6.0, 0.1))  # less than gravity asks for
    assert joints.states()[0].position < -0.8


def test_a_stop_and_what_is_in_the_way_hold_against_the_full_effort():
    joints = one()
    run(joints, 2.0, Drive(5.0, 6.0, 0.8))
    assert (joints.states()[0].position, joints.states()[0].effort) == (2.0, 0.8)
    joints.block("lift", high=0.5)
    run(joints, 2.0, Drive(-0.5, 6.0, 1.0))
    run(joints, 2.0, Drive(5.0, 6.0, 1.0))
    assert joints.states()[0].position == 0.5
    joints.block("lift")
    run(joints, 2.0, Drive(5.0, 6.0, 1.0))
    assert joints.states()[0].position == 2.0


def test_the_arms_joints_are_within_their_ranges_at_rest():
    assert [state.position for state in SimpleJoints().states()] == [joint.rest for joint in SO101]
    assert all(joint.low <= joint.rest <= joint.high for joint in SO101)


def test_what_a_person_names_wrongly_is_refused():
    with pytest.raises(ValueError, match="no joint 'elbow'; there are lift"):
        one().place("elbow", 0.0)
    with pytest.raises(ValueError, match=r"'lift' cannot stay between 1.0 and 0.5 rad"):
        one().block("lift", 1.0, 0.5)
