# SPDX-License-Identifier: Apache-2.0
"""Train the vision tower by distillation: first a small convolutional teacher, then the tower learns its features.

A transformer that starts from noise needs far more frames than there are to find objects; a convolutional network does
not. Its 6 x 6 feature map lies on the same grid as the tower's patches, so each patch can be told what to represent.
The teacher and the label heads, which read the instruction, are dropped afterwards: the tower stays transformers'
own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lrm_ros.reward.qwen.vision import encode, positions_of
from lrm_ros.training.reward.train.tiny.data import Frames, SourceSampler, augment, progress_target, to_tensor
from lrm_ros.training.reward.train.tiny.label_head import LabelHead


class Teacher(nn.Module):
    """Four convolutions with stride 2, a feature map of 128 x 6 x 6 for 96 x 96 pixels, and a label head."""

    def __init__(self, vocabulary: int) -> None:
        """Build the network; ``vocabulary`` is the number of instruction tokens."""
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (32, 64, 96, 128):
            kernel = 5 if channels == 3 else 3
            layers += [nn.Conv2d(channels, width, kernel, 2, kernel // 2), nn.GroupNorm(8, width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = LabelHead(channels, 36, vocabulary)

    def forward(self, images: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs (N, 12) and features (N, 36, 128) of images (N, 3, 96, 96) and their tasks' words (N, W)."""
        features = self.features(images).flatten(2).transpose(1, 2)
        return self.head(features, words), features


class Student(nn.Module):
    """The vision tower with small heads: on its visual tokens for the labels, on its patches for the teacher's map."""

    def __init__(self, visual: Any, vocabulary: int, size: int = 96) -> None:
        """Wrap a Qwen3VLVisionModel for square images of ``size`` pixels."""
        super().__init__()
        self.visual = visual
        config = visual.config
        self.side = size // config.patch_size
        self.merge = config.spatial_merge_size
        self.label_head = LabelHead(config.out_hidden_size, (self.side // self.merge) ** 2, vocabulary)
        self.map_head = nn.Linear(config.hidden_size, 128)

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

    def forward(self, images: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs (N, 12) and the distilled features in rows (N, 36, 128)."""
        tokens, states = self.encode(images)
        return self.label_head(tokens, words), self.in_rows(self.map_head(states))


def initialise(student: Student) -> None:
    """Start the tower with weights of the size its layers need (transformers' 0.02 is for wide models)."""
    for module in student.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.7 * module.in_features**-0.5)
    nn.init.normal_(student.visual.pos_embed.weight, std=0.2)
    stem = student.visual.patch_embed.proj.weight
    nn.init.normal_(stem, std=stem[0].numel() ** -0.5)


def label_loss(outputs: torch.Tensor, frames: Frames, rows: np.ndarray) -> torch.Tensor:
    """Cross-entropy of progress plus that of completion where its label can be seen."""
    progress = -(progress_target(frames.progress[rows]) * outputs[:, :11].log_softmax(-1)).sum(-1).mean()
    visible = torch.from_numpy(frames.visible[rows])
    done = torch.from_numpy(frames.success[rows]).float()
    return progress + functional.binary_cross_entropy_with_logits(outputs[:, 11][visible], done[visible])


def distillation_loss(
    outputs: torch.Tensor, features: torch.Tensor, teacher_output: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Distillation loss: distance of outputs and patch features from the teacher's."""
    answers, seen = teacher_output
    progress = -(answers[:, :11].softmax(-1) * outputs[:, :11].log_softmax(-1)).sum(-1).mean()
    done = functional.binary_cross_entropy_with_logits(outputs[:, 11], answers[:, 11].sigmoid())
    width = seen.shape[-1:]
    near = functional.mse_loss(features, functional.layer_norm(seen, width))
    return progress + done + 2.0 * near


def train(
    network: nn.Module,
    loss: Callable[[torch.Tensor, np.ndarray], torch.Tensor],
    frames: Frames,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    name: str,
    evaluate: Callable[[], str],
) -> None:
    """Train with AdamW, a short warm-up and a cosine to zero; prints what ``evaluate`` returns eight times.

    Args:
        network: the trained network.
        loss: images (N, 3, H, W) and rows of ``frames`` -> scalar.
        frames: training frames.
        steps: optimizer steps.
        batch: frames in a batch.
        learning_rate: peak learning rate.
        seed: fixes the order of frames and their augmentation.
        name: shown in the progress lines.
        evaluate: returns the network's metrics as text.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    draw = SourceSampler(frames)
    start = time.monotonic()
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
        rows = draw(rng, batch)
        value = loss(augment(to_tensor(frames.images[rows]), generator), rows)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % max(1, steps // 8) == 0 or step + 1 == steps:
            network.eval()
            seconds = time.monotonic() - start
            print(f"{name} {step + 1:5d}/{steps} {seconds:5.0f} s  loss {value.item():.3f}  {evaluate()}", flush=True)
            network.train()
    network.eval()


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
