# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of the progress and completion heads with TRL: reasoning and label, or the label only.

Paper: III-C, equations 6 and 7. TRL's assistant-only loss for images needs transformers 5; here the loss is that of the
completion of prompt-completion rows, which is the assistant's turn and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrm_ros.training.reward.train.config import LrmTrainConfig, lora_config, training_arguments
from lrm_ros.training.reward.train.optimizer import with_vision_learning_rate


def sft_trainer(
    model: Any, processor: Any, train_dataset: Any, eval_dataset: Any | None, head: str, config: LrmTrainConfig,
    folder: Path, device: str, callbacks: list[Any] | None = None,
) -> Any:  # fmt: skip
    """Return a ``trl.SFTTrainer`` that is ready to train one head.

    Args:
        model: the base model; it gets the head's LoRA matrices.
        processor: its processor.
        train_dataset: of ``lrm_ros.training.reward.train.rows.make_dataset``.
        eval_dataset: rows whose loss is computed at every checkpoint, or ``None``.
        head: ``"progress"`` or ``"completion"``.
        config: hyperparameters.
        folder: folder of checkpoints.
        device: ``"cpu"`` or ``"cuda"``.
        callbacks: transformers' trainer callbacks.
    """
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        **training_arguments(config, str(folder), device, eval_dataset is not None),
        learning_rate=config.sft_learning_rate,
        completion_only_loss=True,
    )
    return with_vision_learning_rate(SFTTrainer, config)(
        model=model,
        args=arguments,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        peft_config=lora_config(config, head),
        callbacks=callbacks,
    )
