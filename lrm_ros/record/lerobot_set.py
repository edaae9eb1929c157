# SPDX-License-Identifier: Apache-2.0
"""A LeRobotDataset as this stack sees it: its robot contract, its cameras, and what of it cannot be used.

A data set that LeRobot wrote, or that its tools made of one of ours, has no ``contract.json``: names, image sizes and
rate are in ``meta/info.json``, limits and units are nowhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.contract import CONTRACT_FILE, contract_differences, joint_names, load_contract
from lrm_ros.record.convention import CONVENTION_FILE, ENDING, load_convention
from lrm_ros.record.lerobot_files import (
    INFO_FILE,
    EpisodeFiles,
    episodes_of,
    is_depth,
    is_v2,
    metadata_of,
    read_description,
)

STATE, ACTION, WISH = "observation.state", "action", "wish"
IMAGES = "observation.images."
INTERVENTION = "intervention"
SUCCESS = ("next.success", "success")


@dataclass(frozen=True)
class LeRobotSet:
    """A data set and how it is read.

    Attributes:
        root: its folder.
        info: its ``meta/info.json``.
        contract: robot contract; without limits if nothing says them.
        cameras: camera of the contract -> image feature.
        joints: columns of ``observation.state`` that are the contract's joints.
        notes: what of it is not used and why, one line each.
        scale: (D,) of each joint: number of the contract = scale * number in the file + offset; ``None``: 1.
        offset: (D,), ``None``: 0.
    """

    root: Path
    info: Mapping[str, Any]
    contract: RobotContract
    cameras: Mapping[str, str]
    joints: Sequence[int]
    notes: tuple[str, ...] = ()
    scale: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None

    @property
    def features(self) -> Mapping[str, Mapping[str, Any]]:
        """Feature -> its description."""
        return self.info["features"]

    @property
    def is_v2(self) -> bool:
        """Whether it is v2.0 or v2.1, which LeRobot itself no longer reads."""
        return is_v2(self.info)

    @property
    def has_wish(self) -> bool:
        """Whether it has the wish beside the action: it is ours, or made of ours by LeRobot's tools."""
        return WISH in self.features

    @property
    def in_rad(self) -> bool:
        """Whether its numbers are rad: it is ours and not in LeRobot's convention, or made of such by its tools."""
        names = self.features[STATE].get("names")
        ended = isinstance(names, list) and any(str(name).endswith(ENDING) for name in names)
        return self.has_wish and not ended

    @property
    def has_intervention(self) -> bool:
        """Whether it says of each step if a person led who had taken over from a policy."""
        return INTERVENTION in self.features

    @property
    def success(self) -> str | None:
        """Column that tells success, if there is one."""
        return next((name for name in SUCCESS if name in self.features), None)

    @property
    def in_video(self) -> list[str]:
        """Image features of the contract's cameras that are stored as video."""
        return [key for key in self.cameras.values() if self.features[key]["dtype"] == "video"]

    @property
    def decoded_bytes(self) -> int:
        """Size of all its images in memory."""
        frame = sum(3 * camera.width * camera.height for camera in self.contract.cameras)
        return int(self.info.get("total_frames", 0)) * frame

    def episodes(self) -> list[EpisodeFiles]:
        """Return where each episode lies.

        Raises:
            ValueError: the data set's own tables cannot be read, or list more or fewer than its description says.
        """
        with metadata_of(self.root):
            found = list(episodes_of(self.root, self.info, self.in_video))
        if (total := self.info.get("total_episodes", len(found))) != len(found):
            raise ValueError(
                f"'{self.root}' lists {len(found)} episodes, its {INFO_FILE} says {total}; fetch it again, or write "
                "there how many it has"
            )
        return found

    def of_robot(self, contract: RobotContract, units: Sequence[tuple[float, float]] | None, where: str) -> LeRobotSet:
        """Return the same data set read as a robot's, with limits, in rad.

        Args:
            contract: of the robot; cameras that it lacks are left out.
            units: (scale, offset) of each joint, from the numbers in the file to rad; ``None``: they are rad.
            where: names the contract in errors.

        Raises:
            ValueError: it is of another robot; names the differences.
        """
        wanted = [camera.name for camera in contract.cameras]
        kept = tuple(camera for camera in self.contract.cameras if camera.name in wanted)
        bare: dict[str, Any] = {"lower": (), "upper": (), "max_step": ()}
        found = dataclasses.replace(self.contract, cameras=kept, **bare)
        if differences := contract_differences(found, dataclasses.replace(contract, **bare)):
            has = ", ".join(f"{camera.name} {camera.width}x{camera.height}" for camera in self.contract.cameras)
            raise ValueError(
                f"'{self.root}' is of another robot than {where}: {'; '.join(differences)} (its cameras: {has}); give "
                "the contract of the robot that recorded it"
            )
        dropped = [camera.name for camera in self.contract.cameras if camera.name not in wanted]
        notes = self.notes + tuple(f"camera '{name}' is left out: {where} does not have it" for name in dropped)
        affine = None if units is None else np.array(units, np.float64)  # (D, 2)
        return dataclasses.replace(
            self,
            contract=contract,
            cameras={name: self.cameras[name] for name in wanted},
            notes=notes,
            scale=None if affine is None else affine[:, 0],
            offset=None if affine is None else affine[:, 1],
        )


def open_set(root: Path) -> LeRobotSet:
    """Open a LeRobotDataset v2.0 to v3.0, whoever wrote it.

    Raises:
        FileNotFoundError: no data set there.
        ValueError: it has no states, actions or colour images that a policy could be trained on, or is damaged.
    """
    info = read_description(root)
    with metadata_of(root):
        features = info["features"]
        for name in (STATE, ACTION):
            if name not in features:
                raise ValueError(f"'{root}' has no '{name}', which a policy needs; it has {', '.join(features)}")
            if len(features[name]["shape"]) != 1:
                raise ValueError(f"'{root}': '{name}' has shape {features[name]['shape']}, not one number a joint")
        if (root / CONVENTION_FILE).is_file():
            contract, units = load_convention(root)
            return _foreign(root, info).of_robot(contract, units, f"its {CONVENTION_FILE}")
        if (root / CONTRACT_FILE).is_file():
            contract = load_contract(root)
            cameras = {camera.name: IMAGES + camera.name for camera in contract.cameras}
            if missing := [key for key in cameras.values() if key not in features]:
                raise ValueError(f"'{root}' has no {', '.join(missing)}, which its {CONTRACT_FILE} names")
            return LeRobotSet(root, info, contract, cameras, range(len(contract.joints)))
        return _foreign(root, info)


def _foreign(root: Path, info: Mapping[str, Any]) -> LeRobotSet:
    """Return a data set whose contract is made from its description."""
    features = info["features"]
    joints, at = _joints(root, features[STATE], features[ACTION])
    notes: list[str] = []
    specs: list[CameraSpec] = []
    keys: dict[str, str] = {}
    for key, about in features.items():
        if about["dtype"] in ("image", "video"):
            height, width, channels = _size(about)
            if is_depth(about) or channels != 3:
                notes.append(f"'{key}' is left out: it is depth, and no policy here looks at that")
                continue
            name = re.sub(r"\W", "_", key.removeprefix(IMAGES).removeprefix("observation."), flags=re.ASCII)
            name = f"_{name}" if name[:1].isdigit() else name
            if IMAGES + name != key:
                notes.append(f"'{key}' is camera '{name}'")
            specs.append(CameraSpec(name, width, height))
            keys[name] = key
        elif key.startswith("observation.") and key != STATE:
            notes.append(f"'{key}' is left out: observations are {STATE} and images")
    if not specs:
        raise ValueError(f"'{root}' has no colour images; a policy here looks at those of a camera at least")
    contract = RobotContract(
        str(info.get("robot_type") or "unknown"), joints, (), (), (), tuple(specs), float(info["fps"])
    )
    return LeRobotSet(root, info, contract, keys, at, tuple(notes))


def _joints(root: Path, state: Mapping[str, Any], action: Mapping[str, Any]) -> tuple[tuple[str, ...], list[int]]:
    """Return the names of the joints that are commanded, and where they are in the state.

    Raises:
        ValueError: the state does not tell the joints that are commanded.
    """
    of_state, of_action = joint_names(state), joint_names(action)
    seen, sent = int(state["shape"][0]), int(action["shape"][0])
    if of_state and of_action:
        if set(of_action) <= set(of_state):
            return tuple(of_action), [of_state.index(name) for name in of_action]
    elif seen == sent:
        return tuple(of_state or of_action or [f"joint_{index}" for index in range(seen)]), list(range(seen))
    raise ValueError(
        f"'{root}': {STATE} has {seen} numbers ({', '.join(of_state) or 'without names'}), {ACTION} {sent} "
        f"({', '.join(of_action) or 'without names'}); here a policy commands joints whose positions it sees: name "
        "them alike, or leave what is no joint out of the state"
    )


def _size(feature: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return (height, width, channels) of an image feature, in whichever order it is described."""
    shape = [int(number) for number in feature["shape"]]
    if len(shape) != 3:
        raise ValueError(f"an image has shape {shape}")
    names = [str(name) for name in feature.get("names") or ()]
    first = names[0].startswith("channel") if len(names) == 3 else shape[2] not in (1, 3)
    return (shape[1], shape[2], shape[0]) if first else (shape[0], shape[1], shape[2])
