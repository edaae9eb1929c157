# SPDX-License-Identifier: Apache-2.0
"""Proximal policy optimisation over action chunks: advantages, the loss, and the update.

One decision is one chunk of actions; its reward is the sum over the control steps it was executed for ("chunk level" in
RLinf and upstream, Large-Reward-Models:config/*.yaml). Sources: PPO, arXiv 1707.06347, eq. 7 and 9; GAE, arXiv
1506.02438, eq. 16; dual clip, arXiv 1912.09729, eq. 5. Nothing here knows of robots, simulators or reward models: the
actor says how likely a decision is and what a state is worth (``lrm_ros.training.ppo.actors.act``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from lrm_ros.config import PpoConfig

Inputs = Mapping[str, Tensor]  # what the policy sees of n states, each tensor (n, ...)


@dataclass(frozen=True)
class Opinion:
    """What an actor says about n states and the decisions that were taken in them.

    Attributes:
        log_prob: (n,) logarithm of the decision's probability density.
        entropy: (n,) of the distribution it was drawn from.
        value: (n,) expected return.
        divergence: (n,) Kullback-Leibler divergence from this distribution to the reference's, if there is one.
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    divergence: Tensor


class Actor(Protocol):
    """A policy with a critic, as the update sees it."""

    def consider(self, inputs: Inputs, decisions: Tensor, reference: Tensor | None) -> Opinion:
        """Say how likely decisions are now; ``reference`` is what the reference policy would have done."""
        ...


@dataclass(frozen=True)
class Experience:
    """n decisions with their consequences, ready to learn from.

    Attributes:
        inputs: what the policy saw, each (n, ...).
        decisions: (n, ...) what it decided.
        log_prob: (n,) at the time.
        value: (n,) at the time.
        advantage: (n,).
        returns: (n,) advantage + value, the critic's target.
        reference: (n, ...) what the reference policy would have done; ``None``: no reference.
    """

    inputs: Inputs
    decisions: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    returns: Tensor
    reference: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of decisions."""
        return len(self.log_prob)

    def select(self, rows: Tensor) -> Experience:
        """Return some of the decisions."""
        return Experience(
            {name: values[rows] for name, values in self.inputs.items()},
            self.decisions[rows],
            self.log_prob[rows],
            self.value[rows],
            self.advantage[rows],
            self.returns[rows],
            None if self.reference is None else self.reference[rows],
        )


def advantages(rewards: Tensor, values: Tensor, following: Tensor, ended: Tensor, gamma: float, lam: float) -> Tensor:
    """Return generalised advantage estimates (T, N) of T decisions in each of N worlds.

    Args:
        rewards: (T, N) of each decision.
        values: (T, N) of the state before it.
        following: (T, N) value of the state after it: 0 if the task ended there by itself, that of the episode's last
            state (not of the next episode's first) if the episode was only cut off.
        ended: (T, N) bool, the episode was over after it, for whatever reason: nothing later counts.
        gamma: discount a decision.
        lam: weight of longer sums, 0: one step, 1: all of the episode.
    """
    shapes = {tuple(values.shape) for values in (rewards, values, following, ended)}
    if len(shapes) != 1 or rewards.ndim != 2:
        raise ValueError(f"rewards, values, following and ended must all be (T, N), got {sorted(shapes)}")
    result = torch.zeros_like(values)
    later = torch.zeros_like(values[0])
    for t in reversed(range(len(rewards))):
        surprise = rewards[t] + gamma * following[t] - values[t]
        later = surprise + gamma * lam * (~ended[t]).to(later.dtype) * later
        result[t] = later
    return result


def against_group(advantage: Tensor, group: int) -> Tensor:
    """Return advantages (T, N) less the mean of the others in the group at the same decision.

    Worlds of a group (neighbours, ``group`` of them) start from the same poses; what the others reached from there does
    not depend on one's own actions, so it is a baseline without bias, where a critic cannot foresee which poses are
    hard (leave-one-out, as in REINFORCE with several samples, Kool et al. 2019).
    """
    if group == 1:
        return advantage
    parts = advantage.unflatten(1, (-1, group))
    return ((parts - parts.mean(-1, keepdim=True)) * (group / (group - 1))).flatten(1)


def normalised(advantage: Tensor) -> Tensor:
    """Return advantages with mean 0 and standard deviation 1; all zero if they do not differ."""
    centred = advantage - advantage.mean()
    spread = centred.std(unbiased=False)
    return centred / spread if spread > 1e-8 else centred


def policy_loss(log_prob: Tensor, old: Tensor, advantage: Tensor, config: PpoConfig) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss of each decision and whether it was clipped, both (n,).

    Where the advantage is negative the loss is bounded by ``dual_clip`` times its size, so that one decision that has
    become far more likely cannot rule the step.
    """
    ratio = (log_prob - old).exp()
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    loss = torch.maximum(-ratio * advantage, -clipped * advantage)
    bounded = torch.where(advantage < 0, torch.minimum(loss, -config.dual_clip * advantage), loss)
    return bounded, (clipped != ratio) & (-clipped * advantage >= -ratio * advantage)


def value_loss(value: Tensor, old: Tensor, returns: Tensor, config: PpoConfig) -> Tensor:
    """Return the critic's loss of each decision (n,): Huber, and no reward for moving further than ``value_clip``."""
    near = old + (value - old).clamp(-config.value_clip, config.value_clip)
    delta = config.huber_delta
    free = functional.huber_loss(value, returns, reduction="none", delta=delta)
    held = functional.huber_loss(near, returns, reduction="none", delta=delta)
    return torch.maximum(free, held)


def losses(
    opinion: Opinion, batch: Experience, config: PpoConfig, critic_only: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss summed over a batch, and sums of what there is to watch."""
    surrogate, clipped = policy_loss(opinion.log_prob, batch.log_prob, batch.advantage, config)
    critic = value_loss(opinion.value, batch.value, batch.returns, config)
    change = opinion.log_prob - batch.log_prob
    total = config.value_weight * critic.sum()
    if not critic_only:  # a zero gradient would not do: Adam goes on by its momentum
        actor = surrogate - config.entropy_bonus * opinion.entropy + config.kl_beta * opinion.divergence
        total = total + actor.sum()
    watch = {
        "policy_loss": surrogate,
        "value_loss": critic,
        "entropy": opinion.entropy,
        "divergence": opinion.divergence,
        "step_kl": change.exp() - 1 - change,  # always positive estimate, http://joschu.net/blog/kl-approx.html
        "clipped": clipped.float(),
    }
    return total, {name: values.detach().sum() for name, values in watch.items()}


def update(
    actor: Actor,
    optimiser: torch.optim.Optimizer,
    experience: Experience,
    config: PpoConfig,
    generator: torch.Generator,
    critic_only: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> dict[str, float]:
    """Learn from experience; once the policy has moved by more than ``target_kl``, only the critic goes on.

    Gradients of ``micro_batch`` decisions at a time are summed up to ``batch_size``, so the memory that is there
    changes nothing but the rounding.

    Args:
        actor: policy and critic; all parameters of ``optimiser`` are clipped together.
        optimiser: of their parameters.
        experience: what happened.
        config: see there.
        generator: of the order.
        critic_only: leave the policy as it is.
        progress: called with the number of decisions after every step.

    Returns:
        Means over all decisions seen: ``policy_loss``, ``value_loss``, ``entropy``, ``divergence`` (to the reference),
        ``step_kl`` (to the policy that acted), ``clipped``, ``gradient`` (norm before clipping), and ``updates`` of
        the policy, ``explained`` (share of the returns' variance that the critic had foreseen).

    Raises:
        FloatingPointError: the loss or a gradient is not finite; nothing has been changed by that step.
    """
    experience = replace(
        experience, advantage=normalised(experience.advantage) if config.normalise else experience.advantage
    )
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    sums: dict[str, Tensor] = {}
    seen, steps, gradients, moved, held = 0, 0, 0.0, 0, critic_only
    for _ in range(config.epochs):
        order = torch.randperm(len(experience), generator=generator)
        for rows in order.split(config.batch_size):
            optimiser.zero_grad(set_to_none=True)
            change = 0.0
            for some in rows.split(config.micro_batch):
                batch = experience.select(some)
                opinion = actor.consider(batch.inputs, batch.decisions, batch.reference)
                loss, watch = losses(opinion, batch, config, held)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss.item()}; lower the learning rate ({config.lr:g})")
                (loss / len(rows)).backward()
                for name, value in watch.items():
                    sums[name] = sums.get(name, torch.zeros(())) + value
                change += float(watch["step_kl"])
            seen += len(rows)
            if config.target_kl and not held and change / len(rows) > config.target_kl:
                held = True
                continue
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient))
            if not math.isfinite(norm):
                raise FloatingPointError(f"the gradient is {norm}; lower the learning rate ({config.lr:g})")
            optimiser.step()
            gradients, steps, moved = gradients + norm, steps + 1, moved + (not held)
            if progress:
                progress(len(rows))
    left = (experience.returns - experience.value).var(unbiased=False)
    spread = experience.returns.var(unbiased=False)
    return {
        **{name: float(value) / seen for name, value in sums.items()},
        "gradient": gradients / max(1, steps),
        "updates": float(moved),
        "explained": float(1 - left / spread) if spread > 0 else 0.0,
    }
