# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of the reward heads' LoRA training, each once; ``config/lrm_train.yaml`` says where each is from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lrm_ros.types import HEADS
from lrm_ros.versions import warmup_of

REASONINGS = ("none", "template", "teacher")


def _opt(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class LrmTrainConfig:
    """How one head is trained: LoRA, optimizer, batches, reasoning text, checkpoints."""

    lora_r: int = _opt(64, "LoRA rank")
    lora_alpha: int = _opt(128, "LoRA alpha; the update is scaled by alpha / r")
    lora_dropout: float = _opt(0.05, "dropout before the LoRA matrices (SFT; DPO trains without)")
    lora_targets: tuple[str, ...] = _opt(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "target modules of LoRA; these are the language model's linear layers",
    )
    train_vision: tuple[str, ...] = _opt(("progress",), "heads that also train and save the whole vision tower")
    sft_learning_rate: float = _opt(1e-4, "peak learning rate of the LoRA matrices, progress and completion")
    dpo_learning_rate: float = _opt(5e-6, "peak learning rate of the LoRA matrices, contrastive")
    vision_learning_rate: float = _opt(2e-6, "peak learning rate of the vision tower")
    weight_decay: float = _opt(0.0, "AdamW's weight decay")
    max_grad_norm: float = _opt(1.0, "gradients are clipped to this norm")
    warmup_ratio: float = _opt(0.03, "fraction of the steps with linear warmup of the learning rate")
    schedule: str = _opt("cosine", "learning rate schedule, one of transformers' names")
    batch_size: int = _opt(4, "examples in a batch of one device")
    gradient_accumulation: int = _opt(8, "batches per optimizer step")
    epochs: float = _opt(1.0, "epochs over the training examples")
    max_steps: int = _opt(-1, "optimizer steps; -1: by the epochs")
    dpo_beta: float = _opt(0.1, "DPO's beta: weight of the KL penalty to the reference model")
    reasoning: str = _opt("template", "text before the label of progress and contrastive: none, template or teacher")
    reasoning_share: float = _opt(0.5, "share of the examples with reasoning; the others are the label only")
    gradient_checkpointing: bool = _opt(True, "gradient checkpointing: recompute activations to save memory")
    save_steps: int = _opt(100, "optimizer steps between two checkpoints; 0: none")
    logging_steps: int = _opt(10, "optimizer steps between two lines of the log")
    eval_examples: int = _opt(256, "validation examples, evaluated at every checkpoint; 0: none")
    workers: int = _opt(4, "data loader workers; 0: load in the training process")
    tensorboard: bool = _opt(False, "write TensorBoard logs")
    seed: int = _opt(0, "seed of the LoRA matrices, the order of the examples and dropout")

    def __post_init__(self) -> None:
        if self.reasoning not in REASONINGS:
            raise ValueError(f"reasoning must be one of {', '.join(REASONINGS)}, got '{self.reasoning}'")
        for head in self.train_vision:
            if head not in HEADS:
                raise ValueError(f"train_vision: unknown head '{head}'; choose of {', '.join(HEADS)}")
        if not self.lora_targets:
            raise ValueError("lora_targets is empty; name at least one linear layer, e.g. q_proj")
        positive = ("lora_r", "lora_alpha", "batch_size", "gradient_accumulation", "epochs", "dpo_beta")
        for name in (*positive, "sft_learning_rate", "dpo_learning_rate", "vision_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("lora_dropout", "warmup_ratio", "reasoning_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in ("save_steps", "eval_examples", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ValueError(f"max_steps must be -1 (by epochs) or above 0, got {self.max_steps}")


def lora_config(config: LrmTrainConfig, head: str) -> Any:
    """Return the ``peft.LoraConfig`` of a head."""
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        modules_to_save=["visual"] if head in config.train_vision else None,
        task_type="CAUSAL_LM",
    )


def training_arguments(config: LrmTrainConfig, folder: str, device: str, evaluate: bool) -> dict[str, Any]:
    """Return what SFTConfig and DPOConfig share.

    Args:
        config: hyperparameters.
        folder: folder of checkpoints.
        device: ``"cpu"`` (float32) or ``"cuda"`` (bfloat16, LoRA matrices in float32).
        evaluate: compute the validation loss at every checkpoint.
    """
    return {
        "output_dir": folder,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        **warmup_of(config.warmup_ratio),
        "lr_scheduler_type": config.schedule,
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps" if config.save_steps else "no",
        "save_steps": config.save_steps or 1,
        "save_total_limit": 2,
        "eval_strategy": "no" if not evaluate else "steps" if config.save_steps else "epoch",
        "eval_steps": config.save_steps or None,
        "logging_steps": config.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "dataloader_num_workers": config.workers,
        "use_cpu": device == "cpu",
        "bf16": device != "cpu",
        "seed": config.seed,
        # Prompts hold image tokens and are never cut; a dataset that is made row by row has no columns to remove.
        "max_length": None,
        "remove_unused_columns": False,
    }
