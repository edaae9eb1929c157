# SPDX-License-Identifier: Apache-2.0
"""Zeros, signs and ranges: what LeRobot's calibration finds on the emulated SO-101, and that a driver takes it."""

from __future__ import annotations

import json
import math

import pytest
from servo_buses import JOINTS, needs_driver, patient, wait_until  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.calibration import HOME, calibration, preset, so101, write
from lrm_ros.sim.servo_bus.joints import SO101
from lrm_ros.sim.servo_bus.server import Server

# Of the published URDF, TheRobotStudio/SO-ARM100: Simulation/SO101/so101_new_calib.urdf at commit 385e8d7.
LIMITS = {
    "shoulder_pan": (-1.91986, 1.91986),
    "shoulder_lift": (-1.74533, 1.74533),
    "elbow_flex": (-1.69, 1.69),
    "wrist_flex": (-1.65806, 1.65806),
    "wrist_roll": (-2.74385, 2.84121),
    "gripper": (-0.174533, 1.74533),
}


def at(arm: Arm, joint: str, angle: float) -> int:
    """Put a joint somewhere and return Present_Position."""
    arm.joints.place(joint, angle)  # type: ignore[attr-defined]
    arm.step(0.0)
    return arm.servos[JOINTS.index(joint)].memory["Present_Position"]


def test_the_mechanical_stops_are_those_of_the_published_urdf():
    assert {joint.name: (joint.low, joint.high) for joint in SO101} == LIMITS


@pytest.mark.parametrize("joint", JOINTS)
def test_a_calibrated_joint_reads_its_middle_and_its_ends_where_the_calibration_says(joint):
    arm = so101()
    values = calibration(arm.servos)
    preset(arm.servos, values)
    low, high = LIMITS[joint]
    assert at(arm, joint, (low + high) / 2) == HOME
    ends = at(arm, joint, low), at(arm, joint, high)
    wanted = [values[joint][name] for name in ("range_min", "range_max")]
    if joint != "wrist_roll":
        assert ends == pytest.approx(wanted, abs=1)
    assert wanted[0] <= ends[0] < HOME < ends[1] <= wanted[1], "it counts up where the angle grows, and never wraps"
    arm.brown_out(0.0)
    assert at(arm, joint, (low + high) / 2) == HOME, "kept without power"


def test_encoders_of_an_arm_that_is_not_calibrated_stand_anywhere():
    arm = so101()
    assert len({at(arm, joint, 0.0) for joint in JOINTS}) == len(JOINTS)
    assert at(arm, "elbow_flex", LIMITS["elbow_flex"][1]) < at(arm, "elbow_flex", 0.0), "past the end of its turn"


@needs_driver
def test_the_driver_connects_without_a_question_and_reads_degrees_of_the_urdf(tmp_path, monkeypatch):
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    def ask(*_: object) -> str:
        raise AssertionError("the driver asked")

    monkeypatch.setattr("builtins.input", ask)
    bus = Bus(so101())
    values = calibration(bus.arm.servos)
    preset(bus.arm.servos, values)
    path = write(values, tmp_path, "mine")
    assert json.loads(path.read_text()) == values
    with Server({"arm": bus}) as server:
        config = SO101FollowerConfig(
            port=server.ports["arm"].path, id="mine", calibration_dir=tmp_path, use_degrees=True
        )
        robot = SO101Follower(config)
        patient(robot.bus)
        robot.connect()
        try:
            robot.send_action({f"{joint}.pos": 0.0 for joint in JOINTS})
            low, high = LIMITS["gripper"]

            def as_the_urdf_says() -> bool:
                seen = robot.get_observation()
                with server.lock:
                    angles = [state.position for state in bus.arm.joints.states()]
                angles[4] -= sum(LIMITS["wrist_roll"]) / 2
                wanted = [math.degrees(angle) for angle in angles[:5]] + [100 * (angles[5] - low) / (high - low)]
                pairs = zip(JOINTS, wanted, strict=True)
                near = all(abs(seen[f"{joint}.pos"]) < 4 for joint in JOINTS)
                return near and all(abs(seen[f"{joint}.pos"] - value) < 0.2 for joint, value in pairs)

            wait_until(as_the_urdf_says, "at zero, with each joint at the angle that the driver reads")
        finally:
            robot.disconnect()
