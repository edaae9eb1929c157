# SPDX-License-Identifier: Apache-2.0
"""Direct preference optimisation of the contrastive head with TRL: the true order's answer over the other one.

Paper: III-C, equation 5. Chosen and rejected answer the same two images; both reason first, then name an image. The
reference model is the base model itself, with the LoRA matrices switched off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrm_ros.training.reward.train.config import LrmTrainConfig, lora_config, training_arguments
from lrm_ros.training.reward.train.optimizer import with_vision_learning_rate


def dpo_trainer(
    model: Any, processor: Any, train_dataset: Any, eval_dataset: Any | None, head: str, config: LrmTrainConfig,
    folder: Path, device: str, callbacks: list[Any] | None = None,
) -> Any:  # fmt: skip
    """Return a ``trl.DPOTrainer`` that is ready to train the contrastive head; arguments as in ``sft_trainer``."""
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        **training_arguments(config, str(folder), device, eval_dataset is not None),
        learning_rate=config.dpo_learning_rate,
        beta=config.dpo_beta,
    )
    return with_vision_learning_rate(DPOTrainer, config)(
        model=model,
        args=arguments,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        peft_config=lora_config(config, head),
        callbacks=callbacks,
    )
