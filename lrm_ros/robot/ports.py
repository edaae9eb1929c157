# SPDX-License-Identifier: Apache-2.0
"""Which arm is at which serial port: ``lrm ports``. It reads servos and moves none.

Leader and follower are told apart by their calibration (LeRobot's files against what the servos hold), by the supply's
voltage, and on request by a wiggle: a person moves one by hand, and its port is named.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, TypeVar

from lrm_ros.errors import one_line
from lrm_ros.robot.feetech import Servos
from lrm_ros.robot.feetech_check import calibrated_as, calibration_files, held_calibration, ports

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
WIGGLE_STEPS = 100  # of 4096 a turn: a hand moves a joint further
Read = TypeVar("Read")
_TIMES = 3  # that a servo is asked
HIGH_V = 9.0  # above it the supply is of 12 V, which no leader of an SO-101 has


def places(extra: Sequence[str] = ()) -> dict[str, str]:
    """Return the serial ports of this machine: device -> name to give, that of /dev/serial/by-id where there is one."""
    found: dict[str, str] = {}
    for path in (*glob("/dev/serial/by-id/*"), *ports(), *extra):
        found.setdefault(os.path.realpath(path), path)
    return found


@contextlib.contextmanager
def opened(port: str) -> Iterator[Servos]:
    """Open a port with the six servos of an SO-100 or SO-101; closed at the end, the torque stays as it is."""
    from lerobot.motors import Motor, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    motors = {name: Motor(i, "sts3215", MotorNormMode.DEGREES) for i, name in enumerate(JOINTS, 1)}
    bus = FeetechMotorsBus(port, motors)
    servos = Servos(bus)
    bus.connect(handshake=False)
    try:
        yield servos
    finally:
        servos.close()


def again(read: Callable[[], Read]) -> Read:
    """Return what is read; a busy host may take an answer too late, so up to ``_TIMES`` times.

    Raises:
        ConnectionError: no servo has answered.
    """
    for _ in range(_TIMES - 1):
        with contextlib.suppress(ConnectionError):
            return read()
    return read()


def describe(servos: Servos, files: Sequence[Path]) -> str:
    """Return what tells an arm: volts of its supply, and the calibration files that its servos hold."""
    volts = max(servos.registers("Present_Voltage").values()) / 10
    kind = "follower (12 V supply)" if volts > HIGH_V else "leader or follower (both have such supplies)"
    held = ", ".join(f"{path.parent.parent.name}/{path.parent.name}/{path.name}" for path in calibrated_as(
        held_calibration(servos), files))  # fmt: skip
    return f"{volts:.1f} V: {kind}; {f'calibrated as {held}' if held else 'no calibration file says what it holds'}"


def wiggled(buses: dict[str, Servos], timeout_s: float) -> str:
    """Return the port of the arm that a hand moves; empty if none is moved within ``timeout_s`` [s]."""
    first: dict[str, Mapping[str, int]] = {}
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        for port, servos in buses.items():
            try:
                now = servos.registers("Present_Position")
            except ConnectionError:  # an answer that was lost, or came too late on a busy host: it is asked again
                continue
            before = first.setdefault(port, now)
            if any(abs(now[joint] - position) > WIGGLE_STEPS for joint, position in before.items()):
                return port
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm ports``."""
    parser = argparse.ArgumentParser(prog="lrm ports", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", nargs="*", help="look at these, too")
    parser.add_argument("--calibration-dir", type=Path, help="calibrations beside LeRobot's own folder")
    parser.add_argument("--wiggle", action="store_true", help="name the port of the arm that you move by hand")
    parser.add_argument("--timeout", type=float, default=30.0, help="wait so long for the wiggle [s]")
    arguments = parser.parse_args(argv)
    found = places(arguments.port)
    if not found:
        print("lrm ports: there is no serial port; plug in an arm's USB cable", file=sys.stderr)
        return 1
    files = calibration_files(arguments.calibration_dir)
    with contextlib.ExitStack() as stack:
        buses: dict[str, Any] = {}
        for port in found.values():
            try:
                servos = stack.enter_context(opened(port))
                print(f"{port}: {again(partial(describe, servos, files))}")
                buses[port] = servos
            except (OSError, RuntimeError, ValueError, ImportError, termios.error) as error:
                print(f"{port}: no arm answers ({one_line(error)})")
        if not arguments.wiggle:
            return 0 if buses else 1
        print("move one arm by hand (without torque) ...", flush=True)
        if port := wiggled(buses, arguments.timeout):
            print(f"moved: {port}")
            return 0
    print(f"lrm ports: no arm was moved within {arguments.timeout:g} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
