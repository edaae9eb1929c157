# SPDX-License-Identifier: Apache-2.0
"""AdamW with a separate learning rate for the vision tower, in a transformers trainer."""

from __future__ import annotations

from typing import Any

from lrm_ros.training.reward.train.config import LrmTrainConfig


def with_vision_learning_rate(trainer_class: Any, config: LrmTrainConfig) -> Any:
    """Return a trainer class that keeps trained weights in float32 and gives the vision tower its own learning rate.

    In bfloat16 an update of 1e-6 of a weight is rounded away; matrix products still run in bfloat16 (autocast).
    """

    class Trainer(trainer_class):
        optimizer: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()

        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            if self.optimizer is None:
                import torch

                trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
                tower = [p for name, p in trained if ".modules_to_save." in name]
                lora = [p for name, p in trained if ".modules_to_save." not in name]
                groups = [{"params": lora, "lr": self.args.learning_rate}]
                if tower:
                    groups.append({"params": tower, "lr": config.vision_learning_rate})
                self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
            return self.optimizer

    return Trainer
