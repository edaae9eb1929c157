# SPDX-License-Identifier: Apache-2.0
"""Robometer (RBM-1M): a table of trajectories and one MP4 a trajectory, as its converter writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.video import Video

NEEDED = ("id", "task", "data_source", "frames", "quality_label")
# Labels of dataset_upload/validate_dataset.py and the older ones that robometer/data/scripts/preprocess_datasets.py
# still takes. A suboptimal trajectory counts as no success in robometer/data/datasets/README.md.
SUCCESS = {
    "successful": True,
    "optimal": True,
    "suboptimal": False,
    "failure": False,
    "failed": False,
}
# Elsewhere partial_success is empty or a filler: mw_collected_loader.py writes 0 for successes too.
SCORED = ("roboarena", "roboreward")


def read_robometer(folder: Path) -> Iterator[Entry]:
    """Yield the trajectories of all tables in a folder, table by table in the order of their names.

    Format (robometer/robometer c7f38e2:dataset_upload/generate_hf_dataset.py, helpers.py): columns id, task,
    lang_vector (384 float32, not read), data_source, frames, is_robot, quality_label, partial_success, sometimes
    preference_group_id and preference_rank. ``frames`` is the path of an MP4, relative to ``folder``
    (``NAME/batch_0000/trajectory_0000.mp4``, ``oxe_NAME/shard_0000/episode_000000/clip@CAMERA.mp4``). The tables are
    ``NAME/train-*.parquet`` (a copy of the Hub repository) or ``NAME/data-*.arrow`` (``save_to_disk``). The videos have
    at most 64 of the frames of a trajectory, so their rate is the file's, not the robot's.

    Args:
        folder: the copy of one Hub repository, or the converter's output folder.

    Raises:
        FileNotFoundError: no tables.
        ValueError: a table lacks a column.
    """
    tables = sorted([*folder.glob("*/train-*.parquet"), *folder.glob("*/data-*.arrow")])
    if not tables:
        raise FileNotFoundError(f"'{folder}' holds no NAME/train-*.parquet and no NAME/data-*.arrow")
    for table in tables:
        for row in _rows(table):
            source, episode_id = f"robometer_{row['data_source']}", str(row["id"])
            yield Entry(source, episode_id, partial(_open, folder, row, source, episode_id))


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table without the language vectors; a few hundred are in memory at a time."""
    import pyarrow
    from pyarrow import ipc, parquet

    columnar = table.suffix == ".parquet"
    opened = parquet.ParquetFile(table) if columnar else ipc.open_stream(pyarrow.memory_map(str(table)))
    there = (opened.schema_arrow if columnar else opened.schema).names
    missing = [name for name in NEEDED if name not in there]
    if missing:
        raise ValueError(f"'{table}' is no Robometer table: it lacks {', '.join(missing)}; it has {', '.join(there)}")
    wanted = [name for name in (*NEEDED, "partial_success") if name in there]
    for batch in opened.iter_batches(512, columns=wanted) if columnar else opened:
        yield from batch.select(wanted).to_pylist()


def _open(folder: Path, row: dict[str, Any], source: str, episode_id: str) -> SourceEpisode:
    label = row["quality_label"]
    if label not in SUCCESS:
        raise BadEpisode(f"quality label {label!r}")
    if not row["task"]:
        raise BadEpisode("no language instruction")
    if not isinstance(row["frames"], str) or not (folder / row["frames"]).is_file():
        raise BadEpisode("no video")
    score = row.get("partial_success") if any(name in source for name in SCORED) else None
    if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
        raise BadEpisode("partial success outside [0, 1]")
    video = Video(folder / row["frames"])
    success = SUCCESS[label]
    kind = "demonstration" if success else "suboptimal" if label == "suboptimal" else "failure"
    return SourceEpisode(
        source,
        episode_id,
        row["task"].strip(),
        video.fps,
        video.length,
        video.read,
        success,
        kind,
        end_progress=score,
    )
