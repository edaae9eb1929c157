# SPDX-License-Identifier: Apache-2.0
"""Train the vision tower by distillation: first a small convolutional teacher, then the tower learns its features.

A transformer that starts from noise needs far more frames than there are to find objects; a convolutional network does
not. Its feature map lies on the tower's patches, so each patch can be told what to represent.
Both are asked several texts about each picture, with the labels of the state for each (``texts``). The teacher and the
label heads, which read the texts, are dropped afterwards: the tower stays transformers' own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lrm_ros.reward.qwen.vision import encode, positions_of
from lrm_ros.sim.seen import SIDE
from lrm_ros.training.reward.train.tiny.data import Frames, SourceSampler, augment, to_tensor
from lrm_ros.training.reward.train.tiny.label_head import LabelHead
from lrm_ros.training.reward.train.tiny.texts import TextSampler, Words
from lrm_ros.training.reward.train.tiny.things import QUESTIONS, PlaceHead, Places, places_right, spread


class Teacher(nn.Module):
    """Four convolutions, a feature map of 128 x 12 x 12 (``lrm_ros.sim.seen.SIDE``), and heads for labels and places.

    The map does not know the text, so it must tell of every thing in the picture what any text may ask. With batch
    normalisation it finds small things in a third of the steps that it takes with group normalisation.
    """

    def __init__(self, vocabulary: int, answers: tuple[int, ...] = ()) -> None:
        """Build the network.

        Args:
            vocabulary: number of tokens.
            answers: to each question about a place, ``things.Places.sizes``; none: there is no such head.
        """
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, kernel, stride in ((32, 5, 2), (64, 3, 2), (96, 3, 2), (128, 3, 1)):
            layers += [nn.Conv2d(channels, width, kernel, stride, kernel // 2), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.label_head = LabelHead(channels, SIDE * SIDE, vocabulary)
        self.place_head = PlaceHead(channels, answers) if answers else None

    def forward(self, images: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what :class:`Student` does."""
        features = self.features(images).flatten(2).transpose(1, 2)
        places = features[..., :0] if self.place_head is None else self.place_head(features)
        return self.label_head(features, words), features, places


class Student(nn.Module):
    """The vision tower with small heads: on its visual tokens for labels and places, on its patches for the map."""

    def __init__(self, visual: Any, vocabulary: int, answers: tuple[int, ...] = (), size: int = 96) -> None:
        """Wrap a Qwen3VLVisionModel.

        Args:
            visual: the tower.
            vocabulary: number of tokens.
            answers: to each question about a place, ``things.Places.sizes``; none: there is no such head.
            size: width and height of the images [pixels].
        """
        super().__init__()
        self.visual = visual
        config = visual.config
        self.side = size // config.patch_size
        self.merge = config.spatial_merge_size
        tokens = self.side // self.merge
        self.label_head = LabelHead(config.out_hidden_size, tokens**2, vocabulary)
        self.map_head = nn.Linear(config.hidden_size, 128 * (SIDE // self.side) ** 2)
        self.place_head = PlaceHead(config.out_hidden_size, answers, SIDE // tokens) if answers else None

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
        positions = positions_of(self.visual, (1, self.side, self.side))
        tokens, _, states = encode(self.visual, self.patches(images), positions)
        return tokens, states

    def forward(self, images: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return outputs, features and places.

        Args:
            images: (N, 3, H, W).
            words: (N, Q, W) of Q texts.

        Returns:
            Answers to the texts (N, Q, 13), the distilled features in rows (N, SIDE * SIDE, 128), and what the visual
            tokens say of every place (N, SIDE * SIDE, answers).
        """
        tokens, states = self.encode(images)
        features = spread(self.in_rows(self.map_head(states)), SIDE // self.side)
        places = features[..., :0] if self.place_head is None else self.place_head(tokens)
        return self.label_head(tokens, words), features, places


def initialise(student: Student) -> None:
    """Start the tower with weights of the size its layers need (transformers' 0.02 is for wide models)."""
    for module in student.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.7 * module.in_features**-0.5)
    nn.init.normal_(student.visual.pos_embed.weight, std=0.2)
    stem = student.visual.patch_embed.proj.weight
    nn.init.normal_(stem, std=stem[0].numel() ** -0.5)


def distillation_loss(
    outputs: torch.Tensor, features: torch.Tensor, teacher_output: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Distillation loss: distance of outputs and patch features from the teacher's."""
    answers, seen = teacher_output
    progress = -(answers[..., :11].softmax(-1) * outputs[..., :11].log_softmax(-1)).sum(-1).mean()
    done = functional.binary_cross_entropy_with_logits(outputs[..., 11], answers[..., 11].sigmoid())
    width = seen.shape[-1:]
    near = functional.mse_loss(features, functional.layer_norm(seen, width))
    return progress + done + 2.0 * near


class Questions:
    """Batches of augmented pictures with several texts each, and what is known of them."""

    def __init__(self, frames: Frames, words: Words, seed: int, pictures: int = 32, texts: int = 8) -> None:
        """Ask about ``frames``; ``seed`` fixes pictures, texts and augmentation of every step."""
        self._frames, self._words, self._seed = frames, words, seed
        self._pictures, self._texts = pictures, texts
        self._draw, self._asked = SourceSampler(frames), TextSampler(frames)

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
        """Return images (N, 3, H, W), words (N, Q, W), labels (N, Q, 3): progress, done, there; and the rows (N,)."""
        rng = np.random.default_rng([self._seed, step])
        generator = torch.Generator().manual_seed((self._seed << 24) + step)
        rows = self._draw(rng, self._pictures)
        numbers = self._asked.draw(rows, self._texts, rng)
        tokens = self._words(self._asked.texts(rows, numbers, rng)).view(self._pictures, self._texts, -1)
        images = augment(to_tensor(self._frames.images[rows]), generator)
        there = self._asked.there(rows, numbers)[..., None]
        labels = np.concatenate([self._frames.labels[rows[:, None], numbers], there], axis=2)
        return images, tokens, labels, rows


@torch.inference_mode()
def outputs_of(
    network: nn.Module, frames: Frames, words: torch.Tensor, batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Return expected progress (N,) and p(done) (N,) of a teacher or student."""
    starts = range(0, len(frames.images), batch)
    outputs = torch.cat(
        [network(to_tensor(frames.images[at : at + batch]), words[at : at + batch])[0] for at in starts]
    )
    progress = (outputs[:, :11].softmax(-1) * torch.arange(11) / 10).sum(-1)
    return progress.numpy(), outputs[:, 11].sigmoid().numpy()


@torch.inference_mode()
def places_metrics(network: nn.Module, frames: Frames, places: Places, pictures: int = 200) -> str:
    """Return in one line how often a teacher or student says right what is where, at the places where a thing is.

    Args:
        network: with a head for places.
        frames: held-out frames, of the same things.
        places: of the training frames.
        pictures: how many are shown.
    """
    rows = np.flatnonzero([bool(frames.things[int(episode)]) for episode in frames.episode])[:pictures]
    if not len(rows):
        return "places -"
    seen = network(to_tensor(frames.images[rows]), torch.ones(len(rows), 1, 1, dtype=torch.long))[2]
    right = places_right(seen, places.of(frames).targets(rows), places.sizes)
    return "places " + " ".join(f"{name} {share:.2f}" for name, share in zip(QUESTIONS, right, strict=True))
