# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v2.0, v2.1 and v3.0 on disk, read without LeRobot (which reads one of them only, by its version)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lrm_ros.record.lerobot_files import (
    EpisodeFiles,
    episodes_of,
    is_depth,
    is_text,
    metadata_of,
    read_description,
    tasks_of,
)
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, success_labels
from lrm_ros.training.reward.data.sources.lerobot_rows import image_reader, read_rows
from lrm_ros.training.reward.data.sources.video import Video


def read_lerobot(
    folder: Path, camera: str | None = None, source: str | None = None, prefix: str = ""
) -> Iterator[Entry]:
    """Return the episodes of one data set, in its order.

    Success is the last value of a column ``next.success`` (of what a frame's action led to) or ``success`` (of the
    frame itself); without one the episodes count as demonstrations. Layouts: datasets/utils.py of lerobot 0.4.4 and
    0.6.1, and for v2.1 the converter (0.4.4: datasets/v30, 0.6.1: scripts; convert_dataset_v21_to_v30.py).

    Args:
        folder: the data set, with ``meta/info.json`` in it.
        camera: an image feature, e.g. ``"observation.images.front"`` or ``"front"``; default: the first one.
        source: name of the source; default: the folder's.
        prefix: what ids begin with, if one source has several data sets.

    Raises:
        FileNotFoundError: no data set in the folder.
        ValueError: another version, no such camera, or unreadable metadata.
    """
    info = read_description(folder)
    with metadata_of(folder):
        return _entries(folder, info, camera, source, prefix)


def _entries(
    folder: Path, info: dict[str, Any], camera: str | None, source: str | None, prefix: str
) -> Iterator[Entry]:
    """Return the episodes of a data set; see :func:`read_lerobot`."""
    key = _camera(folder, info, camera)
    in_video = info["features"][key]["dtype"] == "video"
    name = source or folder.resolve().name
    opener = partial(_open, camera=key, tasks=tasks_of(folder, info), fps=float(info["fps"]), source=name)
    start = f"{prefix}/episode_" if prefix else "episode_"
    found = episodes_of(folder, info, [key] if in_video else [])

    def entries() -> Iterator[Entry]:
        with metadata_of(folder):
            for files in found:
                episode_id = f"{start}{files.index:06d}"
                yield Entry(name, episode_id, partial(opener, files, episode_id))

    return entries()


def _camera(folder: Path, info: dict[str, Any], camera: str | None) -> str:
    """Return the key of the image feature to read."""
    visual = {key: about for key, about in info["features"].items() if about["dtype"] in ("image", "video")}
    for key, about in visual.items():
        if camera in (key, key.rsplit(".", 1)[-1]) or (camera is None and not is_depth(about)):
            return key
    wanted = f"camera '{camera}'" if camera else "colour camera"
    raise ValueError(f"'{folder}' has no {wanted}, only: {', '.join(visual) or 'none'}")


def _open(
    files: EpisodeFiles, episode_id: str, camera: str, tasks: Mapping[int, str], fps: float, source: str
) -> SourceEpisode:
    rows = read_rows(files.rows, files.index)
    if rows.task_index not in tasks:
        raise BadEpisode("a task that the table of tasks does not have")
    task = tasks[rows.task_index]
    if task.strip() and not is_text(task):
        raise BadEpisode("a task with NUL or half a character")
    length = len(rows.at)
    if files.length not in (None, length):
        raise BadEpisode(f"{length} rows, but it is listed with {files.length}")
    success, done = (None, None) if rows.success is None else success_labels(rows.success, rows.after_action, length)
    if camera not in files.videos:
        read = image_reader(files.rows, rows, camera)
    else:
        video = Video(*files.videos[camera], length)
        length, read = video.length, video.read
    kind = "failure" if success is False else "demonstration"
    return SourceEpisode(source, episode_id, task, fps, length, read, success, kind, done=done)
