# SPDX-License-Identifier: Apache-2.0
"""The robot contract as a file beside every data set and checkpoint, and the comparison that refuses a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

from lrm_ros.config import RobotContract, from_dict, to_dict

CONTRACT_FILE = "contract.json"


def save_contract(contract: RobotContract, folder: str | Path) -> Path:
    """Write ``contract.json`` into a folder and return its path."""
    path = Path(folder) / CONTRACT_FILE
    path.write_text(json.dumps(to_dict(contract), indent=2) + "\n")
    return path


def load_contract(folder: str | Path) -> RobotContract:
    """Read ``contract.json`` of a data set or checkpoint.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: the file is damaged or holds unknown keys.
    """
    path = Path(folder) / CONTRACT_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"'{folder}' has no {CONTRACT_FILE}; it was not written by this package: save the robot's contract there"
            " with lrm_ros.contract.save_contract if you are sure that it was recorded with this robot"
        )
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"'{path}' is not readable as JSON ({error}); restore it or record the folder again"
        ) from error
    return from_dict(RobotContract, data, str(path))


def contract_differences(found: RobotContract, wanted: RobotContract) -> list[str]:
    """Name what would make a policy or data set of one robot wrong for another; empty if they agree.

    Joint limits and step limits are not compared: the limiter of the robot at hand holds them, not the policy.
    """
    differences = []
    if found.joints != wanted.joints:
        differences.append(f"joints {list(found.joints)} instead of {list(wanted.joints)}")
    if found.control_hz != wanted.control_hz:
        differences.append(f"control rate {found.control_hz:g} Hz instead of {wanted.control_hz:g} Hz")
    found_cameras = {camera.name: camera for camera in found.cameras}
    wanted_cameras = {camera.name: camera for camera in wanted.cameras}
    for name in sorted(found_cameras.keys() - wanted_cameras.keys()):
        differences.append(f"camera '{name}' that the robot does not have")
    for name in sorted(wanted_cameras.keys() - found_cameras.keys()):
        differences.append(f"no camera '{name}'")
    for name in sorted(found_cameras.keys() & wanted_cameras.keys()):
        a, b = found_cameras[name], wanted_cameras[name]
        if (a.width, a.height) != (b.width, b.height):
            differences.append(f"camera '{name}' of {a.width}x{a.height} instead of {b.width}x{b.height} pixels")
    return differences
