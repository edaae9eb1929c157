# SPDX-License-Identifier: Apache-2.0
"""What PPO actors for flow and diffusion policies share: a decision is a chain of denoising steps (``sampling``)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lrm_ros.config import RobotContract
from lrm_ros.training.ppo.actors.act import Decisions, PolicyActor, new_critic
from lrm_ros.training.ppo.actors.sampling import NoisyChain, Predict, Sampler
from lrm_ros.training.ppo.ppo import Inputs, Opinion
from lrm_ros.types import Observation

NOISY = "noisy_steps"  # beside what the policy saw: which steps of a decision's chain had noise, (n, M)


class ChainActor(PolicyActor):
    """A denoising policy that explores by the noise of its own sampler, with a critic on what it saw.

    One that is made for a kind of policy says how to look (``look``) and which parameters are its parts (``parts``).
    """

    noise: NoisyChain
    critic: nn.Module

    def __init__(self, checkpoint: str | Path, contract: RobotContract, execute_steps: int) -> None:
        """Load the policy; see ``PolicyRunner``."""
        super().__init__(checkpoint, contract, execute_steps)
        self._trainable = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    def explore(self, sampler: Sampler, length: int, width: int, single: bool, features: int, seed: int) -> None:
        """Set how the policy samples.

        Args:
            sampler: its steps.
            length: actions of a chunk as the network has them.
            width: numbers of an action as the network has them.
            single: noise in one step of a chain, else in all.
            features: length of what ``look`` gives the critic.
            seed: of the critic's first weights.

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

    def look(self, inputs: Inputs) -> tuple[Predict, Tensor]:
        """Return what the network says about actions in n states, and the features (n, F) of these states."""
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
        """Return a frozen copy of the actor as it is now; what does not learn is not copied."""
        shared: dict[int, Any] = {id(p): p for p in self.parameters() if not p.requires_grad}
        return copy.deepcopy(self, shared).requires_grad_(False)

    @torch.no_grad()
    def decide(self, observations: Sequence[Observation], free: Tensor | None) -> Decisions:
        """Choose a chunk for each observation.

        Args:
            observations: of n states.
            free: (n, K + 1, T D) all random numbers of the chains, see ``NoisyChain.sample``; ``None``: one fixed
                starting noise and no other (the log-probability is then 0: nothing was left to chance).

        Returns:
            Decisions; ``drawn`` is the chain (n, K + 1, T, D), ``inputs`` also say which of its steps had noise.
        """
        inputs = self.inputs_of(observations)
        predict, features = self.look(inputs)
        drawn = self.noise.run(predict, self.noise.still(len(observations)) if free is None else free)
        chunk = drawn.chain[:, -1, : self.steps, : len(self.contract.joints)]
        return Decisions(
            {**inputs, NOISY: drawn.noisy},
            drawn.chain,
            self.noise.log_prob(drawn.chain, drawn.means, drawn.noisy),
            self.critic(features)[:, 0],
            self.targets(chunk),
        )

    @torch.no_grad()
    def value(self, observations: Sequence[Observation]) -> Tensor:
        """Return the value (n,) of states."""
        return self.critic(self.look(self.inputs_of(observations))[1])[:, 0]

    def consider(self, inputs: Inputs, decisions: Tensor, reference: Tensor | None) -> Opinion:
        """Say how likely chains (n, K + 1, T, D) are now; ``reference`` is where the reference would have gone."""
        predict, features = self.look(inputs)
        noisy = inputs[NOISY]
        means = self.noise.means(predict, decisions, noisy)
        away = torch.zeros(len(means)) if reference is None else self.noise.divergence(means, reference, noisy)
        value = self.critic(features.detach())[:, 0]
        return Opinion(self.noise.log_prob(decisions, means, noisy), self.noise.entropy(noisy), value, away)

    @torch.no_grad()
    def means(self, inputs: Inputs, decisions: Tensor, batch: int = 64) -> Tensor:
        """Return where the policy goes from the points of chains: (n, M, steps, joints), for ``consider``."""
        found = []
        for rows in torch.arange(len(decisions)).split(batch):
            predict, _ = self.look({name: values[rows] for name, values in inputs.items()})
            found.append(self.noise.means(predict, decisions[rows], inputs[NOISY][rows]))
        return torch.cat(found)
