# SPDX-License-Identifier: Apache-2.0
"""Write keyframes of all sources as shards: round-robin, without duplicates, unusable episodes counted by reason.

One episode is read at a time. Each shard stores the position in every source: a killed run resumes after its last
finished shard and writes the same keyframes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lrm_ros.progress import progress_bar
from lrm_ros.training.reward.data.manifest import open_manifest, write_manifest
from lrm_ros.training.reward.data.rows import keyframes_of
from lrm_ros.training.reward.data.shards import ShardWriter, read_state, shard_paths
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry

SHARD_EPISODES = 64
_REASONS = 50  # different reasons counted for one source


def write_keyframes(
    sources: Mapping[str, Iterable[Entry]],
    out: str | Path,
    per_source: int | None = None,
    settings: Mapping[str, Any] | None = None,
    shard_episodes: int = SHARD_EPISODES,
) -> dict[str, Any]:
    """Write the keyframes of all sources; resumes an interrupted run.

    Sources give one usable episode each in turn until they, or their limit, are exhausted. An episode with the
    keyframes and task of an earlier one, from any source, is left out. Episodes up to the last finished shard are not
    opened again.

    Args:
        sources: name -> entries, the same and in the same order in every run.
        out: folder of ``shard-00000.parquet``, ... and ``manifest.json``.
        per_source: maximum number of episodes of each source.
        settings: what the sources were made with: kept in the manifest, and compared when a run is resumed.
        shard_episodes: episodes a shard.

    Returns:
        The manifest, with ``seconds`` and ``keyframes_per_s`` of this run.

    Raises:
        ValueError: no source; ``out`` belongs to other settings; a source lists other episodes than before; nothing
            could be used.
        ImportError: a package that a source needs is not installed.
    """
    out, names = Path(out), list(sources)
    if not names:
        raise ValueError("no sources; name at least one, see 'lrm reward data --help'")
    if shard_episodes < 1 or (per_source is not None and per_source < 1):
        raise ValueError(f"episodes a shard ({shard_episodes}) and a source ({per_source}) must be at least 1")
    about = {"sources": names, "per_source": per_source, "shard_episodes": shard_episodes, **(settings or {})}
    manifest = open_manifest(out, json.loads(json.dumps(about)))
    started = time.perf_counter()
    if manifest["complete"]:
        return {**manifest, "seconds": 0.0, "keyframes_per_s": 0.0}
    run = _RunState(out, names)
    before = run.total("keyframes")
    streams = {name: run.remaining(name, entries) for name, entries in sources.items()}
    waiting = {name for name in names if per_source is None or run.counts[name]["episodes"] < per_source}

    def log(text: str) -> None:
        tqdm.write(text, sys.stderr)

    def figures() -> dict[str, float]:
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "keyframes_per_s": (run.total("keyframes") - before) / seconds}

    writer: ShardWriter | None = None
    try:
        with progress_bar((per_source or 0) * len(names), "keyframes", "episode", run.total("episodes")) as bar:
            while waiting:
                name = names[run.turn]
                run.turn = (run.turn + 1) % len(names)
                if name not in waiting:
                    continue
                columns = run.next_usable(name, streams[name], log)
                if columns is None:
                    waiting.discard(name)
                    continue
                writer = writer or ShardWriter(out, run.shard)
                writer.write(columns)
                if run.counts[name]["episodes"] == per_source:
                    waiting.discard(name)
                bar.set_postfix_str(f"{figures()['keyframes_per_s']:.0f} keyframes/s", refresh=False)
                bar.update(1)
                if writer.episodes == shard_episodes:
                    run.finish(writer)
                    writer = None
                    write_manifest(out, {**manifest, "counts": run.public_counts()})
        if writer is not None:
            run.finish(writer)
            writer = None
    finally:
        if writer is not None:
            writer.discard()
    if run.total("episodes") == 0:
        reasons = {name: count["skipped"] for name, count in run.counts.items()}
        raise ValueError(f"no episode could be used; sources and the reasons they gave: {reasons}")
    manifest = {**manifest, "complete": True, "counts": run.public_counts()}
    write_manifest(out, manifest)
    return {**manifest, **figures()}


class _RunState:
    """Position in every source, counts and hashes of the episodes; restored from the last finished shard."""

    def __init__(self, out: Path, names: list[str]) -> None:
        states = [read_state(path) for path in shard_paths(out)] if any(out.glob("shard-*.parquet")) else []
        self.shard = len(states)
        self.turn: int = states[-1]["turn"] if states else 0
        zero = {"listed": 0, "last": "", "episodes": 0, "keyframes": 0, "train": 0, "val": 0, "duplicates": 0}
        self.counts: dict[str, dict[str, Any]] = (
            states[-1]["counts"] if states else {name: {**zero, "skipped": {}} for name in names}
        )
        self._seen = {digest for state in states for digest in state["seen"]}
        self._seen_here: list[str] = []

    def total(self, what: str) -> int:
        return sum(count[what] for count in self.counts.values())

    def public_counts(self) -> dict[str, Any]:
        return {name: {key: count[key] for key in count if key != "last"} for name, count in self.counts.items()}

    def finish(self, writer: ShardWriter) -> None:
        """Complete a shard; a later run resumes after it."""
        writer.finish({"turn": self.turn, "counts": self.counts, "seen": self._seen_here})
        self.shard += 1
        self._seen_here = []

    def remaining(self, name: str, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Return the entries of a source that were not read before."""
        stream, count, last = iter(entries), self.counts[name], ""
        for _ in range(count["listed"]):
            last = getattr(next(stream, None), "episode_id", "")
        if last != count["last"]:
            raise ValueError(
                f"source '{name}' lists other episodes than when the run began (episode {count['listed']} was "
                f"'{count['last']}', now '{last}'); restore it, or choose another folder"
            )
        return stream

    def next_usable(self, name: str, stream: Iterator[Entry], log: Callable[[str], Any]) -> dict[str, list[Any]] | None:
        """Return the next episode of a source that can be used, or ``None`` at its end; count the skipped ones."""
        count = self.counts[name]
        for entry in stream:
            count["listed"] += 1
            count["last"] = entry.episode_id
            try:
                columns = keyframes_of(entry)
            except ImportError:
                raise
            except Exception as error:  # damaged files make libraries raise anything
                if _skip(count["skipped"], error):
                    log(f"{name}: '{entry.episode_id}' is skipped: {type(error).__name__}: {error}")
                continue
            key = _digest(entry.source.encode(), entry.episode_id.encode())
            content = _digest(columns["task"][0].encode(), *columns["jpeg"])
            if key in self._seen:
                _skip(count["skipped"], BadEpisode("another episode has the same source and id"))
            elif content in self._seen:
                count["duplicates"] += 1
            else:
                self._seen |= {key, content}
                self._seen_here += [key, content]
                count["episodes"] += 1
                count["keyframes"] += len(columns["jpeg"])
                count[columns["split"][0]] += 1
                return columns
        return None


def _skip(skipped: dict[str, int], error: Exception) -> bool:
    """Count the reason why an episode is left out, without the figures in it; return whether it is a new one."""
    reason = str(error) if isinstance(error, BadEpisode) else f"unreadable: {type(error).__name__}"
    reason = re.split(r": \d", reason)[0]
    if reason not in skipped and len(skipped) >= _REASONS:
        reason = "other reasons"
    skipped[reason] = skipped.get(reason, 0) + 1
    return skipped[reason] == 1


def _digest(*parts: bytes) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8))
        found.update(part)
    return found.hexdigest()
