# SPDX-License-Identifier: Apache-2.0
"""Runs emulated arms until it is told to stop: ``python -m lrm_ros.sim.servo_bus follower leader --links DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.calibration import calibration, preset, so101, write
from lrm_ros.sim.servo_bus.commands import HELP, execute
from lrm_ros.sim.servo_bus.server import Server


def main(argv: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lrm_ros.sim.servo_bus",
        description="Emulate SO-101 arms: STS3215 servos on pseudo-terminals, for LeRobot's driver and programs.",
        epilog=f"Lines on the standard input cause faults; the program ends at its end:\n\n{HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("arms", nargs="*", default=["follower"], help="names of the arms (default: follower)")
    parser.add_argument("--links", type=Path, metavar="DIR", help="folder for a link to each arm's port, by its name")
    parser.add_argument("--factory", action="store_true", help="servos as they are new: all with id 1")
    parser.add_argument("--calibrated", action="store_true", help="servos as lerobot-calibrate leaves them")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="write LeRobot's calibration file of each arm, NAME.json, there (with --calibrated)",
    )
    given = parser.parse_args(argv)
    if len(set(given.arms)) != len(given.arms):
        parser.error(f"each arm needs a name of its own; given were {' '.join(given.arms)}")
    if given.factory and given.calibrated:
        parser.error("servos are new (--factory) or calibrated (--calibrated); give one of the two")
    if given.calibration is not None and not given.calibrated:
        parser.error("--calibration writes what the servos hold; give --calibrated, too")
    buses = {name: Bus(so101()) for name in given.arms}
    links = {}
    if given.links is not None:
        given.links.mkdir(parents=True, exist_ok=True)
        links = {name: given.links / name for name in given.arms}
    if given.factory:
        for bus in buses.values():
            bus.arm.factory()
    for name, bus in buses.items() if given.calibrated else ():
        values = calibration(bus.arm.servos)
        preset(bus.arm.servos, values)
        if given.calibration is not None:
            write(values, given.calibration, name)
    with Server(buses, links) as server:
        for name, port in server.ports.items():
            print(f"{name}: {port.path}", flush=True)
        for line in sys.stdin:
            try:
                said = execute(server, line)
            except (ValueError, OSError, RuntimeError) as error:
                said = f"error: {error}"
            if said:
                print(said, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
