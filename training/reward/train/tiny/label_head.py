# SPDX-License-Identifier: Apache-2.0
"""The auxiliary head that trains the tiny model's vision tower: labels from visual features and a text.

One picture serves many texts ("put the red can on the step", "take the blue block out of the box"), so the head reads:
the words look at each other and at the places of the picture. The features must then tell where which thing is and
in what, not just how far the usual task is. The head is dropped after the training; the language model has the text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from lrm_ros.training.reward.train.tiny.data import Frames
from lrm_ros.training.reward.train.tiny.texts import MAX_WORDS, token_rows

OUTPUTS = 13  # 11 progress answers, a completion logit, and one of whether all that the text names is there
HEADS = 4  # of an attention
WORD_DROPOUT = 0.05  # share of the instruction's tokens that are masked in training


def instruction_tokens(frames: Frames, tokenizer: Any) -> torch.Tensor:
    """Return the tokens of the instruction of every frame, plus 1; 0 is padding: (N, ``MAX_WORDS``) int64."""
    tasks = sorted({frames.tasks[episode] for episode in frames.episode.tolist()})
    place = {task: number for number, task in enumerate(tasks)}
    rows = [place[frames.tasks[episode]] for episode in frames.episode.tolist()]
    return token_rows(tasks, tokenizer)[rows]


class Attention(nn.Module):
    """Attention of some vectors to others, added to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.norm_to = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (
            nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width),
        )  # fmt: skip

    def forward(self, vectors: torch.Tensor, others: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return vectors (N, W, D) after they looked at others (N, P, D); mask (N, 1, 1, P): where they may look."""
        n, _, width = vectors.shape
        query = self.query(self.norm(vectors)).view(n, -1, HEADS, width // HEADS).transpose(1, 2)
        key, value = self.key_value(self.norm_to(others)).view(n, -1, 2, HEADS, width // HEADS).unbind(2)
        seen = scaled_dot_product_attention(query, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask)
        return vectors + self.out(seen.transpose(1, 2).flatten(2))


class LabelHead(nn.Module):
    """Labels from feature vectors at several places and a text: words that look at the places."""

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
        self.place_embedding = nn.Parameter(torch.zeros(places, width))
        self.read = nn.ModuleList([Attention(width) for _ in range(2)])
        self.look = nn.ModuleList([Attention(width) for _ in range(2)])
        self.mix = nn.ModuleList(
            [
                nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
                for _ in range(2)
            ]
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, OUTPUTS))
        nn.init.normal_(self.word_embedding.weight, std=0.5)
        nn.init.normal_(self.word_position, std=0.3)
        nn.init.normal_(self.place_embedding, std=0.3)

    def forward(self, vectors: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return outputs of vectors (N, P, D): (N, 13) of words (N, W), or (N, Q, 13) of Q texts each, (N, Q, W)."""
        if words.dim() == 2:
            return self.forward(vectors, words[:, None])[:, 0]
        n, texts, length = words.shape
        present = words.flatten(0, 1) > 0
        if self.training:
            kept = torch.rand(present.shape, device=present.device) > WORD_DROPOUT
            present &= kept | (torch.arange(length, device=present.device) == 0)
        states = self.word_embedding(words.flatten(0, 1)) + self.word_position[:length]
        mask = present[:, None, None]
        placed = vectors + self.place_embedding
        for read, look, mix in zip(self.read, self.look, self.mix, strict=True):
            states = read(states, states, mask)
            # All words of all texts of a picture look at it together.
            states = look(states.view(n, texts * length, -1), placed).view(n * texts, length, -1)
            states = states + mix(states)
        weights = present[..., None].float()
        pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return self.out(pooled).view(n, texts, OUTPUTS)
