# SPDX-License-Identifier: Apache-2.0
"""One training of a reward head from base model and examples to an adapter folder that the reward model loads.

``OUT/HEAD/`` appears when the training is complete; until then checkpoints lie in ``OUT/HEAD.part/``. A killed
training is resumed from its last complete checkpoint: weights, optimizer, schedule, random state and order of the
examples.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lrm_ros.config_files import to_dict
from lrm_ros.reward.models import find_model
from lrm_ros.reward.qwen.load import load_qwen
from lrm_ros.training.reward.train.checkpoints import (
    check_settings,
    last_checkpoint,
    load_finished,
    remove_incomplete,
    save_adapter,
)
from lrm_ros.training.reward.train.config import LrmTrainConfig
from lrm_ros.training.reward.train.rows import Example, Examples, Reasoning, make_dataset
from lrm_ros.types import HEADS


def train_head(
    head: str,
    model_name: str,
    examples: Examples[Example],
    out: Path,
    config: LrmTrainConfig,
    eval_examples: Examples[Example] | None = None,
    reasoning: Reasoning | None = None,
    device: str = "auto",
    data: str = "",
    callbacks: list[Any] | None = None,
) -> dict[str, Any]:
    """Train the LoRA adapter of one head and save it as ``OUT/HEAD``.

    A finished ``OUT/HEAD`` made by the same call is returned as it is.

    Args:
        head: one of ``lrm_ros.types.HEADS``; contrastive is trained by DPO, the others by SFT.
        model_name: base model: a folder, ``"tiny"``, or a Hugging Face name that is in the local cache.
        examples: what to train on, all of this head.
        out: folder of the adapters; one folder a head in it.
        config: hyperparameters.
        eval_examples: validation examples.
        reasoning: gives the text before the label; must fit ``config.reasoning``.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        data: name of the data, for the model card and to recognise an interrupted training.
        callbacks: transformers' trainer callbacks.

    Returns:
        Metrics: steps, resumed_at, seconds, loss_first, loss_last, evaluation, examples, parameters, settings.

    Raises:
        ValueError: ``OUT/HEAD`` belongs to another training, or examples do not fit the head.
        FileNotFoundError: the base model is not here.
        FloatingPointError: a loss or weight is not finite.
        RuntimeError: nothing was learned.
    """
    import torch
    from accelerate import PartialState

    if head not in HEADS:
        raise ValueError(f"unknown head '{head}'; choose one of {', '.join(HEADS)}")
    if (reasoning is None) != (config.reasoning == "none" or head == "completion"):
        needs = "needs a source of the text" if reasoning is None else "takes no text before the label"
        raise ValueError(f"head '{head}' with reasoning '{config.reasoning}' {needs}")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    final, part = out / head, out / f"{head}.part"
    settings = {
        "head": head, "base": _portable_name(model_name), "data": data, "examples": len(examples),
        "config": to_dict(config),
    }  # fmt: skip
    if final.exists():
        return load_finished(final, settings)
    state = PartialState(cpu=device == "cpu")
    if state.is_main_process:
        part.mkdir(parents=True, exist_ok=True)
        check_settings(part, settings)
        remove_incomplete(part)
    state.wait_for_everyone()
    checkpoint = last_checkpoint(part)

    model, processor = load_base_model(model_name, device)
    seed, share = config.seed, config.reasoning_share
    train_dataset = make_dataset(examples, head, processor, reasoning, share, seed)
    evaluate = eval_examples is not None and len(eval_examples) > 0 and config.eval_examples > 0
    eval_dataset = None
    if evaluate and eval_examples is not None:
        eval_dataset = make_dataset(eval_examples, head, processor, reasoning, share, seed).select(
            range(min(config.eval_examples, len(eval_examples)))
        )
    if head == "contrastive":
        from lrm_ros.training.reward.train.dpo import dpo_trainer as make
    else:
        from lrm_ros.training.reward.train.sft import sft_trainer as make
    all_callbacks = [*(callbacks or []), _watch()]
    if config.tensorboard and state.is_main_process:
        all_callbacks.append(_tensorboard(part / "logs"))
    trainer = make(model, processor, train_dataset, eval_dataset, head, config, part, device, all_callbacks)
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - begun
    ready = part / "ready"
    trainer.save_model(str(ready))
    figures = {
        "steps": trainer.state.global_step,
        "resumed_at": int(checkpoint.name.split("-")[1]) if checkpoint else 0,
        "seconds": seconds,
        "examples": len(examples),
        "parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        **_losses(trainer.state.log_history),
        "settings": settings,
    }
    if trainer.is_world_process_zero():
        save_adapter(ready, final, part, figures)
    state.wait_for_everyone()
    return figures


def load_base_model(model_name: str, device: str) -> tuple[Any, Any]:
    """Load base model and processor for training, in float32 on a CPU and bfloat16 elsewhere.

    Raises:
        FileNotFoundError: the model or its processor is not here; says how to get it.
        ValueError: the folder holds adapters or another kind of model.
    """
    folder = find_model(model_name)
    model, processor, adapters = load_qwen(folder, device)
    if adapters:
        raise ValueError(f"'{model_name}' holds adapters; train on the whole model that they belong to")
    # With a Hugging Face name PEFT would ask the network about the base model at every save.
    model.name_or_path = str(folder)
    return model, processor


def _portable_name(model_name: str) -> str:
    """Return a model's name as another machine or working folder can use it: folders become absolute."""
    folder = Path(model_name).expanduser()
    return str(folder.resolve()) if model_name != "tiny" and folder.is_dir() else model_name


def _watch() -> Any:
    """Return the callback that stops a training whose loss is not finite, and has the last step measured."""
    import math

    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= state.max_steps:
                control.should_log = True
                control.should_evaluate = args.eval_strategy != "no"

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            for key in ("loss", "grad_norm"):
                value = (logs or {}).get(key)
                if value is not None and not math.isfinite(float(value)):
                    raise FloatingPointError(
                        f"{key} is {value} at step {state.global_step}; lower the learning rate; the last good state "
                        f"is in '{args.output_dir}'"
                    )

    return Watch()


def _tensorboard(folder: Path) -> Any:
    """Return the callback that writes TensorBoard logs into a folder."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder)))


def _losses(history: list[dict[str, Any]]) -> dict[str, Any]:
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    checks = [{k: v for k, v in entry.items() if k.startswith("eval_")} for entry in history if "eval_loss" in entry]
    return {
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "evaluation": checks[-1] if checks else None,
    }
