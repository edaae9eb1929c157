# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v2.0, v2.1 and v3.0 on disk, read without LeRobot (which reads one of them only, by its version)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, success_labels
from lrm_ros.training.reward.data.sources.lerobot_rows import image_reader, read_rows
from lrm_ros.training.reward.data.sources.video import Video


@dataclass(frozen=True)
class _EpisodeFiles:
    """Files of an episode: its rows, and its video (``None``: the images are in the rows)."""

    index: int
    rows: Path
    video: Path | None
    first: int


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
    info_file = folder / "meta/info.json"
    if not info_file.is_file():
        raise FileNotFoundError(f"'{folder}' holds no meta/info.json; give the folder of a LeRobotDataset")
    try:
        info = json.loads(info_file.read_text())
    except ValueError as error:
        raise ValueError(f"'{info_file}' is not JSON; fetch or convert the data set again") from error
    if not isinstance(info, dict):
        raise ValueError(f"'{info_file}' is no JSON object; fetch or convert the data set again")
    version = str(info.get("codebase_version"))
    if not version.startswith(("v2.", "v3.")):
        raise ValueError(f"'{folder}' is LeRobotDataset {version}; only v2.0, v2.1 and v3.0 can be read")
    fps, features = info.get("fps"), info.get("features")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < float("inf"):
        raise ValueError(f"'{info_file}': fps is {fps!r}; write the frames a second that it was recorded with")
    if not isinstance(features, dict) or not all(isinstance(f, dict) and "dtype" in f for f in features.values()):
        raise ValueError(f"'{info_file}' does not describe its features; fetch or convert the data set again")
    with _metadata(folder):
        return _entries(folder, info, camera, source, prefix)


@contextmanager
def _metadata(folder: Path) -> Iterator[None]:
    """Say which data set has metadata that no reader expects, and the cure."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # Arrow and format strings meet damage with any
        if isinstance(error, ValueError | OSError) and str(folder) in str(error):
            raise
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"'{folder}' has metadata that cannot be used ({what}); fetch or convert it again") from error


def _entries(
    folder: Path, info: dict[str, Any], camera: str | None, source: str | None, prefix: str
) -> Iterator[Entry]:
    """Return the episodes of a data set; see :func:`read_lerobot`."""
    version = str(info["codebase_version"])
    key = _camera(folder, info, camera)
    in_video = info["features"][key]["dtype"] == "video"
    episodes, tasks = (_episodes_v2, _tasks_v2) if version.startswith("v2.") else (_episodes_v3, _tasks_v3)
    name = source or folder.resolve().name
    opener = partial(_open, camera=key, tasks=tasks(folder), fps=float(info["fps"]), source=name)
    start = f"{prefix}/episode_" if prefix else "episode_"
    found = episodes(folder, info, key if in_video else None)

    def entries() -> Iterator[Entry]:
        with _metadata(folder):
            for files in found:
                episode_id = f"{start}{files.index:06d}"
                yield Entry(name, episode_id, partial(opener, files, episode_id))

    return entries()


def _camera(folder: Path, info: dict[str, Any], camera: str | None) -> str:
    """Return the key of the image feature to read."""
    visual = {key: about for key, about in info["features"].items() if about["dtype"] in ("image", "video")}
    for key, about in visual.items():
        details = about.get("info") or about.get("video_info") or {}
        is_depth = details.get("video.is_depth_map") or details.get("is_depth_map")
        if camera in (key, key.rsplit(".", 1)[-1]) or (camera is None and not is_depth):
            return key
    wanted = f"camera '{camera}'" if camera else "colour camera"
    raise ValueError(f"'{folder}' has no {wanted}, only: {', '.join(visual) or 'none'}")


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file."""
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"'{path}', line {number} is not JSON; fetch the data set again") from error


def _tasks_v2(folder: Path) -> dict[int, str]:
    return {row["task_index"]: row["task"] for row in _json_lines(folder / "meta/tasks.jsonl")}


def _episodes_v2(folder: Path, info: dict[str, Any], camera: str | None) -> Iterator[_EpisodeFiles]:
    for row in _json_lines(folder / "meta/episodes.jsonl"):
        index = row["episode_index"]
        names = {"episode_chunk": index // info["chunks_size"], "episode_index": index, "video_key": camera}
        video = folder / info["video_path"].format(**names) if camera else None
        yield _EpisodeFiles(index, folder / info["data_path"].format(**names), video, 0)


def _table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a parquet file of the data set's own tables."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{path}' cannot be read ({type(error).__name__}); was the data set finalised?") from error


def _tasks_v3(folder: Path) -> dict[int, str]:
    rows = _table(folder / "meta/tasks.parquet")
    # The text is the index of a pandas table, whose name depends on the writer.
    return {row["task_index"]: next(text for key, text in row.items() if key != "task_index") for row in rows}


def _episodes_v3(folder: Path, info: dict[str, Any], camera: str | None) -> Iterator[_EpisodeFiles]:
    keys = ["chunk_index", "file_index"]
    columns = ["episode_index", *(f"data/{key}" for key in keys)]
    if camera:
        columns += [f"videos/{camera}/{key}" for key in (*keys, "from_timestamp")]
    paths = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        raise ValueError(f"'{folder}' has no table of episodes (meta/episodes); was the data set finalised?")
    for path in paths:
        for row in _table(path, columns):
            rows = info["data_path"].format(**{key: row[f"data/{key}"] for key in keys})
            video, first = None, 0
            if camera:
                place = {key: row[f"videos/{camera}/{key}"] for key in keys}
                video = folder / info["video_path"].format(video_key=camera, **place)
                first = round(row[f"videos/{camera}/from_timestamp"] * info["fps"])
            yield _EpisodeFiles(row["episode_index"], folder / rows, video, first)


def _open(
    files: _EpisodeFiles, episode_id: str, camera: str, tasks: Mapping[int, str], fps: float, source: str
) -> SourceEpisode:
    rows = read_rows(files.rows, files.index)
    if rows.task_index not in tasks:
        raise BadEpisode("a task that the table of tasks does not have")
    task = str(tasks[rows.task_index])
    length = len(rows.at)
    success, done = (None, None) if rows.success is None else success_labels(rows.success, rows.after_action, length)
    if files.video is None:
        read = image_reader(files.rows, rows, camera)
    else:
        video = Video(files.video, files.first, length)
        length, read = video.length, video.read
    kind = "failure" if success is False else "demonstration"
    return SourceEpisode(source, episode_id, task, fps, length, read, success, kind, done=done)
