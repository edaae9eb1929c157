# SPDX-License-Identifier: Apache-2.0
"""Cut film strips of judged episodes out of their journals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrm_ros.record.journal import JournalError, iter_frames
from lrm_ros.training.report.run_folder import Attempt, Collection

STRIPS = 6
FRAMES = 8
WRONG_AT_LEAST = 2
_WIDEST = 160  # pixels of a frame on the page


@dataclass(frozen=True)
class Film:
    """A few frames of an episode.

    Attributes:
        attempt: the episode.
        where: name of its collection.
        frames: JPEG images, oldest first, evenly spaced from the first to the last.
        problem: why there are none, if so.
    """

    attempt: Attempt
    where: str
    frames: tuple[bytes, ...]
    problem: str = ""


def select_episodes(collections: Sequence[Collection], keep: bool) -> list[tuple[Attempt, str]]:
    """Select kept or rejected episodes of the iterations, spread evenly, wrong verdicts among them.

    Up to ``WRONG_AT_LEAST`` of the ``STRIPS`` are episodes the judge got wrong, even where a fair draw would hold
    fewer: they are what one wants to see.
    """
    every = [(attempt, one.title) for one in collections for attempt in one.attempts if attempt.keep == keep]
    wrong, right = [pair for pair in every if pair[0].wrong], [pair for pair in every if not pair[0].wrong]
    wrong = _spread(wrong, max(WRONG_AT_LEAST, STRIPS - len(right)))
    right = _spread(right, STRIPS - len(wrong))
    selected = {id(pair) for pair in wrong + right}
    return [pair for pair in every if id(pair) in selected]


def _spread(items: list, n: int) -> list:
    """Return ``n`` of the items (or all, if there are fewer), evenly spaced."""
    if len(items) <= n:
        return items
    return [items[index] for index in np.linspace(0, len(items) - 1, n).round().astype(int)]


def film(attempt: Attempt, where: str, camera: str) -> Film:
    """Read an episode's frames; a journal that cannot be read becomes a film that says why."""
    try:
        images = [frame.image for frame, _ in iter_frames(attempt.journal, camera)]
    except JournalError as error:
        return Film(attempt, where, (), str(error))
    if not images:
        return Film(attempt, where, (), f"its recording has no frames of camera '{camera}'")
    return Film(attempt, where, tuple(_jpeg(image) for image in _spread(images, FRAMES)))


def _jpeg(image: np.ndarray) -> bytes:
    """Return an (H, W, 3) uint8 RGB image as a JPEG no wider than the page shows it."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((_WIDEST, _WIDEST))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()
