# SPDX-License-Identifier: Apache-2.0
"""Section ``ros2_control`` of a robot contract's file, and which section says how an arm is driven."""

from __future__ import annotations

from pathlib import Path

import pytest
from so101 import CONTRACT as PLAIN  # type: ignore[import-not-found]
from so101 import FILE as ARM_FILE  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTIONS, ControllerConfig, driven_by, load_arm, load_control
from lrm_ros.config_files import load_yaml

FILE = Path(__file__).parents[1] / "config" / "ros2_control.yaml"
CONTRACT = load_yaml(FILE, RobotContract, SECTIONS)


def test_the_shipped_section_is_the_shipped_arms():
    config, arm = load_control(FILE, CONTRACT), load_arm(ARM_FILE, PLAIN)
    assert CONTRACT == PLAIN
    for name in ("max_velocity", "max_acceleration", "box_lower", "box_upper", "points", "urdf"):
        assert getattr(config, name) == getattr(arm, name), name
    assert config.joints == CONTRACT.joints and config.grippers == ("gripper",)
    assert [controller.type for controller in config.controllers] == ["joint_trajectory", "position"]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("ros2_control:\n", "ros2_controls:\n", "there is no section 'ros2_control'.*copy it from config/ros2_con"),
        ("joints: [gripper]}", "joints: []}", "'gripper_controller' has no joints; list its parameter joints"),
        ("joints: [gripper]}", "joints: [wrist_roll]}", "joint wrist_roll is there twice"),
        ("wrist_flex, wrist_roll]\n    - ", "wrist_flex]\n    - ", "no controller has joint wrist_roll; the"),
        ("joints: [gripper]}", "joints: [gripper, jaw]}", "joint jaw is not one of shoulder_pan.*allow_partial_joints"),
        ("  joints: []", "  joints: [a, b]", "joints has 2 names, there are 6 joints"),
        ("  joints: []", "  joints: [a, a, b, c, d, e]", "joint a is there twice"),
        ("type: position", "type: forward", "must be of 'joint_trajectory', 'position', got 'forward'"),
        ("name: gripper_controller", "name: the gripper", "a controller is called 'the gripper'; give its name"),
        ("grippers: [gripper]", "grippers: [jaw]", "grippers: jaw is no joint"),
        ("follow_tolerance: 0.3", "follow_tolerance: 0", "follow_tolerance: must be from 0.01 to 10.0"),
        ("max_velocity: [1.5, ", "max_velocity: [", "max_velocity has 5 values, there are 6"),
        ("urdf: so101.urdf", "urdf: ''", "has a box but no urdf"),
    ],
)
def test_a_section_that_does_not_fit_says_so(tmp_path, before, after, says):
    text = FILE.read_text()
    assert text.count(before) == 1
    path = tmp_path / "contract.yaml"
    path.write_text(text.replace(before, after))
    with pytest.raises(ValueError, match=says):
        load_control(path, CONTRACT)


def test_a_name_with_a_namespace_is_a_name():
    assert ControllerConfig("/left/arm_controller", joints=("a",)).name == "/left/arm_controller"


def test_one_section_says_how_the_arm_is_driven(tmp_path):
    assert (driven_by(ARM_FILE), driven_by(FILE)) == ("arm", "ros2_control")
    both = tmp_path / "both.yaml"
    text = ARM_FILE.read_text()
    both.write_text(FILE.read_text() + text[text.index("\narm:") :])
    with pytest.raises(ValueError, match="sections arm and ros2_control both say how the arm is driven; leave one"):
        driven_by(both)
    with pytest.raises(ValueError, match=r"no section 'arm'.*or 'ros2_control' from config/ros2_control\.yaml"):
        driven_by(FILE.parent / "so100.yaml")
