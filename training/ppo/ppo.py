# SPDX-License-Identifier: Apache-2.0
"""Proximal policy optimisation over action chunks: advantages, the loss, and the update.

One action of PPO is one chunk; its reward is the sum over the control steps it was executed for ("chunk level" in
RLinf and upstream, Large-Reward-Models:config/*.yaml). Sources: PPO, arXiv 1707.06347, eq. 7 and 9; GAE, arXiv
1506.02438, eq. 16; dual clip, arXiv 1912.09729, eq. 5. Nothing here knows of robots, simulators or reward models: the
actor returns log-probabilities and values (``lrm_ros.training.ppo.actors.act``).
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

Inputs = Mapping[str, Tensor]  # the policy's inputs for n observations, each tensor (n, ...)


@dataclass(frozen=True)
class ActionEvaluation:
    """What an actor returns for n observations and the actions that were taken there.

    Attributes:
        log_prob: (n,) log-probability density of the action.
        entropy: (n,) of the action distribution.
        value: (n,) expected return, by the critic.
        divergence: (n,) KL divergence from the action distribution to the reference policy's; 0 without a reference.
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    divergence: Tensor


class Actor(Protocol):
    """A policy with a critic, as the update sees it."""

    def evaluate_actions(self, inputs: Inputs, actions: Tensor, reference: Tensor | None) -> ActionEvaluation:
        """Evaluate actions under the current policy; ``reference`` are the reference policy's means, if any."""
        ...


@dataclass(frozen=True)
class RolloutBuffer:
    """n chunks of a rollout, flattened over time and worlds, ready for the update.

    Attributes:
        inputs: policy inputs, each (n, ...).
        actions: (n, ...) actions as the actor evaluates them.
        log_probs: (n,) under the policy that acted.
        values: (n,) by the critic at that time.
        advantages: (n,).
        returns: (n,) advantages + values, the critic's target.
        reference: (n, ...) the reference policy's means; ``None``: no reference.
    """

    inputs: Inputs
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    reference: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.log_probs)

    def select(self, rows: Tensor) -> RolloutBuffer:
        """Return a minibatch: the chunks with these indices."""
        return RolloutBuffer(
            {name: values[rows] for name, values in self.inputs.items()},
            self.actions[rows],
            self.log_probs[rows],
            self.values[rows],
            self.advantages[rows],
            self.returns[rows],
            None if self.reference is None else self.reference[rows],
        )


def compute_gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, dones: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Return generalised advantage estimates (T, N) of T chunks in each of N worlds.

    Args:
        rewards: (T, N) of each chunk.
        values: (T, N) of the state before it.
        next_values: (T, N) value of the state after it: 0 if the episode terminated there, that of the episode's last
            state (not of the next episode's first) if it was truncated.
        dones: (T, N) bool, the episode ended after it, terminated or truncated: nothing later counts.
        gamma: discount a chunk.
        gae_lambda: 0: one-step estimates, 1: sums to the end of the episode.
    """
    shapes = {tuple(values.shape) for values in (rewards, values, next_values, dones)}
    if len(shapes) != 1 or rewards.ndim != 2:
        raise ValueError(f"rewards, values, next_values and dones must all be (T, N), got {sorted(shapes)}")
    advantages = torch.zeros_like(values)
    last_gae = torch.zeros_like(values[0])
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_values[t] - values[t]
        last_gae = delta + gamma * gae_lambda * (~dones[t]).to(last_gae.dtype) * last_gae
        advantages[t] = last_gae
    return advantages


def leave_one_out(advantages: Tensor, group: int) -> Tensor:
    """Return advantages (T, N) less the mean of the others in the group at the same chunk.

    Worlds of a group (neighbours, ``group`` of them) start from the same poses; what the others reached from there does
    not depend on one's own actions, so it is a baseline without bias, where a critic cannot predict which poses are
    hard (leave-one-out, as in REINFORCE with several samples, Kool et al. 2019).
    """
    if group == 1:
        return advantages
    groups = advantages.unflatten(1, (-1, group))
    return ((groups - groups.mean(-1, keepdim=True)) * (group / (group - 1))).flatten(1)


def normalise_advantages(advantages: Tensor) -> Tensor:
    """Return advantages with mean 0 and standard deviation 1; all zero if they do not differ."""
    centred = advantages - advantages.mean()
    std = centred.std(unbiased=False)
    return centred / std if std > 1e-8 else centred


def policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, config: PpoConfig) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss of each chunk and whether it was clipped, both (n,).

    Where the advantage is negative the loss is bounded by ``dual_clip`` times its size, so that one action that has
    become far more likely cannot dominate the step.
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped_ratio = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    loss = torch.maximum(-ratio * advantages, -clipped_ratio * advantages)
    bounded = torch.where(advantages < 0, torch.minimum(loss, -config.dual_clip * advantages), loss)
    return bounded, (clipped_ratio != ratio) & (-clipped_ratio * advantages >= -ratio * advantages)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, config: PpoConfig) -> Tensor:
    """Return the critic's loss of each chunk (n,): Huber, clipped beyond a change of the value by ``value_clip``."""
    clipped_values = old_values + (values - old_values).clamp(-config.value_clip, config.value_clip)
    delta = config.huber_delta
    unclipped = functional.huber_loss(values, returns, reduction="none", delta=delta)
    clipped = functional.huber_loss(clipped_values, returns, reduction="none", delta=delta)
    return torch.maximum(unclipped, clipped)


def losses(
    evaluation: ActionEvaluation, batch: RolloutBuffer, config: PpoConfig, critic_only: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss summed over a batch, and the sums of its metrics."""
    surrogate, clipped = policy_loss(evaluation.log_prob, batch.log_probs, batch.advantages, config)
    critic = value_loss(evaluation.value, batch.values, batch.returns, config)
    log_ratio = evaluation.log_prob - batch.log_probs
    total = config.value_weight * critic.sum()
    if not critic_only:  # a zero gradient would not do: Adam goes on by its momentum
        actor = surrogate - config.entropy_bonus * evaluation.entropy + config.kl_beta * evaluation.divergence
        total = total + actor.sum()
    metrics = {
        "policy_loss": surrogate,
        "value_loss": critic,
        "entropy": evaluation.entropy,
        "divergence": evaluation.divergence,
        "step_kl": log_ratio.exp() - 1 - log_ratio,  # approx_kl, never negative: http://joschu.net/blog/kl-approx.html
        "clipped": clipped.float(),
    }
    return total, {name: values.detach().sum() for name, values in metrics.items()}


def update(
    actor: Actor,
    optimiser: torch.optim.Optimizer,
    buffer: RolloutBuffer,
    config: PpoConfig,
    generator: torch.Generator,
    critic_only: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> dict[str, float]:
    """Train on a rollout buffer; once the policy has moved by more than ``target_kl``, only the critic goes on.

    Gradients of ``micro_batch`` chunks at a time are accumulated to minibatches of ``batch_size``, so the available
    memory changes nothing but the rounding.

    Args:
        actor: policy and critic; the gradients of all parameters of ``optimiser`` are clipped together.
        optimiser: of their parameters.
        buffer: the rollout.
        config: see there.
        generator: shuffles the minibatches.
        critic_only: leave the policy as it is.
        progress: called with the number of chunks after every optimiser step.

    Returns:
        Means over all chunks of all epochs: ``policy_loss``, ``value_loss``, ``entropy``, ``divergence`` (KL to the
        reference), ``step_kl`` (approximate KL to the policy that acted), ``clipped`` (clip fraction), ``gradient``
        (norm before clipping), and ``updates`` of the policy, ``explained`` (explained variance of the returns by the
        critic's values).

    Raises:
        FloatingPointError: the loss or a gradient is not finite; nothing has been changed by that step.
    """
    if config.normalise:
        buffer = replace(buffer, advantages=normalise_advantages(buffer.advantages))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    sums: dict[str, Tensor] = {}
    seen, steps, grad_norms, policy_steps, policy_frozen = 0, 0, 0.0, 0, critic_only
    for _ in range(config.epochs):
        order = torch.randperm(len(buffer), generator=generator)
        for minibatch in order.split(config.batch_size):
            optimiser.zero_grad(set_to_none=True)
            kl_sum = 0.0
            for rows in minibatch.split(config.micro_batch):
                batch = buffer.select(rows)
                evaluation = actor.evaluate_actions(batch.inputs, batch.actions, batch.reference)
                loss, metrics = losses(evaluation, batch, config, policy_frozen)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss.item()}; lower the learning rate ({config.lr:g})")
                (loss / len(minibatch)).backward()
                for name, value in metrics.items():
                    sums[name] = sums.get(name, torch.zeros(())) + value
                kl_sum += float(metrics["step_kl"])
            seen += len(minibatch)
            if config.target_kl and not policy_frozen and kl_sum / len(minibatch) > config.target_kl:
                policy_frozen = True
                continue
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient))
            if not math.isfinite(norm):
                raise FloatingPointError(f"the gradient is {norm}; lower the learning rate ({config.lr:g})")
            optimiser.step()
            grad_norms, steps, policy_steps = grad_norms + norm, steps + 1, policy_steps + (not policy_frozen)
            if progress:
                progress(len(minibatch))
    residual_var = (buffer.returns - buffer.values).var(unbiased=False)
    returns_var = buffer.returns.var(unbiased=False)
    return {
        **{name: float(value) / seen for name, value in sums.items()},
        "gradient": grad_norms / max(1, steps),
        "updates": float(policy_steps),
        "explained": float(1 - residual_var / returns_var) if returns_var > 0 else 0.0,
    }
