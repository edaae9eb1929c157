# SPDX-License-Identifier: Apache-2.0
"""Episodes that a generator has written as shards (``python -m sim.generate``), with labels from simulator state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.sources.episode import BadEpisode, Entry, SourceEpisode, array_reader


def read_generated(folder: Path, fps: float = 5.0) -> Iterator[Entry]:
    """Yield the episodes of all shards (*.npz) below a folder, in the order of their paths.

    Args:
        folder: where the shards are.
        fps: frames a second; the shards do not say.

    Raises:
        FileNotFoundError: no shards.
    """
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"'{folder}' holds no shards (*.npz); make them with 'python -m sim.generate'")
    for path in paths:
        with np.load(path) as shard:
            lines = [json.loads(str(line)) for line in shard["tasks"]]
        for about in lines:
            name = about.get("source", "twin")
            episode_id = f"{about['kind']}_{about['episode']:07d}"
            yield Entry(name, episode_id, partial(_open, path, about, name, episode_id, fps))


def _open(path: Path, about: dict[str, Any], source: str, episode_id: str, fps: float) -> SourceEpisode:
    shard = _shard(path)
    mine = shard["episode"] == about["episode"]
    if "source" in shard:
        mine &= shard["source"] == source
    rows = np.flatnonzero(mine)
    if len(rows) == 0:
        raise BadEpisode("no frames")
    done = shard["success"][rows].astype(bool)
    return SourceEpisode(
        source,
        episode_id,
        about["task"],
        fps,
        len(rows),
        array_reader(shard["frames"][rows]),
        bool(done[-1]),
        about["kind"],
        shard["progress"][rows],
        done,
    )


@lru_cache(maxsize=1)
def _shard(path: Path) -> dict[str, NDArray]:
    """Return the arrays of a shard; its episodes are read one after the other."""
    with np.load(path) as shard:
        return {name: shard[name] for name in shard.files}
