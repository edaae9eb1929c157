# SPDX-License-Identifier: Apache-2.0
"""LeRobot's real driver on the emulated bus: it connects, configures, reads, writes, moves, disconnects."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from servo_buses import JOINTS, arms, driver, needs_driver, patient, wait_until  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.registers import BAUD_RATES
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.versions import at_least

pytestmark = needs_driver

RANGES = dict.fromkeys(JOINTS, (500, 3500))


def follower(server: Server, name: str, folder: Path):
    """LeRobot's SO-101 with a calibration file that says 500 to 3500 steps."""
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    calibration = {
        joint: {"id": i, "drive_mode": 0, "homing_offset": 0, "range_min": low, "range_max": high}
        for i, (joint, (low, high)) in enumerate(RANGES.items(), 1)
    }
    (folder / f"{name}.json").write_text(json.dumps(calibration))
    robot = SO101Follower(SO101FollowerConfig(port=server.ports[name].path, id=name, calibration_dir=folder))
    patient(robot.bus)
    return robot


def test_the_robot_connects_moves_and_goes_limp(tmp_path):
    with arms("follower") as server:
        servos = server.buses["follower"].arm.servos
        robot = follower(server, "follower", tmp_path)
        robot.connect(calibrate=False)
        assert not robot.is_calibrated
        robot.bus.write_calibration(robot.calibration)
        assert robot.is_calibrated
        gripper = servos[5].memory
        assert (gripper["Max_Torque_Limit"], gripper["Protection_Current"], gripper["Overload_Torque"]) == (
            500,
            250,
            25,
        )
        assert all(servo.memory["Torque_Enable"] == servo.memory["Lock"] == 1 for servo in servos)
        resting = robot.get_observation()
        assert set(resting) == {f"{joint}.pos" for joint in JOINTS}
        action = {f"{joint}.pos": 10.0 for joint in JOINTS[:5]} | {"gripper.pos": 60.0}
        assert robot.send_action(action) == action

        def near() -> bool:
            seen = robot.get_observation()
            return all(abs(seen[key] - action[key]) < 4 for key in action)

        wait_until(near, "where it was sent")
        robot.disconnect()
        assert all(servo.memory["Torque_Enable"] == servo.memory["Lock"] == 0 for servo in servos)
        lift = servos[1].memory
        wait_until(lambda: lift["Present_Position"] < 1400, "fallen to its rest")


def test_the_registers_outlive_the_connection(tmp_path):
    with arms("follower") as server:
        port = server.ports["follower"].path
        with driver(port) as bus:
            bus.connect()
            bus.write("Homing_Offset", "elbow_flex", -321)
            bus.write("Goal_Velocity", "elbow_flex", -7)
            before = bus.read("Present_Position", "elbow_flex", normalize=False)
            bus.disconnect(disable_torque=False)
        with driver(port) as bus:
            bus.connect()
            assert bus.read("Homing_Offset", "elbow_flex") == -321
            assert bus.read("Goal_Velocity", "elbow_flex") == -7
            assert bus.read("Present_Position", "elbow_flex", normalize=False) == before
            assert (bus.read("Present_Voltage", "gripper"), bus.read("Present_Temperature", "gripper")) == (74, 25)


def test_calibration_by_hand_finds_the_middle_and_the_ranges(tmp_path):
    with arms("follower") as server:
        joints = server.buses["follower"].arm.joints
        with driver(server.ports["follower"].path) as bus:
            bus.connect()
            bus.disable_torque()
            with server.lock:
                joints.place("shoulder_pan", 0.7)
            wait_until(lambda: bus.read("Present_Position", "shoulder_pan", normalize=False) == 2504, "seen by hand")
            offsets = bus.set_half_turn_homings()
            assert offsets["shoulder_pan"] == 2504 - 2047
            assert bus.sync_read("Present_Position", normalize=False) == dict.fromkeys(JOINTS, 2047)


@pytest.mark.parametrize("rate", [4800, 9600, 14400, 19200, 38400, 57600, 115200, 128000, 250000, 500000, 1000000])
def test_every_baud_rate_of_the_driver_is_read_off_the_line_and_heard_by_servos_that_have_it(rate):
    with arms("follower") as server, driver(server.ports["follower"].path) as bus:
        servos = server.buses["follower"].arm.servos
        bus.connect()
        if rate in BAUD_RATES:
            for joint in JOINTS:
                bus.write("Baud_Rate", joint, BAUD_RATES.index(rate))
            assert {servo.rate for servo in servos} == {rate}
        bus.set_baudrate(rate)
        assert server.ports["follower"].rate() == rate
        assert bus.ping("gripper") == (777 if rate in BAUD_RATES else None)


def test_two_arms_at_once(tmp_path):
    with arms("follower", "leader", links=tmp_path) as server:
        assert os.readlink(tmp_path / "leader") == server.ports["leader"].name
        with driver(str(tmp_path / "follower")) as one, driver(str(tmp_path / "leader")) as other:
            one.connect()
            other.connect()
            one.sync_write("Goal_Position", dict.fromkeys(JOINTS, 2200), normalize=False)
            other.sync_write("Goal_Position", dict.fromkeys(JOINTS, 1900), normalize=False)
            for bus, goal in ((one, 2200), (other, 1900)):
                wait_until(
                    lambda bus=bus, goal=goal: all(
                        abs(at - goal) < 40 for at in bus.sync_read("Present_Position", normalize=False).values()
                    ),
                    "both where they were sent",
                )
    assert not list(tmp_path.iterdir()), "links go with their ports"


def test_new_servos_get_their_ids_one_by_one():
    with arms("follower") as server:
        arm = server.buses["follower"].arm
        with server.lock:
            arm.factory()
            for servo in arm.servos:
                servo.memory.save("Baud_Rate", BAUD_RATES.index(115_200))
        with driver(server.ports["follower"].path) as bus:
            for number in (6, 1):
                with server.lock:
                    for i, servo in enumerate(arm.servos, 1):
                        servo.connected = i == number
                bus.setup_motor(JOINTS[number - 1], initial_baudrate=115_200)
            assert [servo.id for servo in arm.servos] == [1, 1, 1, 1, 1, 6]
            with server.lock:
                for servo in arm.servos:
                    servo.connected = True
                arm.brown_out(0.01)
            wait_until(lambda: arm.powered, "powered again")
            assert [servo.id for servo in arm.servos] == [1, 1, 1, 1, 1, 6], "kept by the EEPROM"
            assert bus.broadcast_ping() == {1: 777, 6: 777}


def test_the_joints_move_while_they_are_read():
    with arms("follower") as server, driver(server.ports["follower"].path) as bus:
        bus.connect()
        bus.write("Goal_Velocity", "wrist_roll", 200)
        start = bus.read("Present_Position", "wrist_roll", normalize=False)
        bus.write("Goal_Position", "wrist_roll", start + 300, normalize=False)
        seen = [start]
        end = time.monotonic() + 30
        while seen[-1] < start + 299 and time.monotonic() < end:
            seen.append(bus.read("Present_Position", "wrist_roll", normalize=False))
        assert seen == sorted(seen)
        assert len(set(seen)) > 20, "on its way, not at once"


def test_connecting_and_going_asks_what_the_driver_is_known_to_ask():
    with arms("follower") as server, driver(server.ports["follower"].path) as bus:
        seen = server.buses["follower"].seen
        bus.connect()
        bus.configure_motors()
        bus.disconnect()
        with server.lock:
            first = [(packet.instruction, packet.parameters[:1]) for packet in seen if packet.id == 1]
        asked = [(protocol.PING, b"")] + [(protocol.READ, bytes([at])) for at in (3, 0, 1)]
        configured = [(protocol.WRITE, bytes([at])) for at in (7, 85, 41)]
        if at_least("lerobot", 0, 6):
            configured += [(protocol.READ, bytes([18]))]  # Phase
        gone = [(protocol.WRITE, bytes([at])) for at in (40, 55)]
        assert first == asked + configured + gone
