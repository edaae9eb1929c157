# SPDX-License-Identifier: Apache-2.0
"""LeRobot's programs as a person starts them, their options for emulated arms, and arms that stay where put."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from terminals import Terminal  # type: ignore[import-not-found]

from lrm_ros.sim.servo_bus.arm import Arm
from lrm_ros.sim.servo_bus.bus import Bus
from lrm_ros.sim.servo_bus.joints import SO101, SimpleJoints
from lrm_ros.sim.servo_bus.server import Server
from lrm_ros.sim.servo_bus.units import Mounting


def weightless(mountings: Sequence[Mounting] = (Mounting(),) * 6) -> Bus:
    """An arm that stays where a hand has put it."""
    joints = SimpleJoints([dataclasses.replace(joint, weight=0.0, rest=0.0) for joint in SO101])
    return Bus(Arm(joints, mountings))


def program(name: str, *arguments: str, home: Path, plugins: Sequence[Path] = ()) -> Terminal:
    """One of LeRobot's programs; it writes below ``home`` only and asks nobody on the network.

    ``plugins`` are folders in which it finds distributions beside those that are installed.
    """
    env = {"HF_HOME": str(home), "HF_LEROBOT_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([*map(str, plugins), *filter(None, [os.environ.get("PYTHONPATH")])])
    return Terminal([sys.executable, "-m", f"lerobot.scripts.lerobot_{name}", *arguments], env)


@contextlib.contextmanager
def connected(
    name: str, first: str, *arguments: str, home: Path, plugins: Sequence[Path] = (), makes: Path | None = None
) -> Iterator[Terminal]:
    """One of LeRobot's programs that has found its motors and then says ``first``.

    It asks each motor once, and a busy computer's emulated one answers late at times; a person starts it again then.

    ``makes`` is a folder that it makes before and does not go on with.
    """
    for left in (2, 1, 0):
        with program(name, *arguments, home=home, plugins=plugins) as terminal:
            try:
                terminal.expect(first)
            except AssertionError:
                if not left or "motor check failed" not in terminal.said:
                    raise
            else:
                yield terminal
                return
        if makes is not None:
            shutil.rmtree(makes, ignore_errors=True)


def arm_options(server: Server, kind: str, name: str, folder: Path) -> list[str]:
    word = "robot" if kind == "follower" else "teleop"
    given = {"type": f"so101_{kind}", "port": server.ports[name].path, "id": name, "calibration_dir": folder}
    return [f"--{word}.{key}={value}" for key, value in given.items()]
