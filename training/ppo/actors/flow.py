# SPDX-License-Identifier: Apache-2.0
"""LeRobot's flow policies as PPO actors: SmolVLA, pi0, pi0.5, by Flow-SDE (``lrm_ros.training.ppo.actors.sampling``).

The vision-language model encodes image and task once a chunk; the action expert then denoises with its keys and values.
The critic gets the mean of the vision-language model's token features (RLinf's ``value_after_vlm``, ``mean_token``) and
the joint state, which in pi0 that model does not get.

LeRobot 0.4 has pi0 and pi0.5 only with its own build of transformers (``pip install 'lerobot[pi]'``) and says so when
it loads one; 0.6 has them with the published transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrm_ros.config import RobotContract
from lrm_ros.training.ppo.actors.chain import ChainActor
from lrm_ros.training.ppo.actors.sampling import Denoise, FlowSde
from lrm_ros.training.ppo.ppo import Inputs
from lrm_ros.types import Observation
from lrm_ros.versions import smolvla_reading_options

# Parameter name prefixes of the vision-language encoder; the others are the action expert's.
ENCODERS = {
    "smolvla": ("vlm_with_expert.vlm.", "state_proj."),
    "pi0": ("paligemma_with_expert.paligemma.",),
    "pi05": ("paligemma_with_expert.paligemma.",),
}
_MASKED = -2.3819763e38  # what openpi and LeRobot add to masked attention scores
_TOKENS, _TOKEN_MASK = "observation.language.tokens", "observation.language.attention_mask"


class FlowActor(ChainActor):
    """A vision-language-action policy with noise in its flow steps, and a critic on its encoder's features."""

    def __init__(
        self,
        checkpoint: str | Path,
        contract: RobotContract,
        execute_steps: int = 8,
        flow_steps: int = 4,
        flow_noise: float = 0.5,
        flow_single: bool = True,
        seed: int = 0,
    ) -> None:
        """Load the policy.

        Args:
            checkpoint: LeRobot's folder of the policy, with a robot contract.
            contract: the robot at hand.
            execute_steps: actions executed of every chunk; only these count in a density.
            flow_steps: of the sampler; becomes the policy's own number, so that it later runs as it was trained. 0:
                leave the policy's.
            flow_noise: level of the noise in the sampler, see ``FlowSde``.
            flow_single: noise in one step of a chain, else in all.
            seed: of the critic's initial weights.

        Raises:
            ValueError: the policy is none of these, or uses something that is not built here; or see ``PolicyRunner``.
        """
        super().__init__(checkpoint, contract, execute_steps)
        config = self.policy.config
        self.kind: str = config.type
        if self.kind not in ENCODERS:
            raise ValueError(f"policy '{checkpoint}' is a {self.kind}; Flow-SDE is built for {', '.join(ENCODERS)}")
        if getattr(config, "adapt_to_pi_aloha", False):
            raise ValueError(f"policy '{checkpoint}' has adapt_to_pi_aloha; its joint conversion is not built here")
        own = "num_steps" if self.kind == "smolvla" else "num_inference_steps"
        if flow_steps:
            setattr(config, own, flow_steps)
        sampler = FlowSde(getattr(config, own), flow_noise)
        features = self._encoder_width() + len(contract.joints)
        self.set_sampler(sampler, config.chunk_size, config.max_action_dim, flow_single, features, seed)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of ``all`` of the policy, its ``decoder`` (the action expert) and its ``head``."""
        model = self.policy.model
        decoder = [p for name, p in model.named_parameters() if not name.startswith(ENCODERS[self.kind])]
        return {"all": list(model.parameters()), "decoder": decoder, "head": list(model.action_out_proj.parameters())}

    def preprocess(self, observations: Sequence[Observation]) -> Inputs:
        """Return the policy's inputs; tasks are padded to one length, so that those of any rollout can be batched."""
        inputs = dict(super().preprocess(observations))
        missing = self.policy.config.tokenizer_max_length - inputs[_TOKENS].shape[1]
        for name in (_TOKENS, _TOKEN_MASK):
            inputs[name] = functional.pad(inputs[name], (0, missing))
        return inputs

    def encode(self, inputs: Inputs) -> tuple[Denoise, Tensor]:
        """Encode image and task; return the velocity field (n, T, D), and the features (n, F)."""
        policy, model, batch = self.policy, self.policy.model, dict(inputs)
        tokens, mask = batch[_TOKENS], batch[_TOKEN_MASK].bool()
        extra: dict[str, Any] = {}
        if self.kind == "smolvla":
            images, image_masks = policy.prepare_images(batch)
            state = policy.prepare_state(batch)
            embedded, real, blocks = model.embed_prefix(images, image_masks, tokens, mask, state=state)
            network, attention = model.vlm_with_expert, _attention(real, blocks)
            options: dict[str, Any] = {"use_cache": policy.config.use_cache} | smolvla_reading_options()
        else:
            images, image_masks = policy._preprocess_images(batch)
            embedded, real, blocks = model.embed_prefix(images, image_masks, tokens, mask)
            network = model.paligemma_with_expert
            attention = torch.where(_attention(real, blocks)[:, None], 0.0, _MASKED)
            network.paligemma.model.language_model.config._attn_implementation = "eager"  # as LeRobot samples
            options = {"use_cache": True}
            extra = {"state": policy.prepare_state(batch)} if self.kind == "pi0" else {}
        (encoded, _), cache = network.forward(
            attention_mask=attention,
            position_ids=torch.cumsum(real, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embedded, None],
            **options,
        )

        def velocity(x: Tensor, times: Tensor) -> Tensor:
            return model.denoise_step(prefix_pad_masks=real, past_key_values=cache, x_t=x, timestep=times, **extra)

        weight = real[:, :, None].float()
        mean = (encoded.float() * weight).sum(1) / weight.sum(1)
        return velocity, torch.cat([mean, batch["observation.state"].float()], dim=-1)

    def _encoder_width(self) -> int:
        """Return the hidden size of the vision-language model."""
        if self.kind == "smolvla":
            return self.policy.model.vlm_with_expert.config.text_config.hidden_size
        return self.policy.model.paligemma_with_expert.paligemma.config.text_config.hidden_size


def _attention(real: Tensor, blocks: Tensor) -> Tensor:
    """Return the attention mask (n, L, L): a token attends to those of its own block of tokens and earlier ones.

    Args:
        real: (n, L) bool, tokens that are no padding.
        blocks: (n, L) bool or number, 1 where a new block begins.
    """
    block = torch.cumsum(blocks.long(), dim=1)
    return (block[:, None, :] <= block[:, :, None]) & real[:, None, :] & real[:, :, None]
