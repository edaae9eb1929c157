# SPDX-License-Identifier: Apache-2.0
"""Cartesian motion of an SO-101 by its URDF."""

from __future__ import annotations

import numpy as np
import pytest
from so101 import CONTRACT, FILE  # type: ignore[import-not-found]

from lrm_ros.robot.place import TIP, Place
from lrm_ros.robot.so100.jog import Jog
from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.robot.urdf import LinkPoints, Urdf

URDF = Urdf(FILE.parent / "so101.urdf")
BEGIN = np.array([0.2, -0.3, 0.4, 0.8, 0.5, 0.6], np.float32)
TIP_OF = LinkPoints(URDF, CONTRACT.joints, (TIP, "wrist"))
AXES = {"forward": (0, np.array([0, -1, 0])), "left": (1, np.array([1, 0, 0])), "up": (2, np.array([0, 0, 1]))}


@pytest.fixture
def place() -> Place:
    return Place(URDF, CONTRACT.joints, CONTRACT.lower, CONTRACT.upper)


@pytest.mark.parametrize("way", AXES)
def test_the_gripper_goes_straight_and_pitch_roll_and_jaws_stay(place, way):
    axis, direction = AXES[way]  # the arm reaches towards -y of its root link
    q = BEGIN
    for _ in range(5):
        q = place.moved(q, 0.01 * np.eye(3)[axis])
    (tip, wrist), (tip_before, wrist_before) = TIP_OF(q), TIP_OF(BEGIN)
    assert tip - tip_before == pytest.approx(0.05 * direction, abs=1e-3)
    assert (tip - wrist)[2] == pytest.approx((tip_before - wrist_before)[2], abs=1e-3)
    assert q[4:] == pytest.approx(BEGIN[4:], abs=1e-3)


def test_out_of_reach_is_said(place):
    with pytest.raises(Unreachable, match="mm are out of reach"):
        place.moved(BEGIN, np.array([1.0, 0.0, 0.0]))


def test_a_jog_moves_the_gripper_of_an_arm_with_a_urdf(place):
    jog = Jog(CONTRACT, place)
    jog.start(BEGIN)
    jog.move(np.array([0.0, 0.0, 0.005]))
    assert TIP_OF(jog.target)[0] - TIP_OF(BEGIN)[0] == pytest.approx([0, 0, 0.005], abs=1e-3)
    with pytest.raises(ValueError, match="use the joint keys"):
        without = Jog(CONTRACT)
        without.start(BEGIN)
        without.move(np.zeros(3))
