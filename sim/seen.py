# SPDX-License-Identifier: Apache-2.0
"""Where which thing is in a picture, and on or in what: labels of places, beside those of texts, from the simulator.

A network that is only told which texts are true of a picture must find by itself that a text speaks of things, what
they look like, and where they are. These labels say it of every place of the picture, whatever is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 12  # places along an edge of a picture
HELD = 255  # of ``where``: in the gripper
_MOVABLE, _LEAST = 4, 0.25  # weight of a movable thing's pixels, and the weighted share of a place that is needed


@dataclass(frozen=True)
class Seen:
    """What is seen where in an episode.

    Attributes:
        things: names of K things, e.g. ``"red pig"`` or ``"bowl"``: the last word is the kind, those before the colour.
        cells: (T, SIDE, SIDE) uint8, which thing is at each place: 0 none, k + 1 thing k.
        where: (T, K) uint8, what each thing is on or in: 0 none of them, k + 1 thing k, ``HELD``.
    """

    things: tuple[str, ...]
    cells: NDArray[np.uint8]
    where: NDArray[np.uint8]


def cells_of(segmentation: NDArray, ids: Sequence[int], movable: Sequence[bool]) -> NDArray[np.uint8]:
    """Return which thing is at each place of a picture, (SIDE, SIDE): 0 none, k + 1 thing k.

    Args:
        segmentation: (H, W) the number of what each pixel shows; both a multiple of ``SIDE``.
        ids: the number of each thing.
        movable: whether a thing can be moved: such a one counts more where it lies in another.
    """
    height, width = segmentation.shape
    blocks = segmentation.reshape(SIDE, height // SIDE, SIDE, width // SIDE)
    shares = np.stack([(blocks == number).mean(axis=(1, 3)) for number in ids])
    shares *= np.where(movable, _MOVABLE, 1)[:, None, None]
    best = shares.argmax(0)
    return np.where(shares.max(0) >= _LEAST, best + 1, 0).astype(np.uint8)


def nothing_seen(length: int) -> Seen:
    """Return what stands for an episode of ``length`` pictures of which it is not known."""
    return Seen((), np.zeros((length, SIDE, SIDE), np.uint8), np.zeros((length, 0), np.uint8))


def joined_seen(parts: Sequence[Seen]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return cells (T, SIDE, SIDE) and where (T, K) of several episodes; what one has fewer things is 0."""
    most = max(one.where.shape[1] for one in parts)
    where = [np.pad(one.where, ((0, 0), (0, most - one.where.shape[1]))) for one in parts]
    return np.concatenate([one.cells for one in parts]), np.concatenate(where)
