# SPDX-License-Identifier: Apache-2.0
"""The same rollouts of Pendulum through Stable-Baselines3's PPO and through ours: equal advantages, equal weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm_ros.config import PpoConfig
from lrm_ros.training.ppo.ppo import ActionEvaluation, RolloutBuffer, compute_gae, update

stable_baselines3 = pytest.importorskip("stable_baselines3", reason="pip install 'lrm_ros[test]'")
GAMMA, LAM, EPOCHS, STEPS = 0.95, 0.9, 5, 128
# Ours in the terms of theirs: no bound on the critic, half the squared error, one batch of everything.
SAME = PpoConfig(
    gamma=GAMMA,
    lam=LAM,
    epochs=EPOCHS,
    batch_size=2 * STEPS,
    micro_batch=2 * STEPS,
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=1e9,
    value_clip=1e9,
    huber_delta=1e9,
    value_weight=2 * 0.5,
    kl_beta=0.0,
    entropy_bonus=0.01,
    normalise=False,
    max_gradient=0.5,
)


class Theirs:
    """Their policy as our update sees an actor."""

    def __init__(self, policy) -> None:
        self.policy = policy

    def evaluate_actions(self, inputs, actions, reference) -> ActionEvaluation:
        value, log_prob, entropy = self.policy.evaluate_actions(inputs["observation"], actions)
        return ActionEvaluation(log_prob, entropy, value.flatten(), torch.zeros(len(actions)))


def learner(seed: int = 0):
    from stable_baselines3.common.env_util import make_vec_env

    return stable_baselines3.PPO(
        "MlpPolicy",
        make_vec_env("Pendulum-v1", n_envs=2, seed=seed),
        n_steps=STEPS,
        batch_size=2 * STEPS,
        n_epochs=EPOCHS,
        gamma=GAMMA,
        gae_lambda=LAM,
        ent_coef=0.01,
        normalize_advantage=False,
        learning_rate=1e-3,
        seed=seed,
        device="cpu",
    )


def ours_of(theirs) -> tuple[RolloutBuffer, torch.Tensor]:
    """Return their rollout as our buffer, and our advantages of it (T, N)."""
    values = torch.tensor(theirs.values)
    starts = torch.tensor(theirs.episode_starts).bool()
    dones = torch.cat([starts[1:], torch.zeros(1, 2, dtype=torch.bool)])
    # The last state's value is not kept, so what follows the last decision is read back from its advantage.
    delta = torch.tensor(theirs.advantages[-1])
    last = (delta - torch.tensor(theirs.rewards[-1]) + values[-1]) / GAMMA
    next_values = torch.where(dones, 0.0, torch.cat([values[1:], last[None]]))
    found = compute_gae(torch.tensor(theirs.rewards), values, next_values, dones, GAMMA, LAM)
    flat = {
        name: torch.tensor(np.asarray(getattr(theirs, name))).flatten(0, 1)
        for name in ("observations", "actions", "log_probs", "values", "advantages", "returns")
    }
    buffer = RolloutBuffer(
        {"observation": flat["observations"]},
        flat["actions"],
        flat["log_probs"],
        flat["values"],
        found.flatten(),
        (found + values).flatten(),
    )
    torch.testing.assert_close(buffer.advantages, flat["advantages"], atol=1e-3, rtol=1e-4)
    return buffer, found


def test_three_iterations_give_the_weights_of_stable_baselines3():
    from stable_baselines3.common.callbacks import CallbackList

    theirs, ours = learner(), learner()
    _, callback = theirs._setup_learn(10_000, None)
    assert isinstance(callback, CallbackList) or callback is not None
    start = [p.detach().clone() for p in theirs.policy.parameters()]
    for iteration in range(3):
        theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, STEPS)
        buffer, _ = ours_of(theirs.rollout_buffer)
        theirs.train()
        update(Theirs(ours.policy), ours.policy.optimizer, buffer, SAME, torch.Generator().manual_seed(iteration))
        for one, other in zip(theirs.policy.parameters(), ours.policy.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)
    moved = max(float((a - b.detach()).abs().max()) for a, b in zip(start, theirs.policy.parameters(), strict=True))
    assert moved > 5e-3  # ten times the tolerance and more: the comparison means something


def test_a_different_clip_gives_different_weights():
    theirs, ours = learner(), learner()
    _, callback = theirs._setup_learn(10_000, None)
    theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, STEPS)
    buffer, _ = ours_of(theirs.rollout_buffer)
    theirs.train()
    other = replace(SAME, clip_low=0.01, clip_high=0.01)
    update(Theirs(ours.policy), ours.policy.optimizer, buffer, other, torch.Generator().manual_seed(0))
    differences = [
        float((a - b).detach().abs().max())
        for a, b in zip(theirs.policy.parameters(), ours.policy.parameters(), strict=True)
    ]
    assert max(differences) > 1e-3
