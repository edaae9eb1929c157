# SPDX-License-Identifier: Apache-2.0
"""Sampling as a chain of Gaussian denoising steps, and the log-probability of the chain.

A flow or diffusion policy turns noise into an action in K steps; the action's own density is intractable. With noise
in the steps each of them is a Gaussian of known mean and standard deviation, so the chain from the noise to the action
has a density (pi-RL, arXiv 2510.25889; DPPO, arXiv 2409.00588). PPO's action is the chain.

Log-probabilities are sums over the part of the chunk that is executed and means over the steps that had noise, as in
RLinf (RLinf:rlinf/models/embodiment/openpi/openpi_action_model.py, ``default_forward``; rlinf/algorithms/utils.py,
"chunk_level"): the ratio of two policies is then that of a typical step, whatever K, and a clip range means the same
for all samplers. Entropy and KL divergence are reduced alike. The density of the starting noise, which no policy
changes, is left out; RLinf counts it as one step more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

Denoise = Callable[[Tensor, Tensor], Tensor]  # x (n, T, D) and times (n,) -> the network's prediction (n, T, D)
_START_SEED = 0


class Sampler(Protocol):
    """K steps from noise to action.

    Attributes:
        times: (K,) the time that the network gets at each step.
        std: (K,) standard deviation of each step where it has noise.
    """

    times: Tensor
    std: Tensor

    def mean(self, x: Tensor, prediction: Tensor, step: Tensor, noisy: Tensor) -> Tensor:
        """Return the mean of a step from ``x``, before its noise.

        Args:
            x: (n, T, D).
            prediction: (n, T, D) of the network at ``x``.
            step: (n,) its index, 0 to K - 1.
            noisy: (n,) bool, whether the step has noise.
        """
        ...


class FlowSde:
    """The stochastic differential equation with the marginals of a flow, in K Euler-Maruyama steps.

    LeRobot's time runs from 1 (noise) to 0 (action), x_t = (1 - t) action + t noise and v = noise - action. Then
    dx = (v + s^2 / 2t (x + (1 - t) v)) dt + s dw, run backwards, has the same distribution at every time as dx = v dt,
    whatever s(t): (x + (1 - t) v) / t is the negative score. s = level sqrt(t / (1 - t)), at t = 1 with the 1 - t of
    the next step (RLinf's ``flow_sde``, same file, ``sample_mean_var_val``; pi-RL; Flow-GRPO, arXiv 2505.05470).
    """

    def __init__(self, steps: int, level: float) -> None:
        """Set the schedule.

        Args:
            steps: K.
            level: of the noise; 0: LeRobot's own sampler.

        Raises:
            ValueError: a value out of its range.
        """
        if steps < 1 or not level >= 0:
            raise ValueError(f"a flow needs at least 1 step and noise >= 0, got {steps} and {level}")
        self.delta = 1.0 / steps
        self.times = torch.tensor([1.0 - k * self.delta for k in range(steps)])
        left = torch.cat([torch.tensor([self.delta]), 1 - self.times[1:]])
        self.sigma = level * (self.times / left).sqrt()
        self.std = self.sigma * self.delta**0.5

    def mean(self, x: Tensor, prediction: Tensor, step: Tensor, noisy: Tensor) -> Tensor:
        """See ``Sampler``; the prediction is the velocity."""
        t, sigma = self.times[step][:, None, None], (self.sigma[step] * noisy)[:, None, None]
        noise = x + (1 - t) * prediction
        return x - self.delta * (prediction + sigma.square() / (2 * t) * noise)


@dataclass(frozen=True)
class ChainSample:
    """n sampled chains.

    Attributes:
        chain: (n, K + 1, T, D) from the noise to the action.
        noisy: (n, M) indices of the steps that had noise, 0 to K - 1.
        means: (n, M, steps, joints) means of these steps; the executed part.
    """

    chain: Tensor
    noisy: Tensor
    means: Tensor


class NoisyChain:
    """A sampler with noise in all its steps or in one of them, and the density of its chains."""

    def __init__(
        self, sampler: Sampler, length: int, width: int, executed: tuple[int, int], single: bool = False
    ) -> None:
        """Set the sizes.

        Args:
            sampler: K steps.
            length: T, actions of a chunk.
            width: D, dimensions of the network's actions.
            executed: how many actions of a chunk and dimensions of an action are executed; only these count.
            single: noise in one step of a chain, drawn anew for each, the others follow the ODE (pi-RL: one
                step to train on instead of K); else in every step.
        """
        self.sampler, self.shape, self.executed, self.single = sampler, (length, width), executed, single
        self.steps = len(sampler.std)
        self._stochastic_steps = sampler.std.nonzero()[:, 0]
        generator = torch.Generator().manual_seed(_START_SEED)
        self._start = torch.randn(1, 1, length * width, generator=generator)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return all random numbers of n chains (n, K + 1, T D), standard normal: the starting noise and the steps'.

        Zeros are steps that follow the ODE.
        """
        noise = torch.randn(n, self.steps + 1, self.shape[0] * self.shape[1], generator=generator)
        has_noise = torch.zeros(n, self.steps + 1, dtype=torch.bool)
        has_noise[:, 0] = True
        if self.single and len(self._stochastic_steps):
            which = self._stochastic_steps[torch.randint(len(self._stochastic_steps), (n,), generator=generator)]
            has_noise[torch.arange(n), which + 1] = True
        else:
            has_noise[:, self._stochastic_steps + 1] = True
        return torch.where(has_noise[:, :, None], noise, 0.0)

    def deterministic(self, n: int) -> Tensor:
        """Return the random numbers of n deterministic chains: one fixed starting noise, then the ODE.

        The noise is drawn once, with a seed of its own: zeros would be far from every start in training.
        """
        rest = torch.zeros(n, self.steps, self._start.shape[-1])
        return torch.cat([self._start.expand(n, -1, -1), rest], dim=1)

    def run(self, denoise: Denoise, numbers: Tensor) -> ChainSample:
        """Sample with given random numbers (n, K + 1, T D), see ``sample``."""
        noise = numbers.unflatten(-1, self.shape)
        has_noise = (noise[:, 1:] != 0).any(-1).any(-1)  # (n, K)
        x, n = noise[:, 0], len(noise)
        chain, means = [x], []
        for k in range(self.steps):
            step = torch.full((n,), k)
            mean = self.sampler.mean(x, denoise(x, self.sampler.times[step]), step, has_noise[:, k])
            means.append(self._executed(mean))
            x = mean + self.sampler.std[k] * noise[:, k + 1]
            chain.append(x)
        noisy = has_noise.nonzero()[:, 1].view(n, int(has_noise[0].sum()))  # every chain has as many
        return ChainSample(torch.stack(chain, 1), noisy, torch.stack(means, 1)[torch.arange(n)[:, None], noisy])

    def means(self, denoise: Denoise, chain: Tensor, noisy: Tensor) -> Tensor:
        """Return a policy's means of the noisy steps of given chains: (n, M, steps, joints), the executed part."""
        rows, has_noise = torch.arange(len(chain)), torch.ones(len(chain), dtype=torch.bool)
        means = []
        for step in noisy.unbind(1):
            x = chain[rows, step]
            mean = self.sampler.mean(x, denoise(x, self.sampler.times[step]), step, has_noise)
            means.append(self._executed(mean))
        return torch.stack(means, 1) if means else chain.new_zeros(len(chain), 0, *self.executed)

    def log_prob(self, chain: Tensor, means: Tensor, noisy: Tensor) -> Tensor:
        """Return the log density (n,) of chains around the means of their noisy steps; 0 if there are none."""
        after_noise = self._executed(chain[torch.arange(len(chain))[:, None], noisy + 1])
        return self._reduce(self._distribution(means, noisy).log_prob(after_noise))

    def entropy(self, noisy: Tensor) -> Tensor:
        """Return the entropy (n,) of the noisy steps; the same whatever the means."""
        zeros = torch.zeros(*noisy.shape, *self.executed)
        return self._reduce(self._distribution(zeros, noisy).entropy())

    def divergence(self, means: Tensor, other: Tensor, noisy: Tensor) -> Tensor:
        """Return the Kullback-Leibler divergence (n,) of the noisy steps from those around other means.

        For chains it is the expectation of the steps' divergence over chains of the first policy; the mean over chains
        sampled by that policy estimates it.
        """
        return self._reduce(kl_divergence(self._distribution(means, noisy), self._distribution(other, noisy)))

    def _distribution(self, means: Tensor, noisy: Tensor) -> Normal:
        return Normal(means, self.sampler.std[noisy][:, :, None, None].expand_as(means))

    def _executed(self, x: Tensor) -> Tensor:
        steps, joints = self.executed
        return x[..., :steps, :joints]

    def _reduce(self, each: Tensor) -> Tensor:
        """Return the sums over the chunk, averaged over the noisy steps: (n, M, steps, joints) -> (n,)."""
        return each.sum((1, 2, 3)) / max(1, each.shape[1])
