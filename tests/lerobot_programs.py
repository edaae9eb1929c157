# SPDX-License-Identifier: Apache-2.0
"""LeRobot's programs as a person starts them, their options for emulated arms, and arms that stay where put."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
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


def arm_options(server: Server, kind: str, name: str, folder: Path) -> list[str]:
    word = "robot" if kind == "follower" else "teleop"
    given = {"type": f"so101_{kind}", "port": server.ports[name].path, "id": name, "calibration_dir": folder}
    return [f"--{word}.{key}={value}" for key, value in given.items()]
