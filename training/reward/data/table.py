# SPDX-License-Identifier: Apache-2.0
"""The labels of a folder's keyframes in memory, and their images on demand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.shards import LABELS, check_split, complete_shards, open_shard


@dataclass(frozen=True, eq=False)
class Keyframes:
    """The labels of many keyframes in memory, and their images on demand; can be pickled.

    Attributes:
        paths: the shards.
        sources: names of the sources.
        tasks: different instructions.
        kinds: names of the behaviours.
        source: (N,) index into ``sources``.
        task: (N,) index into ``tasks``.
        kind: (N,) index into ``kinds``.
        episode: (N,) number of the episode, ascending.
        position: (N,) tenths of the episode's time.
        progress: (N,) labels in [0, 1]; NaN where there is none.
        by_state: (N,) whether progress comes from a simulator's state.
        done: (N,) 1 done, 0 not, -1 not known.
        place: (N, 3) indices of shard, row group and row.
    """

    paths: tuple[Path, ...]
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    kinds: tuple[str, ...]
    source: NDArray[np.int64]
    task: NDArray[np.int64]
    kind: NDArray[np.int64]
    episode: NDArray[np.int64]
    position: NDArray[np.int64]
    progress: NDArray[np.float64]
    by_state: NDArray[np.bool_]
    done: NDArray[np.int64]
    place: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.episode)

    def jpeg(self, row: int) -> bytes:
        """Return an encoded image.

        Raises:
            ValueError: the shard cannot be read any more.
        """
        shard, group, inside = self.place[row].tolist()
        column = open_shard(self.paths[shard]).read_row_group(group, ["jpeg"], use_threads=False)["jpeg"]
        return column[inside].as_py()


def load_keyframes(folder: Path, split: str | None = None) -> Keyframes:
    """Read the labels of a folder's keyframes; there may be none in a split of few episodes.

    Args:
        folder: where ``lrm reward data`` wrote.
        split: ``"train"``, ``"val"``, or ``None`` for both.

    Raises:
        FileNotFoundError: no shards.
        ValueError: unknown split, a shard that is missing or cannot be read, an interrupted command, or a label
            outside [0, 1].
    """
    import pyarrow as pa

    check_split(split)
    paths = complete_shards(folder)
    tables, places = [], []
    for shard, path in enumerate(paths):
        file = open_shard(path)
        tables.append(file.read(list(LABELS), use_threads=False))
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            places.append(np.stack([np.full(count, shard), np.full(count, group), np.arange(count)], axis=1))
    table, place = pa.concat_tables(tables), np.concatenate(places)
    if split is not None:
        chosen = np.flatnonzero(table["split"].to_numpy() == split)
        table, place = table.take(chosen), place[chosen]
    progress = table["progress"].to_numpy().astype(np.float64)  # null becomes NaN
    known = table["progress"].is_valid().to_numpy()
    wrong = np.flatnonzero(known & ~((progress >= 0) & (progress <= 1)))
    if len(wrong):
        where = {name: table[name][int(wrong[0])].as_py() for name in ("source", "episode_id", "frame", "progress")}
        raise ValueError(f"'{folder}' has {len(wrong)} labels outside [0, 1], the first: {where}; make it again")

    def coded(name: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        column = table[name].combine_chunks().dictionary_encode()
        return tuple(column.dictionary.to_pylist()), column.indices.to_numpy().astype(np.int64)

    sources, source = coded("source")
    tasks, task = coded("task")
    kinds, kind = coded("kind")
    starts = np.append(True, (np.diff(place[:, :2], axis=0) != 0).any(axis=1))[: len(place)]
    return Keyframes(
        tuple(paths),
        sources,
        tasks,
        kinds,
        source,
        task,
        kind,
        np.cumsum(starts) - 1,
        table["position"].to_numpy().astype(np.int64),
        progress,
        table["by_state"].to_numpy(),
        table["done"].cast(pa.int8()).fill_null(-1).to_numpy().astype(np.int64),
        place,
    )
