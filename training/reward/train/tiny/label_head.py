# SPDX-License-Identifier: Apache-2.0
"""The auxiliary head that trains the tiny model's vision tower: labels from visual features and the instruction.

One picture serves many tasks ("put the red can on the step", "lift the blue block"), so the head reads the instruction
and attends to the places it names. The features must then tell where which object is, not just how far the usual task
is. It is dropped after the training; the language model has the whole instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from lrm_ros.training.reward.train.tiny.data import Frames

OUTPUTS = 12  # 11 progress answers and one completion logit
MAX_WORDS = 24  # tokens of an instruction that are used
NUM_QUERIES = 4  # attention queries
WORD_DROPOUT = 0.1  # share of the instruction's tokens that are masked in training


def instruction_tokens(frames: Frames, tokenizer: Any) -> torch.Tensor:
    """Return the tokens of the instruction of every frame, plus 1; 0 is padding: (N, ``MAX_WORDS``) int64."""
    read: dict[str, np.ndarray] = {}
    for task in set(frames.tasks.values()):
        ids = tokenizer(task)["input_ids"][:MAX_WORDS]
        read[task] = np.pad(np.array(ids, np.int64) + 1, (0, MAX_WORDS - len(ids)))
    episodes, place = np.unique(frames.episode, return_inverse=True)
    rows = np.stack([read[frames.tasks[int(episode)]] for episode in episodes])
    return torch.from_numpy(rows[place])


class LabelHead(nn.Module):
    """Labels from feature vectors at several places and the instruction, by attention and FiLM."""

    def __init__(self, width: int, places: int, vocabulary: int) -> None:
        """Build the head.

        Args:
            width: entries of a feature vector.
            places: number of vectors.
            vocabulary: number of tokens.
        """
        super().__init__()
        self.word_embedding = nn.Embedding(vocabulary + 1, width, padding_idx=0)
        self.word_position = nn.Parameter(torch.zeros(MAX_WORDS, width))
        self.word_mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.place_embedding = nn.Parameter(torch.zeros(places, width))
        self.query = nn.Linear(width, NUM_QUERIES * width)
        self.hidden = nn.Linear((NUM_QUERIES + 2) * width, width)
        self.film_scale = nn.Linear(width, width)
        self.out = nn.Linear(width, OUTPUTS)
        nn.init.normal_(self.word_position, std=0.5)
        nn.init.normal_(self.place_embedding, std=0.5)
        nn.init.zeros_(self.film_scale.weight)

    def forward(self, vectors: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return outputs (N, 12) of vectors (N, P, D) and words (N, ``MAX_WORDS``)."""
        n, _, width = vectors.shape
        present = words > 0
        if self.training:
            present &= torch.rand(words.shape) > WORD_DROPOUT
        instruction = self.word_mlp(self.word_embedding(words) + self.word_position) * present[..., None]
        instruction = instruction.sum(1) / present.sum(1, keepdim=True).clamp(min=1)
        placed = vectors + self.place_embedding
        queries = self.query(instruction).view(n, NUM_QUERIES, width)
        weights = (queries @ placed.transpose(1, 2) * width**-0.5).softmax(-1)
        attended = torch.cat([(weights @ placed).flatten(1), vectors.mean(1), instruction], dim=1)
        return self.out(self.hidden(attended).relu() * (1 + self.film_scale(instruction)))
