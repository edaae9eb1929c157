# SPDX-License-Identifier: Apache-2.0
"""Runs emulated arms until it is told to stop: ``python -m lrm_ros.sim.servo_bus follower leader --links DIR``.

The arm called ``twin`` is the simulated world's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.calibration import calibration, preset, so101, write
from lrm_ros.sim.servo_bus.commands import HELP, SCENE_WORDS, execute
from lrm_ros.sim.servo_bus.joints import SimpleJoints
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.sim.servo_bus.twin import TwinJoints, so100

TWIN = "twin"


def _twin() -> Arm:
    """Build the simulated world and return its arm."""
    import torch

    torch.set_num_threads(1)  # tensors of six numbers: more threads only wait for each other
    sys.setswitchinterval(0.0005)  # s: the bus is answered while a scene is set up
    return so100(TwinJoints())


def main(argv: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lrm_ros.sim.servo_bus",
        description="Emulate SO-101 arms: STS3215 servos on pseudo-terminals, for LeRobot's driver and programs.",
        epilog=f"Lines on the standard input cause faults; the program ends at its end:\n\n{HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "arms",
        nargs="*",
        default=["follower"],
        help="names of the arms (default: follower); 'twin' is ManiSkill's SO-100 with toy and bowl",
    )
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
    if taken := set(given.arms) & set(SCENE_WORDS):
        parser.error(f"no arm can be called '{min(taken)}': it is a command; give another name")
    buses = {name: Bus(_twin() if name == TWIN else so101()) for name in given.arms}
    links = {}
    if given.links is not None:
        given.links.mkdir(parents=True, exist_ok=True)
        links = {name: given.links / name for name in given.arms}
    if given.factory:
        for bus in buses.values():
            bus.arm.factory()
    for name, bus in buses.items() if given.calibrated else ():
        joints = bus.arm.joints
        assert isinstance(joints, SimpleJoints | TwinJoints)
        values = calibration(bus.arm.servos, joints.joints)
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
