# SPDX-License-Identifier: Apache-2.0
"""ACT for a CPU: LeRobot's Action Chunking Transformer with a small GroupNorm CNN in place of the ResNet.

The method is unchanged (Zhao et al., arXiv:2304.13705; lerobot:policies/act/modeling_act.py): transformer layers, loss,
processors and checkpoint format are LeRobot's. Different are the image encoder, the sizes, and that no VAE and no
dropout are used unless asked for. A 96x96 image gives 6x6 tokens. The stem takes 7x7 patches every 4 pixels and has no
normalisation: feature maps at half resolution, or normalised at a quarter, would cost as much CPU time as all the rest.

Importing this module registers the policy type ``act_small`` with LeRobot; it is imported only by functions that train
or load policies, as it imports torch and lerobot.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType
from lerobot.optim.optimizers import AdamWConfig, OptimizerConfig
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACT, ACTPolicy, ACTSinusoidalPositionEmbedding2d
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn


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
        cnn_keypoints: image points located by spatial softmax.
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
    cnn_keypoints: int = 24
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


class ActSmallPolicy(ACTPolicy):
    """LeRobot's ``ACTPolicy`` (loss, action queue, saving and loading) around :class:`ActSmall`."""

    config_class = ActSmallConfig
    name = "act_small"

    def __init__(self, config: ActSmallConfig, **kwargs: object) -> None:
        """Build the policy.

        Args:
            config: sizes and the input and output features.
            **kwargs: data set statistics and metadata that LeRobot's factory passes; unused, as in ``ACTPolicy``.
        """
        PreTrainedPolicy.__init__(self, config)  # not ACTPolicy's: it would build a ResNet first
        if config.temporal_ensemble_coeff is not None:
            raise ValueError("act_small executes chunks; temporal_ensemble_coeff must be null")
        config.validate_features()
        self.config = config
        self.model = ActSmall(config)
        self.reset()


class ActSmall(ACT):
    """LeRobot's ``ACT`` module whose backbone is :class:`SmallCnn`."""

    def __init__(self, config: ActSmallConfig) -> None:
        """Build LeRobot's transformer without images, then add the small image encoder."""
        blind = {key: ft for key, ft in config.input_features.items() if ft.type is not FeatureType.VISUAL}
        super().__init__(dataclasses.replace(config, input_features=blind))
        self.config = config
        if config.image_features:
            self.backbone = SmallCnn(config.cnn_channels, config.cnn_residual, config.cnn_keypoints)
            self.encoder_img_feat_input_proj = nn.Conv2d(config.cnn_channels[-1], config.dim_model, kernel_size=1)
            self.encoder_cam_feat_pos_embed = ACTSinusoidalPositionEmbedding2d(config.dim_model // 2)


class SmallCnn(nn.Module):
    """Strided convolutions with GroupNorm: (B, 3, H, W) -> {"feature_map": (B, C, H/16, W/16)} for three stages.

    To every token of the map it adds where a few learned features are in the image (spatial softmax: Levine et al.,
    arXiv:1504.00702, section 5.1): with twenty demonstrations, a policy locates things by coordinates far better than
    by tokens alone.
    """

    def __init__(self, channels: list[int], residual: list[int], keypoints: int) -> None:
        """Build the stages.

        Args:
            channels: output channels of each stage, multiples of 8.
            residual: residual 3x3 layers after each stage.
            keypoints: image points located on the first stage's map.
        """
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage, (after, extra) in enumerate(zip(channels, residual, strict=True)):
            if stage == 0:  # the image is normalised already
                layers += [nn.Conv2d(before, after, kernel_size=7, stride=4, padding=3), nn.ReLU(inplace=True)]
            else:
                layers.append(_convolution(before, after, stride=2))
            layers.extend(_Residual(after) for _ in range(extra))
            before = after
        first = 2 + residual[0]
        self.stem = nn.Sequential(*layers[:first]).to(memory_format=torch.channels_last)
        self.layers = nn.Sequential(*layers[first:]).to(memory_format=torch.channels_last)
        self.scores = nn.Sequential(
            nn.Conv2d(channels[0], channels[0], kernel_size=5, padding=2), nn.ReLU(inplace=True),
            nn.Conv2d(channels[0], keypoints, kernel_size=1),
        ).to(memory_format=torch.channels_last)  # fmt: skip
        self.locate = nn.Sequential(
            nn.Linear(2 * keypoints, channels[-1]), nn.ReLU(inplace=True), nn.Linear(channels[-1], channels[-1])
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Encode a batch of images; the dictionary is what LeRobot's ACT expects of a backbone."""
        stem = self.stem(image)  # (B, C1, H/4, W/4)
        points = self.locate(spatial_softmax(self.scores(stem)))  # (B, C)
        return {"feature_map": self.layers(stem) + points[:, :, None, None]}


def spatial_softmax(scores: Tensor) -> Tensor:
    """Return the expected position of each channel.

    Args:
        scores: (B, K, H, W) logits.

    Returns:
        (B, 2 K): x and y of each channel in [-1, 1].
    """
    height, width = scores.shape[-2:]
    weights = scores.flatten(2).softmax(dim=-1).unflatten(2, (height, width))  # (B, K, H, W)
    x = weights.sum(dim=2) @ torch.linspace(-1, 1, width, device=scores.device)  # (B, K)
    y = weights.sum(dim=3) @ torch.linspace(-1, 1, height, device=scores.device)
    return torch.cat([x, y], dim=1)


class _Residual(nn.Module):
    """x + convolution(x) at constant resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = _convolution(channels, channels, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, after),
        nn.ReLU(inplace=True),
    )


def count_parameters(module: torch.nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
