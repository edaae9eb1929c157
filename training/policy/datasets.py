# SPDX-License-Identifier: Apache-2.0
"""What a training reads: data sets of this package, of LeRobot and of its hub, in one robot contract; in RAM or not."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lrm_ros.checkpoint import policy_contract, require_checkpoint
from lrm_ros.config import RobotContract
from lrm_ros.config_files import load_yaml, read_yaml
from lrm_ros.contract import contract_differences, require_limits, require_radians
from lrm_ros.errors import one_line
from lrm_ros.record.lerobot_files import is_dataset
from lrm_ros.record.lerobot_read import read_episodes
from lrm_ros.record.lerobot_set import LeRobotSet, open_set
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.training.policy.stream import STREAMED, StreamedData
from lrm_ros.types import Episode
from lrm_ros.versions import convert_v21_to_v30, video_backend

MEMORY_SHARE = 0.25
"""Share of the free memory that decoded images may take; data sets with more are read while it trains."""
WORKERS = 2
"""Processes that read images while it trains."""
UNITS = ("arm", "rad")


def training_data(
    datasets: Sequence[str | Path | Sequence[Episode]],
    label: str,
    contract: RobotContract | None = None,
    init: str | Path | None = None,
    contract_file: str | Path | None = None,
    units: str | None = None,
    memory_share: float = MEMORY_SHARE,
    workers: int = WORKERS,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    corrections: float | None = None,
) -> TrainingData:
    """Read data sets to train on; all must be of one robot.

    Args:
        datasets: folders of LeRobotDatasets (v2.0 to v3.0), names on the hub, or lists of episodes.
        label: ``"action"`` or ``"wish"``.
        contract: robot contract of in-memory episodes.
        init: checkpoint to start from.
        contract_file: the robot's contract, with limits; what LeRobot recorded is read in its units (rad).
        units: of what LeRobot recorded: ``"arm"``: those of section ``arm`` of ``contract_file``; ``"rad"``.
        memory_share: see ``MEMORY_SHARE``.
        workers: see ``WORKERS``.
        out: folder of the new checkpoint; its interrupted training goes on as it began, in memory or not.
        say: told what is left out or unknown, one line each.
        corrections: see ``FinetuneConfig``.

    Raises:
        FileNotFoundError: a data set or the checkpoint is not there.
        ValueError: they do not fit together, or cannot be read; says which and what to do.
    """
    if not datasets:
        raise ValueError("no data set given; name at least one with --dataset")
    if units is not None and contract_file is None:
        raise ValueError(f"--units {units} says how numbers become rad: give --contract FILE, too, the robot's")
    sets: list[LeRobotSet | Sequence[Episode]] = [
        open_set(find_dataset(item)) if isinstance(item, str | Path) else item for item in datasets
    ]
    opened = [one for one in sets if isinstance(one, LeRobotSet)]
    if contract_file is not None:
        contract = load_yaml(contract_file, RobotContract, ("arm",))
        require_limits(contract, f"robot contract '{contract_file}'")
        require_radians(contract, f"robot contract '{contract_file}'")
        sets = [_of_robot(one, contract, contract_file, units) if isinstance(one, LeRobotSet) else one for one in sets]
        opened = [one for one in sets if isinstance(one, LeRobotSet)]
    found = [(one.root, one.contract) for one in opened]
    if init is not None:
        if not Path(init).is_dir():
            raise FileNotFoundError(f"checkpoint folder '{init}' does not exist; train one without --init first")
        found.append((require_checkpoint(init), policy_contract(init)))
    agreed = contract or (found[0][1] if found else RobotContract())
    for folder, other in found:
        if differences := contract_differences(other, agreed):
            raise ValueError(f"'{folder}' was made for another robot: {'; '.join(differences)}; do not mix them")
    for one in opened:
        if label == "wish" and not one.has_wish:
            raise ValueError(f"'{one.root}' has no column 'wish', as LeRobot records none; train with --label action")
        for note in _notes(one):
            say(f"{one.root}: {note}")
    if not _streams(opened, memory_share, out):
        data = TrainingData([read_episodes(one) if isinstance(one, LeRobotSet) else one for one in sets], agreed, label)
    elif len(opened) < len(sets):
        raise ValueError("episodes in memory cannot be mixed with data sets that do not fit into it; write them first")
    else:
        size = sum(one.decoded_bytes for one in opened) / 1e9
        say(f"{size:.1f} GB of images are read while it trains, by {video_backend()}, for they would fill the memory")
        part = None if out is None else out.with_name(out.name + ".part")
        opened = [_convert(one, number, part) if one.is_v2 else one for number, one in enumerate(opened)]
        data = StreamedData(opened, agreed, label, workers)
    if corrections is not None:
        data.keep_corrections(corrections, [isinstance(one, LeRobotSet) and one.has_intervention for one in sets])
    return data


def find_dataset(name: str | Path) -> Path:
    """Return the folder of a data set: the one that is named, or LeRobot's own copy of one on the hub.

    Args:
        name: a folder, or ``USER/NAME``.

    Raises:
        FileNotFoundError: there is no such folder, and it is no name on the hub.
        ValueError: it cannot be fetched; in one line.
    """
    folder = Path(name)
    half = folder.with_name(folder.name + ".writing")
    if folder.exists() or half.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        if not is_dataset(folder):
            why = f"; '{half}' was interrupted: build it again from the journals" if half.exists() else ""
            what = "is no finished data set (no meta/info.json)" if folder.is_dir() else "does not exist"
            raise FileNotFoundError(f"'{name}' {what}; give a folder of 'lrm dataset' or of LeRobot{why}")
        return folder
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    try:
        return Path(LeRobotDataset(str(name), video_backend=video_backend()).root)
    except Exception as error:  # the hub's client and its network raise any
        raise ValueError(
            f"'{name}' is no folder here, and cannot be fetched from the hub: {one_line(error)}; look at the name and "
            "the network, for a private one run 'hf auth login', and download one of v2.1 to give its folder"
        ) from error


def _of_robot(one: LeRobotSet, contract: RobotContract, file: str | Path, units: str | None) -> LeRobotSet:
    """Return a data set read as the robot's, in rad.

    Raises:
        ValueError: it is of another robot, or nothing says its units.
    """
    from lrm_ros.config_arm import SECTION, load_arm

    if one.contract.has_limits:
        return one  # ours: whether it is of this robot is looked at with all others
    if one.in_rad or units == "rad":
        return one.of_robot(contract, None, f"'{file}'")
    if SECTION not in read_yaml(file):
        raise ValueError(
            f"nothing says what the numbers of '{one.root}' are: '{file}' has no section '{SECTION}' with its joints' "
            "units in LeRobot, as config/so101.yaml has; add it, or give --units rad if they are rad"
        )
    return one.of_robot(contract, [joint.affine for joint in load_arm(file, contract).joints], f"'{file}'")


def _notes(one: LeRobotSet) -> list[str]:
    """Return what a user should know of a data set."""
    notes = list(one.notes)
    if one.success is None and not one.has_wish:
        notes.append("nobody said which episodes succeeded: all are taken as demonstrations")
    if not one.contract.has_limits:
        notes.append(
            "limits and units are unknown: a policy of it trains and is judged, and moves no arm; for that give "
            "--contract FILE, the robot's, e.g. config/so101.yaml"
        )
    return notes


def _streams(opened: Sequence[LeRobotSet], share: float, out: Path | None) -> bool:
    """Return whether images are read while it trains: as an interrupted training began, else by their size."""
    if out is not None:
        begun = sorted(out.with_name(out.name + ".part").glob("[0-9]*/settings.json"))
        if begun:
            return str(json.loads(begun[-1].read_text(encoding="utf-8"))["data"]).startswith(STREAMED)
        if (out / "finetune.json").is_file():
            settings: dict[str, Any] = json.loads((out / "finetune.json").read_text(encoding="utf-8"))["settings"]
            return str(settings["data"]).startswith(STREAMED)
    return sum(one.decoded_bytes for one in opened) > share * free_memory()


def free_memory() -> float:
    """Return how many bytes of memory are free, of the machine or of this process's control group."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = float(found[1]) * 1024 if found else float("inf")
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        free = min(free, float(most) - float(used.read_text(encoding="utf-8")))
    return max(0.0, free)


def _convert(one: LeRobotSet, number: int, part: Path | None) -> LeRobotSet:
    """Return a data set v2.1 as v3 beside the training, by LeRobot's own converter; the original stays as it is.

    Raises:
        ValueError: it cannot be converted.
    """
    if part is None:
        raise ValueError(f"'{one.root}' is {one.info['codebase_version']}; convert it to v3.0 with LeRobot's converter")
    name = one.root.resolve().name
    target, work = part / "v30" / f"{number}_{name}", part / "converting"
    if not target.is_dir():
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(one.root, work / name, copy_function=_link)
        try:
            convert_v21_to_v30(work / name)
        except Exception as error:  # the converter raises any
            raise ValueError(
                f"'{one.root}' is {one.info['codebase_version']} and too large for the memory, and LeRobot's converter "
                f"to v3.0 fails: {one_line(error)}; fetch it again, or give --memory-share a higher number"
            ) from error
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(work / name, target)
        shutil.rmtree(work)
    converted = open_set(target)
    return dataclasses.replace(one, root=target, info=converted.info)


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where that is not possible; the converter writes new files."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
