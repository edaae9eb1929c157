# SPDX-License-Identifier: Apache-2.0
"""LeRobot's ACT as a PPO actor: a Gaussian around its action chunk, and a critic on its features.

The noise is smooth in time and of few dimensions: cosines over the chunk, the first of which is an offset that lasts.
With white noise on every step and joint an arm trembles and goes nowhere (arXiv 2005.05719), and the log-probability of
48 numbers changes so fast with the weights that a step PPO allows is no step at all. The decision is what the noise can
reach: the chunk's coefficients in these cosines. Whatever else is in the chunk follows from the state.

A draw may be kept for a whole episode (``hold_noise``), so that the arm tries one thing consistently; a policy that
looks again after every chunk would take a single offset back. Log-probabilities are then those of each decision by
itself, as with the exploration of arXiv 2005.05719.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrm_ros.config import RobotContract
from lrm_ros.policy import PolicyRunner, policy_input
from lrm_ros.training.ppo.ppo import Inputs, Opinion
from lrm_ros.types import Observation


@dataclass(frozen=True)
class Decisions:
    """What an actor decided in n states.

    Attributes:
        inputs: what the policy saw, each (n, ...), normalised.
        drawn: (n, ...) the decisions as the update wants them back.
        log_prob: (n,).
        value: (n,).
        actions: (n, K, D) absolute joint targets [rad].
    """

    inputs: Inputs
    drawn: Tensor
    log_prob: Tensor
    value: Tensor
    actions: NDArray[np.float32]


class ChunkNoise(nn.Module):
    """A Gaussian over the first cosine coefficients of chunks (K, D), all independent.

    With as many coefficients as steps it is white noise on the chunk.
    """

    def __init__(self, steps: int, rank: int, std: Tensor, learn: bool) -> None:
        """Set the covariance.

        Args:
            steps: K.
            rank: number of cosines, 1 to K; 1: an offset.
            std: (D,) deviation of each joint over the chunk (root mean square), > 0.
            learn: the deviations are parameters.

        Raises:
            ValueError: a value out of its range.
        """
        super().__init__()
        if not (std > 0).all() or not 1 <= rank <= steps:
            raise ValueError(f"noise needs std > 0 and 1 to {steps} cosines, got {std.tolist()} and {rank}")
        t, j = torch.arange(steps) + 0.5, torch.arange(rank)
        waves = torch.cos(math.pi * j * t[:, None] / steps) * torch.where(j > 0, math.sqrt(2), 1.0)
        self.register_buffer("basis", waves / math.sqrt(rank))  # (K, R), columns orthogonal
        self.register_buffer("dual", waves.T * math.sqrt(rank) / steps)  # (R, K): dual @ basis is the identity
        self.register_buffer("start", std.log(), persistent=False)  # where log_std begins: the reference's
        self.log_std = nn.Parameter(std.log(), requires_grad=learn)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return standard normal coefficients (n, R, D)."""
        return torch.randn(n, self.basis.shape[1], len(self.log_std), generator=generator)

    def around(self, mean: Tensor, free: Tensor) -> Tensor:
        """Return chunks (n, K, D): means and the noise of standard normal coefficients (n, R, D)."""
        return mean + self.log_std.exp() * (self.basis @ free)

    def log_prob(self, chunk: Tensor, mean: Tensor) -> Tensor:
        """Return the log density (n,) of the coefficients of chunks (n, K, D)."""
        return -0.5 * self._apart(chunk, mean).square().sum((1, 2)) - self._volume()

    def entropy(self) -> Tensor:
        """Return the entropy, the same around every mean."""
        return self._volume() + 0.5 * self.dual.shape[0] * len(self.log_std)

    def divergence(self, mean: Tensor, other: Tensor) -> Tensor:
        """Return the KL divergence (n,) from this noise around means (n, K, D) to that of the start around others."""
        apart = self.dual @ ((mean - other) / self.start.exp())
        grown = self.log_std - self.start
        wider = self.dual.shape[0] * (0.5 * torch.expm1(2 * grown) - grown).sum()
        return 0.5 * apart.square().sum((1, 2)) + wider

    def _apart(self, one: Tensor, other: Tensor) -> Tensor:
        """Return how many deviations apart the coefficients of two chunks are: (n, R, D)."""
        return self.dual @ ((one - other) / self.log_std.exp())

    def _volume(self) -> Tensor:
        rank, joints = self.dual.shape[0], len(self.log_std)
        return rank * (self.log_std.sum() + 0.5 * joints * math.log(2 * math.pi))


class PolicyActor(nn.Module):
    """What actors share: a LeRobot policy with its processors, what it sees, and where its actions lead."""

    def __init__(self, checkpoint: str | Path, contract: RobotContract, execute_steps: int) -> None:
        """Load the policy; see ``PolicyRunner``."""
        super().__init__()
        self.runner = PolicyRunner(checkpoint, contract, execute_steps)
        self.policy: Any = self.runner.policy
        self.contract, self.steps = contract, execute_steps
        self.policy.eval()  # no dropout: the log-probability of a decision must not depend on chance

    def inputs_of(self, observations: Sequence[Observation]) -> Inputs:
        """Return what the policy sees, normalised and with the task's tokens if it reads: each tensor (n, ...)."""
        rows = [policy_input(observation, self.contract) for observation in observations]
        batch: dict[str, Any] = {
            name: torch.cat([row[name] for row in rows]) for name in rows[0] if name.startswith("observation.")
        }
        seen = self.runner.preprocess(batch | {"task": [row["task"][0] for row in rows]})
        return {name: values for name, values in seen.items() if name.startswith("observation.")}

    def targets(self, chunk: Tensor) -> NDArray[np.float32]:
        """Return the joint targets (n, K, D) [rad] of chunks as the policy has them, normalised."""
        actions = self.runner.postprocess(chunk).numpy().astype(np.float32)
        if not np.isfinite(actions).all():
            raise FloatingPointError("the policy's actions are not finite; go back to an earlier checkpoint")
        return actions


def new_critic(width: int, seed: int) -> nn.Sequential:
    """Return a critic of ``width`` features whose first answer is its bias, whatever it is shown."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 1))
        nn.init.zeros_(critic[-1].weight)
    return critic


class ActActor(PolicyActor):
    """An ACT policy that explores, with a critic on what its encoder and decoder say."""

    def __init__(
        self,
        checkpoint: str | Path,
        contract: RobotContract,
        execute_steps: int = 8,
        noise_std: float = 0.04,
        noise_rank: int = 1,
        learn_std: bool = False,
        seed: int = 0,
    ) -> None:
        """Load the policy.

        Args:
            checkpoint: folder written by ``lrm finetune``.
            contract: the robot at hand.
            execute_steps: actions executed of every chunk; only these are drawn.
            noise_std: deviation of every joint's target [rad].
            noise_rank: cosines of the noise over a chunk; 1: an offset.
            learn_std: let the update change the deviations.
            seed: of the critic's first weights.

        Raises:
            ValueError: the policy is no ACT; or see ``PolicyRunner``.
        """
        super().__init__(checkpoint, contract, execute_steps)
        if not hasattr(self.policy, "model") or not hasattr(self.policy.model, "action_head"):
            raise ValueError(f"policy '{checkpoint}' is a {self.policy.name}; PPO's Gaussian head needs an ACT")
        joints = len(contract.joints)
        ends = self.runner.postprocess(torch.stack([torch.zeros(1, joints), torch.ones(1, joints)]))
        per_unit = (ends[1] - ends[0])[0].abs()  # radians of one unit of the normalised action
        self.noise = ChunkNoise(execute_steps, noise_rank, noise_std / per_unit, learn_std)
        self.critic = new_critic(2 * self.policy.config.dim_model, seed)
        self._encoded: Tensor = torch.zeros(0)
        self._decoded: Tensor = torch.zeros(0)
        self.policy.model.encoder.register_forward_hook(self._keep_encoded)
        self.policy.model.action_head.register_forward_pre_hook(self._keep_decoded)

    def _keep_encoded(self, _: Any, __: Any, output: Tensor) -> None:
        self._encoded = output.mean(0)  # (tokens, n, width) -> (n, width)

    def _keep_decoded(self, _: Any, inputs: tuple[Tensor]) -> None:
        self._decoded = inputs[0].mean(1)

    def parameter_groups(self, lr: float, value_lr: float, train: str = "all") -> list[dict[str, Any]]:
        """Return the optimiser's groups: the part of the policy that learns, with its noise, and the critic.

        Args:
            lr: of the policy.
            value_lr: of the critic.
            train: ``all`` of the policy, ``decoder`` (with the head), or ``head``: its last layer.

        Raises:
            ValueError: another part.
        """
        model = self.policy.model
        parts = {"all": [self.policy], "decoder": [model.decoder, model.action_head], "head": [model.action_head]}
        if train not in parts:
            raise ValueError(f"train is '{train}'; choose one of {', '.join(parts)}")
        learning = [parameter for part in parts[train] for parameter in part.parameters()]
        policy = [p for p in (*learning, *self.noise.parameters()) if p.requires_grad]
        return [{"params": policy, "lr": lr}, {"params": list(self.critic.parameters()), "lr": value_lr}]

    def reference(self) -> ActActor:
        """Return a frozen copy of the actor as it is now."""
        held = self._encoded, self._decoded
        self._encoded = self._decoded = torch.zeros(0)
        twin = copy.deepcopy(self).requires_grad_(False)
        self._encoded, self._decoded = held
        twin.policy.model.encoder._forward_hooks.clear()
        twin.policy.model.action_head._forward_pre_hooks.clear()
        twin.policy.model.encoder.register_forward_hook(twin._keep_encoded)
        twin.policy.model.action_head.register_forward_pre_hook(twin._keep_decoded)
        return twin

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the mean chunk (n, K, D), normalised, and the value (n,)."""
        from lerobot.utils.constants import OBS_IMAGES

        batch = dict(inputs)
        if self.policy.config.image_features:
            batch[OBS_IMAGES] = [inputs[name] for name in self.policy.config.image_features]  # type: ignore[assignment]
        mean = self.policy.model(batch)[0][:, : self.steps]
        features = torch.cat([self._encoded, self._decoded], dim=-1)
        return mean, self.critic(features.detach())[:, 0]

    @torch.no_grad()
    def decide(self, observations: Sequence[Observation], free: Tensor | None) -> Decisions:
        """Choose a chunk for each observation.

        Args:
            observations: of n states.
            free: (n, R, D) coefficients of the noise, see ``ChunkNoise.sample``; ``None``: the mean, without noise.
        """
        inputs = self.inputs_of(observations)
        mean, value = self(inputs)
        drawn = mean if free is None else self.noise.around(mean, free)
        return Decisions(inputs, drawn, self.noise.log_prob(drawn, mean), value, self.targets(drawn))

    @torch.no_grad()
    def value(self, observations: Sequence[Observation]) -> Tensor:
        """Return the value (n,) of states."""
        return self(self.inputs_of(observations))[1]

    def consider(self, inputs: Inputs, decisions: Tensor, reference: Tensor | None) -> Opinion:
        """Say how likely decisions (n, K, D) are now; ``reference`` are the reference's means (n, K, D)."""
        mean, value = self(inputs)
        away = torch.zeros(len(mean)) if reference is None else self.noise.divergence(mean, reference)
        return Opinion(self.noise.log_prob(decisions, mean), self.noise.entropy().expand(len(mean)), value, away)

    @torch.no_grad()
    def means(self, inputs: Inputs, decisions: Tensor | None = None, batch: int = 64) -> Tensor:
        """Return the mean chunks (n, K, D) of many states; they do not depend on what was decided."""
        count = len(next(iter(inputs.values())))
        rows = torch.arange(count).split(batch)
        return torch.cat([self({name: values[some] for name, values in inputs.items()})[0] for some in rows])
