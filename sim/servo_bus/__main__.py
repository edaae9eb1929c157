# SPDX-License-Identifier: Apache-2.0
"""Runs emulated arms until it is told to stop: ``python -m lrm_ros.sim.servo_bus follower leader --links DIR``.

The arm called ``twin`` is the simulated world's.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.calibration import calibration, preset, so101, write
from lrm_ros.sim.servo_bus.cameras import DESK, TWIN, WRIST, Cameras
from lrm_ros.sim.servo_bus.commands import HELP, SCENE_WORDS, execute
from lrm_ros.sim.servo_bus.joints import SimpleJoints
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.sim.servo_bus.twin import TwinJoints, so100

TWIN_ARM = "twin"


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument(
        "--cameras",
        type=Path,
        metavar="DIR",
        help="folder for a named pipe of video of each of the twin's cameras: front, 96x96, as its policies see it",
    )
    parser.add_argument("--wrist", action="store_true", help="and one on the gripper, wrist, 96x96 (with --cameras)")
    parser.add_argument("--desk", action="store_true", help="the cameras are front and wrist, 640x480 (with --cameras)")
    return parser


def _given(argv: list[str] | None) -> argparse.Namespace:
    """Read the options; ends the program where they do not fit together."""
    parser = _parser()
    given = parser.parse_args(argv)
    if len(set(given.arms)) != len(given.arms):
        parser.error(f"each arm needs a name of its own; given were {' '.join(given.arms)}")
    if taken := set(given.arms) & set(SCENE_WORDS):
        parser.error(f"no arm can be called '{min(taken)}': it is a command; give another name")
    if given.factory and given.calibrated:
        parser.error("servos are new (--factory) or calibrated (--calibrated); give one of the two")
    if given.calibration is not None and not given.calibrated:
        parser.error("--calibration writes what the servos hold; give --calibrated, too")
    if given.cameras is not None and TWIN_ARM not in given.arms:
        parser.error(f"--cameras shows the twin; give the arm '{TWIN_ARM}', too")
    if (given.desk or given.wrist) and given.cameras is None:
        parser.error("--desk and --wrist say which cameras; give --cameras DIR, too")
    if given.desk and given.wrist:
        parser.error("the desk's cameras have one on the wrist; give --desk or --wrist")
    return given


def _twin() -> Arm:
    """Build the simulated world and return its arm."""
    import torch

    torch.set_num_threads(1)  # tensors of six numbers: more threads only wait for each other
    sys.setswitchinterval(0.0005)  # s: the bus is answered while a scene is set up
    return so100(TwinJoints())


def _calibrate(buses: Mapping[str, Bus], folder: Path | None) -> None:
    """Preset the servos of all arms, and write LeRobot's files."""
    for name, bus in buses.items():
        joints = bus.arm.joints
        assert isinstance(joints, SimpleJoints | TwinJoints)
        values = calibration(bus.arm.servos, joints.joints)
        preset(bus.arm.servos, values)
        if folder is not None:
            write(values, folder, name)


def main(argv: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    given = _given(argv)
    buses = {name: Bus(_twin() if name == TWIN_ARM else so101()) for name in given.arms}
    links = {}
    if given.links is not None:
        given.links.mkdir(parents=True, exist_ok=True)
        links = {name: given.links / name for name in given.arms}
    if given.factory:
        for bus in buses.values():
            bus.arm.factory()
    if given.calibrated:
        _calibrate(buses, given.calibration)
    with contextlib.ExitStack() as stack:
        cameras = None
        if given.cameras is not None:
            joints = buses[TWIN_ARM].arm.joints
            assert isinstance(joints, TwinJoints)
            chosen = DESK if given.desk else WRIST if given.wrist else TWIN
            cameras = stack.enter_context(Cameras(joints, given.cameras, chosen))
        server = stack.enter_context(Server(buses, links))
        for name, port in server.ports.items():
            print(f"{name}: {port.path}", flush=True)
        for name, path in ({} if cameras is None else cameras.paths).items():
            print(f"{name}: {path}", flush=True)
        for line in sys.stdin:
            try:
                said = execute(server, line, cameras)
            except (ValueError, OSError, RuntimeError) as error:
                said = f"error: {error}"
            if said:
                print(said, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
