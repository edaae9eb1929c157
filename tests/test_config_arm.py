# SPDX-License-Identifier: Apache-2.0
"""Section ``arm`` of a robot contract's file: LeRobot's units as angles, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from so101 import CONTRACT, FILE  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION, JointUnits, load_arm
from lrm_ros.config_files import load_yaml


def test_degrees_and_ranges_are_angles():
    assert JointUnits("a").affine == (np.pi / 180, 0.0)
    assert JointUnits("a", sign=-1.0, zero=0.5).affine == (-np.pi / 180, 0.5)
    scale, offset = JointUnits("a", "range_0_100", lower=-0.2, upper=1.8).affine
    assert [scale * value + offset for value in (0, 100)] == pytest.approx([-0.2, 1.8])
    scale, offset = JointUnits("a", "range_m100_100", lower=1.0, upper=-1.0).affine
    assert [scale * value + offset for value in (-100, 0, 100)] == pytest.approx([1.0, 0.0, -1.0])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sign": 2.0}, "sign is 2; give 1 or -1"),
        ({"units": "range_0_100"}, "range_0_100 needs lower and upper"),
        ({"units": "range_0_100", "lower": 1.0, "upper": 1.0}, "two angles"),
    ],
)
def test_units_that_say_nothing_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        JointUnits("a", **given)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[: text.index("arm:")], "there is no section 'arm'"),
        (lambda text: text.replace("{name: wrist_roll, units", "{name: wrist, units"), "arm.joints are shoulder_pan"),
        (lambda text: text.replace("units: range_0_100", "units: percent"), "must be of 'degrees'"),
        (lambda text: text.replace("rest: []", "rest: [0, 0]"), "rest has 2 angles, there are 6"),
        (lambda text: text.replace("rest: []", "rest: [0, -3, 0, 0, 0, 0]"), "shoulder_lift = -3 rad is outside"),
        (lambda text: text.replace("  port:", "  ports:"), "did you mean 'port'"),
        (lambda text: text.replace("max_velocity: [1.5, ", "max_velocity: ["), "arm.max_velocity has 5 values"),
        (lambda text: text.replace("max_acceleration:", "#"), "arm.max_acceleration has 0 values"),
        (lambda text: text.replace("max_velocity: [1.5", "max_velocity: [-1.5"), "give finite numbers above 0"),
        (lambda text: text.replace("urdf:", "#"), "has a box but no urdf"),
        (lambda text: text.replace("box_upper: [0.48", "box_upper: [-0.48"), "give x, y, z of two corners"),
    ],
)
def test_a_section_that_does_not_fit_says_so(tmp_path, change, says):
    path = tmp_path / "contract.yaml"
    path.write_text(change(FILE.read_text()))
    with pytest.raises(ValueError, match=says):
        load_arm(path, CONTRACT)


def test_without_limits_no_arm_is_driven():
    contract = dataclasses.replace(CONTRACT, lower=(), upper=(), max_step=())
    with pytest.raises(ValueError, match="there are no limits, so no arm moves by it; give lower, upper and max_step"):
        load_arm(FILE, contract)


def test_the_shipped_section_is_the_published_descriptions():
    config = load_arm(FILE, CONTRACT)
    assert {joint.affine for joint in config.joints[:5]} == {(np.pi / 180, 0.0)}
    scale, offset = config.joints[5].affine
    assert (offset, 100 * scale + offset) == pytest.approx((CONTRACT.lower[5], CONTRACT.upper[5]))
    assert config.urdf == str(FILE.parent / "so101.urdf") and config.box_lower[2] > 0


def test_the_section_of_the_emulated_arm_is_read_without_a_box():
    file = FILE.parent / "so100_bus.yaml"
    config = load_arm(file, load_yaml(file, RobotContract, (SECTION,)))
    assert len(config.max_velocity) == len(config.max_acceleration) == 6 and config.box_lower == () and not config.urdf
