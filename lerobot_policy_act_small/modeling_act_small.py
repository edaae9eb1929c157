# SPDX-License-Identifier: Apache-2.0
"""ACT for a CPU: LeRobot's Action Chunking Transformer with a small GroupNorm CNN in place of the ResNet.

The method is unchanged (Zhao et al., arXiv:2304.13705; lerobot:policies/act/modeling_act.py): transformer layers, loss
(that of LeRobot 0.6), processors and checkpoint format are LeRobot's. Different are the image encoder, the sizes, and
that no VAE and no dropout are used unless asked for. A 96x96 image gives 6x6 tokens. The stem takes 7x7 patches every 4
pixels and has no normalisation: feature maps at half resolution, or normalised at a quarter, would cost as much CPU
time as all the rest.
"""

from __future__ import annotations

import dataclasses

import torch
from lerobot.configs.types import FeatureType
from lerobot.policies.act.modeling_act import ACT, ACTPolicy, ACTSinusoidalPositionEmbedding2d
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES
from torch import Tensor, nn
from torch.nn import functional

from lerobot_policy_act_small.configuration_act_small import ActSmallConfig


class ActSmallPolicy(ACTPolicy):
    """LeRobot's ``ACTPolicy`` (action queue, saving and loading) around :class:`ActSmall`."""

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

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch of training data, and its parts for the log.

        It is ``ACTPolicy``'s of LeRobot 0.6: the mean absolute error over the steps within the episode. 0.4 counts the
        steps past its end as errors of 0, so that a batch with many of them weighs less.
        """
        if self.config.image_features:
            batch = batch | {OBS_IMAGES: [batch[key] for key in self.config.image_features]}  # type: ignore[dict-item]
        actions, (mean, log_variance) = self.model(batch)
        inside = ~batch["action_is_pad"][:, :, None]  # (B, K, 1)
        error = functional.l1_loss(actions, batch[ACTION], reduction="none") * inside  # (B, K, D)
        loss = error.sum() / (inside.sum() * error.shape[-1]).clamp_min(1)
        parts = {"l1_loss": loss.item()}
        if self.config.use_vae:
            divergence = (-0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp())).sum(-1).mean()
            parts["kld_loss"] = divergence.item()
            loss = loss + divergence * self.config.kl_weight
        return loss, parts


class ActSmall(ACT):
    """LeRobot's ``ACT`` module whose backbone is :class:`SmallCnn`."""

    def __init__(self, config: ActSmallConfig) -> None:
        """Build LeRobot's transformer without images, then add the small image encoder."""
        blind = {key: ft for key, ft in config.input_features.items() if ft.type is not FeatureType.VISUAL}
        super().__init__(dataclasses.replace(config, input_features=blind))  # type: ignore[call-arg]
        self.config = config
        if config.image_features:
            shapes = {tuple(feature.shape[1:]) for feature in config.image_features.values()}
            if len(shapes) != 1:
                raise ValueError(f"act_small needs cameras of one size, got {sorted(shapes)} (height, width)")
            self.backbone = SmallCnn(config.cnn_channels, config.cnn_residual, shapes.pop())
            self.encoder_img_feat_input_proj = nn.Conv2d(config.cnn_channels[-1], config.dim_model, kernel_size=1)
            self.encoder_cam_feat_pos_embed = ACTSinusoidalPositionEmbedding2d(config.dim_model // 2)


class SmallCnn(nn.Module):
    """Strided convolutions with GroupNorm: (B, 3, H, W) -> {"feature_map": (B, C, H/16, W/16)} for three stages.

    To every token of the map it adds a summary: a small fully connected network over the whole map. Trained alone on
    twenty demonstrations, such a network says where to grasp to 7 mm (median, new toy positions; the mean of the
    demonstrations: 43 mm), which is the hard part of the policy's job.
    """

    def __init__(self, channels: list[int], residual: list[int], size: tuple[int, int]) -> None:
        """Build the stages.

        Args:
            channels: output channels of each stage, multiples of 8.
            residual: residual 3x3 layers after each stage.
            size: height and width of the images.
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
        self.layers = nn.Sequential(*layers)  # not channels_last: LeRobot could not save the optimiser's state
        with torch.no_grad():
            cells = self.layers(torch.zeros(1, 3, *size)).shape[-2:].numel()
        self.summary = nn.Sequential(
            nn.Flatten(), nn.Linear(cells * before, before), nn.ReLU(inplace=True), nn.Linear(before, before)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Encode a batch of images; the dictionary is what LeRobot's ACT expects of a backbone."""
        tokens = self.layers(image)  # (B, C, H/16, W/16)
        return {"feature_map": tokens + self.summary(tokens)[:, :, None, None]}


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
