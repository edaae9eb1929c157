# SPDX-License-Identifier: Apache-2.0
"""What PPO actors for flow and diffusion policies share: the action is a chain of denoising steps (``sampling``)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lrm_ros.config import RobotContract
from lrm_ros.training.ppo.actors.act import ActorOutput, PolicyActor, new_critic
from lrm_ros.training.ppo.actors.sampling import Denoise, NoisyChain, Sampler
from lrm_ros.training.ppo.ppo import ActionEvaluation, Inputs
from lrm_ros.types import Observation

NOISY = "noisy_steps"  # beside the policy's inputs: the indices of the chain's steps that had noise, (n, M)


class ChainActor(PolicyActor):
    """A denoising policy that explores by the noise of its own sampler, with a critic on its encoder's features.

    A subclass for a kind of policy encodes its inputs (``encode``) and names the parameters of its parts (``parts``).
    """

    noise: NoisyChain
    critic: nn.Module

    def __init__(self, checkpoint: str | Path, contract: RobotContract, execute_steps: int) -> None:
        """Load the policy; see ``PolicyRunner``."""
        super().__init__(checkpoint, contract, execute_steps)
        self._trainable = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    def set_sampler(self, sampler: Sampler, length: int, width: int, single: bool, features: int, seed: int) -> None:
        """Set the sampler, and make a critic.

        Args:
            sampler: the denoising steps.
            length: actions of the network's chunk.
            width: dimensions of the network's actions.
            single: noise in one step of a chain, else in all.
            features: number of features that ``encode`` returns.
            seed: of the critic's initial weights.

        Raises:
            ValueError: the sampler has no noise.
        """
        if not sampler.std.any():
            raise ValueError(
                "the sampler has no noise, so that there is nothing to learn from; set flow_noise (diffusion policy:"
                " diffusion_eta or diffusion_std) above 0"
            )
        executed = (self.steps, len(self.contract.joints))
        self.noise = NoisyChain(sampler, length, width, executed, single)
        self.critic = new_critic(features, seed)

    def encode(self, inputs: Inputs) -> tuple[Denoise, Tensor]:
        """Return the denoising network conditioned on n observations, and the features (n, F) of these."""
        raise NotImplementedError

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of ``all`` of the policy, its ``decoder`` and its ``head``."""
        raise NotImplementedError

    def parameter_groups(self, lr: float, value_lr: float, train: str = "all") -> list[dict[str, Any]]:
        """Return the optimiser's groups: the part of the policy that learns, and the critic. The rest is frozen.

        Args:
            lr: of the policy.
            value_lr: of the critic.
            train: ``all`` that the checkpoint's configuration does not freeze, ``decoder`` (what denoises), or
                ``head``: its last layer.

        Raises:
            ValueError: another part, or one that the configuration freezes.
        """
        parts = self.parts()
        if train not in parts:
            raise ValueError(f"train is '{train}'; choose one of {', '.join(parts)}")
        wanted, allowed = {id(p) for p in parts[train]}, {id(p) for p in self._trainable}
        learning = [p for p in parts[train] if id(p) in allowed]
        if not learning:
            raise ValueError(f"train is '{train}', but the configuration in the policy's checkpoint freezes all of it")
        for parameter in self._trainable:
            parameter.requires_grad_(id(parameter) in wanted)
        return [{"params": learning, "lr": lr}, {"params": list(self.critic.parameters()), "lr": value_lr}]

    def reference(self) -> Self:
        """Return a frozen copy of the actor as it is now; parameters that are not trained are shared."""
        shared: dict[int, Any] = {id(p): p for p in self.parameters() if not p.requires_grad}
        return copy.deepcopy(self, shared).requires_grad_(False)

    @torch.no_grad()
    def act(self, observations: Sequence[Observation], noise: Tensor | None) -> ActorOutput:
        """Return a chunk for each observation, with its log-probability and value.

        Args:
            observations: of n states.
            noise: (n, K + 1, T D) all random numbers of the chains, see ``NoisyChain.sample``; ``None``: one fixed
                starting noise and no other (deterministic; the log-probability is then 0).

        Returns:
            ``actions`` are the chains (n, K + 1, T, D); ``inputs`` also hold which of their steps had noise.
        """
        inputs = self.preprocess(observations)
        denoise, features = self.encode(inputs)
        sample = self.noise.run(denoise, self.noise.deterministic(len(observations)) if noise is None else noise)
        chunk = sample.chain[:, -1, : self.steps, : len(self.contract.joints)]
        return ActorOutput(
            {**inputs, NOISY: sample.noisy},
            sample.chain,
            self.noise.log_prob(sample.chain, sample.means, sample.noisy),
            self.critic(features)[:, 0],
            self.postprocess(chunk),
        )

    @torch.no_grad()
    def value(self, observations: Sequence[Observation]) -> Tensor:
        """Return the value (n,) of states."""
        return self.critic(self.encode(self.preprocess(observations))[1])[:, 0]

    def evaluate_actions(self, inputs: Inputs, actions: Tensor, reference: Tensor | None) -> ActionEvaluation:
        """Evaluate chains (n, K + 1, T, D) under the current policy; ``reference`` are the reference's ``means``."""
        denoise, features = self.encode(inputs)
        noisy = inputs[NOISY]
        means = self.noise.means(denoise, actions, noisy)
        divergence = torch.zeros(len(means)) if reference is None else self.noise.divergence(means, reference, noisy)
        value = self.critic(features.detach())[:, 0]
        log_prob = self.noise.log_prob(actions, means, noisy)
        return ActionEvaluation(log_prob, self.noise.entropy(noisy), value, divergence)

    @torch.no_grad()
    def means(self, inputs: Inputs, actions: Tensor, batch: int = 64) -> Tensor:
        """Return the means of chains' noisy steps: (n, M, steps, joints), a reference for ``evaluate_actions``."""
        found = []
        for rows in torch.arange(len(actions)).split(batch):
            denoise, _ = self.encode({name: values[rows] for name, values in inputs.items()})
            found.append(self.noise.means(denoise, actions[rows], inputs[NOISY][rows]))
        return torch.cat(found)
