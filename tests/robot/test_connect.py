# SPDX-License-Identifier: Apache-2.0
"""An arm that is there is connected to, though a busy host lets an answer come too late."""

from __future__ import annotations

import numpy as np
import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]
from so101 import CONTRACT, angles, follower, patiently, settings  # type: ignore[import-not-found]

from lrm_ros.robot import lerobot_arm
from lrm_ros.robot.feetech import ATTEMPTS
from lrm_ros.robot.lerobot_arm import AGAIN_S, LeRobotArm
from lrm_ros.sim.servo_bus.faults import Fault

ALL = ATTEMPTS * (len(AGAIN_S) + 1)


@needs_driver
@pytest.mark.parametrize("lost", [1, ATTEMPTS - 1, ATTEMPTS, ALL])
def test_a_lost_answer_while_it_connects_is_no_missing_servo(tmp_path, monkeypatch, lost):
    patiently(monkeypatch)
    make, tries = lerobot_arm.make_robot, []

    def made(config):
        robot = make(config)
        connect = robot.connect

        def lossy(**options):
            tries.append(1)
            if len(tries) <= lost:
                wire.set(Fault("silent", 1))
            return connect(**options)

        robot.connect = lossy
        return robot

    monkeypatch.setattr(lerobot_arm, "make_robot", made)
    with follower(tmp_path) as server:
        wire = server.buses["follower"].wire
        arm = LeRobotArm(settings(server.ports["follower"].path, tmp_path), CONTRACT)
        if lost == ALL:
            with pytest.raises(ValueError, match=r"no connection with the arm .* Missing motor IDs"):
                arm.connect()
        else:
            arm.connect()
            np.testing.assert_allclose(arm.read()[1], angles(server), atol=0.02)
        assert len(tries) == min(lost + 1, ALL)
        arm.close()


@needs_driver
@pytest.mark.parametrize("times", [1, ALL])
def test_an_answer_that_feetechs_ping_takes_for_another_is_one_line_at_most(tmp_path, monkeypatch, times):
    """It reads the model number from whatever comes, also from an answer without data: an IndexError."""
    patiently(monkeypatch)
    make, tries = lerobot_arm.make_robot, []

    def made(config):
        robot = make(config)
        connect = robot.connect

        def odd(**options):
            tries.append(1)
            if len(tries) <= times:
                robot.bus.connect(handshake=False)
                raise IndexError("list index out of range")
            return connect(**options)

        robot.connect = odd
        return robot

    monkeypatch.setattr(lerobot_arm, "make_robot", made)
    with follower(tmp_path) as server:
        arm = LeRobotArm(settings(server.ports["follower"].path, tmp_path), CONTRACT)
        if times == ALL:
            with pytest.raises(ValueError, match=r"no connection with the arm .* IndexError"):
                arm.connect()
        else:
            arm.connect()
            np.testing.assert_allclose(arm.read()[1], angles(server), atol=0.02)
        arm.close()


@needs_driver
@pytest.mark.parametrize("changed", [None, ("P_Coefficient", 40), ("Torque_Enable", 0)])
def test_an_arm_that_holds_with_the_drivers_settings_goes_on_holding(tmp_path, monkeypatch, changed):
    """The driver switches the torque off while it writes its settings: an arm in the air sags."""
    patiently(monkeypatch)
    with follower(tmp_path) as server:
        path = server.ports["follower"].path
        LeRobotArm(settings(path, tmp_path), CONTRACT).connect()  # as by a program that was killed
        servo = server.buses["follower"].arm.servos[1]
        if changed:
            name, value = changed
            servo.memory[name] = value
        off = 0
        write = servo._write

        def watched(address, data):
            nonlocal off
            write(address, data)
            off += not servo.memory["Torque_Enable"]

        servo._write = watched
        arm = LeRobotArm(settings(path, tmp_path), CONTRACT)
        arm.connect()
        assert bool(off) == (changed == ("P_Coefficient", 40)), "a servo without torque gets it by its goal"
        assert servo.memory["Torque_Enable"] == 1 and servo.memory["P_Coefficient"] == 16
        np.testing.assert_allclose(arm.read()[1], angles(server), atol=0.02)
        arm.close()
