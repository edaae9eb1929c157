# SPDX-License-Identifier: Apache-2.0
"""Emulated arms for tests, LeRobot's real driver in front of them, and waiting for conditions."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.server import Server

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
PATIENCE = 30.0  # s, after which a condition that does not come is a failure
TIME_OUT = 0.4  # s, of the driver for an answer


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition is true; fails with ``what`` if it never is."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never {what}"
        time.sleep(0.002)


def arms(*names: str, links: Path | None = None) -> Server:
    """Emulated arms by name; to be entered."""
    paths: dict[str, str | os.PathLike[str]] = {} if links is None else {name: links / name for name in names}
    return Server({name: Bus(Arm()) for name in names}, paths)


def without_driver() -> str:
    """Why LeRobot's driver of Feetech's servos cannot be here; empty if it can.

    LeRobot 0.4 on Python 3.11 has the driver under the same names, but our requirements there lack Feetech's package.
    """
    try:
        import scservo_sdk  # noqa: F401
    except ImportError:
        return "LeRobot's extra 'feetech' is not installed (feetech-servo-sdk; none in the Python 3.11 requirements)"
    return ""


needs_driver = pytest.mark.skipif(bool(without_driver()), reason=without_driver())


def patient(bus: Any) -> Any:
    """Make a driver wait longer than its 50 ms: here it computes in one process with the servos, and waits busily."""
    brief = bus.port_handler.setPacketTimeout

    def longer(length: int) -> None:
        brief(length)
        bus.port_handler.packet_timeout = TIME_OUT * 1000

    bus.port_handler.setPacketTimeout = longer
    return bus


@contextlib.contextmanager
def driver(port: str) -> Iterator[Any]:
    """LeRobot's bus of an SO-101, not connected; closed at the end."""
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    modes = [MotorNormMode.DEGREES] * 5 + [MotorNormMode.RANGE_0_100]
    motors = {name: Motor(i, "sts3215", mode) for i, (name, mode) in enumerate(zip(JOINTS, modes, strict=True), 1)}
    calibration = {name: MotorCalibration(i, 0, 0, 0, 4095) for i, name in enumerate(JOINTS, 1)}
    bus = patient(FeetechMotorsBus(port, motors, calibration))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield bus
    finally:
        sys.setswitchinterval(interval)
        if bus.is_connected:
            bus.port_handler.is_using = False
            with contextlib.suppress(Exception):  # a test may have pulled the port out
                bus.port_handler.closePort()
