# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of the progress and completion heads with TRL: reasoning and label, or the label only.

Paper: III-C, equations 6 and 7. TRL's assistant-only loss for images needs transformers 5; here the loss is that of the
completion of prompt-completion rows, which is the assistant's turn and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrm_ros.training.reward.train.config import LrmTrainConfig, arguments_of, lora_of
from lrm_ros.training.reward.train.optimiser import with_vision_rate


def sft_trainer(
    model: Any, processor: Any, train: Any, held_out: Any | None, head: str, config: LrmTrainConfig, folder: Path,
    device: str, callbacks: list[Any] | None = None,
) -> Any:  # fmt: skip
    """Return a ``trl.SFTTrainer`` that is ready to train one head.

    Args:
        model: the base model; it gets the head's LoRA matrices.
        processor: its processor.
        train: rows by ``lrm_ros.training.reward.train.rows.rows``.
        held_out: rows whose loss is computed at every resume point, or ``None``.
        head: ``"progress"`` or ``"completion"``.
        config: hyper-parameters.
        folder: folder of resume points.
        device: ``"cpu"`` or ``"cuda"``.
        callbacks: transformers' trainer callbacks.
    """
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        **arguments_of(config, str(folder), device, held_out is not None),
        learning_rate=config.sft_learning_rate,
        completion_only_loss=True,
    )
    return with_vision_rate(SFTTrainer, config)(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=processor,
        peft_config=lora_of(config, head),
        callbacks=callbacks,
    )
