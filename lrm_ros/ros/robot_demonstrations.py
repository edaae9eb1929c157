# SPDX-License-Identifier: Apache-2.0
"""The demonstrations that the loop on an arm starts from, and how they begin: pose, pictures of the scene, task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrm_ros.config import RobotContract
from lrm_ros.config_person import RobotImproverConfig
from lrm_ros.contract import contract_differences
from lrm_ros.files import read_json, write_bytes, write_json
from lrm_ros.image_files import decode, encode
from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import Omissions, is_complete
from lrm_ros.record.journal import JournalError, read_info
from lrm_ros.record.lerobot_files import is_dataset
from lrm_ros.record.lerobot_read import first_images, read_rows
from lrm_ros.record.lerobot_set import open_set

STARTS = "starts.json"


@dataclass(frozen=True)
class Starts:
    """How demonstrations begin.

    Attributes:
        task: their instruction.
        pose: (D,) median of the joint states at their beginning [rad].
        pictures: files, one a demonstration.
    """

    task: str
    pose: NDArray[np.float32]
    pictures: tuple[Path, ...]

    def picture(self, number: int) -> NDArray[np.uint8]:
        """Return a picture (H, W, 3), one after the other and again from the first."""
        return decode(self.pictures[number % len(self.pictures)].read_bytes(), "png")


def usable(folder: Path) -> list[Path]:
    """Return the journals of a folder that nobody called a failure, and that were not cut off."""
    found = []
    for path in sorted(folder.glob("*.mcap")):
        try:
            info = read_info(path)
        except JournalError as error:
            print(f"left out: {error}", flush=True)
            continue
        if info.outcome is not False and not (info.recovered and info.outcome is None):
            found.append(path)
    return found


def prepare(folder: Path, config: RobotImproverConfig, contract_file: str, record: Callable[[Path, int], None]) -> Path:
    """Return the data set of the demonstrations.

    Args:
        folder: of the run's demonstrations; a data set made of journals is written into it.
        config: where they are, and how many of them are recorded now.
        contract_file: for the messages.
        record: called with a folder and how many are missing, again and again until there are enough.

    Raises:
        ValueError: there are none, or they are of another robot; says which.
        FileNotFoundError: there is no such folder.
    """
    given = Path(config.dataset) if config.dataset else folder / "episodes"
    if config.dataset and is_dataset(given):
        return given
    if config.dataset and not given.is_dir():
        raise FileNotFoundError(
            f"'{given}' does not exist; give dataset:=FOLDER with journals or a LeRobotDataset, or leave it out to "
            "record now"
        )
    if is_complete(folder / "dataset"):
        return folder / "dataset"
    while not config.dataset and (missing := config.demonstrations - len(usable(given))) > 0:
        record(given, missing)
    journals = usable(given)
    if not journals:
        raise ValueError(f"'{given}' has no journal of a demonstration that nobody called a failure")
    omissions = Omissions()
    journals_to_dataset(journals, folder / "dataset", omissions=omissions)
    for name, reason in omissions.left_out:
        print(f"left out: '{name}': {reason}", flush=True)
    return folder / "dataset"


def starts_of(dataset: Path, contract: RobotContract, units: list[tuple[float, float]] | None, folder: Path) -> Starts:
    """Return how demonstrations begin; it is kept in ``folder``, for the next time.

    Args:
        dataset: of the demonstrations.
        contract: of the robot.
        units: of a data set that does not tell limits and units, see ``LeRobotSet.of_robot``.
        folder: where it is kept.

    Raises:
        ValueError: the data set is of another robot.
    """
    path = folder / STARTS
    if not path.is_file():
        opened = open_set(dataset)
        if not opened.contract.has_limits:
            if units is None and not opened.in_rad:
                raise ValueError(
                    f"nothing says what the numbers of '{dataset}' are in rad; give the contract's file with a section "
                    "'arm': contract:=FILE, e.g. config/so101.yaml"
                )
            opened = opened.of_robot(contract, None if opened.in_rad else units, "the arm's contract")
        if differences := contract_differences(opened.contract, contract):
            raise ValueError(f"'{dataset}' is of another robot than this arm: {'; '.join(differences)}")
        rows = read_rows(opened)
        pose = np.median([one.states[0] for one in rows], axis=0)  # (D,)
        for number, image in enumerate(first_images(opened, contract.cameras[0].name)):
            write_bytes(folder / "starts" / f"{number:03d}.png", encode(image, "png"))
        write_json(path, {"task": rows[0].tasks[0], "pose": pose.tolist(), "pictures": len(rows)})
    found = read_json(path, "delete it: it is made anew")
    pictures = tuple(folder / "starts" / f"{number:03d}.png" for number in range(found["pictures"]))
    return Starts(str(found["task"]), np.array(found["pose"], np.float32), pictures)
