# SPDX-License-Identifier: Apache-2.0
"""Settings of a training of the tiny model, and what follows from them: its frames, and whose its checkpoints are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lrm_ros.files import claim_folder
from lrm_ros.training.reward.train.tiny.data import Frames, blinded, left_out, load_frames


@dataclass(frozen=True)
class TinySettings:
    """Settings of a training.

    Attributes:
        size: of ``lrm_ros.training.reward.train.tiny.model.SIZES``.
        scale: factor on all numbers of training steps (below 1: a quick trial).
        seed: seed of everything.
        blind: what it is trained without, of ``lrm_ros.training.reward.eval.blind.BLIND``; empty: nothing.
        leave_out: beginnings of names of sources that are not trained on.
        batch: factor on the pictures and queries of a step.
    """

    size: str = "tiny"
    scale: float = 1.0
    seed: int = 0
    blind: str = ""
    leave_out: tuple[str, ...] = ()
    batch: int = 1


@dataclass(frozen=True)
class Compute:
    """Where a training runs.

    Attributes:
        device: torch device.
        workers: processes that draw batches ahead; 0: none.
    """

    device: str = "cpu"
    workers: int = 0


def load_training_frames(data: Sequence[Path], settings: TinySettings) -> Frames:
    """Read the shards, without the sources that are left out, and without what the model is blind for."""
    return blinded(left_out(load_frames(data), settings.leave_out), settings.blind)


def claim_checkpoints(out: Path, data: Sequence[Path], settings: TinySettings, start: str = "") -> Path:
    """Return the folder of the checkpoints, which belong to these settings.

    Raises:
        ValueError: the folder holds checkpoints of others.
    """
    folder = out / "checkpoints"
    what = {"data": [str(path) for path in data], "start": start, **asdict(settings)}
    claim_folder(folder, what | {"leave_out": list(settings.leave_out)}, "*.pt", "checkpoints")
    return folder
