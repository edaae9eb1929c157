# SPDX-License-Identifier: Apache-2.0
"""robomimic's data sets: HDF5 with images (ARISE-Initiative/robomimic:robomimic/scripts/dataset_states_to_obs.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, success_labels
from lrm_ros.training.reward.data.sources.hdf5 import (
    control_hz,
    demo_entries,
    demo_in,
    hdf5_files,
    image_reader,
    images_in,
    opened,
    per_step,
)


def read_robomimic(
    folder: Path,
    task: str,
    camera: str = "agentview",
    mask: str | None = None,
    fps: float | None = None,
    source: str = "robomimic",
) -> Iterator[Entry]:
    """Return the episodes of all files below a folder, or of one file, all of one task.

    Images are upright in these files. The frame after the last action is read too where the file has it.

    Args:
        folder: e.g. ``lift/ph``, or a file.
        task: language instruction; the files have none.
        camera: name of the camera, read from ``obs/CAMERA_image``.
        mask: filter key, e.g. ``"train"``: only the episodes that it lists.
        fps: frames a second; default: the control rate in the file's ``env_args``.
        source: name of the source.

    Raises:
        FileNotFoundError: no files.
        ValueError: no task; while listing, a file that does not have the filter key.
    """
    if not task.strip():
        raise ValueError("robomimic's files name no task; give its language instruction")
    opener = partial(_open, task=task, camera=camera, fps=fps)
    return _entries(hdf5_files(folder), opener, source, mask)


def _entries(paths: list[Path], opener: Any, source: str, mask: str | None) -> Iterator[Entry]:
    for path in paths:
        name = "/".join(path.resolve().with_suffix("").parts[-3:])  # e.g. lift/ph/image_v15
        yield from demo_entries(path, source, name, opener, mask)


def _open(
    path: Path, demo: str, source: str, episode_id: str, task: str, camera: str, fps: float | None
) -> SourceEpisode:
    key = f"{camera}_image"
    name, last = f"data/{demo}/obs/{key}", None
    with opened(path) as file:
        group = demo_in(file, demo)
        steps = length = len(images_in(group, "obs", key))
        if key in group.get("next_obs", {}):
            images_in(group, "next_obs", key)
            last, length = f"data/{demo}/next_obs/{key}", steps + 1
        rate = fps or control_hz(file)
        if not rate:
            raise BadEpisode("no control rate in 'env_args'; give fps")
        flags = success_flags(per_step(group, "rewards", steps), per_step(group, "dones", steps))
    success, done = (None, None) if flags is None else success_labels(flags, True, length)
    kind = "failure" if success is False else "demonstration"
    return SourceEpisode(
        source, episode_id, task, rate, length, image_reader(path, name, last), success, kind, done=done
    )


def success_flags(rewards: NDArray[np.float64] | None, dones: NDArray[np.float64] | None) -> NDArray[np.bool_] | None:
    """Return whether each step's action led to success (T,), or ``None`` if the file says nothing of it.

    Sparse rewards (0 and 1) tell it. Shaped ones do not, but done signals do where one is set before the last step:
    the last one may also mark the end of the episode.

    Raises:
        BadEpisode: shaped rewards and no such done signal: a demonstration or a failure.
    """
    if rewards is not None and np.isin(rewards, (0, 1)).all():
        return rewards > 0
    if dones is not None and dones[:-1].any():
        flags = dones > 0
        flags[-1] &= flags[-2]
        return flags
    if rewards is not None:
        raise BadEpisode("shaped rewards, and no done signal that tells success")
    return None
