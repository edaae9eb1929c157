# SPDX-License-Identifier: Apache-2.0
"""LeRobot's real leader class on an emulated bus: angles in rad, told apart from the follower, and what it lacks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from servo_buses import needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import CONTRACT, FILE, angles, leader_and_follower, patiently, place  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract, TeleopConfig
from lrm_ros.config_arm import load_arm
from lrm_ros.robot.devices.hand import Hand
from lrm_ros.robot.devices.input_thread import InputThread
from lrm_ros.robot.devices.lerobot_input import LeRobotInput, Motion
from lrm_ros.robot.so100.jog import Jog

UNITS = load_arm(FILE, CONTRACT).joints
HOME = np.array([0.2, -0.5, 0.5, 0.3, 0.4, 0.5], np.float32)


@pytest.fixture
def server(tmp_path, monkeypatch):
    patiently(monkeypatch)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    with leader_and_follower(tmp_path) as running:
        yield running
    sys.setswitchinterval(interval)


@pytest.fixture
def config(server, tmp_path):
    port = server.ports["leader"].path
    return TeleopConfig("so101_leader", port, "leader", str(tmp_path))


@needs_driver
def test_a_leader_is_read_in_rad_and_has_no_torque(server, config):
    leader = LeRobotInput(config, CONTRACT, UNITS)
    for _ in range(2):  # the first time it gets its settings; then it has them all
        for servo in server.buses["leader"].arm.servos:
            servo.memory["Torque_Enable"] = 1
        leader.close()
        leader.connect()
    for sign in (1, -1):
        place(server, sign * HOME)
        assert leader.read().joints == pytest.approx(np.array(angles(server, "leader")), abs=0.01)
    assert not any(servo.memory["Torque_Enable"] for servo in server.buses["leader"].arm.servos)
    leader.close()
    leader.close()


@needs_driver
def test_swapped_ports_of_leader_and_follower_are_named_by_their_calibrations(server, config, tmp_path):
    swapped = TeleopConfig("so101_leader", server.ports["follower"].path, "leader", str(tmp_path))
    named = r"is calibrated as '.*follower\.json' says.*are the ports of leader and follower swapped"
    with pytest.raises(ValueError, match=named):
        LeRobotInput(swapped, CONTRACT, UNITS).connect()


@needs_driver
@pytest.mark.parametrize(
    ("given", "units", "said"),
    [
        ({"input_id": "other"}, UNITS, r"other\.json' does not exist; calibrate the arm.*--teleop.type=so101_leader"),
        ({"input_port": "/dev/none"}, UNITS, "serial port '/dev/none' does not exist"),
        ({"input_port": ""}, UNITS, "set input_port:=PATH"),
        ({}, (), "nothing says what the numbers of leader 'so101_leader' are in rad"),
        ({"input_options": "gain=3"}, UNITS, "input_options: 'gain=3' is no option of 'so101_leader'"),
    ],
)
def test_what_a_leader_lacks_is_said_with_the_cure(config, given, units, said):
    import dataclasses

    with pytest.raises(ValueError, match=said):
        LeRobotInput(dataclasses.replace(config, **given), CONTRACT, units).connect()


@needs_driver
def test_a_leader_of_other_joints_than_the_arms_is_refused(config):
    other = RobotContract("arm", ("a", "b"), (-1, -1), (1, 1), (0.1, 0.1))
    with pytest.raises(ValueError, match="a leader has the joints of its arm"):
        LeRobotInput(config, other, UNITS).connect()


@needs_driver
def test_a_leader_that_is_pulled_out_is_named_and_read_again_once_it_is_back(server, config, tmp_path, monkeypatch):
    monkeypatch.setattr("lrm_ros.robot.devices.input_thread.AGAIN_S", 0.01)
    link = tmp_path / "leader"
    link.symlink_to(config.input_port)
    import dataclasses

    thread = InputThread(
        LeRobotInput(dataclasses.replace(config, input_port=str(link)), CONTRACT, UNITS), rate_hz=100.0
    )
    thread.start()
    wait_until(lambda: thread.take(1.0) is not None, "read")
    server.unplug("leader")
    link.unlink()
    wait_until(lambda: "does not exist" in thread.fault, "named")
    assert thread.take(10.0) is None
    link.symlink_to(server.plug("leader"))
    wait_until(lambda: thread.take(1.0) is not None and not thread.fault, "read again")
    assert thread.stop()


class Scripted:
    """What an input thread has read: as the test says."""

    fault = ""

    def __init__(self) -> None:
        self.motion: Motion | None = None

    def take(self, oldest_s: float) -> Motion | None:
        return self.motion


def test_a_leader_leads_only_once_it_is_where_the_arm_is():
    thread, contract = Scripted(), RobotContract()
    jog = Jog(contract)
    hand = Hand(thread, jog, contract)  # type: ignore[arg-type]
    pose, config = np.zeros(6, np.float32), TeleopConfig(align=0.15)

    def at(*joints: float) -> None:
        thread.motion = Motion(np.array(joints, np.float32))
        assert hand.follow(pose, config) == ((), "")

    at(0.0, 0.0, 0.5, 0.0, 0.0, 0.0)
    assert jog.target is None and hand.status() == "move the leader to the arm: elbow_flex is +0.50 rad off"
    at(0.0, 0.0, 0.14, 0.0, 0.0, 0.0)
    assert hand.leads and jog.target == pytest.approx([0, 0, 0.14, 0, 0, 0])
    jog.command()
    at(0.0, 0.0, 0.6, 0.0, 0.0, 0.0)  # no faster than the limiter allows in a command
    assert jog.target[2] == pytest.approx(0.14 + contract.max_step[2])
    assert hand.follow(None, config) == ((), "") and not hand.leads, "it may not move the arm"
    at(0.0, 0.0, 1.4, 0.0, 0.0, 0.0)
    assert not hand.leads, "it must come to the arm again"


def test_a_leader_that_leaps_is_not_followed_and_leads_again_from_where_the_arm_is():
    thread, contract, seconds = Scripted(), RobotContract(), [100.0]
    jog = Jog(contract)
    hand = Hand(thread, jog, contract, clock=lambda: seconds[0])  # type: ignore[arg-type]
    pose, config = np.zeros(6, np.float32), TeleopConfig(align=0.15)

    def after(passed_s: float, angle: float) -> str:
        """Read the leader with its fourth joint there; return what the person is told."""
        seconds[0] += passed_s
        thread.motion = Motion(np.array([0, 0, 0, angle, 0, 0], np.float32))
        return hand.follow(pose, config)[1]

    assert not after(0.0, 0.0) and hand.leads
    for passed_s, angle in ((0.033, 0.45), (0.033, 0.0), (1.0, 3.0), (0.5, 0.0)):  # quick, or long not read: a hand
        assert not after(passed_s, angle) and hand.leads
    jog.command()
    for leap in (0.6, -2 * np.pi):
        said = after(0.01, leap)
        assert f"wrist_flex leapt by {leap:+.2f} rad: the arm holds" in said
        assert not hand.leads and jog.target is None, "nothing is asked of the arm"
        assert not after(0.01, leap) and not hand.leads and "rad off" in hand.status()
        assert not after(0.01, 0.0) and hand.leads, "one misread angle interrupts no more than that"
        assert jog.target == pytest.approx(pose)


def test_a_device_that_says_nothing_any_more_lets_go(monkeypatch):
    thread, contract = Scripted(), RobotContract()
    jog = Jog(contract)
    hand = Hand(thread, jog, contract)  # type: ignore[arg-type]
    thread.motion = Motion(np.zeros(6, np.float32), held=True)
    hand.follow(np.zeros(6, np.float32), TeleopConfig())
    assert hand.leads and hand.held
    thread.motion = None
    monkeypatch.setattr("lrm_ros.robot.devices.hand.STALE_S", -1.0)  # instead of waiting
    hand.follow(np.zeros(6, np.float32), TeleopConfig())
    assert not hand.leads and jog.target is None and "has said nothing" in hand.status()
    assert hand.held is None, "nobody has let the button go, which would give the arm back"
