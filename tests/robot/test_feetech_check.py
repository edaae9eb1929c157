# SPDX-License-Identifier: Apache-2.0
"""What is refused before an arm moves: each fault of an emulated SO-101 is one line with its cure."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from servo_buses import JOINTS, needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import CONTRACT, calibrate, follower, patiently, settings  # type: ignore[import-not-found]

from lrm_ros.robot.lerobot_arm import LeRobotArm


@pytest.fixture(autouse=True)
def _switch_soon():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def server(tmp_path, monkeypatch):
    patiently(monkeypatch)
    with follower(tmp_path) as running:
        yield running


@pytest.fixture
def config(server, tmp_path):
    return settings(server.ports["follower"].path, tmp_path)


@pytest.fixture
def servos(server):
    return server.buses["follower"].arm.servos


def refused(config, contract=CONTRACT) -> str:
    arm = LeRobotArm(config, contract)
    with pytest.raises(ValueError) as info:
        arm.connect()
    arm.close()
    text = str(info.value)
    assert "\n" not in text, "one line"
    return text


@needs_driver
def test_a_port_that_is_not_there(tmp_path, server):
    assert "serial port '/dev/none' does not exist; there" in refused(settings("/dev/none", tmp_path))
    assert "no serial port is given" in refused(settings("", tmp_path))
    other = tmp_path / "file"
    other.touch()
    assert "no connection with the arm" in refused(settings(str(other), tmp_path))


@needs_driver
def test_servos_that_are_missing(config, servos):
    servos[2].connected = servos[4].connected = False
    assert "no answer of elbow_flex (id 3), wrist_roll (id 5); check the cable" in refused(config)
    for servo in servos:
        servo.connected = False
    assert "no servo answers" in refused(config)


@needs_driver
def test_servos_of_another_kind(config, servos):
    servos[3].memory.save("Model_Number", 1029)
    assert "servo 4 (wrist_flex)" in refused(config)
    servos[3].memory.save("Model_Number", 777)
    servos[1].memory.save("Firmware_Minor_Version", 9)
    assert "shoulder_pan 3.10, shoulder_lift 3.9" in refused(config)


@needs_driver
def test_a_calibration_that_is_missing_or_another(config, server, servos, tmp_path):
    servos[0].memory.save("Homing_Offset", 77)
    assert "shoulder_pan is calibrated otherwise than its file says" in refused(config)
    path = tmp_path / "follower.json"
    path.unlink()
    text = refused(config)
    assert f"'{path}' does not exist; calibrate the arm ('lerobot-calibrate --robot.type=so101_follower" in text


@needs_driver
def test_a_range_that_does_not_reach_the_limits(config, server, tmp_path):
    calibrate(server, tmp_path, margin=-0.3)
    assert "shoulder_pan is calibrated from -1.62 to 1.62 rad, the contract's limits are -1.91986" in refused(config)


@needs_driver
def test_a_wrong_supply_and_errors_that_stay(config, server, servos):
    server.buses["follower"].arm.supply = 12.0
    wait_until(lambda: servos[0].memory["Present_Voltage"] > 115, "felt")
    assert "shoulder_pan has 12.0 V, allowed are 4.0 to 8.0 V" in refused(config)
    server.buses["follower"].arm.supply = 7.4
    wait_until(lambda: not any(servo.memory["Status"] for servo in servos), "good again")
    servos[5].trip_overload()
    servos[1].forced_temperature = 85.0
    wait_until(lambda: servos[1].memory["Status"], "hot")
    text = refused(config)
    assert "shoulder_lift heat; gripper overload (shoulder_lift 85 degrees)" in text and "power off and on" in text


@needs_driver
def test_a_refused_arm_keeps_its_torque_as_it_was(config, servos, server):
    arm = LeRobotArm(config, CONTRACT)
    arm.connect()
    arm.close()
    servos[5].trip_overload()
    refused(config)
    assert [servo.memory["Torque_Enable"] for servo in servos] == [1] * 6


@needs_driver
def test_a_contract_of_another_robot(config):
    other = dataclasses.replace(CONTRACT, joints=(*JOINTS[:5], "claw"))
    assert "has joints shoulder_pan" in refused(config, other)
