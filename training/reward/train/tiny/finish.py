# SPDX-License-Identifier: Apache-2.0
"""Save a trained tiny model with its figures on held-out episodes and its card."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.reward.qwen.folder import save_processor
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.reward.data.generate import HELD_OUT
from lrm_ros.training.reward.train.tiny.card import card
from lrm_ros.training.reward.train.tiny.data import TWIN, Frames
from lrm_ros.training.reward.train.tiny.measure import measure
from lrm_ros.training.reward.train.tiny.settings import Compute, TinySettings


def finish(
    model: Any,
    processor: Any,
    training: Frames,
    held_out: Frames,
    out: Path,
    settings: TinySettings,
    compute: Compute,
    commit: str,
    seconds: dict[str, float],
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Save and evaluate a model, and drop its checkpoints.

    Args:
        model: the model.
        processor: its processor.
        training: what it was trained on.
        held_out: what it is evaluated on: the twin's episodes, all if there are none.
        out: folder that receives model, processor, training.json and the model card.
        settings: of the training.
        compute: where it ran.
        commit: of the source that trained it.
        seconds: that each stage took.
        before: training.json of the model that it went on from; ``None``: it was trained from scratch.

    Returns:
        What is written to training.json.
    """
    import torch

    judged = np.flatnonzero(np.array(held_out.sources)[held_out.source] == TWIN)
    if not len(judged):  # no twin, or left out
        judged = np.arange(len(held_out.source))
    out.mkdir(parents=True, exist_ok=True)
    model.to("cpu", torch.bfloat16).save_pretrained(out)
    save_processor(processor, out)
    begun = time.monotonic()
    figures = measure(QwenRewardModel(out, name=settings.size, device=compute.device), held_out.select(judged))
    seconds = {**seconds, "measure": time.monotonic() - begun}
    about = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sources": {name: int((training.source == i).sum()) for i, name in enumerate(training.sources)},
        "training_frames": len(training.images),
        "training_episodes": len(np.unique(training.episode)),
        "seed": settings.seed,
        "scale": settings.scale,
        "size": settings.size,
        "batch": settings.batch,
        "device": compute.device if compute.device == "cpu" else torch.cuda.get_device_name(compute.device),
        "blind": settings.blind,
        "without": list(settings.leave_out),
        "held_out": list(HELD_OUT),
        "commit": commit,
        "left_out": figures,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    if before is not None:
        about["before"] = {name: before[name] for name in ("training_frames", "seed", "scale", "commit", "seconds")}
    (out / "training.json").write_text(json.dumps(about, indent=1) + "\n")
    (out / "metrics.json").unlink(missing_ok=True)  # the figures of other weights
    (out / "README.md").write_text(card(about, None), encoding="utf-8")
    shutil.rmtree(out / "checkpoints")
    return about
