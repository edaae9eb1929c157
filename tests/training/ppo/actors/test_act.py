# SPDX-License-Identifier: Apache-2.0
"""The ACT actor: the density of its noise, its actions and the reference, and that it learns where to go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from observations import observation  # type: ignore[import-not-found]

from lrm_ros.config import PpoConfig, RobotContract
from lrm_ros.policy import PolicyRunner
from lrm_ros.training.ppo.actors.act import ActActor, ChunkNoise
from lrm_ros.training.ppo.ppo import RolloutBuffer, update


def test_the_density_of_the_noise_is_that_of_torchs_distributions():
    std = torch.tensor([0.1, 0.5, 2.0])
    mean, other = torch.randn(2, 4, 6, 3, generator=torch.Generator().manual_seed(0))
    for rank in (1, 3, 6):
        noise = ChunkNoise(6, rank, std, learn=False)
        torch.testing.assert_close(noise.dual @ noise.basis, torch.eye(rank), atol=1e-6, rtol=0)

        def around(chunk, noise=noise, rank=rank):
            return torch.distributions.Independent(
                torch.distributions.Normal(noise.dual @ chunk, std.expand(rank, 3)), 2
            )

        drawn = noise.perturb(mean, noise.sample(4, torch.Generator().manual_seed(1)))
        torch.testing.assert_close(noise.log_prob(drawn, mean), around(mean).log_prob(noise.dual @ drawn))
        torch.testing.assert_close(noise.entropy().expand(4), around(mean).entropy())
        reference = around(other)
        expected = torch.distributions.kl_divergence(around(mean), reference)
        torch.testing.assert_close(noise.divergence(mean, other), expected)
        assert torch.equal(noise.divergence(mean, other), 0.5 * noise._standardised(mean - other).square().sum((1, 2)))
        # Deviations that have moved: the reference keeps those of the start, and to grow is not free.
        moved = ChunkNoise(6, rank, std, learn=True)
        moved.log_std.data += torch.tensor([0.7, -0.4, 0.1])
        grown = torch.distributions.Independent(
            torch.distributions.Normal(moved.dual @ mean, moved.log_std.exp().expand(rank, 3)), 2
        )
        expected = torch.distributions.kl_divergence(grown, reference)
        torch.testing.assert_close(moved.divergence(mean, other), expected)
        moved.divergence(mean, mean).sum().backward()
        assert moved.log_std.grad is not None and (moved.log_std.grad.sign() == torch.tensor([1, -1, 1])).all()
        assert set(moved.state_dict()) == {"basis", "dual", "log_std"}  # the states of runs stay readable


def test_noise_of_full_rank_is_white_noise_on_the_chunk():
    std = torch.tensor([0.1, 0.5])
    noise = ChunkNoise(6, 6, std, learn=False)
    mean, chunk = torch.randn(2, 4, 6, 2, generator=torch.Generator().manual_seed(0))
    truth = torch.distributions.Normal(mean, std)
    # The coefficients are a rotation of the chunk, scaled alike: the densities differ by a constant.
    constant = noise.log_prob(chunk, mean) - truth.log_prob(chunk).sum((1, 2))
    torch.testing.assert_close(constant, constant[:1].expand(4), atol=1e-3, rtol=1e-5)
    reference = torch.distributions.kl_divergence(truth, torch.distributions.Normal(chunk, std)).sum((1, 2))
    torch.testing.assert_close(noise.divergence(mean, chunk), reference, rtol=1e-4, atol=1e-4)


def test_the_noise_lasts_over_the_chunk_and_has_the_deviation_asked_for():
    for rank, alike in ((1, 1.0), (2, 0.9), (8, 0.0)):
        noise = ChunkNoise(8, rank, torch.tensor([0.5]), learn=False)
        free = noise.sample(20000, torch.Generator().manual_seed(0))
        drawn = noise.perturb(torch.zeros(20000, 8, 1), free)[..., 0].numpy()
        assert np.sqrt((drawn**2).mean()) == pytest.approx(0.5, rel=0.02)
        assert np.corrcoef(drawn[:, 3], drawn[:, 4])[0, 1] == pytest.approx(alike, abs=0.1)
    with pytest.raises(ValueError, match="1 to 8 cosines"):
        ChunkNoise(8, 9, torch.tensor([0.5]), False)


def test_an_actors_mean_is_the_policys_action_and_its_log_prob_that_of_evaluate_actions(small_policy):
    contract = RobotContract()
    actor = ActActor(small_policy, contract, noise_std=0.05)
    seen = [observation(100), observation(30, pan=0.4)]
    mean = actor.act(seen, None)
    runner = PolicyRunner(small_policy, contract, 8)
    for row, one in zip(mean.targets, seen, strict=True):
        np.testing.assert_allclose(row, runner.act(one).actions, atol=1e-5)
    drawn = actor.act(seen, actor.noise.sample(2, torch.Generator().manual_seed(0)))
    spread = drawn.targets - mean.targets
    assert 0.01 < spread.std() < 0.1
    evaluation = actor.evaluate_actions(drawn.inputs, drawn.actions, actor.reference().means(drawn.inputs))
    torch.testing.assert_close(evaluation.log_prob, drawn.log_prob, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(evaluation.value, drawn.value, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(evaluation.divergence, torch.zeros(2), atol=1e-5, rtol=0)


def test_the_reference_stays_when_the_actor_moves(small_policy):
    actor = ActActor(small_policy, RobotContract())
    reference = actor.reference()
    inputs = actor.preprocess([observation()])
    before = reference.means(inputs)
    with torch.no_grad():
        actor.policy.model.action_head.bias += 1.0
    assert torch.equal(reference.means(inputs), before)
    assert (actor.means(inputs) - before).abs().min() > 0.9
    assert actor.evaluate_actions(inputs, before, before).divergence.item() > 1.0


def test_the_actor_learns_where_to_go(small_policy):
    """A bandit: the chunk's mean shoulder pan is paid for being near a target that depends on the state."""
    actor = ActActor(small_policy, RobotContract(), noise_std=0.1)
    ppo = PpoConfig(lr=3e-4, value_lr=3e-3, epochs=4, batch_size=64, micro_batch=64, clip_low=0.2, clip_high=0.2)
    ppo = replace(ppo, kl_beta=0.0, value_clip=10.0, max_gradient=1.0)
    optimiser = torch.optim.Adam(actor.parameter_groups(ppo.lr, ppo.value_lr), betas=(0.9, 0.95), eps=1e-5)
    generator = torch.Generator().manual_seed(0)
    seen = [observation(40, pan=-0.3), observation(200, pan=0.3)]
    before = actor.act(seen, None).targets[:, :, 0].mean(axis=1)
    target = before + np.array([0.25, -0.25])
    for _ in range(30):
        done = actor.act(seen * 64, actor.noise.sample(128, generator))
        miss = done.targets[:, :, 0].mean(axis=1) - np.tile(target, 64)
        reward = torch.tensor(-(miss**2) / 0.01, dtype=torch.float32)
        advantage = reward - done.value
        update(
            actor,
            optimiser,
            RolloutBuffer(done.inputs, done.actions, done.log_prob, done.value, advantage, reward),
            ppo,
            generator,
        )
    after = actor.act(seen, None).targets[:, :, 0].mean(axis=1)
    np.testing.assert_allclose(after, target, atol=0.08)
    assert np.abs(before - target).min() > 0.2
