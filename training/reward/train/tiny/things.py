# SPDX-License-Identifier: Apache-2.0
"""What is where in a picture: what the tiny model's tower learns before and beside the answers to texts.

A network that is asked in words alone must find out at once what things look like, where they are and what their names
are, and finds none of it for a long time. Here every place of the picture is labelled by the simulator's state
(``lrm_ros.sim.seen``): kind and colour of the thing there, and kind and colour of what it is on or in. The words then
only have to find the places. What a source does not label is not learnt from.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lrm_ros.sim.seen import HELD
from lrm_ros.training.reward.train.tiny.data import Frames

QUESTIONS = ("kind", "colour", "in", "in colour")  # what is there, and what is that on or in
BACKGROUND = 0.5  # weight of the places where nothing is that has a name
_HELD_NAME = "held"


class Places:
    """Targets of every place: numbers of the answers to four questions.

    Attributes:
        kinds: names of kinds; the first is "": nothing.
        colours: names of colours; the first is "": none, or one that has no name.
        sizes: how many answers there are to each of ``QUESTIONS``.
    """

    def __init__(self, frames: Frames, names: Places | None = None) -> None:
        """Index the things of ``frames``; the numbers of their names are those of ``names``, if it is given."""
        self._frames = frames
        every = {name for things in frames.things.values() for name in things}
        kinds, colours = {name.split()[-1] for name in every}, {name.rpartition(" ")[0] for name in every}
        self.kinds: list[str] = names.kinds if names else ["", _HELD_NAME, *sorted(kinds)]
        self.colours: list[str] = names.colours if names else sorted({"", *colours})
        self.sizes = (len(self.kinds), len(self.colours), len(self.kinds), len(self.colours))
        episodes = sorted(frames.things)
        self._number = np.zeros(max(episodes, default=0) + 1, np.int64)
        self._number[episodes] = np.arange(len(episodes))
        most = max((len(things) for things in frames.things.values()), default=0)
        self._names = np.zeros((len(episodes), most + 1, 2), np.int64)
        for number, episode in enumerate(episodes):
            for k, name in enumerate(frames.things[episode]):
                colour, _, kind = name.rpartition(" ")
                self._names[number, k + 1] = self.kinds.index(kind), self.colours.index(colour)
        self._known = np.array([bool(frames.things[episode]) for episode in episodes])

    @property
    def known(self) -> NDArray[np.bool_]:
        """Of which frames it is known what is where: (N,)."""
        return self._known[self._number[self._frames.episode]]

    def of(self, frames: Frames) -> Places:
        """Return the same for other frames, with the same numbers."""
        return Places(frames, self)

    def targets(self, rows: NDArray) -> torch.Tensor:
        """Return the four numbers of every place (R, P, 4), rows of the picture one after another; -1: not known."""
        frames = self._frames
        number = self._number[frames.episode[rows]]
        cells = frames.cells[rows].reshape(len(rows), -1).astype(np.int64)
        names = self._names[number]  # (R, K, 2)
        found = np.zeros((*cells.shape, 4), np.int64)
        found[..., :2] = np.take_along_axis(names, cells[..., None], axis=1)
        where = np.pad(frames.where[rows], ((0, 0), (1, 0))).astype(np.int64)
        base = np.take_along_axis(where, cells, axis=1)
        found[..., 2:] = np.take_along_axis(names, np.where(base == HELD, 0, base)[..., None], axis=1)
        found[base == HELD, 2] = self.kinds.index(_HELD_NAME)
        found[~self._known[number]] = -1
        return torch.from_numpy(found)


class PlaceHead(nn.Module):
    """The answers at every place of a feature map."""

    def __init__(self, width: int, sizes: tuple[int, ...], each: int = 1) -> None:
        """Build the head.

        Args:
            width: of a feature.
            sizes: answers to each question.
            each: places along an edge of what a feature stands for.
        """
        super().__init__()
        self.sizes, self.each = sizes, each
        self.out = nn.Linear(width, sum(sizes) * each * each)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (N, P, sum of sizes) of features (N, S * S, width), rows one after another."""
        return spread(self.out(features), self.each)


def spread(features: torch.Tensor, each: int) -> torch.Tensor:
    """Return features (N, S * S, each * each * D) of squares as those of their places (N, (S * each) ** 2, D)."""
    n, places, _ = features.shape
    side = round(places**0.5)
    return features.view(n, side, side, each, each, -1).transpose(2, 3).flatten(1, 4)


def place_loss(outputs: torch.Tensor, targets: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Return the cross-entropy of what is where; 0 where nothing is known.

    Args:
        outputs: (N, P, sum of sizes) logits.
        targets: (N, P, 4) by :meth:`Places.targets`.
        sizes: answers to each question.
    """
    thing, nothing = targets[..., 0] > 0, targets[..., 0] == 0
    parts = outputs.split(sizes, dim=-1)
    loss = BACKGROUND * _mean(parts[0], targets[..., 0], nothing)
    for number, part in enumerate(parts):
        loss = loss + _mean(part, targets[..., number], thing)
    return loss


def _mean(outputs: torch.Tensor, targets: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of logits (N, P, C) and targets (N, P) at some places (N, P); 0 without any."""
    wanted = torch.where(here, targets, -100).flatten()  # what cross_entropy leaves out
    total = functional.cross_entropy(outputs.flatten(0, 1), wanted, ignore_index=-100, reduction="sum")
    return total / here.sum().clamp(min=1)


def places_right(outputs: torch.Tensor, targets: torch.Tensor, sizes: tuple[int, ...]) -> list[float]:
    """Return the share of right answers to each question at the places where a thing is."""
    thing = targets[..., 0] > 0
    parts = zip(outputs.split(sizes, dim=-1), targets[thing].unbind(-1), strict=True)
    return [float((part[thing].argmax(-1) == labels).float().mean()) for part, labels in parts]
