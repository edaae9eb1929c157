# SPDX-License-Identifier: Apache-2.0
"""LeRobot's ACT as a PPO actor: a Gaussian around its action chunk, and a critic on its features.

The noise is smooth in time and of low dimension: cosines over the chunk, the first of which is a constant offset.
With white noise on every step and joint the arm jitters in place and does not explore (arXiv 2005.05719), and the
log-probability of 48 numbers changes so fast with the weights that PPO's clip range allows almost no update. The action
is the part of the chunk that the noise changes: its coefficients in these cosines. The rest follows from the state.

A noise sample may be kept for a whole episode (``hold_noise``), so that exploration is consistent; a policy that
observes again after every chunk would correct a single offset. Log-probabilities are then those of each chunk by
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
from lrm_ros.training.ppo.ppo import ActionEvaluation, Inputs
from lrm_ros.types import Observation


@dataclass(frozen=True)
class ActorOutput:
    """What an actor does in n states.

    Attributes:
        inputs: policy inputs, each (n, ...), normalised.
        actions: (n, ...) sampled actions, as ``evaluate_actions`` takes them.
        log_prob: (n,).
        value: (n,).
        targets: (n, K, D) absolute joint targets [rad] of these actions.
    """

    inputs: Inputs
    actions: Tensor
    log_prob: Tensor
    value: Tensor
    targets: NDArray[np.float32]


class ChunkNoise(nn.Module):
    """A Gaussian over the first cosine coefficients of chunks (K, D), all independent.

    With as many coefficients as steps it is white noise on the chunk.
    """

    def __init__(self, steps: int, rank: int, std: Tensor, learn: bool) -> None:
        """Set the covariance.

        Args:
            steps: K.
            rank: number of cosines, 1 to K; 1: an offset.
            std: (D,) standard deviation of each joint over the chunk (root mean square), > 0.
            learn: the standard deviations are parameters.

        Raises:
            ValueError: a value out of its range.
        """
        super().__init__()
        if not (std > 0).all() or not 1 <= rank <= steps:
            raise ValueError(f"noise needs std > 0 and 1 to {steps} cosines, got {std.tolist()} and {rank}")
        t, j = torch.arange(steps) + 0.5, torch.arange(rank)
        cosines = torch.cos(math.pi * j * t[:, None] / steps) * torch.where(j > 0, math.sqrt(2), 1.0)
        self.register_buffer("basis", cosines / math.sqrt(rank))  # (K, R), columns orthogonal
        self.register_buffer("dual", cosines.T * math.sqrt(rank) / steps)  # (R, K): dual @ basis is the identity
        self.register_buffer("start_log_std", std.log(), persistent=False)  # the reference's
        self.log_std = nn.Parameter(std.log(), requires_grad=learn)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return standard normal coefficients (n, R, D)."""
        return torch.randn(n, self.basis.shape[1], len(self.log_std), generator=generator)

    def perturb(self, mean: Tensor, noise: Tensor) -> Tensor:
        """Return chunks (n, K, D): means plus scaled noise, from standard normal coefficients (n, R, D)."""
        return mean + self.log_std.exp() * (self.basis @ noise)

    def log_prob(self, chunk: Tensor, mean: Tensor) -> Tensor:
        """Return the log density (n,) of the coefficients of chunks (n, K, D)."""
        return -0.5 * self._standardised(chunk - mean).square().sum((1, 2)) - self._log_normaliser()

    def entropy(self) -> Tensor:
        """Return the entropy, the same around every mean."""
        return self._log_normaliser() + 0.5 * self.dual.shape[0] * len(self.log_std)

    def divergence(self, mean: Tensor, other: Tensor) -> Tensor:
        """Return the KL divergence (n,) from this noise around means (n, K, D) to the initial noise around others."""
        mean_difference = self.dual @ ((mean - other) / self.start_log_std.exp())
        log_ratio = self.log_std - self.start_log_std
        std_term = self.dual.shape[0] * (0.5 * torch.expm1(2 * log_ratio) - log_ratio).sum()
        return 0.5 * mean_difference.square().sum((1, 2)) + std_term

    def _standardised(self, difference: Tensor) -> Tensor:
        """Return the coefficients (n, R, D) of a difference of chunks (n, K, D), in standard deviations."""
        return self.dual @ (difference / self.log_std.exp())

    def _log_normaliser(self) -> Tensor:
        """Return the log of the Gaussian's normalising constant."""
        rank, joints = self.dual.shape[0], len(self.log_std)
        return rank * (self.log_std.sum() + 0.5 * joints * math.log(2 * math.pi))


class PolicyActor(nn.Module):
    """What actors share: a LeRobot policy with its pre- and postprocessors."""

    def __init__(self, checkpoint: str | Path, contract: RobotContract, execute_steps: int) -> None:
        """Load the policy; see ``PolicyRunner``.

        Raises:
            ValueError: it looks back.
        """
        super().__init__()
        self.runner = PolicyRunner(checkpoint, contract, execute_steps)
        if (steps := self.runner.observed_steps) != 1:
            raise ValueError(
                f"policy '{checkpoint}' looks at {steps} control steps; in many worlds it sees one a chunk: evaluate it"
                " through the nodes (without --worlds), or train it with n_obs_steps = 1"
            )
        self.policy: Any = self.runner.policy
        self.contract, self.steps = contract, execute_steps
        self.policy.eval()  # no dropout: the log-probability of an action must be deterministic

    def preprocess(self, observations: Sequence[Observation]) -> Inputs:
        """Return the policy's inputs, normalised, with the task's tokens for a language policy: each (n, ...)."""
        rows = [policy_input(observation, self.contract) for observation in observations]
        batch: dict[str, Any] = {
            name: torch.cat([row[name] for row in rows]) for name in rows[0] if name.startswith("observation.")
        }
        inputs = self.runner.preprocess(batch | {"task": [row["task"][0] for row in rows]})
        return {name: values for name, values in inputs.items() if name.startswith("observation.")}

    def postprocess(self, chunk: Tensor) -> NDArray[np.float32]:
        """Return the joint targets (n, K, D) [rad] of the policy's normalised chunks."""
        actions = self.runner.postprocess(chunk).numpy().astype(np.float32)
        if not np.isfinite(actions).all():
            raise FloatingPointError("the policy's actions are not finite; go back to an earlier checkpoint")
        return actions


def new_critic(width: int, seed: int) -> nn.Sequential:
    """Return a critic of ``width`` features; its last layer's weights start at 0, so it first returns its bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 1))
        nn.init.zeros_(critic[-1].weight)
    return critic


class ActActor(PolicyActor):
    """An ACT policy with exploration noise, and a critic on the features of its encoder and decoder."""

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
            execute_steps: actions executed of every chunk; only these get noise.
            noise_std: standard deviation of every joint's target [rad].
            noise_rank: cosines of the noise over a chunk; 1: an offset.
            learn_std: the update learns the standard deviations, too.
            seed: of the critic's initial weights.

        Raises:
            ValueError: the policy is no ACT; or see ``PolicyRunner``.
        """
        super().__init__(checkpoint, contract, execute_steps)
        if not hasattr(self.policy, "model") or not hasattr(self.policy.model, "action_head"):
            raise ValueError(f"policy '{checkpoint}' is a {self.policy.name}; PPO's Gaussian head needs an ACT")
        joints = len(contract.joints)
        zero, one = self.runner.postprocess(torch.stack([torch.zeros(1, joints), torch.ones(1, joints)]))
        per_unit = (one - zero)[0].abs()  # radians of one unit of the normalised action
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
        features = self._encoded, self._decoded
        self._encoded = self._decoded = torch.zeros(0)
        frozen = copy.deepcopy(self).requires_grad_(False)
        self._encoded, self._decoded = features
        frozen.policy.model.encoder._forward_hooks.clear()
        frozen.policy.model.action_head._forward_pre_hooks.clear()
        frozen.policy.model.encoder.register_forward_hook(frozen._keep_encoded)
        frozen.policy.model.action_head.register_forward_pre_hook(frozen._keep_decoded)
        return frozen

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
    def act(self, observations: Sequence[Observation], noise: Tensor | None) -> ActorOutput:
        """Return a chunk for each observation, with its log-probability and value.

        Args:
            observations: of n states.
            noise: (n, R, D) standard normal, see ``ChunkNoise.sample``; ``None``: the mean, deterministic.
        """
        inputs = self.preprocess(observations)
        mean, value = self(inputs)
        chunk = mean if noise is None else self.noise.perturb(mean, noise)
        return ActorOutput(inputs, chunk, self.noise.log_prob(chunk, mean), value, self.postprocess(chunk))

    @torch.no_grad()
    def value(self, observations: Sequence[Observation]) -> Tensor:
        """Return the value (n,) of states."""
        return self(self.preprocess(observations))[1]

    def evaluate_actions(self, inputs: Inputs, actions: Tensor, reference: Tensor | None) -> ActionEvaluation:
        """Evaluate chunks (n, K, D) under the current policy; ``reference`` are the reference's means (n, K, D)."""
        mean, value = self(inputs)
        divergence = torch.zeros(len(mean)) if reference is None else self.noise.divergence(mean, reference)
        entropy = self.noise.entropy().expand(len(mean))
        return ActionEvaluation(self.noise.log_prob(actions, mean), entropy, value, divergence)

    @torch.no_grad()
    def means(self, inputs: Inputs, actions: Tensor | None = None, batch: int = 64) -> Tensor:
        """Return the mean chunks (n, K, D) of many states; they do not depend on the actions taken."""
        count = len(next(iter(inputs.values())))
        rows = torch.arange(count).split(batch)
        return torch.cat([self({name: values[chosen] for name, values in inputs.items()})[0] for chosen in rows])
