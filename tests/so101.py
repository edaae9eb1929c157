# SPDX-License-Identifier: Apache-2.0
"""An emulated SO-101 with a calibration, and the settings of our arm for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from servo_buses import JOINTS, arms, patient  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTION, ArmConfig, load_arm
from lrm_ros.config_files import load_yaml
from lrm_ros.robot import lerobot_arm
from lrm_ros.robot.devices import lerobot_input
from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.joints import SO101, SimpleJoints
from lrm_ros.sim.servo_bus.server import Server

FILE = Path(__file__).parents[1] / "config" / "so101.yaml"
CONTRACT = load_yaml(FILE, RobotContract, (SECTION,))


def calibrate(
    server: Server, folder: Path, name: str = "follower", margin: float = 0.01, contract: RobotContract = CONTRACT
) -> None:
    """Give the servos ranges that end a little beyond the contract's limits, and write LeRobot's file of them."""
    rows = {}
    for i, joint in enumerate(JOINTS):
        servo = server.buses[name].arm.servos[i]
        low, high = contract.lower[i], contract.upper[i]
        if joint not in ("wrist_roll", "gripper"):  # LeRobot takes the middle of the range for 0 degrees
            high = max(-low, high) + margin
            low = -high
        ends = tuple(round(servo.mounting.present(angle, 0)) for angle in (low, high))
        if joint == "wrist_roll":  # LeRobot's calibration gives it the whole turn
            ends = (0, 4095)
        servo.memory.save("Min_Position_Limit", ends[0])
        servo.memory.save("Max_Position_Limit", ends[1])
        rows[joint] = {"id": i + 1, "drive_mode": 0, "homing_offset": 0, "range_min": ends[0], "range_max": ends[1]}
    (folder / f"{name}.json").write_text(json.dumps(rows))


def settings(port: str, folder: Path, **more: object) -> ArmConfig:
    """The contract's section for an emulated arm."""
    given = {"port": port, "id": "follower", "calibration_dir": str(folder), **more}
    return dataclasses.replace(load_arm(FILE, CONTRACT), **given)  # type: ignore[arg-type]


def patiently(monkeypatch) -> None:
    """Let every driver that is made wait longer: it computes in one process with the servos."""
    for module, name in ((lerobot_arm, "make_robot"), (lerobot_input, "make_teleoperator")):
        make = getattr(module, name)

        def made(config, make=make):
            device = make(config)
            if hasattr(device, "bus"):
                patient(device.bus)
            return device

        monkeypatch.setattr(module, name, made)


@contextmanager
def follower(folder: Path) -> Iterator[Server]:
    """A calibrated arm."""
    server = arms("follower")
    calibrate(server, folder)
    with server:
        yield server


@contextmanager
def leader_and_follower(folder: Path) -> Iterator[Server]:
    """Two calibrated arms; the leader stays where a hand puts it, and its supply is that of LeRobot's leader, 5 V."""
    joints = SimpleJoints([dataclasses.replace(joint, weight=0.0, rest=0.0) for joint in SO101])
    server = Server({"follower": Bus(Arm()), "leader": Bus(Arm(joints))})
    server.buses["leader"].arm.supply = 5.0
    calibrate(server, folder)
    calibrate(server, folder, "leader", 0.02)
    with server:
        yield server


def place(server: Server, angles: Sequence[float], name: str = "leader") -> None:
    """Put an arm's joints somewhere by hand [rad]."""
    with server.lock:
        arm = server.buses[name].arm
        for joint, angle in zip(JOINTS, angles, strict=True):
            arm.joints.place(joint, float(angle))
        arm.step(0.0)  # felt at once


def angles(server: Server, name: str = "follower") -> list[float]:
    """Where the joints are in truth [rad]."""
    with server.lock:
        return [state.position for state in server.buses[name].arm.joints.states()]
