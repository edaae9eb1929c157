# SPDX-License-Identifier: Apache-2.0
"""Keyframes on disk: Parquet shards of labelled JPEG images, one row a keyframe, one row group an episode.

A shard appears under its name only when it is complete. Its metadata hold the state that its writer resumes from
after a kill.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrm_ros.files import put_in_place

SPLITS = ("train", "val")
# name -> Arrow type, nullable. "position" is the tenth of the episode's time, "frame" the index in the episode; a label
# is null where nobody knows it; "by_state": progress comes from a simulator's state.
COLUMNS = {
    "source": ("string", False),
    "episode_id": ("string", False),
    "task": ("string", False),
    "kind": ("string", False),
    "success": ("bool", True),
    "position": ("int8", False),
    "frame": ("int32", False),
    "fps": ("float32", False),
    "progress": ("float32", True),
    "by_state": ("bool", False),
    "done": ("bool", True),
    "split": ("string", False),
    "height": ("int16", False),
    "width": ("int16", False),
    "jpeg": ("binary", False),
}
LABELS = tuple(name for name in COLUMNS if name != "jpeg")
_TEXT = tuple(name for name, (kind, _) in COLUMNS.items() if kind == "string")
_STATE = b"lrm_ros.state"


def _schema() -> Any:
    import pyarrow as pa

    types = {"string": pa.string(), "bool": pa.bool_(), "binary": pa.binary(), "float32": pa.float32()}
    types |= {"int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32()}
    return pa.schema([pa.field(name, types[kind], nullable) for name, (kind, nullable) in COLUMNS.items()])


def shard_paths(folder: Path) -> list[Path]:
    """Return the finished shards of a folder in their order.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is missing in between.
    """
    paths = sorted(folder.glob("shard-*.parquet"))
    if not paths:
        raise FileNotFoundError(f"'{folder}' holds no keyframes (shard-*.parquet); make them with 'lrm reward data'")
    for number, path in enumerate(paths):
        if path.name != shard_name(number):
            raise ValueError(f"'{folder}' lacks {shard_name(number)}; restore it, or make the keyframes again")
    return paths


def complete_shards(folder: Path) -> list[Path]:
    """Return the shards of a folder that is ready to be used.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is missing, or the command that writes them was interrupted.
    """
    paths, manifest = shard_paths(folder), folder / "manifest.json"
    if manifest.is_file() and not json.loads(manifest.read_text(encoding="utf-8"))["complete"]:
        raise ValueError(f"'{folder}' is not complete; give the same 'lrm reward data' command again to finish it")
    return paths


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.parquet"


class ShardWriter:
    """Writes one shard; memory holds one episode of it."""

    def __init__(self, folder: Path, number: int) -> None:
        import pyarrow.parquet as pq

        self._path = folder / shard_name(number)
        self._part = self._path.with_suffix(".parquet.part")
        self._schema = _schema()
        compression = {name: "none" if name == "jpeg" else "snappy" for name in COLUMNS}
        # Few values are alike within the eleven rows of an image column; its statistics would repeat whole images.
        self._writer = pq.ParquetWriter(
            self._part, self._schema, compression=compression, use_dictionary=list(_TEXT), write_statistics=list(LABELS)
        )
        self.episodes = 0

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Append an episode: equally many values of every column."""
        import pyarrow as pa

        self._writer.write_table(pa.table(dict(columns), schema=self._schema))
        self.episodes += 1

    def finish(self, state: Mapping[str, Any]) -> Path:
        """Complete the shard, with a state that can be written as JSON, and give it its name."""
        self._writer.add_key_value_metadata({_STATE: json.dumps(state).encode()})
        self._writer.close()
        put_in_place(self._part, self._path)
        return self._path

    def discard(self) -> None:
        """Discard the shard."""
        self._writer.close()
        self._part.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Return the state that a shard was finished with.

    Raises:
        ValueError: not a readable shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return json.loads(pq.read_metadata(path).metadata[_STATE])
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> ValueError:
    return ValueError(f"'{path}' is not a readable shard of keyframes; restore it, or make the keyframes again")


def read_rows(folder: Path, split: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the keyframes of a folder as dictionaries, episode by episode; memory holds one episode.

    Args:
        folder: where ``lrm reward data`` wrote.
        split: ``"train"``, ``"val"``, or ``None`` for both.

    Raises:
        FileNotFoundError: no shards.
        ValueError: unknown split, a shard that is missing or cannot be read, or an interrupted command.
    """
    check_split(split)
    for path in complete_shards(folder):
        file = open_shard(path)
        for group in range(file.num_row_groups):
            if split is None or file.read_row_group(group, ["split"], use_threads=False)["split"][0].as_py() == split:
                yield from file.read_row_group(group, use_threads=False).to_pylist()


def check_split(split: str | None) -> None:
    """Raise ValueError for a split that there is not."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"unknown split '{split}'; choose one of {', '.join(SPLITS)}")


def open_shard(path: Path) -> Any:
    """Return a shard that is kept open; reading it is safe in forked processes (memory map, no threads)."""
    import pyarrow as pa

    try:
        state = path.stat()
        return _open_cached(path, state.st_size, state.st_mtime_ns)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path) from error


@lru_cache(maxsize=256)
def _open_cached(path: Path, size: int, modified_ns: int) -> Any:
    """Open a shard; size and modification time are part of the cache key."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, memory_map=True)
    if tuple(file.schema_arrow.names) != tuple(COLUMNS):
        raise OSError("other columns")
    return file
