# SPDX-License-Identifier: Apache-2.0
"""Episodes that a generator wrote as shards (``lrm_ros.sim.twin.generate``), with labels from simulator state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.instructions import Labelled, instructions_of
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, array_reader

_UNNAMED = "twin"  # shards of one source do not name it


def generated_sources(folder: Path) -> list[str]:
    """Return the names of the sources that the shards (*.npz) below a folder come from.

    Raises:
        FileNotFoundError: no shards.
    """
    names = {info.get("source", _UNNAMED) for path in _paths(folder) for info in _episode_infos(path)}
    return sorted(names)


def read_generated(folder: Path, source: str | None = None, fps: float = 5.0) -> Iterator[Entry]:
    """Yield the episodes of all shards below a folder, in the order of their paths.

    Args:
        folder: where the shards are.
        source: only episodes of this source; ``None``: all.
        fps: frames a second, where a shard does not say.

    Raises:
        FileNotFoundError: no shards.
    """
    for path in _paths(folder):
        for info in _episode_infos(path):
            name = info.get("source", _UNNAMED)
            if source is not None and name != source:
                continue
            episode_id = f"{info['kind']}_{info['episode']:07d}"
            yield Entry(name, episode_id, partial(_open, path, info, name, episode_id, info.get("fps", fps)))


def _paths(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise FileNotFoundError(
            f"'{folder}' holds no shards (*.npz); make them with 'python -m lrm_ros.sim.twin.generate'"
        )
    return paths


def _episode_infos(path: Path) -> list[dict[str, Any]]:
    """Return what a shard says info its episodes."""
    with np.load(path) as shard:
        return [json.loads(str(line)) for line in shard["tasks"]]


def _open(path: Path, info: dict[str, Any], source: str, episode_id: str, fps: float) -> SourceEpisode:
    shard = _shard(path)
    mine = shard["episode"] == info["episode"]
    if "source" in shard:
        mine &= shard["source"] == source
    rows = np.flatnonzero(mine)
    if len(rows) == 0:
        raise BadEpisode("no frames")
    done = shard["success"][rows].astype(bool)
    return SourceEpisode(
        source,
        episode_id,
        info["task"],
        fps,
        len(rows),
        array_reader(shard["frames"][rows]),
        bool(done[-1]),
        info["kind"],
        shard["progress"][rows],
        done,
        asked=_asked(shard, info, rows),
    )


def _asked(shard: dict[str, NDArray], info: dict[str, Any], rows: NDArray) -> Labelled | None:
    """Return what else could be asked of an episode, ``None`` if its shard does not say it."""
    if "labels" not in shard or "instructions" not in info:
        return None
    instructions = instructions_of(info["instructions"])
    return Labelled(instructions, shard["labels"][rows, : len(instructions)].astype(np.float32))


@lru_cache(maxsize=12)  # 0.1 GB each
def _shard(path: Path) -> dict[str, NDArray]:
    """Return the arrays of a shard; its episodes are read close together, those of several sources by turns."""
    with np.load(path) as shard:
        return {name: shard[name] for name in shard.files}
