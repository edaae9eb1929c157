# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own programs, unchanged, against the emulated bus: each is started and answered as a person does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from lerobot_programs import arm_options, connected, program, weightless  # type: ignore[import-not-found]
from servo_buses import JOINTS, needs_driver, wait_until  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus import protocol
from lrm_ros.sim.servo_bus.calibration import MOUNTINGS, calibration
from lrm_ros.sim.servo_bus.joints import SO101
from lrm_ros.sim.servo_bus.server import Server

pytestmark = [needs_driver, pytest.mark.slow]


def sync_reads(server: Server, name: str) -> int:
    with server.lock:
        return sum(packet.instruction == protocol.SYNC_READ for packet in server.buses[name].seen)


def by_hand(server: Server, name: str, joint: str, angle: float) -> int:
    """Put a joint somewhere and wait until the program has read it; returns where that is in steps."""
    bus = server.buses[name]
    with server.lock:
        bus.arm.joints.place(joint, angle)
        bus.arm.step(0.0)  # felt at once
        seen = sum(packet.instruction == protocol.SYNC_READ for packet in bus.seen)
    wait_until(lambda: sync_reads(server, name) >= seen + 2, f"read '{joint}'")
    return bus.arm.servos[JOINTS.index(joint)].memory["Present_Position"]


def calibrate(server: Server, home: Path, angles: Iterable[float]) -> tuple[dict, dict[str, list[int]]]:
    """Do as lerobot-calibrate says, with each joint at its angle first; returns its file, and the ends it has seen."""
    with server.lock:
        for joint, angle in zip(JOINTS, angles, strict=True):
            server.buses["arm"].arm.joints.place(joint, angle)
    options = [f"--robot.port={server.ports['arm'].path}", "--robot.id=mine", f"--robot.calibration_dir={home}"]
    middle = "to the middle of its range of motion and press ENTER"
    with connected("calibrate", middle, "--robot.type=so101_follower", *options, home=home) as terminal:
        terminal.type("\n")
        terminal.expect("Recording positions. Press ENTER to stop")
        found = {}
        for joint in SO101:
            if joint.name != "wrist_roll":
                found[joint.name] = [by_hand(server, "arm", joint.name, at) for at in (joint.low, joint.high)]
        terminal.type("\n")
        terminal.expect("Calibration saved to")
        assert terminal.ended() == 0, terminal.said[-2000:]
    return json.loads((home / "mine.json").read_text()), found


def test_calibrate(tmp_path):
    with Server({"arm": weightless()}) as server:
        memories = [servo.memory for servo in server.buses["arm"].arm.servos]
        saved, found = calibrate(server, tmp_path, (0.1, -0.2, 0.3, -0.4, 0.5, 0.6))
        assert saved["elbow_flex"]["homing_offset"] == round(2048 + 0.3 * 4096 / 6.283185307) - 2047
        for joint, memory in zip(JOINTS, memories, strict=True):
            ends = found.get(joint, [0, 4095])
            assert [saved[joint]["range_min"], saved[joint]["range_max"]] == ends
            memory.power_on()
            kept = [memory[name] for name in ("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit")]
            assert kept == [saved[joint]["homing_offset"], *ends], "in the EEPROM"


def test_calibrate_finds_what_calibrated_servos_hold(tmp_path):
    with Server({"arm": weightless(MOUNTINGS)}) as server:
        saved, _ = calibrate(server, tmp_path, [(joint.low + joint.high) / 2 for joint in SO101])
        assert saved == calibration(server.buses["arm"].arm.servos)


def test_setup_motors(tmp_path):
    with Server({"arm": weightless()}) as server:
        arm = server.buses["arm"].arm
        with server.lock:
            arm.factory()
        options = ["--robot.type=so101_follower", f"--robot.port={server.ports['arm'].path}"]
        with program("setup_motors", *options, home=tmp_path) as terminal:
            for number in range(6, 0, -1):
                terminal.expect(f"to the '{JOINTS[number - 1]}' motor only and press enter.")
                with server.lock:
                    for i, servo in enumerate(arm.servos, 1):
                        servo.connected = i == number
                terminal.type("\n")
                terminal.expect(f"motor id set to {number}")
            assert terminal.ended() == 0, terminal.said[-2000:]
        assert [servo.id for servo in arm.servos] == [1, 2, 3, 4, 5, 6]


def calibrated(server: Server, folder: Path) -> None:
    """Give each arm a calibration file that agrees with its servos."""
    for name, bus in server.buses.items():
        saved = {}
        for i, (joint, servo) in enumerate(zip(JOINTS, bus.arm.servos, strict=True), 1):
            servo.memory.save("Min_Position_Limit", 800)
            servo.memory.save("Max_Position_Limit", 3300)
            saved[joint] = {"id": i, "drive_mode": 0, "homing_offset": 0, "range_min": 800, "range_max": 3300}
        (folder / f"{name}.json").write_text(json.dumps(saved))


def test_teleoperate(tmp_path):
    with Server({"follower": weightless(), "leader": weightless()}) as server:
        calibrated(server, tmp_path)
        options = [
            *arm_options(server, "follower", "follower", tmp_path),
            *arm_options(server, "leader", "leader", tmp_path),
        ]
        with connected("teleoperate", "Teleop loop time", *options, home=tmp_path) as terminal:
            followers = server.buses["follower"].arm.servos
            for at in (0.6, -0.4):
                goals = [by_hand(server, "leader", joint, at) for joint in JOINTS[:5]]
                wait_until(
                    lambda goals=goals: all(
                        abs(servo.memory["Present_Position"] - goal) < 6
                        for servo, goal in zip(followers, goals, strict=False)
                    ),
                    "where the leader is",
                )
            terminal.interrupt()
            assert terminal.ended() == 0, terminal.said[-2000:]
        assert not any(servo.memory["Torque_Enable"] for servo in followers)


@pytest.mark.skipif(os.geteuid() != 0, reason="LeRobot looks for ports in /dev, where only root may make one")
def test_find_port(tmp_path):
    link = f"/dev/ttyLRM{os.getpid()}"
    with Server({"arm": weightless()}, {"arm": link}) as server, program("find_port", home=tmp_path) as terminal:
        terminal.expect("Remove the USB cable from your MotorsBus and press Enter when done.")
        server.unplug("arm")
        terminal.type("\n")
        terminal.expect(f"The port of this MotorsBus is '{link}'")
        assert terminal.ended() == 0
    assert not os.path.lexists(link)
