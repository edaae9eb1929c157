# SPDX-License-Identifier: Apache-2.0
"""RoboCasa's data sets: LeRobot v2 (now) and robomimic's HDF5 (v0.2).

Layouts: robocasa/robocasa:docs/datasets/using_datasets.md and docs/_versions/v0.2. Images are upright in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode, success_labels
from lrm_ros.training.reward.data.sources.hdf5 import (
    control_hz,
    demo_entries,
    demo_in,
    hdf5_files,
    image_reader,
    images_in,
    json_attribute,
    opened,
    per_step,
)
from lrm_ros.training.reward.data.sources.lerobot import read_lerobot

CONTROL_HZ = 20.0  # of robosuite's environments


def read_robocasa(
    folder: Path, camera: str = "robot0_agentview_left", mask: str | None = None, source: str = "robocasa"
) -> Iterator[Entry]:
    """Return the episodes of all LeRobot data sets below a folder, else of all HDF5 files there, or of one file.

    The HDF5 files have the success of each frame as its reward. The LeRobot data sets do not tell it: demonstrations.

    Args:
        folder: e.g. ``datasets/v1.0/pretrain/atomic``, or a file.
        camera: ``"robot0_agentview_left"``, ``"robot0_agentview_right"`` or ``"robot0_eye_in_hand"``.
        mask: filter key of the HDF5 files, e.g. ``"50_demos"``: only the episodes that it lists.
        source: name of the source.

    Raises:
        FileNotFoundError: neither of them.
        ValueError: while listing, a data set without the camera, or a file without the filter key.
    """
    data_sets = [path.parents[1] for path in sorted(folder.rglob("meta/info.json"))]
    return _of_lerobot(data_sets, camera, source) if data_sets else _of_hdf5(hdf5_files(folder), camera, mask, source)


def _of_lerobot(data_sets: list[Path], camera: str, source: str) -> Iterator[Entry]:
    for path in data_sets:
        yield from read_lerobot(path, f"observation.images.{camera}", source, _name(path))


def _of_hdf5(paths: list[Path], camera: str, mask: str | None, source: str) -> Iterator[Entry]:
    for path in paths:
        yield from demo_entries(path, source, _name(path.with_suffix("")), partial(_open, camera=camera), mask)


def _name(path: Path) -> str:
    """Return what tells a data set from all others, e.g. ``atomic/CloseFridge/20250819/lerobot``."""
    return "/".join(path.resolve().parts[-4:])


def _open(path: Path, demo: str, source: str, episode_id: str, camera: str) -> SourceEpisode:
    key = f"{camera}_image"
    with opened(path) as file:
        group = demo_in(file, demo)
        length = len(images_in(group, "obs", key))
        task = str(json_attribute(group, "ep_meta").get("lang") or "")
        rewards = per_step(group, "rewards", length)
        # Each frame is rendered from, and rewarded in, the same state (robocasa:scripts/dataset_states_to_obs.py).
        success, done = (None, None) if rewards is None else success_labels(rewards > 0, False, length)
        rate = control_hz(file) or CONTROL_HZ
    kind = "failure" if success is False else "demonstration"
    read = image_reader(path, f"data/{demo}/obs/{key}")
    return SourceEpisode(source, episode_id, task, rate, length, read, success, kind, done=done)
