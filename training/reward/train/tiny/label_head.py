# SPDX-License-Identifier: Apache-2.0
"""The head that teaches the tiny model's eyes: labels from what is seen and from the words of the task.

One picture serves many tasks ("put the red can on the step", "lift the blue block"), so the head reads the instruction
and looks where it is told to. Then features must say where which thing is, not just how far the usual task is. It is
thrown away after the training; the language model has the whole instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from lrm_ros.training.reward.train.tiny.data import Frames

OUTPUTS = 12  # 11 progress answers and one completion logit
LONGEST = 24  # words (tokens) of an instruction that are read
GLANCES = 4  # places looked at
FORGET = 0.1  # share of the words that are overlooked in training


def words_of(frames: Frames, tokenizer: Any) -> torch.Tensor:
    """Return the tokens of the instruction of every frame, plus 1; 0 where there is none: (N, ``LONGEST``) int64."""
    read: dict[str, np.ndarray] = {}
    for task in set(frames.tasks.values()):
        ids = tokenizer(task)["input_ids"][:LONGEST]
        read[task] = np.pad(np.array(ids, np.int64) + 1, (0, LONGEST - len(ids)))
    episodes, place = np.unique(frames.episode, return_inverse=True)
    rows = np.stack([read[frames.tasks[int(episode)]] for episode in episodes])
    return torch.from_numpy(rows[place])


class LabelHead(nn.Module):
    """Labels from feature vectors at several places, and the words of the task."""

    def __init__(self, width: int, places: int, vocabulary: int) -> None:
        """Build the head.

        Args:
            width: entries of a feature vector.
            places: number of vectors.
            vocabulary: number of tokens.
        """
        super().__init__()
        self.word = nn.Embedding(vocabulary + 1, width, padding_idx=0)
        self.order = nn.Parameter(torch.zeros(LONGEST, width))
        self.reading = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.where = nn.Parameter(torch.zeros(places, width))
        self.look = nn.Linear(width, GLANCES * width)
        self.hidden = nn.Linear((GLANCES + 2) * width, width)
        self.gain = nn.Linear(width, width)
        self.out = nn.Linear(width, OUTPUTS)
        nn.init.normal_(self.order, std=0.5)
        nn.init.normal_(self.where, std=0.5)
        nn.init.zeros_(self.gain.weight)

    def forward(self, vectors: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return outputs (N, 12) of vectors (N, P, D) and words (N, ``LONGEST``)."""
        n, _, width = vectors.shape
        there = words > 0
        if self.training:
            there &= torch.rand(words.shape) > FORGET
        said = self.reading(self.word(words) + self.order) * there[..., None]
        said = said.sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        placed = vectors + self.where
        asked = self.look(said).view(n, GLANCES, width)
        weights = (asked @ placed.transpose(1, 2) * width**-0.5).softmax(-1)
        seen = torch.cat([(weights @ placed).flatten(1), vectors.mean(1), said], dim=1)
        return self.out(self.hidden(seen).relu() * (1 + self.gain(said)))
