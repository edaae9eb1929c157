# SPDX-License-Identifier: Apache-2.0
"""Flow-SDE and chains of Gaussian steps: the flow's own marginals, their densities, a policy that learns by them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from lrm_ros.config import PpoConfig
from lrm_ros.training.ppo.actors.sampling import FlowSde, NoisyChain
from lrm_ros.training.ppo.ppo import ActionEvaluation, Inputs, RolloutBuffer, update

CENTRE, SPREAD = 1.5, 0.4  # of the actions in the toy flow from a standard normal


def velocity(x: Tensor, times: Tensor) -> Tensor:
    """Return E[noise - action | x_t = x] for actions from N(CENTRE, SPREAD^2), in closed form."""
    t = times[:, None, None]
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    return -CENTRE + (t - (1 - t) * SPREAD**2) / variance * (x - (1 - t) * CENTRE)


def draws(chain: NoisyChain, n: int, seed: int = 0) -> Tensor:
    return chain.run(velocity, chain.sample(n, torch.Generator().manual_seed(seed))).chain


# ---- the sampler ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "single"), [(0.0, False), (0.5, False), (1.0, False), (0.5, True)])
def test_the_noise_leaves_the_distribution_at_every_time_as_the_flow_has_it(level, single):
    n, steps = 10_000, 100
    chain = draws(NoisyChain(FlowSde(steps, level), 1, 1, (1, 1), single), n)[..., 0, 0]
    for at in (steps // 4, steps // 2, 3 * steps // 4, steps):
        t = 1 - at / steps
        mean, std = (1 - t) * CENTRE, math.hypot((1 - t) * SPREAD, t)
        # Four standard errors of a sample, and as much again for the steps' own error, which is of order 1 / steps.
        assert chain[:, at].mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(n) + 1.5 / steps)
        assert chain[:, at].std().item() == pytest.approx(std, abs=4 * std / math.sqrt(2 * n) + 1.5 / steps)
    if level and not single:  # the paths are not those of the flow: the start says little about the end
        assert abs(torch.corrcoef(chain[:, [0, -1]].T)[0, 1].item()) < 0.99
    else:
        assert torch.corrcoef(chain[:, [0, -1]].T)[0, 1].item() > 0.99


def test_noise_without_the_drift_that_belongs_to_it_would_spread_the_actions():
    class Careless(FlowSde):
        def mean(self, x, prediction, step, noisy):
            return super().mean(x, prediction, step, torch.zeros_like(noisy))

    careful, careless = (draws(NoisyChain(kind(100, 1.0), 1, 1, (1, 1)), 5000)[:, -1] for kind in (FlowSde, Careless))
    assert careful.std().item() == pytest.approx(SPREAD, abs=0.03)
    assert careless.std().item() > 1.25 * SPREAD


def test_a_step_is_that_of_rlinf():
    """RLinf:rlinf/models/embodiment/openpi/openpi_action_model.py, sample_mean_var_val: weights of both ends."""
    steps, level = 4, 0.5
    sampler, generator = FlowSde(steps, level), torch.Generator().manual_seed(0)
    t = torch.tensor([1.0, 0.75, 0.5, 0.25])
    sigma = level * torch.tensor([1 / 0.25, 0.75 / 0.25, 0.5 / 0.5, 0.25 / 0.75]).sqrt()
    torch.testing.assert_close(sampler.times, t)
    torch.testing.assert_close(sampler.std, sigma * math.sqrt(0.25))
    for k in range(steps):
        x, v = torch.randn(2, 3, 5, 2, generator=generator)
        action, noise = x - v * t[k], x + v * (1 - t[k])
        later = t[k] - 0.25
        expected = (1 - later) * action + (later - sigma[k] ** 2 * 0.25 / (2 * t[k])) * noise
        found = sampler.mean(x, v, torch.full((3,), k), torch.ones(3, dtype=torch.bool))
        torch.testing.assert_close(found, expected)
        without = sampler.mean(x, v, torch.full((3,), k), torch.zeros(3, dtype=torch.bool))
        torch.testing.assert_close(without, x - 0.25 * v)


def test_a_flow_needs_steps_and_noise_that_is_not_negative():
    for steps, level in ((0, 0.5), (4, -0.1), (4, math.nan)):
        with pytest.raises(ValueError, match="at least 1 step and noise >= 0"):
            FlowSde(steps, level)


# ---- the random numbers --------------------------------------------------------------------------------------------


def test_a_chain_is_its_random_numbers():
    chain = NoisyChain(FlowSde(4, 0.5), 3, 2, (3, 2))
    free = chain.sample(6, torch.Generator().manual_seed(0))
    assert free.shape == (6, 5, 6)
    one, again = (chain.run(velocity, free) for _ in range(2))
    assert torch.equal(one.chain, again.chain) and torch.equal(one.chain[:, 0].flatten(1), free[:, 0])
    assert one.noisy.tolist() == [[0, 1, 2, 3]] * 6
    assert not torch.allclose(one.chain[:, -1], chain.run(velocity, chain.sample(6, torch.Generator())).chain[:, -1])


def test_single_noise_is_in_one_step_of_a_chain_and_any_step_can_be_it():
    chain = NoisyChain(FlowSde(4, 0.5), 3, 2, (3, 2), single=True)
    free = chain.sample(400, torch.Generator().manual_seed(0))
    assert ((free[:, 1:] != 0).all(-1).sum(1) == 1).all() and ((free[:, 1:] != 0).any(-1).sum(1) == 1).all()
    noisy = chain.run(velocity, free).noisy
    assert noisy.shape == (400, 1) and (torch.bincount(noisy[:, 0]) > 60).all()


def test_without_chance_every_chain_is_the_same_and_follows_the_flow():
    chain = NoisyChain(FlowSde(5, 0.5), 3, 2, (3, 2), single=True)
    done = chain.run(velocity, chain.deterministic(2))
    x = done.chain[:, 0]
    assert torch.equal(x[0], x[1]) and x.std() > 0.3
    for k in range(5):
        x = x - 0.2 * velocity(x, torch.full((2,), 1 - 0.2 * k))
    torch.testing.assert_close(done.chain[:, -1], x)
    assert torch.equal(chain.log_prob(done.chain, done.means, done.noisy), torch.zeros(2))


# ---- densities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_densities_are_those_of_torchs_distributions(single):
    chain = NoisyChain(FlowSde(4, 0.5), 5, 4, (3, 2), single)
    done = chain.run(velocity, chain.sample(7, torch.Generator().manual_seed(0)))

    def other(x: Tensor, times: Tensor) -> Tensor:
        return velocity(x, times) + 0.3 * x.tanh()

    found, apart = (chain.means(predict, done.chain, done.noisy) for predict in (velocity, other))
    torch.testing.assert_close(found, done.means)
    log_prob, entropy, divergence = torch.zeros(3, 7)
    for row in range(7):
        for place, k in enumerate(done.noisy[row].tolist()):
            share, std = 1 / done.noisy.shape[1], chain.sampler.std[k]
            one, two = (Independent(Normal(means[row, place], std), 2) for means in (found, apart))
            log_prob[row] += share * one.log_prob(done.chain[row, k + 1, :3, :2])
            entropy[row] += share * one.entropy()
            divergence[row] += share * kl_divergence(one, two)
    torch.testing.assert_close(chain.log_prob(done.chain, found, done.noisy), log_prob)
    torch.testing.assert_close(chain.entropy(done.noisy), entropy)
    torch.testing.assert_close(chain.divergence(found, apart, done.noisy), divergence)
    assert divergence.min() > 1e-3


def test_the_divergence_is_the_expected_difference_of_log_probabilities():
    chain = NoisyChain(FlowSde(4, 0.5), 2, 1, (2, 1))
    done = chain.run(velocity, chain.sample(40_000, torch.Generator().manual_seed(0)))
    apart = chain.means(lambda x, times: velocity(x, times) + 0.2, done.chain, done.noisy)
    gained = chain.log_prob(done.chain, done.means, done.noisy) - chain.log_prob(done.chain, apart, done.noisy)
    expected = chain.divergence(done.means, apart, done.noisy).mean().item()
    assert gained.mean().item() == pytest.approx(expected, abs=4 * gained.std().item() / 200)
    assert expected > 0.01


# ---- learning ------------------------------------------------------------------------------------------------------


class Bandit(nn.Module):
    """A small flow policy for a state of two numbers and an action of two, and its critic."""

    def __init__(self, level: float, single: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.flow = nn.Sequential(nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.noise = NoisyChain(FlowSde(4, level), 1, 2, (1, 2), single)

    def predict(self, states: Tensor):
        return lambda x, times: self.flow(torch.cat([x[:, 0], states, times[:, None]], 1))[:, None]

    def evaluate_actions(self, inputs: Inputs, actions: Tensor, reference: Tensor | None) -> ActionEvaluation:
        noisy = inputs["noisy"]
        means = self.noise.means(self.predict(inputs["state"]), actions, noisy)
        log_prob, entropy = self.noise.log_prob(actions, means, noisy), self.noise.entropy(noisy)
        return ActionEvaluation(log_prob, entropy, self.critic(inputs["state"])[:, 0], torch.zeros(len(actions)))


def pay(states: Tensor, chain: Tensor) -> Tensor:
    """The action is to be the state turned by a right angle."""
    target = torch.stack([-states[:, 1], states[:, 0]], 1)
    return -(chain[:, -1, 0] - target).square().sum(-1)


def play(level: float, single: bool) -> tuple[float, float, bool]:
    """Return the mean pay before and after 10 iterations of 256 actions, and whether the policy moved at all."""
    actor = Bandit(level, single)
    before = [p.clone() for p in actor.flow.parameters()]
    optimiser = torch.optim.Adam(actor.parameters(), lr=5e-3)
    config = replace(PpoConfig(), epochs=4, batch_size=128, micro_batch=128, clip_low=0.2, clip_high=0.2, kl_beta=0.0)
    config = replace(config, value_clip=10.0, max_gradient=1.0)
    generator, paid = torch.Generator().manual_seed(0), []
    for _ in range(10):
        states = torch.rand(256, 2, generator=generator) * 2 - 1
        with torch.no_grad():
            done = actor.noise.run(actor.predict(states), actor.noise.sample(256, generator))
            value = actor.critic(states)[:, 0]
        reward = pay(states, done.chain)
        log_prob = actor.noise.log_prob(done.chain, done.means, done.noisy)
        inputs = {"state": states, "noisy": done.noisy}
        buffer = RolloutBuffer(inputs, done.chain, log_prob, value, reward - value, reward)
        update(actor, optimiser, buffer, config, generator)
        paid.append(reward.mean().item())
    moved = any(not torch.equal(p, q) for p, q in zip(before, actor.flow.parameters(), strict=True))
    return paid[0], sum(paid[-3:]) / 3, moved


@pytest.mark.parametrize("single", [False, True])
def test_a_flow_policy_learns_by_the_noise_of_its_sampler(single):
    before, after, moved = play(0.5, single)
    assert before < -2 and after > 0.1 * before and moved


def test_without_noise_there_is_nothing_to_learn_from():
    before, after, moved = play(0.0, False)
    assert not moved and after == pytest.approx(before, abs=0.4)
