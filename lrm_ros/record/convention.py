# SPDX-License-Identifier: Apache-2.0
"""A data set as LeRobot's users have them: names with ``.pos``, LeRobot's units, the robot's name in LeRobot.

Such a set has the columns that lerobot-record writes, no more unless asked for, so that LeRobot merges the two. Beside
it is ``lerobot_convention.json``, optional, by which it is read back in rad. It is no ``contract.json``: a policy that
LeRobot trains on the set speaks LeRobot's units, and must not be taken for one in rad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_files import from_dict, to_dict
from lrm_ros.files import read_json, write_json

CONVENTION_FILE = "lerobot_convention.json"
ENDING = ".pos"
CODEC = "libsvtav1"
"""Of lerobot-record's videos (0.4.4 and 0.6.1); merging joins videos as they are, so they must be of one codec."""


@dataclass(frozen=True)
class Convention:
    """What LeRobot's numbers are.

    Attributes:
        robot: LeRobot's name of it, e.g. ``so101_follower``.
        joints: of the robot contract, in its order.
        units: (scale, offset) of each joint: angle [rad] = scale * number + offset.
        extra: columns beside lerobot-record's: ``wish``, ``sent``, and ``next.reward``, ``next.success`` where known.
    """

    robot: str
    joints: tuple[str, ...]
    units: tuple[tuple[float, float], ...]
    extra: bool = False

    def numbers(self, angles: NDArray[Any]) -> NDArray[np.float32]:
        """Return angles (..., D) [rad] as LeRobot's numbers."""
        scale, offset = np.array(self.units, np.float64).T
        return ((np.asarray(angles, np.float64) - offset) / scale).astype(np.float32)


def names_of(joints: Sequence[str]) -> list[str]:
    """Return LeRobot's names of joints."""
    return [joint + ENDING for joint in joints]


def save_convention(convention: Convention, contract: RobotContract, folder: Path) -> None:
    """Write ``lerobot_convention.json`` into a data set's folder."""
    write_json(folder / CONVENTION_FILE, {"contract": to_dict(contract), "units": [list(u) for u in convention.units]})


def load_convention(folder: Path) -> tuple[RobotContract, list[tuple[float, float]]]:
    """Read the contract of the robot, and (scale, offset) of each joint.

    Raises:
        ValueError: the file is damaged; says the cure.
    """
    path = folder / CONVENTION_FILE
    found = read_json(path, "delete it and give the robot's contract: --contract FILE")
    try:
        contract = from_dict(RobotContract, found["contract"], "contract")
        units = [(float(scale), float(offset)) for scale, offset in found["units"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' cannot be used ({error}); delete it and give the robot's contract: --contract FILE"
        ) from error
    if len(units) != len(contract.joints) or not all(np.isfinite(pair).all() and pair[0] for pair in units):
        raise ValueError(f"'{path}' does not tell the units of {len(contract.joints)} joints; delete it")
    return contract, units
