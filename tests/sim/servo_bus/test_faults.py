# SPDX-License-Identifier: Apache-2.0
"""Each fault as LeRobot's real driver meets it: which exception, or what it reads without a word."""

from __future__ import annotations

import random
import termios

import pytest
from servo_buses import JOINTS, TIME_OUT, arms, driver, needs_driver, wait_until  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.faults import Fault, Wire
from lrm_ros.sim.servo_bus.protocol import status

NO_ANSWER = "There is no status packet!"


@pytest.fixture
def server():
    with arms("follower") as running:
        yield running


@pytest.fixture
def bus(server):
    """The real driver, connected; its motors have their torque."""
    with driver(server.ports["follower"].path) as connected:
        connected.connect()
        connected.enable_torque()
        yield connected


@pytest.fixture
def wire(server):
    return server.buses["follower"].wire


@pytest.fixture
def arm(server):
    return server.buses["follower"].arm


def positions(bus) -> dict[str, int]:
    return bus.sync_read("Present_Position", normalize=False)


# ---- the wire, without a bus -----------------------------------------------------------------------------------------


def test_each_fault_strikes_as_often_as_it_is_told_and_whom():
    wire = Wire()
    wire.set(Fault("silent", 2))
    assert [wire.carry(status(1, 0)) for _ in range(3)] == [(0.0, b""), (0.0, b""), (0.0, status(1, 0))]
    wire.set(Fault("late", seconds=0.2, id=3))
    assert wire.carry(status(1, 0)) == (0.0, status(1, 0))
    assert wire.carry(status(3, 0)) == (0.2, status(3, 0))
    wire.clear()
    wire.set(Fault("lost", 1))
    wire.set(Fault("corrupt"))
    assert len(wire.carry(status(1, 0))[1]) == 5
    for _ in range(50):
        arrived = wire.carry(status(1, 0))[1]
        wrong = [a ^ b for a, b in zip(arrived, status(1, 0), strict=True)]
        assert sum(each.bit_count() for each in wrong) == 1
    assert wire.struck == 55


def test_a_share_of_the_answers_is_struck_the_same_with_the_same_seed():
    def struck(seed: int) -> list[bool]:
        wire = Wire(seed)
        wire.set(Fault("silent", share=0.3))
        return [not wire.carry(status(1, 0))[1] for _ in range(1000)]

    assert struck(1) == struck(1) != struck(2)
    assert 250 < sum(struck(1)) < 350


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "slow"}, "no fault 'slow'; there are silent, late, lost, corrupt"),
        ({"kind": "lost", "count": 0}, "count is 0"),
        ({"kind": "lost", "share": 1.5}, "share is 1.5"),
        ({"kind": "late"}, "seconds is 0.0; it is above 0 for 'late'"),
        ({"kind": "lost", "seconds": 1.0}, "seconds is 1.0"),
    ],
)
def test_no_such_fault(given, says):
    with pytest.raises(ValueError, match=says):
        Fault(**given)


# ---- the driver ------------------------------------------------------------------------------------------------------


@needs_driver
def test_silence_is_a_connection_error_and_over_when_it_is_over(bus, wire):
    wire.set(Fault("silent"))
    with pytest.raises(ConnectionError, match=NO_ANSWER):
        positions(bus)
    with pytest.raises(ConnectionError, match=NO_ANSWER):
        bus.write("Acceleration", "gripper", 9)
    bus.sync_write("Goal_Position", dict.fromkeys(JOINTS, 2000), normalize=False)  # nobody would know
    assert bus.is_connected, "it only means that the port is open"
    wire.clear()
    assert bus.sync_read("Goal_Position", normalize=False) == dict.fromkeys(JOINTS, 2000)
    assert bus.read("Acceleration", "gripper") == 9, "the write without an answer was done"


@needs_driver
def test_one_silent_answer_is_mended_by_a_retry(bus, wire):
    wire.set(Fault("silent", 1, id=3))
    assert set(bus.sync_read("Present_Position", normalize=False, num_retry=2)) == set(JOINTS)
    assert wire.struck == 1


@needs_driver
@pytest.mark.parametrize("retries", [0, 2])
def test_after_a_late_answer_the_plain_driver_lags_one_read_without_a_word(bus, wire, retries):
    """The driver's own fault, to be guarded against by whoever uses it: it never empties its input."""

    def write_and_read(goal: int) -> int:
        bus.sync_write("Goal_Position", dict.fromkeys(JOINTS, goal), normalize=False)
        return bus.sync_read("Goal_Position", normalize=False, num_retry=retries)["elbow_flex"]

    assert [write_and_read(goal) for goal in (2000, 2001)] == [2000, 2001]
    # All answers of one sync_read, later than the driver waits.
    wire.set(Fault("late", 6, seconds=2 * TIME_OUT))
    if retries:
        assert write_and_read(2002) == 2002, "the retry was in time"
    else:
        with pytest.raises(ConnectionError, match=NO_ANSWER):
            write_and_read(2002)
    wait_until(lambda: bus.port_handler.getBytesAvailable() == 6 * 8, "there, too late")
    assert [write_and_read(goal) for goal in range(2003, 2009)] == [2002, 2003, 2004, 2005, 2006, 2007]
    assert bus.read("Model_Number", "elbow_flex") == 2008, "a position for a model number"
    bus.port_handler.ser.reset_input_buffer()
    assert write_and_read(2009) == 2009, "cured"
    assert bus.read("Model_Number", "elbow_flex") == 777


@needs_driver
@pytest.mark.parametrize("kind", ["lost", "corrupt"])
def test_lost_and_corrupt_bytes_are_connection_errors_never_a_value(bus, wire, kind):
    truth = bus.sync_read("Homing_Offset", normalize=False)
    errors = 0
    for _ in range(8):
        wire.set(Fault(kind, 1))
        try:
            got = bus.sync_read("Homing_Offset", normalize=False)
        except ConnectionError as error:
            assert "Incorrect status packet!" in str(error) or NO_ANSWER in str(error)
            errors += 1
        else:
            assert got == truth, "a flipped bit of the header can be passed over"
        bus.port_handler.ser.reset_input_buffer()
    assert errors >= 5
    assert wire.struck == 8


@needs_driver
def test_after_a_corrupt_sync_read_a_read_takes_what_was_left_for_its_own(bus, wire):
    """The same fault of the driver by another way: the answers after the corrupt one stay in its input."""
    bus.sync_write("Goal_Position", dict.fromkeys(JOINTS, 2077), normalize=False)
    wire.set(Fault("silent", 1, id=1))
    with pytest.raises(ConnectionError):
        bus.sync_read("Goal_Position", normalize=False)
    # Id 1 was waited for in vain; what came of the others was thrown away with it.
    assert bus.read("Model_Number", "gripper") == 777
    wire._random = random.Random(3)
    for _ in range(50):
        wire.set(Fault("corrupt", 1, id=1))
        try:
            bus.sync_read("Goal_Position", normalize=False)
        except ConnectionError as error:
            if "Incorrect" in str(error):
                break
    wait_until(lambda: bus.port_handler.getBytesAvailable() >= 5 * 8, "there")
    assert bus.read("Model_Number", "gripper") == 2077


@needs_driver
def test_one_servo_gone_fails_every_sync_read_and_the_next_connection(bus, arm, server):
    arm.servos[2].connected = False
    with pytest.raises(ConnectionError, match=NO_ANSWER):
        positions(bus)
    assert bus.read("Model_Number", "gripper") == 777, "the others are there"
    bus.port_handler.closePort()
    with driver(server.ports["follower"].path) as again, pytest.raises(RuntimeError, match=r"Missing motor IDs:\s+- 3"):
        again.connect()
    assert again.is_connected is False


@needs_driver
def test_an_overload_is_read_over_by_sync_read_and_fails_every_read_write_and_connection(bus, arm, server):
    arm.servos[5].trip_overload()
    assert set(positions(bus)) == set(JOINTS), "sync_read does not look at the error bits"
    with pytest.raises(RuntimeError, match="Overload error!"):
        bus.read("Present_Load", "gripper")
    with pytest.raises(RuntimeError, match="Overload error!"):
        bus.disconnect()
    assert bus.is_connected, "the port was not closed"
    bus.port_handler.closePort()
    with driver(server.ports["follower"].path) as again, pytest.raises(RuntimeError, match=r"Missing motor IDs:\s+- 6"):
        again.connect()


@needs_driver
def test_the_gripper_stalls_on_what_it_holds(bus, arm, server):
    with server.lock:
        arm.joints.place("gripper", 1.0)
        arm.joints.block("gripper", low=0.5)
    for name, value in (("Overload_Torque", 25), ("Protection_Time", 50), ("Protective_Torque", 20)):
        bus.write(name, "gripper", value)
    bus.write("Goal_Position", "gripper", 2048, normalize=False)
    load = arm.servos[5].memory
    wait_until(lambda: load["Status"] == protocol.OVERLOAD and load["Present_Load"] == -200, "in overload")
    with pytest.raises(RuntimeError, match="Overload error!"):
        bus.read("Present_Load", "gripper")
    bus.sync_write("Goal_Position", {"gripper": 3000}, normalize=False)  # open: the other way
    wait_until(lambda: load["Present_Load"] > 0, "opening")
    wait_until(lambda: abs(bus.read("Present_Position", "gripper", normalize=False) - 3000) < 3, "open")


@needs_driver
def test_heat_takes_the_torque_and_only_a_single_read_says_so(bus, arm):
    arm.servos[1].forced_temperature = 85.0
    wait_until(lambda: arm.servos[1].memory["Torque_Enable"] == 0, "limp")
    assert set(positions(bus)) == set(JOINTS)
    assert bus.sync_read("Present_Temperature")["shoulder_lift"] == 85
    with pytest.raises(RuntimeError, match="Overheat error!"):
        bus.read("Present_Temperature", "shoulder_lift")


@needs_driver
def test_a_voltage_beyond_the_limits_fails_every_read(bus, arm):
    arm.supply = 12.0
    wait_until(lambda: arm.servos[0].memory["Status"], "noticed")
    with pytest.raises(RuntimeError, match="Input voltage error!"):
        bus.read("Present_Voltage", "shoulder_pan")
    assert bus.sync_read("Present_Voltage") == dict.fromkeys(JOINTS, 120)


@needs_driver
def test_after_a_brown_out_the_driver_reads_on_and_a_goal_alone_switches_the_torque_on(bus, arm, server):
    bus.write("Homing_Offset", "wrist_roll", 100)  # with the lock of enable_torque: for this power-up only
    bus.write("Acceleration", "wrist_roll", 30)
    with server.lock:
        arm.brown_out(0.2)
    with pytest.raises(ConnectionError, match=NO_ANSWER):
        positions(bus)
    wait_until(lambda: arm.powered, "powered again")
    assert set(positions(bus)) == set(JOINTS), "as if nothing had been"
    assert bus.sync_read("Torque_Enable") == dict.fromkeys(JOINTS, 0)
    assert (bus.read("Homing_Offset", "wrist_roll"), bus.read("Acceleration", "wrist_roll")) == (0, 0)
    bus.sync_write("Goal_Position", {"wrist_roll": 2100}, normalize=False)
    wait_until(lambda: bus.read("Present_Position", "wrist_roll", normalize=False) == 2100, "driven")
    assert bus.sync_read("Torque_Enable")["wrist_roll"] == 1


@needs_driver
def test_unplugged_and_back_under_another_name(bus, arm, server, tmp_path):
    from serial import SerialException

    gone = server.ports["follower"].path
    server.unplug("follower")
    for _ in range(2):
        with pytest.raises((SerialException, termios.error, OSError)):
            positions(bus)
    assert bus.is_connected, "the driver does not know"
    bus.port_handler.closePort()
    with driver(gone) as again, pytest.raises(ConnectionError, match="Could not connect on port"):
        again.connect()
    path = server.plug("follower", tmp_path / "ttyACM1")
    assert path == str(tmp_path / "ttyACM1") != gone
    assert [servo.memory["Torque_Enable"] for servo in arm.servos] == [1] * 6, "the servos kept their power"
    with driver(path) as again:
        again.connect()
        assert set(positions(again)) == set(JOINTS)


@needs_driver
def test_two_firmwares_are_refused_and_the_port_stays_open(arm, server):
    arm.servos[3].memory.save("Firmware_Minor_Version", 9)
    with driver(server.ports["follower"].path) as bus:
        with pytest.raises(RuntimeError, match="different firmware versions"):
            bus.connect()
        assert bus.is_connected


@needs_driver
def test_servos_hold_and_do_not_stop_when_the_program_is_gone(bus, arm):
    bus.sync_write("Goal_Position", {"shoulder_lift": 2400}, normalize=False)
    bus.port_handler.closePort()
    lift = arm.servos[1].memory
    wait_until(lambda: abs(lift["Present_Position"] - 2400) < 40, "at the goal, though nobody is there")
    assert lift["Torque_Enable"] == 1
