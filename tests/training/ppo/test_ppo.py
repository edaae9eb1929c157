# SPDX-License-Identifier: Apache-2.0
"""PPO: advantages against a naive sum, the losses by hand, a toy problem solved, micro-batches that change nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lrm_ros.config import PpoConfig
from lrm_ros.training.ppo.ppo import (
    ActionEvaluation,
    Inputs,
    RolloutBuffer,
    compute_gae,
    leave_one_out,
    normalise_advantages,
    policy_loss,
    update,
    value_loss,
)


class ToyActor(nn.Module):
    """A Gaussian policy and a critic for states of two numbers and actions of one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.mean = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        self.log_std = nn.Parameter(torch.full((1,), -0.5))

    def distribution(self, states: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.mean(states), self.log_std.exp().expand(len(states), 1))

    def evaluate_actions(self, inputs: Inputs, actions: Tensor, reference: Tensor | None) -> ActionEvaluation:
        drawn = self.distribution(inputs["state"])
        zero = torch.zeros(len(actions))
        divergence = zero if reference is None else (drawn.mean - reference).square().sum(-1)
        value = self.critic(inputs["state"])[:, 0]
        return ActionEvaluation(drawn.log_prob(actions).sum(-1), drawn.entropy().sum(-1), value, divergence)


def rollout(actor: ToyActor, n: int = 48, seed: int = 0) -> RolloutBuffer:
    generator = torch.Generator().manual_seed(seed)
    states = torch.rand(n, 2, generator=generator) * 2 - 1
    with torch.no_grad():
        drawn = actor.distribution(states)
        actions = drawn.mean + drawn.stddev * torch.randn(n, 1, generator=generator)
        value = actor.critic(states)[:, 0]
        log_prob = drawn.log_prob(actions).sum(-1)
    reward = -(actions[:, 0] - states.sum(-1)).square()
    return RolloutBuffer({"state": states}, actions, log_prob, value, reward - value, reward)


def test_advantages_are_the_discounted_sums_of_deltas():
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 9, 4))
    dones = rng.uniform(size=(9, 4)) < 0.3
    gamma, lam = 0.9, 0.8
    found = compute_gae(*(torch.tensor(x) for x in (rewards, values, next_values, dones)), gamma, lam)
    for n in range(4):
        for t in range(9):
            total, weight = 0.0, 1.0
            for k in range(t, 9):
                total += weight * (rewards[k, n] + gamma * next_values[k, n] - values[k, n])
                weight *= gamma * lam
                if dones[k, n]:
                    break
            assert found[t, n] == pytest.approx(total, abs=1e-9)
    with pytest.raises(ValueError, match=r"must all be \(T, N\)"):
        compute_gae(torch.zeros(3), torch.zeros(3), torch.zeros(3), torch.zeros(3, dtype=torch.bool), gamma, lam)


def test_a_truncated_episode_bootstraps_with_the_value_of_its_last_state():
    one = torch.ones(1, 1)
    done = compute_gae(one, 0 * one, 0 * one, one.bool(), 0.9, 0.95)
    cut = compute_gae(one, 0 * one, 5 * one, one.bool(), 0.9, 0.95)
    assert done.item() == pytest.approx(1.0) and cut.item() == pytest.approx(1.0 + 0.9 * 5)


def test_a_group_is_compared_with_the_others_in_it():
    advantage = torch.tensor([[1.0, 2.0, 6.0, 10.0, 10.0, 40.0]])
    expected = [[1 - 4, 2 - 3.5, 6 - 1.5, 10 - 25, 10 - 25, 40 - 10]]
    torch.testing.assert_close(leave_one_out(advantage, 3), torch.tensor(expected, dtype=torch.float32))
    assert leave_one_out(advantage, 1) is advantage


def test_normalised_advantages_keep_their_order_and_equal_ones_become_zero():
    values = normalise_advantages(torch.tensor([1.0, 2.0, 6.0]))
    assert values.mean().item() == pytest.approx(0, abs=1e-6) and values.std(unbiased=False).item() == pytest.approx(1)
    assert torch.equal(normalise_advantages(torch.full((5,), 3.0)), torch.zeros(5))


def test_the_surrogate_is_clipped_on_both_sides_and_bounded_where_the_advantage_is_negative():
    config = PpoConfig(clip_low=0.2, clip_high=0.3, dual_clip=3.0)
    ratio = torch.tensor([1.0, 1.2, 1.5, 0.5, 0.5, 1.5, 10.0])
    advantage = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    loss, clipped = policy_loss(ratio.log(), torch.zeros(7), advantage, config)
    np.testing.assert_allclose(loss, [-1.0, -1.2, -1.3, -0.5, 0.8, 1.5, 3.0], rtol=1e-5)
    assert clipped.tolist() == [False, False, True, False, True, False, False]


def test_the_critic_gains_nothing_by_jumping():
    config = PpoConfig(value_clip=0.2, huber_delta=10.0)
    loss = value_loss(torch.tensor([1.0, 0.1, 30.0]), torch.zeros(3), torch.tensor([1.0, 1.0, 0.0]), config)
    np.testing.assert_allclose(loss, [0.5 * 0.8**2, 0.5 * 0.9**2, 10 * (30 - 5)], rtol=1e-6)


def test_micro_batches_change_nothing():
    finished = []
    for micro in (1, 8):
        actor = ToyActor()
        optimiser = torch.optim.Adam(actor.parameters(), lr=1e-3)
        config = PpoConfig(batch_size=8, micro_batch=micro, epochs=3)
        figures = [
            update(actor, optimiser, rollout(actor, seed=i), config, torch.Generator().manual_seed(i)) for i in range(5)
        ]
        finished.append((figures, [p.detach().clone() for p in actor.parameters()]))
    for one, other in zip(finished[0][0], finished[1][0], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    for one, other in zip(finished[0][1], finished[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_toy_problem_is_solved_in_forty_iterations():
    actor = ToyActor()
    optimiser = torch.optim.Adam(actor.parameters(), lr=3e-3)
    config = PpoConfig(
        epochs=4, batch_size=64, micro_batch=64, clip_low=0.2, clip_high=0.2, entropy_bonus=0.0, kl_beta=0
    )
    generator = torch.Generator().manual_seed(0)
    rewards = []
    for i in range(40):
        done = rollout(actor, 512, seed=i)
        rewards.append(done.returns.mean().item())
        update(actor, optimiser, done, config, generator)
    assert rewards[0] < -0.8 and rewards[-1] > -0.05
    states = torch.tensor([[0.5, 0.3], [-0.6, 0.1]])
    torch.testing.assert_close(actor.mean(states)[:, 0], states.sum(-1), atol=0.15, rtol=0)


def test_the_same_seed_gives_the_same_weights():
    def run() -> Tensor:
        actor = ToyActor()
        optimiser = torch.optim.Adam(actor.parameters(), lr=1e-3)
        update(actor, optimiser, rollout(actor), PpoConfig(), torch.Generator().manual_seed(3))
        return torch.cat([p.detach().flatten() for p in actor.parameters()])

    assert torch.equal(run(), run())


def test_the_warm_up_moves_the_critic_only():
    actor = ToyActor()
    optimiser = torch.optim.Adam(actor.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    update(actor, optimiser, rollout(actor), PpoConfig(), generator)  # now Adam has momentum
    before = [p.detach().clone() for p in (*actor.mean.parameters(), actor.log_std)]
    critic = actor.critic[0].weight.detach().clone()
    figures = update(actor, optimiser, rollout(actor), PpoConfig(), generator, critic_only=True)
    assert all(torch.equal(a, b) for a, b in zip(before, (*actor.mean.parameters(), actor.log_std), strict=True))
    assert not torch.equal(critic, actor.critic[0].weight) and figures["updates"] == 0


def test_the_divergence_from_the_reference_holds_the_policy_back():
    distances = []
    for beta in (0.0, 10.0):
        actor = ToyActor()
        optimiser = torch.optim.Adam(actor.parameters(), lr=1e-2)
        done = rollout(actor, 256)
        with torch.no_grad():
            reference = actor.mean(done.inputs["state"])
        config = PpoConfig(kl_beta=beta, epochs=10, batch_size=64, micro_batch=64)
        update(actor, optimiser, replace(done, reference=reference), config, torch.Generator().manual_seed(0))
        distances.append((actor.mean(done.inputs["state"]) - reference).square().mean().item())
    assert distances[1] < distances[0] / 5


def test_an_update_that_has_gone_far_enough_stops():
    actor = ToyActor()
    optimiser = torch.optim.Adam(actor.parameters(), lr=0.05)
    config = PpoConfig(epochs=10, target_kl=0.01)
    figures = update(actor, optimiser, rollout(actor), config, torch.Generator().manual_seed(0))
    assert 1 <= figures["updates"] < 20 and figures["step_kl"] > 0


def test_a_loss_that_is_not_finite_is_an_error():
    actor = ToyActor()
    optimiser = torch.optim.Adam(actor.parameters())
    broken = replace(rollout(actor), returns=torch.full((48,), math.nan))
    weights = actor.mean[0].weight.detach().clone()
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        update(actor, optimiser, broken, PpoConfig(), torch.Generator())
    assert torch.equal(weights, actor.mean[0].weight)
