# SPDX-License-Identifier: Apache-2.0
"""Configuration of ``act_small``, registered with LeRobot, and its optimiser."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.optim.optimizers import AdamWConfig, OptimizerConfig
from lerobot.policies.act.configuration_act import ACTConfig


@OptimizerConfig.register_subclass("adamw_fused")
@dataclass
class FusedAdamWConfig(AdamWConfig):
    """LeRobot's AdamW with torch's fused kernel: one call a step instead of several a tensor."""

    def build(self, params: Any) -> torch.optim.Optimizer:
        """Build the optimizer for parameters or parameter groups."""
        arguments = dataclasses.asdict(self)
        arguments.pop("grad_clip_norm")
        return torch.optim.AdamW(params, fused=True, **arguments)


@PreTrainedConfig.register_subclass("act_small")
@dataclass
class ActSmallConfig(ACTConfig):
    """Configuration of the small ACT; every field of LeRobot's ``ACTConfig`` with defaults for one CPU thread.

    Attributes:
        cnn_channels: output channels of the convolution stages; the first divides the resolution by 4, the others by 2.
        cnn_residual: convolution layers at constant resolution after each stage.
    """

    chunk_size: int = 12
    n_action_steps: int = 8
    pretrained_backbone_weights: str | None = None
    dim_model: int = 128
    n_heads: int = 4
    dim_feedforward: int = 256
    n_encoder_layers: int = 2
    n_decoder_layers: int = 1
    use_vae: bool = False
    dropout: float = 0.0
    optimizer_lr: float = 5e-4
    optimizer_lr_backbone: float = 5e-4
    optimizer_weight_decay: float = 1e-4
    cnn_channels: list[int] = field(default_factory=lambda: [32, 64, 128])
    cnn_residual: list[int] = field(default_factory=lambda: [0, 0, 0])
    device: str | None = "cpu"
    push_to_hub: bool = False

    def __post_init__(self) -> None:
        """Check the sizes."""
        super().__post_init__()
        if len(self.cnn_residual) != len(self.cnn_channels) or any(c % 8 for c in self.cnn_channels):
            raise ValueError(
                "cnn_channels must be multiples of 8 and cnn_residual as many as cnn_channels, got "
                f"{self.cnn_channels} and {self.cnn_residual}"
            )

    def get_optimizer_preset(self) -> AdamWConfig:
        """Return the optimizer LeRobot's training code builds."""
        return FusedAdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)
