# SPDX-License-Identifier: Apache-2.0
"""A robot of LeRobot's without Feetech's servos, as a plugin has one: the same arm, without what is Feetech's."""

from __future__ import annotations

import numpy as np
import plain_robot  # type: ignore[import-not-found]  # noqa: F401
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ArmConfig, JointUnits
from lrm_ros.robot.arm import NotSent
from lrm_ros.robot.lerobot_arm import LeRobotArm

CONTRACT = RobotContract("plain", ("a", "b"), (-1.0, 0.0), (1.0, 0.1), (0.1, 0.1))


def config(tmp_path, options: str = "") -> ArmConfig:
    joints = (JointUnits("a", zero=0.1), JointUnits("b", "range_0_100", lower=0.0, upper=0.1))
    return ArmConfig(type="plain_arm", id="mine", calibration_dir=str(tmp_path), options=options, joints=joints)


def test_it_is_an_arm_in_rad(tmp_path):
    arm = LeRobotArm(config(tmp_path, "speed=2.5"), CONTRACT)
    arm.connect()
    assert arm._robot.config.speed == 2.5 and arm.servos is None and arm.contract == CONTRACT
    assert arm._robot.config.disable_torque_on_disconnect is False
    assert arm.read()[1] == pytest.approx([np.pi / 2 + 0.1, 0.05])
    arm.send(np.array([0.1, 0.1], np.float32))
    assert arm._robot.at == pytest.approx({"a.pos": 0.0, "b.pos": 100.0}, abs=1e-5)
    assert arm.poll() == arm.checked() == ""
    with pytest.raises(ValueError, match="'plain_arm' cannot be told to switch its torque off"):
        arm.torque_off()
    robot = arm._robot
    arm.close()
    assert not robot.is_there and not arm.connected


def test_one_that_is_not_calibrated_is_refused(tmp_path):
    arm = LeRobotArm(config(tmp_path, "calibrated=false"), CONTRACT)
    with pytest.raises(ValueError, match="with id 'mine' is not calibrated; run 'lerobot-calibrate"):
        arm.connect()
    assert not arm.connected


@pytest.mark.parametrize("error", [None, IndexError("list index out of range"), RuntimeError("bad packet")])
def test_what_its_driver_reads_wrongly_is_a_read_that_failed_and_no_position(tmp_path, monkeypatch, error):
    arm = LeRobotArm(config(tmp_path), CONTRACT)
    arm.connect()

    def read():
        if error is not None:
            raise error
        return {"a.pos": float("nan"), "b.pos": 50.0}

    monkeypatch.setattr(arm._robot, "get_observation", read)
    with pytest.raises(ConnectionError, match=str(error or "reads a.pos = nan")):
        arm.read()
    assert arm.unsure and arm.connected
    monkeypatch.undo()
    assert arm.read()[1] == pytest.approx([np.pi / 2 + 0.1, 0.05])


@pytest.mark.parametrize("error", [ConnectionError("no status packet"), RuntimeError("bad packet")])
def test_a_target_that_its_driver_does_not_send_is_named(tmp_path, monkeypatch, error):
    arm = LeRobotArm(config(tmp_path), CONTRACT)
    arm.connect()

    def send(action):
        raise error

    monkeypatch.setattr(arm._robot, "send_action", send)
    with pytest.raises(NotSent, match=str(error)):
        arm.send(np.array([0.1, 0.1], np.float32))
    assert arm.connected and arm.read()[1] == pytest.approx([np.pi / 2 + 0.1, 0.05])
