# SPDX-License-Identifier: Apache-2.0
"""The rows of one episode of a LeRobotDataset: task and success of each frame, and images that lie in the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.image_files import decode
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Reader, same_size

SUCCESS = ("next.success", "success")
BATCH = 16  # images of a page that are copied at a time


@dataclass(frozen=True)
class Rows:
    """Rows of one episode.

    Attributes:
        at: (T,) where they are in the file, ascending.
        task_index: the task of all of them.
        success: (T,) the flags of the success column; ``None``: the file has none.
        after_action: the flags tell what a frame's action led to, not the frame itself.
    """

    at: NDArray[np.int64]
    task_index: int
    success: NDArray[np.bool_] | None
    after_action: bool


def read_rows(path: Path, episode: int) -> Rows:
    """Read what the rows of an episode say, without images.

    Raises:
        BadEpisode: unreadable file, no rows, rows that are missing or out of order, or not one task.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise BadEpisode("no file with its rows") from error
    columns = _columns(path, state.st_size, state.st_mtime_ns)
    at = np.flatnonzero(columns["episode_index"] == episode)
    if len(at) == 0:
        raise BadEpisode("an episode that is listed but has no rows")
    if "frame_index" in columns and not np.array_equal(columns["frame_index"][at], np.arange(len(at))):
        raise BadEpisode("rows that are missing or out of order")
    if "task_index" not in columns:
        raise BadEpisode("no language instruction")
    tasks = columns["task_index"][at]
    if (tasks != tasks[0]).any():
        raise BadEpisode("several tasks in one episode")
    name = next((name for name in SUCCESS if name in columns), None)
    if name is None:
        return Rows(at, int(tasks[0]), None, False)
    flags = columns[name][at]
    if not np.isin(flags, (0, 1)).all():
        raise BadEpisode(f"column '{name}' with values that are missing, or not true or false")
    return Rows(at, int(tasks[0]), flags.astype(bool), name.startswith("next."))


@lru_cache(maxsize=4)
def _columns(path: Path, size: int, modified_ns: int) -> dict[str, NDArray[np.float64]]:
    """Read the columns with indices and success of a file; a file of v3 holds thousands of episodes.

    Size and modification time are part of the cache key.
    """
    with _parquet(path) as file:
        there = set(file.schema_arrow.names)
        names = [name for name in ("episode_index", "frame_index", "task_index", *SUCCESS) if name in there]
        table = file.read(columns=names)
    if "episode_index" not in there:
        raise BadEpisode("rows without a number of the episode")
    return {name: _numbers(name, table[name].to_pylist()) for name in names}


def _numbers(name: str, values: list[Any]) -> NDArray[np.float64]:
    """Return a column, which LeRobot writes plain or as lists of one; NaN where a value is missing."""
    try:
        plain = [value[0] if isinstance(value, list) else value for value in values]
        return np.array([np.nan if value is None else float(value) for value in plain])
    except (TypeError, ValueError, IndexError) as error:
        raise BadEpisode(f"column '{name}' does not hold numbers") from error


def image_reader(path: Path, rows: Rows, camera: str) -> Reader:
    """Return the reader of images that are encoded in the rows, (H, W, 3) uint8 RGB.

    In memory are the images of a page of the file, still encoded: Arrow makes pages of up to 1,024 rows, and LeRobot
    starts one with every episode.
    """

    def read(indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return same_size(_images(path, rows.at[np.asarray(indices, np.int64)], camera))

    return read


def _images(path: Path, wanted: NDArray[np.int64], camera: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of ascending rows of a file."""
    with _parquet(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)  # (G,)
        groups = np.unique(np.searchsorted(ends, wanted, side="right"))
        for group in groups.tolist():
            start = int(ends[group]) - sizes[group]
            for batch in file.iter_batches(BATCH, [group], [camera]):
                stop = start + len(batch)
                for row in wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)]:
                    yield _decode(batch.column(0)[row - start].as_py())
                start = stop
                if start > wanted[-1]:
                    return


def _decode(image: dict[str, Any] | None) -> NDArray[np.uint8]:
    """Return an image of LeRobot's (that is Hugging Face's) form: encoded bytes beside the path they came from."""
    data = image and image.get("bytes")
    if not data:
        raise BadEpisode("images that are missing")
    try:
        return decode(data, "png")
    except ValueError as error:
        raise BadEpisode("unreadable image") from error


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """Open a parquet file; every error becomes a BadEpisode."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise BadEpisode(f"unreadable rows: {type(error).__name__}") from error
