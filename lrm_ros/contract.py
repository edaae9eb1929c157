# SPDX-License-Identifier: Apache-2.0
"""The robot contract as a file beside every data set and checkpoint, and the checks of what must agree with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.config_files import from_dict, to_dict
from lrm_ros.types import Episode, Frame, Step

CONTRACT_FILE = "contract.json"
OLDEST_S = 0.5
TURNS = 4  # to a side: so far no joint turns that has limits
NO_LIMITS = (
    "its data had no limits and units, for LeRobot records neither: train it with 'lrm finetune --contract FILE', the "
    "robot's, e.g. config/so101.yaml"
)


def joint_names(feature: Mapping[str, Any]) -> list[str]:
    """Return LeRobot's names of a vector's numbers without the ending ".pos"; empty if they do not tell them apart.

    Args:
        feature: ``observation.state`` or ``action`` of a data set's ``meta/info.json``.
    """
    found = feature.get("names")
    if isinstance(found, Mapping):  # {"motors": [...]}, or {"x": 0, "y": 1}
        found = [name for key, names in found.items() for name in (names if isinstance(names, list) else [key])]
    names = [str(name).removesuffix(".pos") for name in (found if isinstance(found, list) else [])]
    size = math.prod(feature.get("shape", ()))
    good = len(names) == size and len(set(names)) == len(names) and all(map(str.strip, names))
    return names if good else []


def save_contract(contract: RobotContract, folder: str | Path) -> Path:
    """Write ``contract.json`` into a folder and return its path."""
    path = Path(folder) / CONTRACT_FILE
    path.write_text(json.dumps(to_dict(contract), indent=2) + "\n")
    return path


def load_contract(folder: str | Path) -> RobotContract:
    """Read ``contract.json`` of a data set or checkpoint.

    Raises:
        FileNotFoundError: there is no such folder, or it has none.
        ValueError: the file is damaged or holds unknown keys.
    """
    path = Path(folder) / CONTRACT_FILE
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"folder '{folder}' does not exist; give a data set of 'lrm dataset' or a policy of 'lrm finetune' or "
            "'lrm ppo'"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"'{folder}' has no {CONTRACT_FILE}; it was not written by this package: save the robot's contract there"
            " with lrm_ros.contract.save_contract if you are sure that it was recorded with this robot"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not readable as JSON ({error}); restore it or record again") from error
    if not isinstance(data, dict):
        raise ValueError(f"'{path}' is no JSON object; restore it or record again")
    return from_dict(RobotContract, data, str(path))


def require_limits(contract: RobotContract, where: str) -> None:
    """Refuse a robot contract that tells no limits and units, before anything moves by it.

    Args:
        contract: of an arm, or of a policy that is to move one.
        where: names it in the error.

    Raises:
        ValueError: it has none; says what to do.
    """
    if not contract.has_limits:
        raise ValueError(
            f"{where} has no limits and units, so no arm moves by it; give it lower, upper and max_step [rad], as "
            "config/so101.yaml has them; a policy gets them by 'lrm finetune --contract FILE'"
        )


def require_radians(contract: RobotContract, where: str) -> None:
    """Refuse a robot contract whose limits are of another unit: by them degrees would be believed, and commanded.

    Args:
        contract: of an arm.
        where: names it in the error.

    Raises:
        ValueError: a joint may turn more than ``TURNS`` times to a side; names it and its limits.
    """
    for joint, low, high in zip(contract.joints, contract.lower, contract.upper, strict=contract.has_limits):
        if max(-low, high) > TURNS * 2 * math.pi:
            raise ValueError(
                f"{where}: joint {joint} has limits {low:g} to {high:g} rad, which is more than {TURNS} turns: are "
                "they degrees, or percent? give rad (a degree is 0.01745 rad), of a slide metres"
            )


def contract_differences(found: RobotContract, wanted: RobotContract) -> list[str]:
    """Name what would make a policy or data set of one robot wrong for another; empty if they agree.

    Joint limits and step limits are not compared: the limiter of the robot at hand holds them, not the policy. But
    whether there are any is: without them the units are unknown.
    """
    differences = []
    if found.has_limits != wanted.has_limits:
        differences.append(NO_LIMITS if wanted.has_limits else "limits and rad instead of unknown units")
    if found.joints != wanted.joints:
        differences.append(f"joints {list(found.joints)} instead of {list(wanted.joints)}")
    if found.control_hz != wanted.control_hz:
        differences.append(f"control rate {found.control_hz:g} Hz instead of {wanted.control_hz:g} Hz")
    found_cameras = {camera.name: camera for camera in found.cameras}
    wanted_cameras = {camera.name: camera for camera in wanted.cameras}
    extra, missing = found_cameras.keys() - wanted_cameras.keys(), wanted_cameras.keys() - found_cameras.keys()
    differences += [f"camera '{name}' that the robot does not have" for name in sorted(extra)]
    differences += [f"no camera '{name}'" for name in sorted(missing)]
    for name in sorted(found_cameras.keys() & wanted_cameras.keys()):
        a, b = found_cameras[name], wanted_cameras[name]
        if (a.width, a.height) != (b.width, b.height):
            differences.append(f"camera '{name}' of {a.width}x{a.height} instead of {b.width}x{b.height} pixels")
    return differences


def check_size(frame: Frame, camera: CameraSpec) -> None:
    """Raise ValueError for a frame of another size than the contract's camera has, with the cure."""
    height, width = frame.image.shape[:2]
    if (height, width) != (camera.height, camera.width):
        raise ValueError(
            f"camera '{camera.name}' delivers {width}x{height}, the robot contract says {camera.width}x"
            f"{camera.height}; set the camera's width and height or correct the contract file"
        )


def implausible(values: Iterable[float | None], contract: RobotContract) -> str:
    """Say which joint is so far outside its limits that the numbers must be of another unit; empty if none is.

    Far is more than the whole range beyond a limit: an arm that was calibrated badly or pushed by hand is less far
    outside, degrees and LeRobot's -100 to 100 are soon further.

    Args:
        values: of each joint in the contract's order [rad]; ``None``: not known.
        contract: joints and limits; without limits nothing is implausible.
    """
    if not contract.has_limits:
        return ""
    for joint, value, low, high in zip(contract.joints, values, contract.lower, contract.upper, strict=True):
        if value is not None and not 2 * low - high <= value <= 2 * high - low:
            limits = f"its limits are {low:g} to {high:g} rad"
            return f"joint {joint} is {value:.1f}, {limits}: does the driver publish degrees?"
    return ""


def oldest_s(contract: RobotContract) -> float:
    """Return how old the newest joint state and frame of a step may be [s]; the recorder and data sets hold to it."""
    return max(OLDEST_S, 3 * contract.dt_s)


def has_images(step: Step, contract: RobotContract) -> bool:
    """Return whether a step has an image of every camera that is not older than :func:`oldest_s`."""
    oldest = step.observation.stamp_ns - round(1e9 * oldest_s(contract))
    frames = step.observation.frames
    return all(camera.name in frames and frames[camera.name].stamp_ns >= oldest for camera in contract.cameras)


def check_episode(episode: Episode, contract: RobotContract) -> None:
    """Check an episode against the contract.

    Raises:
        ValueError: it has no steps, another rate, other joints, another image size, or numbers that are not finite or
            of another unit than rad; says which.
    """
    where = f"episode '{episode.episode_id}'"
    if not episode.steps:
        raise ValueError(f"{where} has no steps; leave it out")
    if abs(episode.fps - contract.control_hz) > 1e-6:
        raise ValueError(f"{where} runs at {episode.fps:g} Hz, the contract {contract.control_hz:g} Hz; record again")
    joints = len(contract.joints)
    sizes = {camera.name: (camera.height, camera.width, 3) for camera in contract.cameras}
    for index, step in enumerate(episode.steps):
        for name in ("action", "wish"):
            value = np.asarray(getattr(step, name))
            if value.shape != (joints,) or not np.isfinite(value).all():
                raise ValueError(f"{where}, step {index}: {name} must be {joints} finite numbers, got {value}")
        if step.observation.state.shape != (joints,):
            raise ValueError(f"{where}, step {index}: {len(step.observation.state)} joints, the contract has {joints}")
        if not contract.has_limits and not np.isfinite(step.observation.state).all():
            raise ValueError(f"{where}, step {index}: the state is not finite: {step.observation.state}")
        for name, values in (("state", step.observation.state), ("action", step.action), ("wish", step.wish)):
            if reason := implausible(np.asarray(values).tolist(), contract):
                raise ValueError(f"{where}, step {index}, {name}: {reason}")
        for name, size in sizes.items():
            frame = step.observation.frames.get(name)
            if frame is not None and frame.image.shape != size:
                raise ValueError(
                    f"{where}, step {index}: camera '{name}' has {frame.image.shape}, the contract {size}; "
                    "use the contract it was recorded with, or record again"
                )
