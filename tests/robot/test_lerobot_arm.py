# SPDX-License-Identifier: Apache-2.0
"""LeRobot's real driver of an emulated SO-101 as our arm: angles, motion, and what is never silent."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
from servo_buses import JOINTS, TIME_OUT, needs_driver, wait_until  # type: ignore[import-not-found]
from so101 import CONTRACT, angles, calibrate, follower, patiently, settings  # type: ignore[import-not-found]

from lrm_ros.config_arm import ArmConfig
from lrm_ros.robot.feetech import error_names
from lrm_ros.robot.lerobot_arm import LeRobotArm, PortLost, make_robot
from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.faults import Fault

STEP = 2 * np.pi / 4096


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
def arm(config):
    arm = LeRobotArm(config, CONTRACT)
    arm.connect()
    yield arm
    arm.close()


@pytest.fixture
def servos(server):
    return server.buses["follower"].arm.servos


@pytest.fixture
def wire(server):
    return server.buses["follower"].wire


@needs_driver
def test_another_type_and_unknown_options_say_what_there_is():
    with pytest.raises(ValueError, match=r"LeRobot knows no robot 'so102'; arm.type is one of .*so101_follower"):
        make_robot(ArmConfig(type="so102", port="x"))
    with pytest.raises(ValueError, match=r"'gain=3' is no option of 'so101_follower'; .*position_p_coefficient"):
        make_robot(ArmConfig(port="x", options="gain=3"))
    with pytest.raises(ValueError, match=r"'position_p_coefficient=012': 012 is the number 10 to YAML .*10 or 12"):
        make_robot(ArmConfig(port="x", options="position_p_coefficient=012"))


@needs_driver
@pytest.mark.parametrize("kind", ["koch_follower", "omx_follower"])
def test_arms_with_dynamixels_servos_have_the_joints_and_units_of_the_so101s_section(kind, tmp_path):
    """Constructed, and no more: there is no emulator of their servos."""
    pytest.importorskip("dynamixel_sdk")
    robot = make_robot(settings("/dev/ttyUSB0", tmp_path, type=kind, id="koch"))
    assert tuple(key.removesuffix(".pos") for key in robot.action_features) == CONTRACT.joints
    units = [robot.bus.motors[joint].norm_mode.value for joint in CONTRACT.joints]
    assert units == [joint.units for joint in settings("", tmp_path).joints]


@needs_driver
@pytest.mark.skipif(find_spec("dynamixel_sdk") is not None, reason="it is installed")
def test_a_type_whose_driver_is_not_installed_says_what_to_install(tmp_path):
    with pytest.raises(ValueError, match=r"LeRobot's driver of 'koch_follower' is not installed: .*dynamixel"):
        make_robot(settings("/dev/ttyUSB0", tmp_path, type="koch_follower"))


# -- motion --------------------------------------------------------------------------------------------------------


@needs_driver
def test_it_is_where_the_joints_are_and_goes_where_it_is_sent(arm, server, servos):
    assert arm.read()[1] == pytest.approx(angles(server), abs=2 * STEP)
    assert [servo.memory["Torque_Enable"] for servo in servos] == [1] * 6
    target = np.array([0.5, -0.4, 0.3, -0.2, 1.0, 1.2], np.float32)
    arm.send(target)
    wait_until(lambda: np.abs(arm.read()[1] - target).max() < 0.06, "there, but for what gravity takes")
    assert arm.read()[1] == pytest.approx(angles(server), abs=2 * STEP)
    wanted = [2048 + angle / STEP for angle in target]
    assert [servo.memory["Goal_Position"] for servo in servos] == pytest.approx(wanted, abs=2)


@needs_driver
def test_stamps_are_of_the_measurement(arm):
    before = time.time_ns()
    stamp_ns, _ = arm.read()
    assert before <= stamp_ns <= time.time_ns()


@needs_driver
def test_closed_it_holds_and_with_torque_off_it_does_not(arm, servos, config):
    arm.close()
    assert [servo.memory["Torque_Enable"] for servo in servos] == [1] * 6
    with pytest.raises(PortLost):
        arm.read()
    arm.reconnect()
    servos[5].trip_overload()  # LeRobot's own disconnect raises at this one and leaves the port open
    arm.close(torque_off=True)
    assert [servo.memory["Torque_Enable"] for servo in servos] == [0] * 6


@needs_driver
def test_limits_are_those_that_the_calibration_leaves(server, tmp_path, config):
    calibrate(server, tmp_path, margin=-0.05)
    arm = LeRobotArm(config, CONTRACT)
    arm.connect()
    assert arm.contract.upper[0] == pytest.approx(CONTRACT.upper[0] - 0.05, abs=0.002)
    assert arm.contract.upper[4:] == CONTRACT.upper[4:]
    arm.close()


# -- what is never silent --------------------------------------------------------------------------------------------


def goals_as_positions(server, value: int) -> None:
    """Put every joint to the angle of a step, so that what is read tells when it was so."""
    with server.lock:
        arm = server.buses["follower"].arm
        for joint in JOINTS:
            arm.joints.place(joint, (value - 2048) * STEP)
        arm._feel()


@needs_driver
@pytest.mark.parametrize("answers", [1, 3, 6])
def test_after_a_late_answer_every_state_is_that_of_its_moment(arm, server, wire, servos, answers):
    """The plain driver is one read behind from then on: test_faults.py of the emulator shows it."""
    arm.torque_off()
    wire.set(Fault("late", answers, seconds=TIME_OUT + 0.03))  # as 80 ms are with the driver's own 50 ms
    for value in range(2000, 2040):
        goals_as_positions(server, value)
        before = angles(server)
        found = arm.read()[1]
        after = angles(server)
        for joint, (low, high) in enumerate(zip(before, after, strict=True)):
            assert min(low, high) - 2 * STEP <= found[joint] <= max(low, high) + 2 * STEP, (value, JOINTS[joint])
    assert wire.struck == answers and arm.unsure
    assert arm.checked().startswith("torque off"), "as this test has it"


@needs_driver
def test_answers_that_come_unasked_between_two_reads_are_thrown_away(arm, server, wire):
    bus = arm._robot.bus
    wire.set(Fault("late", 6, seconds=2 * TIME_OUT))
    with pytest.raises(ConnectionError):
        bus.sync_read("Homing_Offset")  # past our guard
    wait_until(lambda: bus.port_handler.getBytesAvailable() >= 6 * 8, "there, too late")
    assert arm.read()[1] == pytest.approx(angles(server), abs=3 * STEP)
    assert arm.servos.late


@needs_driver
def test_answers_that_come_during_a_later_read_are_passed_over(arm, server, wire):
    """Those of the later read are late, too: the plain driver takes the earlier ones for them."""
    arm.torque_off()
    goals_as_positions(server, 2000)
    late = TIME_OUT + 0.1
    wire.set(Fault("late", 6, seconds=late))
    began = time.monotonic()
    observe = arm._robot.get_observation
    tries = []

    def second_try_later():
        tries.append(1)
        if len(tries) == 2:
            goals_as_positions(server, 2300)
            wait_until(lambda: time.monotonic() > began + late - 0.05, "soon")
            wire.set(Fault("late", 6, seconds=0.2))
        return observe()

    arm._robot.get_observation = second_try_later
    assert arm.read()[1][[0, 4]] == pytest.approx(np.array(angles(server))[[0, 4]], abs=3 * STEP), "they do not fall"
    assert arm.servos.late == 1, "the first one tells"


@needs_driver
def test_a_read_that_failed_is_not_repeated_with_the_same_length_while_its_answers_may_come(arm, server, wire):
    seen = server.buses["follower"].seen

    def lengths() -> list[int]:
        return [packet.parameters[1] for packet in seen if packet.instruction == protocol.SYNC_READ]

    arm.read()
    del seen[:]
    arm.read()
    assert lengths() == [3], "one byte more than the position, as long as all is well"
    wire.set(Fault("silent", 1, id=1))
    arm.read()
    arm.read()
    assert lengths() == [3, 3, 4, 4]


@needs_driver
@pytest.mark.parametrize("kind", ["lost", "corrupt", "silent"])
def test_damaged_answers_are_read_again(arm, server, wire, kind):
    for _ in range(8):
        wire.set(Fault(kind, 1))
        assert arm.read()[1] == pytest.approx(angles(server), abs=3 * STEP)
    assert wire.struck == 8


@needs_driver
def test_silence_raises_and_is_over_when_it_is_over(arm, server, wire):
    wire.set(Fault("silent"))
    with pytest.raises(ConnectionError):
        arm.read()
    assert arm.unsure
    wire.clear()
    assert arm.read()[1] == pytest.approx(angles(server), abs=3 * STEP)
    assert arm.checked() == "" and not arm.unsure, "the power was there"


@needs_driver
def test_a_brown_out_is_found_also_when_a_goal_has_switched_the_torque_on_again(arm, server, servos):
    assert [arm.poll() for _ in range(9)] == [""] * 9
    with server.lock:
        server.buses["follower"].arm.brown_out(0.01)
    wait_until(lambda: server.buses["follower"].arm.powered, "powered again")
    arm.read()
    assert arm.checked() == f"torque off at {', '.join(JOINTS)}"
    arm.send(arm.read()[1])
    wait_until(lambda: servos[0].memory["Torque_Enable"] == 1, "on by itself")
    assert arm.checked() == f"settings lost at {', '.join(JOINTS)}"
    assert "settings lost" in arm.poll() + arm.poll() + arm.poll()
    arm.reconnect()
    assert arm.checked() == ""


@needs_driver
def test_the_servos_say_how_they_are(arm, server, servos):
    with server.lock:
        servos[1].forced_temperature = 60.0
        server.buses["follower"].arm.supply = 7.0

    def felt() -> bool:
        for _ in range(9):
            arm.poll()
        health = arm.servos.health
        return health.celsius["shoulder_lift"] == 60 and abs(health.volts["gripper"] - 7.0) < 0.2

    wait_until(felt, "felt")
    health = arm.servos.health
    assert set(health.load) == set(JOINTS) and all(abs(load) <= 1 for load in health.load.values())
    assert set(health.errors.values()) == {0}


@needs_driver
def test_error_bits_come_with_every_state(arm, servos):
    servos[5].trip_overload()
    arm.read()
    assert arm.servos.health.errors["gripper"] == protocol.OVERLOAD
    assert error_names(36) == "heat, overload" and error_names(64) == "error 64"


@needs_driver
def test_unplugged_it_is_named_and_it_comes_back_under_its_name_only(arm, server, tmp_path):
    server.unplug("follower")
    for call in (arm.read, lambda: arm.send(np.zeros(6, np.float32)), arm.checked):
        with pytest.raises(PortLost, match=r"is gone .*plug the arm in, then call service"):
            call()
    with pytest.raises(ValueError, match="does not exist"):
        arm.reconnect()
    path = server.plug("follower", tmp_path / "again")
    again = LeRobotArm(settings(path, tmp_path), CONTRACT)
    again.connect()
    assert again.read()[1] == pytest.approx(angles(server), abs=3 * STEP)
    again.close()
