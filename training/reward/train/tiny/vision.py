# SPDX-License-Identifier: Apache-2.0
"""Train the vision tower: first to say what is where in a picture, then to answer texts about it, too.

A transformer that starts from noise finds small things among many only after a long time, if it is told no more than
which texts are true. Told what is at every place (``things``) it finds kinds, colours and what is in what within a few
hundred steps; then heads that read (``label_head``) learn what is asked, of several texts about each picture with the
labels of the state (``texts``). The heads are dropped afterwards: the tower stays transformers' own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lrm_ros.reward.qwen.vision import encode, positions_of
from lrm_ros.sim.seen import SIDE
from lrm_ros.training.reward.train.tiny.data import Frames, Pictures, SourceSampler, augment, draw_pictures, to_tensor
from lrm_ros.training.reward.train.tiny.label_head import LabelHead
from lrm_ros.training.reward.train.tiny.texts import TextSampler, Words, device_of, text_loss
from lrm_ros.training.reward.train.tiny.things import QUESTIONS, PlaceHead, Places, place_loss, places_right


class Tower(nn.Module):
    """The vision tower with small heads on its visual tokens: for the labels of texts, and for what is where."""

    def __init__(self, visual: Any, vocabulary: int, answers: tuple[int, ...], size: int = 96) -> None:
        """Wrap a Qwen3VLVisionModel.

        Args:
            visual: the tower.
            vocabulary: number of tokens.
            answers: to each question about a place, ``things.Places.sizes``.
            size: width and height of the images [pixels].
        """
        super().__init__()
        self.visual = visual
        config = visual.config
        self.side = size // config.patch_size
        self.merge = config.spatial_merge_size
        tokens = self.side // self.merge
        self.label_head = LabelHead(config.out_hidden_size, tokens**2, vocabulary)
        self.place_head = PlaceHead(config.out_hidden_size, answers, SIDE // tokens)

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Cut images (N, 3, H, W) into patches (N, P, values), in the processor's order (merge blocks together)."""
        n, size, side, merge = len(images), self.visual.config.patch_size, self.side, self.merge
        blocks = images.view(n, 3, side // merge, merge, size, side // merge, merge, size)
        return blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(n, side * side, -1)

    def in_rows(self, patches: torch.Tensor) -> torch.Tensor:
        """Bring patches (N, P, D) from the processor's order into rows."""
        n, side, merge = len(patches), self.side // self.merge, self.merge
        return patches.view(n, side, side, merge, merge, -1).transpose(2, 3).flatten(1, 4)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return visual tokens (N, T, D) and last patch states (N, P, H) of images (N, 3, H, W)."""
        positions = positions_of(self.visual, (1, self.side, self.side), images.device)
        tokens, _, states = encode(self.visual, self.patches(images), positions)
        return tokens, states

    def forward(self, images: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the visual tokens say of texts and places.

        Args:
            images: (N, 3, H, W).
            words: (N, Q, W) of Q texts.

        Returns:
            Answers to the texts (N, Q, 13), and to what is at every place (N, SIDE * SIDE, answers).
        """
        tokens, _ = self.encode(images)
        return self.label_head(tokens, words), self.place_head(tokens)


def initialise(tower: Tower) -> None:
    """Start the tower with weights of the size its layers need (transformers' 0.02 is for wide models)."""
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.7 * module.in_features**-0.5)
    nn.init.normal_(tower.visual.pos_embed.weight, std=0.2)
    stem = tower.visual.patch_embed.proj.weight
    nn.init.normal_(stem, std=stem[0].numel() ** -0.5)


class Asked(NamedTuple):
    """A batch of the tower's training.

    Attributes:
        pictures: N of them.
        words: (N, Q, W) tokens of Q texts about each; ``None``: no texts.
        labels: (N, Q, 3) float32 progress, done, there, NaN where not known; ``None``: no texts.
        targets: (N, P, 4) of what is where.
    """

    pictures: Pictures
    words: torch.Tensor | None
    labels: torch.Tensor | None
    targets: torch.Tensor


def _drawn(
    frames: Frames, draw: SourceSampler, seed: int, step: int, count: int
) -> tuple[np.ndarray, Pictures, np.random.Generator]:
    """Return ``count`` drawn rows (N,), their pictures, and the generator that drew them."""
    rng = np.random.default_rng([seed, step])
    rows = draw(rng, count)
    return rows, draw_pictures(frames.images[rows], torch.Generator().manual_seed((seed << 24) + step)), rng


class PlaceBatches:
    """Batches of pictures of which it is known what is where."""

    def __init__(self, frames: Frames, places: Places, seed: int, pictures: int = 48) -> None:
        """Show ``frames``; ``seed`` fixes pictures and augmentation of every step."""
        self._frames, self._places, self._seed, self._pictures = frames, places, seed, pictures
        self._draw = SourceSampler(frames, np.flatnonzero(places.known))

    def __call__(self, step: int) -> Asked:
        """Return the batch of a step."""
        rows, pictures, _ = _drawn(self._frames, self._draw, self._seed, step, self._pictures)
        return Asked(pictures, None, None, self._places.targets(rows))


def tower_loss(tower: Tower, batch: Asked) -> torch.Tensor:
    """Return the loss of what is where and, if texts are asked, of their labels."""
    tokens, _ = tower.encode(augment(batch.pictures))
    loss = place_loss(tower.place_head(tokens), batch.targets, tower.place_head.sizes)
    if batch.words is None or batch.labels is None:
        return loss
    return text_loss(tower.label_head(tokens, batch.words), batch.labels) + loss


class Questions:
    """Batches of augmented pictures with several texts each, and what is known of them."""

    def __init__(
        self, frames: Frames, words: Words, places: Places, seed: int, pictures: int = 32, texts: int = 8
    ) -> None:
        """Ask about ``frames``; ``seed`` fixes pictures, texts and augmentation of every step."""
        self._frames, self._words, self._places, self._seed = frames, words, places, seed
        self._pictures, self._texts = pictures, texts
        self._draw, self._asked = SourceSampler(frames), TextSampler(frames)

    def __call__(self, step: int) -> Asked:
        """Return the batch of a step."""
        rows, pictures, rng = _drawn(self._frames, self._draw, self._seed, step, self._pictures)
        numbers = self._asked.draw(rows, self._texts, rng)
        tokens = self._words(self._asked.texts(rows, numbers, rng)).view(self._pictures, self._texts, -1)
        there = self._asked.there(rows, numbers)[..., None]
        labels = np.concatenate([self._frames.labels[rows[:, None], numbers], there], axis=2, dtype=np.float32)
        return Asked(pictures, tokens, torch.from_numpy(labels), self._places.targets(rows))


@torch.inference_mode()
def outputs_of(
    network: nn.Module, frames: Frames, words: torch.Tensor, batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Return expected progress (N,) and p(done) (N,) of a network."""
    device = device_of(network)
    starts = range(0, len(frames.images), batch)
    outputs = torch.cat(
        [
            network(to_tensor(frames.images[at : at + batch]).to(device), words[at : at + batch].to(device))[0].cpu()
            for at in starts
        ]
    )
    progress = (outputs[:, :11].softmax(-1) * torch.arange(11) / 10).sum(-1)
    return progress.numpy(), outputs[:, 11].sigmoid().numpy()


@torch.inference_mode()
def places_metrics(tower: Tower, frames: Frames, places: Places, pictures: int = 400) -> str:
    """Return in one line how often the tower says right what is where, at the places where a thing is.

    Args:
        tower: with its heads.
        frames: held-out frames, of the same things.
        places: of the training frames.
        pictures: how many are shown.
    """
    mine = places.of(frames)
    rows = np.flatnonzero(mine.known)
    rows = np.random.default_rng(0).permutation(rows)[:pictures]
    if not len(rows):
        return "places -"
    seen = tower.place_head(tower.encode(to_tensor(frames.images[rows]).to(device_of(tower)))[0]).cpu()
    right = places_right(seen, mine.targets(rows), places.sizes)
    return "places " + " ".join(f"{name} {share:.2f}" for name, share in zip(QUESTIONS, right, strict=True))
