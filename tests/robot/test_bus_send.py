# SPDX-License-Identifier: Apache-2.0
"""What an arm's bus thread does when goals are not sent while reads go on."""

from __future__ import annotations

import time

import numpy as np
import plain_robot  # type: ignore[import-not-found]  # noqa: F401
import pytest

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import ArmConfig, ArmNodeConfig, EnvelopeSettings, JointUnits
from lrm_ros.robot.bus_work import BusWork
from lrm_ros.robot.envelope import Envelope
from lrm_ros.robot.lerobot_arm import LeRobotArm
from lrm_ros.types import ActionChunk

CONTRACT = RobotContract("plain", ("a", "b"), (-2.0, 0.0), (2.0, 0.1), (0.1, 0.1))
JOINTS = (JointUnits("a"), JointUnits("b", "range_0_100", lower=0.0, upper=0.1))
SETTINGS = EnvelopeSettings(max_velocity=(9.0, 9.0), max_acceleration=(10.0, 10.0))
FAR = np.array([[-1.0, 0.05]], np.float32)


class Listener:
    """Remembers faults, and counts joint states."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.states = 0

    def on_state(self, stamp_ns, position) -> None:
        self.states += 1

    def on_sent(self, stamp_ns, target) -> None: ...

    def on_command(self, seconds) -> None: ...

    def on_fault(self, key, message) -> None:
        self.faults[key] = message

    def on_good(self, key, message) -> None:
        self.faults.pop(key, None)


class Bus:
    """The work of the thread, cycle by cycle, with an arm that is where it was sent."""

    def __init__(self, folder) -> None:
        section = ArmConfig(type="plain_arm", id="mine", calibration_dir=str(folder), joints=JOINTS)
        arm, self.listener, self.cycle = LeRobotArm(section, CONTRACT), Listener(), 0
        arm.connect()
        # On a busy host a cycle may take long.
        config = ArmNodeConfig(state_timeout_s=60.0, approach_speed=1.0)
        self.work = BusWork(arm, CONTRACT, Envelope(CONTRACT, SETTINGS), lambda: config, self.listener)
        self.work.active = True
        self.robot = arm._robot

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.cycle += 1
            time.sleep(0.01)
            self.work._guard(lambda: self.work._step(self.cycle))

    def command(self) -> None:
        accepted = self.work.server.accept(ActionChunk(0, FAR, CONTRACT.dt_s), time.time_ns())
        self.work._given.append((accepted, time.perf_counter()))


@pytest.mark.parametrize("kind", [ConnectionError, RuntimeError])
def test_goals_that_are_not_sent_are_a_fault_and_afterwards_the_arm_stays(tmp_path, monkeypatch, kind):
    bus = Bus(tmp_path)
    bus.command()
    bus.steps(10)
    assert bus.robot.at["a.pos"] < 90.0, "it moves"

    def fail(action):
        raise kind("goals are not written")

    monkeypatch.setattr(bus.robot, "send_action", fail)
    held, states = dict(bus.robot.at), bus.listener.states
    bus.steps(3)
    bus.command()
    bus.steps(3)
    fault = bus.listener.faults["joint_command_sent"]
    assert "goals are not written" in fault and "check its power and cables" in fault
    assert bus.robot.at == held and bus.listener.states == states + 6, "reads go on"
    monkeypatch.undo()
    bus.steps(10)
    assert not bus.listener.faults and not bus.work.fault
    assert bus.robot.at == pytest.approx(held, abs=1e-3), "no command of before goes on"
    bus.command()
    bus.steps(10)
    assert bus.robot.at["a.pos"] < held["a.pos"] - 0.1
