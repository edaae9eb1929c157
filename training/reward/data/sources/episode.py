# SPDX-License-Identifier: Apache-2.0
"""The episode that every data source gives: a task, frames on demand, and what is known about its success.

A source is a function that yields an :class:`Entry` for each episode it has, in a fixed order, without reading images.
Opening an entry reads one episode or raises :class:`BadEpisode` with the reason; readers of a source count
these and continue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrm_ros.sim.instructions import Labelled
from lrm_ros.sim.seen import Seen

Reader = Callable[[Sequence[int]], Iterator[NDArray[np.uint8]]]


class BadEpisode(ValueError):
    """An episode that cannot be used; the message says why, in a few words that can be counted."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceEpisode:
    """One episode of any source.

    Attributes:
        source: name of the source, e.g. ``"libero_goal"``.
        episode_id: unique in its source.
        task: language instruction, not empty.
        fps: frames a second, > 0.
        length: number of frames, >= 1.
        read: yields the frames of ascending indices, each (H, W, 3) uint8 RGB, all of one size; constant memory.
        success: whether the task is done at the end; ``None``: unknown.
        kind: ``"demonstration"``, or the behaviour of a generator, e.g. ``"dropped"``.
        progress: (length,) progress in [0, 1] from the simulator's state; ``None``: not known.
        done: (length,) whether the task is done in each frame, from the simulator's state; ``None``: not known.
        end_progress: progress in the last frame in [0, 1], where only that was scored; ``None``: not scored.
        asked: what else could be asked of the scene, with labels of every frame; ``None``: not known.
        seen: what is seen where, of every frame; ``None``: not known.
    """

    source: str
    episode_id: str
    task: str
    fps: float
    length: int
    read: Reader
    success: bool | None = None
    kind: str = "demonstration"
    progress: NDArray[np.float32] | None = None
    done: NDArray[np.bool_] | None = None
    end_progress: float | None = None
    asked: Labelled | None = None
    seen: Seen | None = None

    def __post_init__(self) -> None:
        if not self.task.strip():
            raise BadEpisode("no language instruction")
        if self.length < 1:
            raise BadEpisode("no frames")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise BadEpisode(f"frame rate {self.fps}")
        for name in ("progress", "done"):
            labels = getattr(self, name)
            if labels is not None and len(labels) != self.length:
                raise BadEpisode(f"{len(labels)} labels '{name}' for {self.length} frames")
        if self.progress is not None:
            values = np.asarray(self.progress, np.float32)
            if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
                raise BadEpisode("progress outside [0, 1]")
            object.__setattr__(self, "progress", values)
        if self.asked is not None and len(self.asked.labels) != self.length:
            raise BadEpisode(f"{len(self.asked.labels)} labels of instructions for {self.length} frames")
        if self.end_progress is not None and not 0 <= self.end_progress <= 1:
            raise BadEpisode("progress outside [0, 1]")
        if self.done is not None:
            object.__setattr__(self, "done", np.asarray(self.done, bool))

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all frames, oldest first."""
        return self.read(range(self.length))


@dataclass(frozen=True, slots=True)
class Entry:
    """An episode that a source has; nothing of it is read before ``open()``.

    Attributes:
        source: name of the source.
        episode_id: unique in its source and the same in every run.
        open: reads the episode; raises :class:`BadEpisode`.
    """

    source: str
    episode_id: str
    open: Callable[[], SourceEpisode]


def bad_entry(source: str, episode_id: str, reason: str) -> Entry:
    """Return an entry whose ``open`` raises, so that what a source cannot list is counted like any bad episode."""

    def refuse() -> SourceEpisode:
        raise BadEpisode(reason)

    return Entry(source, episode_id, refuse)


def success_labels(
    flags: Sequence[bool] | NDArray, after_action: bool, length: int
) -> tuple[bool, NDArray[np.bool_] | None]:
    """Return whether an episode succeeds, and in which frames the task is done, from flags of its steps.

    Flags that are true from the first step on mark an episode, and a single one at the end marks a success that may
    be some frames old: both say how it ends, and nothing of the frames before.

    Args:
        flags: success of each step, at least one.
        after_action: a flag tells what a step's action led to, that is the frame after (else: the step's own frame);
            the first frame then counts as not done.
        length: number of frames: one a step, or one more if the last action's outcome is there.

    Returns:
        Success, and done in each frame (length,), or ``None`` if the flags do not tell it.
    """
    flags = np.asarray(flags, bool)  # (T,)
    success = bool(flags[-1])
    if flags[0] or (success and not flags[:-1].any()):
        return success, None
    return success, np.concatenate([[False], flags])[:length] if after_action else flags[:length]


def same_size(frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames; raise :class:`BadEpisode` at one that differs in size from the first."""
    shape = None
    for frame in frames:
        if shape not in (None, frame.shape):
            raise BadEpisode("mixed image sizes")
        shape = frame.shape
        yield frame


def array_reader(images: NDArray[np.uint8]) -> Reader:
    """Return the reader of frames that are in memory (or in an array that is read on access), (T, H, W, 3)."""

    def read(indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for index in indices:
            yield np.asarray(images[index])

    return read
