# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a reward head's training, the settings they belong to, and the finished adapter with its card."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from lrm_ros.files import read_json, write_json

METRICS_FILE = "training.json"
# What may differ when an interrupted training is resumed: it changes no weight.
_MAY_CHANGE = ("gradient_checkpointing", "save_steps", "logging_steps", "workers", "tensorboard")


def _is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint is complete; the trainer writes its state last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def remove_incomplete(part: Path) -> None:
    """Remove incomplete checkpoints and an incomplete result."""
    shutil.rmtree(part / "ready", ignore_errors=True)
    for checkpoint in part.glob("checkpoint-*"):
        if not _is_complete(checkpoint):
            shutil.rmtree(checkpoint)


def last_checkpoint(part: Path) -> Path | None:
    """Return the newest complete checkpoint."""
    complete = [c for c in part.glob("checkpoint-*") if _is_complete(c)]
    return max(complete, key=lambda c: int(c.name.split("-")[1]), default=None)


def check_settings(part: Path, settings: dict[str, Any]) -> None:
    """Write the settings beside the checkpoints.

    Raises:
        ValueError: the checkpoints belong to a training with other settings.
    """
    file = part / "settings.json"
    if file.is_file():
        _compare(read_json(file, f"remove '{part}' or choose another --out"), settings, part)
    write_json(file, settings)


def _compare(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    flat_found = {**found, **found["config"], "config": None}
    flat_wanted = {**wanted, **wanted["config"], "config": None}
    differences = [
        f"{key} {flat_found.get(key)!r} instead of {value!r}"
        for key, value in flat_wanted.items()
        if flat_found.get(key) != value and key not in _MAY_CHANGE
    ]
    if differences:
        raise ValueError(
            f"'{folder}' belongs to another training ({'; '.join(differences)}); remove it or choose another --out"
        )


def load_finished(final: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of a finished training.

    Raises:
        ValueError: no finished training there, or one with other settings.
    """
    file = final / METRICS_FILE
    if not file.is_file():
        raise ValueError(f"'{final}' exists and is no finished training; remove it or choose another --out")
    figures = json.loads(file.read_text(encoding="utf-8"))
    _compare(figures["settings"], settings, final)
    return figures


def check_weights(folder: Path) -> None:
    """Raise if saved adapter weights are not finite, or would have no effect.

    Raises:
        FloatingPointError: a weight is infinite or NaN.
        RuntimeError: every lora_B is zero: the model would answer as its base does.
    """
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "adapter_model.safetensors")
    bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise FloatingPointError(f"'{folder}': weight '{bad[0]}' is not finite; lower the learning rate")
    if not any(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name):
        raise RuntimeError(f"'{folder}': every lora_B is zero: nothing was learned; raise learning rate or steps")


def save_adapter(ready: Path, final: Path, part: Path, figures: dict[str, Any]) -> None:
    """Check the saved adapter, add metrics and model card, move it to its place and remove the checkpoints."""
    check_weights(ready)
    (ready / "training_args.bin").unlink(missing_ok=True)  # a pickle with this machine's paths
    config_file = ready / "adapter_config.json"
    base = {"base_model_name_or_path": figures["settings"]["base"]}
    config_file.write_text(json.dumps({**json.loads(config_file.read_text(encoding="utf-8")), **base}, indent=2) + "\n")
    (ready / METRICS_FILE).write_text(json.dumps(figures, indent=1) + "\n")
    (ready / "README.md").write_text(_model_card(figures), encoding="utf-8")
    logs = part / "logs"
    if logs.is_dir():
        shutil.move(logs, ready / "logs")
    os.rename(ready, final)
    shutil.rmtree(part)


def _model_card(figures: dict[str, Any]) -> str:
    settings, config = figures["settings"], figures["settings"]["config"]
    head = settings["head"]
    method = f"DPO, beta {config['dpo_beta']:g}" if head == "contrastive" else "SFT"
    rate = config["dpo_learning_rate" if head == "contrastive" else "sft_learning_rate"]
    tower = "; the whole vision tower too" if head in config["train_vision"] else ""
    text = "label only" if head == "completion" else f"{config['reasoning']}, share {config['reasoning_share']:g}"
    return f"""---
license: apache-2.0
library_name: peft
base_model: {settings["base"]}
tags: [reward-model, robotics, qwen3_vl, lora]
---
# Reward head {head}

A LoRA adapter (r {config["lora_r"]}, alpha {config["lora_alpha"]}{tower}) that answers the {head} prompt of Large
Reward Models. Trained by `lrm reward train` ({method}, peak learning rate {rate:g}, {figures["steps"]} steps, seed
{config["seed"]}) on {figures["examples"]} examples ({settings["data"] or "not named"}); reasoning before the label:
{text}. Training loss {figures["loss_first"]:.4f} at the start, {figures["loss_last"]:.4f} at the end. `{METRICS_FILE}`
holds all settings. It was not evaluated here; `lrm reward eval` does.
"""
