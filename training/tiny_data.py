# SPDX-License-Identifier: Apache-2.0
"""Labelled frames of the twin for the tiny reward model: reading, splitting, augmenting, targets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HELD_OUT = 10  # every tenth episode is for validation
SHIFT = 3  # largest random shift of an image [pixels]


@dataclass(frozen=True)
class Frames:
    """Frames with labels from the simulator's state.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        progress: (N,) float32 in [0, 1].
        success: (N,) bool, the task is done (and has been for some steps).
        episode: (N,) int, which episode.
        kind: (N,) int, which behaviour.
        tasks: language instruction of each episode.
    """

    images: NDArray[np.uint8]
    progress: NDArray[np.float32]
    success: NDArray[np.bool_]
    episode: NDArray[np.int64]
    kind: NDArray[np.int64]
    tasks: dict[int, str]

    def select(self, rows: NDArray) -> Frames:
        """Return some of the frames."""
        return Frames(
            self.images[rows],
            self.progress[rows],
            self.success[rows],
            self.episode[rows],
            self.kind[rows],
            self.tasks,
        )

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Where the completion label can be seen in the frame: (N,) bool.

        "At rest for three steps" is not visible; frames in which the toy has only just come to rest are left out.
        """
        return self.success | (self.progress < 0.999)


def load_frames(folder: Path) -> Frames:
    """Read the shards that ``python -m sim.generate`` wrote.

    Raises:
        FileNotFoundError: no shards.
        ValueError: a shard without the expected arrays.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise FileNotFoundError(
            f"'{folder}' holds no shards (*.npz); make them with 'python -m sim.generate --out {folder}'"
        )
    columns: dict[str, list[NDArray]] = {name: [] for name in ("frames", "progress", "success", "episode", "kind")}
    tasks: dict[int, str] = {}
    for path in paths:
        with np.load(path) as shard:
            missing = [name for name in (*columns, "tasks") if name not in shard]
            if missing:
                raise ValueError(
                    f"shard '{path}' has no {', '.join(missing)}; write it anew with 'python -m sim.generate'"
                )
            for name, parts in columns.items():
                parts.append(shard[name])
            for line in shard["tasks"]:
                about = json.loads(str(line))
                tasks[int(about["episode"])] = about["task"]
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Frames(
        joined["frames"],
        joined["progress"].astype(np.float32),
        joined["success"].astype(bool),
        joined["episode"].astype(np.int64),
        joined["kind"].astype(np.int64),
        tasks,
    )


def split(frames: Frames) -> tuple[Frames, Frames]:
    """Return training and validation frames; no episode is in both."""
    held_out = frames.episode % HELD_OUT == 0
    return frames.select(~held_out), frames.select(held_out)


def to_tensor(images: NDArray[np.uint8]) -> Any:
    """Return (N, 3, H, W) float32 in [-1, 1], as the tiny model's processor normalises."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def augment(images: Any, generator: Any) -> Any:
    """Shift each batch by a few pixels, change contrast, brightness and colour balance of each image."""
    import torch
    from torch.nn.functional import pad

    n, _, height, width = images.shape
    dy, dx = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
    images = pad(images, (SHIFT,) * 4, mode="replicate")[:, :, dy : dy + height, dx : dx + width]
    contrast = 1 + 0.12 * torch.randn(n, 1, 1, 1, generator=generator)
    balance = 0.08 * torch.randn(n, 3, 1, 1, generator=generator)
    return images * contrast + balance


def progress_target(progress: NDArray[np.float32]) -> Any:
    """Return (N, 11) probabilities over 0.0 ... 1.0: progress shared between its two neighbours."""
    import torch

    tenths = torch.from_numpy(progress).clamp(0, 1) * 10
    low = tenths.floor().clamp(max=9).long()
    part = (tenths - low)[:, None]
    target = torch.zeros(len(progress), 11)
    return target.scatter_(1, low[:, None], 1 - part).scatter_add_(1, low[:, None] + 1, part)
