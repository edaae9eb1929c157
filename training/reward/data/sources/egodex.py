# SPDX-License-Identifier: Apache-2.0
"""EgoDex: people's hands at work, first person; an MP4 and an HDF5 file an episode. Licence CC BY-NC-ND."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.video import Video


def read_egodex(folder: Path) -> Iterator[Entry]:
    """Yield the episodes below a folder, in the order of their paths; the data set says nothing about success.

    Layout (robometer/robometer:dataset_upload/dataset_loaders/egodex_loader.py): ``PART/TASK/N.mp4`` (1080p, 30 Hz) and
    ``PART/TASK/N.hdf5`` with the text in its attributes.

    Args:
        folder: the data set, or one part or task of it.

    Raises:
        FileNotFoundError: no HDF5 files.
    """
    paths = sorted(folder.rglob("*.hdf5"))
    if not paths:
        raise FileNotFoundError(f"'{folder}' holds no EgoDex episodes (*.hdf5 with an *.mp4 of the same name)")
    for path in paths:
        episode_id = path.relative_to(folder).with_suffix("").as_posix()
        yield Entry("egodex", episode_id, partial(_open, path, episode_id))


def _open(path: Path, episode_id: str) -> SourceEpisode:
    import h5py

    try:
        with h5py.File(path) as file:
            task = description(file.attrs)
    except OSError as error:
        raise BadEpisode("unreadable HDF5 file") from error
    if not path.with_suffix(".mp4").is_file():
        raise BadEpisode("no video beside the HDF5 file")
    video = Video(path.with_suffix(".mp4"))
    return SourceEpisode("egodex", episode_id, task, video.fps, video.length, video.read)


def description(attributes: Mapping[str, Any]) -> str:
    """Return the task text: the second description of a reversible task that is done the second way, else the first.

    Raises:
        BadEpisode: there is none, or it says "description unavailable".
    """
    second = _text(attributes.get("which_llm_description", "1")) == "2"
    text = _text(attributes.get("llm_description2" if second else "llm_description", ""))
    if not text:
        raise BadEpisode("no language instruction")
    if "description unavailable" in text.lower():
        raise BadEpisode("description unavailable")
    return text


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()
