# SPDX-License-Identifier: Apache-2.0
"""Which texts are true of a picture, without reading: the first thing that the tiny model's teacher learns.

A network that is asked in words alone must find out at once what things look like and what their names are, and finds
neither for a long time. Here each text that many episodes name is a class of its own: is what it names there, and is it
done? The features soon tell things and their states; the label head then only has to find the words for them.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lrm_ros.training.reward.train.tiny.data import Frames
from lrm_ros.training.reward.train.tiny.texts import THERE

MIN_EPISODES = 20  # that name a text, for it to be a class


class Classes:
    """Targets of every frame: for each class whether what the text names is there, and whether it is done.

    Attributes:
        texts: C texts that at least ``MIN_EPISODES`` episodes name, whose things are there.
    """

    def __init__(self, frames: Frames, least: int = MIN_EPISODES) -> None:
        self._frames = frames
        named = Counter(
            one.wordings[0]
            for episode in np.unique(frames.episode).tolist()
            for one in frames.instructions[episode]
            if THERE.get(one.kind) == 1.0 and len(frames.instructions[episode]) > 1
        )
        self.texts = sorted(text for text, count in named.items() if count >= least)
        self._place = {text: number for number, text in enumerate(self.texts)}

    def targets(self, rows: NDArray) -> NDArray[np.float32]:
        """Return (R, C, 2): there and done, 1 or 0; NaN: not known. Of an episode with one text nothing is known."""
        found = np.full((len(rows), len(self.texts), 2), np.nan, np.float32)
        for number, row in enumerate(rows.tolist()):
            instructions = self._frames.instructions[int(self._frames.episode[row])]
            if len(instructions) == 1:
                continue
            found[number, :, 0] = 0.0
            for k, one in enumerate(instructions):
                place = self._place.get(one.wordings[0])
                if place is not None and THERE.get(one.kind) == 1.0:
                    found[number, place] = 1.0, self._frames.labels[row, k, 1]
        return found


class ClassHead(nn.Module):
    """There and done of every class from a feature map: its mean, and the largest value of each feature."""

    def __init__(self, width: int, classes: int) -> None:
        """Build the head for features (N, P, width)."""
        super().__init__()
        self.out = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2 * classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, 2) of features (N, P, D)."""
        pooled = torch.cat([features.mean(1), features.amax(1)], dim=1)
        return self.out(pooled).view(len(features), -1, 2)


def class_loss(outputs: torch.Tensor, targets: NDArray[np.float32]) -> torch.Tensor:
    """Return the cross-entropies of there and done (N, C, 2), each where it is known; 0 where nothing is."""
    loss = outputs.sum() * 0.0
    for part in range(2):
        known = np.isfinite(targets[..., part])
        if known.any():
            target = torch.from_numpy(targets[..., part][known])
            loss = loss + functional.binary_cross_entropy_with_logits(
                outputs[..., part][torch.from_numpy(known)], target
            )
    return loss
