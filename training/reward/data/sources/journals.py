# SPDX-License-Identifier: Apache-2.0
"""The stack's own journals: teleoperation, expert and policy episodes, with the outcome where a person gave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, bad_entry, same_size

DEMONSTRATORS = ("teleop", "expert")  # an episode of a policy is a demonstration only if a person marked it a success


def read_journals(folder: Path, camera: str | None = None, source: str = "journals") -> Iterator[Entry]:
    """Return the journals below a folder, or one file; unfinished ones are listed and refused.

    The images of an episode are in memory while it is open, as for all that reads journals.

    Args:
        folder: e.g. ``runs/NAME/iter_000/episodes``, or a file ``*.mcap``.
        camera: name of the camera; default: the first of the journal's robot contract.
        source: name of the source.

    Raises:
        FileNotFoundError: no journals.
    """
    paths = [folder] if folder.is_file() else sorted([*folder.rglob("*.mcap"), *folder.rglob("*.mcap.part")])
    if not paths:
        raise FileNotFoundError(f"'{folder}' holds no journals (*.mcap); record some, e.g. with 'lrm collect'")
    top = folder.parent if folder.is_file() else folder
    return (_entry(path, path.relative_to(top).as_posix().removesuffix(".mcap"), camera, source) for path in paths)


def _entry(path: Path, episode_id: str, camera: str | None, source: str) -> Entry:
    if path.suffix == ".part":
        return bad_entry(source, episode_id, "an unfinished journal; salvage it with: python -m lrm_ros.record.recover")
    return Entry(source, episode_id, partial(_open, path, episode_id, camera, source))


def _open(path: Path, episode_id: str, camera: str | None, source: str) -> SourceEpisode:
    from lrm_ros.record.journal import JournalError, read_info, read_journal
    from lrm_ros.reward.engine import episode_frames

    try:
        camera = camera or read_info(path).contract.cameras[0].name
        episode = read_journal(path)
    except JournalError as error:
        if "is corrupt" in str(error):
            raise BadEpisode("a journal that is corrupt or cut off") from error
        unusable = "a journal of another version, or with messages that cannot be used"
        raise BadEpisode(unusable if error.__cause__ else "no journal, or one without a step") from error
    try:
        frames = episode_frames(episode, camera)
    except ValueError as error:
        raise BadEpisode(f"no frames of camera '{camera}'") from error
    span_s = (frames[-1].stamp_ns - frames[0].stamp_ns) / 1e9
    fps = (len(frames) - 1) / span_s if span_s > 0 else episode.fps
    kind = "failure" if episode.outcome is False else "demonstration"
    if episode.outcome is None and episode.source not in DEMONSTRATORS:
        kind = episode.source or "unknown"

    def read(indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return same_size(frames[index].image for index in indices)

    return SourceEpisode(source, episode_id, episode.task, fps, len(frames), read, episode.outcome, kind)
