# SPDX-License-Identifier: Apache-2.0
"""The files of a LeRobotDataset v2.0, v2.1 and v3.0: its description, its tasks, and where each episode lies.

Layouts: datasets/utils.py of lerobot 0.4.4 and 0.6.1, and for v2.1 the converter (0.4.4: datasets/v30, 0.6.1: scripts;
convert_dataset_v21_to_v30.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INFO_FILE = "meta/info.json"


@dataclass(frozen=True)
class EpisodeFiles:
    """Where an episode lies.

    Attributes:
        index: its number in the data set.
        rows: file of its rows.
        videos: feature -> its video and the index of its first frame there.
        length: how many rows it is listed with; ``None``: the list does not say.
    """

    index: int
    rows: Path
    videos: Mapping[str, tuple[Path, int]]
    length: int | None = None


def is_dataset(folder: Path) -> bool:
    """Return whether a folder is a LeRobotDataset, whoever wrote it."""
    return (folder / INFO_FILE).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """Return what ``meta/info.json`` says, with ``fps``, ``features`` and a version that can be read.

    Raises:
        FileNotFoundError: no data set in the folder.
        ValueError: another version, or no valid description.
    """
    path = folder / INFO_FILE
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' holds no {INFO_FILE}; give the folder of a LeRobotDataset")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not JSON; fetch or convert the data set again") from error
    if not isinstance(info, dict):
        raise ValueError(f"'{path}' is no JSON object; fetch or convert the data set again")
    version = str(info.get("codebase_version"))
    if not version.startswith(("v2.", "v3.")):
        raise ValueError(f"'{folder}' is LeRobotDataset {version}; only v2.0, v2.1 and v3.0 can be read")
    fps, features = info.get("fps"), info.get("features")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < float("inf"):
        raise ValueError(f"'{path}': fps is {fps!r}; write the frames a second that it was recorded with")
    if not isinstance(features, dict) or not all(isinstance(f, dict) and "dtype" in f for f in features.values()):
        raise ValueError(f"'{path}' does not describe its features; fetch or convert the data set again")
    return info


def is_v2(info: Mapping[str, Any]) -> bool:
    """Return whether a description is of v2.0 or v2.1, which LeRobot itself reads no longer."""
    return str(info["codebase_version"]).startswith("v2.")


def is_depth(feature: Mapping[str, Any]) -> bool:
    """Return whether an image feature has depth in place of colours."""
    details = feature.get("info") or feature.get("video_info") or {}
    return bool(details.get("video.is_depth_map") or details.get("is_depth_map"))


@contextmanager
def metadata_of(folder: Path) -> Iterator[None]:
    """Say which data set has metadata that no reader expects, and the cure.

    Raises:
        ValueError: in place of what Arrow and format strings raise.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # Arrow and format strings meet damage with any
        if isinstance(error, ValueError | OSError) and str(folder) in str(error):
            raise
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"'{folder}' has metadata that cannot be used ({what}); fetch or convert it again") from error


def tasks_of(folder: Path, info: Mapping[str, Any]) -> dict[int, str]:
    """Return the task texts by their numbers, without what is no text; ``metadata_of`` says what its errors mean."""
    if is_v2(info):
        found = {row["task_index"]: row["task"] for row in _json_lines(folder / "meta/tasks.jsonl")}
    else:
        rows = _table(folder / "meta/tasks.parquet")
        # The text is the index of a pandas table, whose name depends on the writer.
        found = {row["task_index"]: next(text for key, text in row.items() if key != "task_index") for row in rows}
    return {index: text for index, text in found.items() if isinstance(text, str)}


def is_text(text: str) -> bool:
    """Return whether a task says something and every reader can have it: no NUL, no half of a character."""
    return bool(text.strip()) and "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def episodes_of(folder: Path, info: Mapping[str, Any], videos: Sequence[str]) -> Iterator[EpisodeFiles]:
    """Yield where each episode lies, in order; ``metadata_of`` says what its errors mean.

    Args:
        folder: the data set.
        info: its description.
        videos: features whose videos are wanted.
    """
    return (_episodes_v2 if is_v2(info) else _episodes_v3)(folder, info, videos)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file."""
    with path.open(encoding="utf-8") as lines:  # whatever this machine's locale is
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"'{path}', line {number} is not JSON; fetch the data set again") from error


def _episodes_v2(folder: Path, info: Mapping[str, Any], videos: Sequence[str]) -> Iterator[EpisodeFiles]:
    for row in _json_lines(folder / "meta/episodes.jsonl"):
        index = row["episode_index"]
        names = {"episode_chunk": index // info["chunks_size"], "episode_index": index}
        found = {key: (folder / info["video_path"].format(video_key=key, **names), 0) for key in videos}
        yield EpisodeFiles(index, folder / info["data_path"].format(**names), found, row.get("length"))


def _table(path: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of a parquet file of the data set's own tables; of some columns only, and some if they exist."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = [name for name in optional if name in file.schema_arrow.names]
            return file.read(columns=columns and [*columns, *there]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{path}' cannot be read ({type(error).__name__}); was the data set finalised?") from error


def _episodes_v3(folder: Path, info: Mapping[str, Any], videos: Sequence[str]) -> Iterator[EpisodeFiles]:
    keys = ["chunk_index", "file_index"]
    columns = ["episode_index", *(f"data/{key}" for key in keys)]
    columns += [f"videos/{camera}/{key}" for camera in videos for key in (*keys, "from_timestamp")]
    paths = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        raise ValueError(f"'{folder}' has no table of episodes (meta/episodes); was the data set finalised?")
    for path in paths:
        for row in _table(path, columns, ["length"]):
            rows = info["data_path"].format(**{key: row[f"data/{key}"] for key in keys})
            found = {}
            for camera in videos:
                place = {key: row[f"videos/{camera}/{key}"] for key in keys}
                first = round(row[f"videos/{camera}/from_timestamp"] * info["fps"])
                found[camera] = (folder / info["video_path"].format(video_key=camera, **place), first)
            yield EpisodeFiles(row["episode_index"], folder / rows, found, row.get("length"))
