# SPDX-License-Identifier: Apache-2.0
"""LeRobot's diffusion policy as a PPO actor: DDIM steps with noise (DPPO, arXiv 2409.00588).

With eta > 0 a DDIM step is a Gaussian already. Its standard deviation goes to 0 in the last steps, so that there would
be neither exploration nor a ratio that stays near 1; DPPO gives it a floor
(dppo:model/diffusion/diffusion_vpg.py, ``min_sampling_denoising_std`` and ``min_logprob_denoising_std``, here one
number, so that sampling and log-probability agree). DPPO takes each denoising step as an action of its own, with ratios
averaged over the chunk and clipped at a hundredth; here the chain is one action, reduced as for flows
(``lrm_ros.training.ppo.actors.sampling``).

A policy trained with DDPM of 100 steps samples by DDIM with few of them, without retraining; the refined checkpoint has
this in its configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrm_ros.config import RobotContract
from lrm_ros.training.ppo.actors.chain import ChainActor
from lrm_ros.training.ppo.actors.sampling import Denoise
from lrm_ros.training.ppo.ppo import Inputs


class Ddim:
    """Steps of denoising diffusion implicit models (arXiv 2010.02502, eq. 12 and 16), as diffusers takes them."""

    def __init__(self, scheduler: Any, steps: int, eta: float, floor: float) -> None:
        """Set the schedule.

        Args:
            scheduler: diffusers' DDIMScheduler.
            steps: K.
            eta: share of DDPM's noise; 0: none.
            floor: smallest standard deviation of a step with noise.

        Raises:
            ValueError: a value out of its range.
        """
        settings = scheduler.config
        if not 1 <= steps <= settings["num_train_timesteps"] or not 0 <= eta <= 1 or not floor >= 0:
            raise ValueError(
                f"diffusion needs 1 to {settings['num_train_timesteps']} steps, eta from 0 to 1 and a deviation >= 0, "
                f"got {steps}, {eta} and {floor}"
            )
        scheduler.set_timesteps(steps)
        self.times: Tensor = scheduler.timesteps
        alphas, last = scheduler.alphas_cumprod, scheduler.final_alpha_cumprod
        after = self.times - settings["num_train_timesteps"] // steps
        self._alpha = alphas[self.times]  # (K,) cumulative alpha before a step
        self._next_alpha = torch.where(after >= 0, alphas[after.clamp(min=0)], last)  # and after it
        self._sigma = eta * ((1 - self._next_alpha) / (1 - self._alpha) * (1 - self._alpha / self._next_alpha)).sqrt()
        self.std = self._sigma.clamp(min=floor)
        self._epsilon = settings["prediction_type"] == "epsilon"
        self._bound = settings["clip_sample_range"] if settings["clip_sample"] else torch.inf

    def mean(self, x: Tensor, prediction: Tensor, step: Tensor, noisy: Tensor) -> Tensor:
        """See ``sampling.Sampler``; the prediction is the noise or the action, as the policy was trained."""
        alpha, next_alpha = self._alpha[step][:, None, None], self._next_alpha[step][:, None, None]
        sigma = (self._sigma[step] * noisy)[:, None, None]
        if self._epsilon:
            noise, action = prediction, (x - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
        else:
            noise, action = (x - alpha.sqrt() * prediction) / (1 - alpha).sqrt(), prediction
        action = action.clamp(-self._bound, self._bound)
        return next_alpha.sqrt() * action + (1 - next_alpha - sigma.square()).sqrt() * noise


class DiffusionActor(ChainActor):
    """A diffusion policy with noise in its DDIM steps, and a critic on the conditioning of its U-Net."""

    def __init__(
        self,
        checkpoint: str | Path,
        contract: RobotContract,
        execute_steps: int = 8,
        diffusion_steps: int = 5,
        diffusion_eta: float = 1.0,
        diffusion_std: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Load the policy.

        Args:
            checkpoint: LeRobot's folder of the policy, with a robot contract.
            contract: the robot at hand.
            execute_steps: actions executed of every chunk; only these count in a density.
            diffusion_steps: of DDIM; becomes the policy's own sampler, so that it later runs as it was trained. 0: as
                many as the policy's own has.
            diffusion_eta: share of DDPM's noise in them.
            diffusion_std: smallest standard deviation of a step, of actions scaled to [-1, 1].
            seed: of the critic's initial weights.

        Raises:
            ValueError: the policy is no diffusion policy; or see ``PolicyRunner``.
        """
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        super().__init__(checkpoint, contract, execute_steps)
        config = self.policy.config
        if config.type != "diffusion":
            raise ValueError(f"policy '{checkpoint}' is a {config.type}, no diffusion policy")
        config.noise_scheduler_type = "DDIM"
        config.num_inference_steps = diffusion_steps or self.policy.diffusion.num_inference_steps
        scheduler = DDIMScheduler(
            num_train_timesteps=config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule=config.beta_schedule,
            clip_sample=config.clip_sample,
            clip_sample_range=config.clip_sample_range,
            prediction_type=config.prediction_type,
        )
        sampler = Ddim(scheduler, config.num_inference_steps, diffusion_eta, diffusion_std)
        self.policy.diffusion.noise_scheduler = scheduler
        self.policy.diffusion.num_inference_steps = config.num_inference_steps
        features = len(contract.joints)
        if cameras := len(config.image_features):
            encoder = self.policy.diffusion.rgb_encoder
            one = encoder[0] if config.use_separate_rgb_encoder_per_camera else encoder
            features += cameras * one.feature_dim
        self.set_sampler(sampler, config.horizon, len(contract.joints), False, features, seed)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of ``all`` of the policy, its ``decoder`` (the U-Net) and its ``head``."""
        model = self.policy.diffusion
        return {
            "all": list(model.parameters()),
            "decoder": list(model.unet.parameters()),
            "head": list(model.unet.final_conv.parameters()),
        }

    def encode(self, inputs: Inputs) -> tuple[Denoise, Tensor]:
        """Encode images and state; return the U-Net conditioned on them, and the conditioning vector (n, F)."""
        from lerobot.utils.constants import OBS_IMAGES

        model = self.policy.diffusion
        batch = {"observation.state": inputs["observation.state"][:, None]}  # (n, 1, D): one observation step
        if cameras := self.policy.config.image_features:
            batch[OBS_IMAGES] = torch.stack([inputs[name] for name in cameras], dim=1)[:, None]
        condition = model._prepare_global_conditioning(batch)
        return lambda x, times: model.unet(x, times, global_cond=condition), condition
