# SPDX-License-Identifier: Apache-2.0
"""Actors that denoise, SmolVLA's above all: log-probabilities, gradients where they belong, LeRobot's sampler.

The policies are tiny, randomly initialised, of LeRobot's own classes.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from denoisers import (  # type: ignore[import-not-found]
    CONTRACT,
    JOINTS,
    SEEN,
    diffusion_folder,
    draw,
    observation,
    pi_folder,
    settings,
    smolvla_folder,
)

from lrm_ros.config import PpoConfig
from lrm_ros.policy import policy_input
from lrm_ros.training.ppo.actors.chain import NOISY
from lrm_ros.training.ppo.actors.diffusion import DiffusionActor
from lrm_ros.training.ppo.actors.flow import FlowActor
from lrm_ros.training.ppo.actors.load import load_actor
from lrm_ros.training.ppo.ppo import RolloutBuffer, update
from lrm_ros.versions import at_least


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory) -> Path:
    return diffusion_folder(tmp_path_factory.mktemp("diffusion"), steps=0)


@pytest.fixture(scope="module")
def smolvla(tmp_path_factory) -> Path:
    return smolvla_folder(tmp_path_factory.mktemp("smolvla"))


# ---- both ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["smolvla, one step", "smolvla, all steps", "diffusion"])
def actor(request, smolvla, diffusion) -> FlowActor | DiffusionActor:
    kind, single = request.param.split(",")[0], request.param.endswith("one step")
    actor = load_actor(settings({"smolvla": smolvla, "diffusion": diffusion}[kind], flow_single=single), CONTRACT)
    assert type(actor) is {"smolvla": FlowActor, "diffusion": DiffusionActor}[kind]
    return actor


def test_evaluate_actions_gives_the_log_prob_and_value_of_act(actor):
    done = actor.act(SEEN, draw(actor, 3))
    steps = actor.noise.steps
    assert done.targets.shape == (3, 8, JOINTS) and done.actions.shape[:2] == (3, steps + 1)
    assert done.inputs[NOISY].shape == (3, 1 if actor.noise.single else steps)
    before = actor.reference().means(done.inputs, done.actions)
    evaluation = actor.evaluate_actions(done.inputs, done.actions, before)
    torch.testing.assert_close(evaluation.log_prob, done.log_prob, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(evaluation.value, done.value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(evaluation.divergence, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(actor.value(SEEN), done.value, atol=1e-5, rtol=1e-5)
    assert (evaluation.log_prob - evaluation.log_prob[0]).abs().max() > 1  # they do differ


def test_random_numbers_and_only_they_make_the_difference(actor):
    free = draw(actor, 3)
    one, again, other = (actor.act(SEEN, numbers).targets for numbers in (free, free, draw(actor, 3, 1)))
    deterministic = [actor.act(SEEN, None) for _ in range(2)]
    assert np.array_equal(one, again) and np.array_equal(deterministic[0].targets, deterministic[1].targets)
    assert np.abs(one - other).max() > 0.01 and np.abs(one - deterministic[0].targets).max() > 0.01
    assert torch.equal(deterministic[0].log_prob, torch.zeros(3)) and deterministic[0].inputs[NOISY].shape == (3, 0)


def test_the_reference_stays_when_the_actor_moves_and_copies_nothing_that_cannot_move(actor):
    groups = actor.parameter_groups(1e-3, 1e-3, "head")
    reference = actor.reference()
    done = actor.act(SEEN, draw(actor, 3))
    before = reference.means(done.inputs, done.actions)
    with torch.no_grad():
        for parameter in groups[0]["params"]:
            parameter += 0.1
    assert torch.equal(reference.means(done.inputs, done.actions), before)
    assert (actor.evaluate_actions(done.inputs, done.actions, before).divergence > 0.01).all()
    moving = {id(p) for group in groups for p in group["params"]}
    for (name, own), theirs in zip(actor.named_parameters(), reference.parameters(), strict=True):
        assert (own is theirs) == (id(own) not in moving), name
        assert not theirs.requires_grad


@pytest.mark.parametrize("train", ["all", "decoder", "head"])
def test_gradients_reach_what_is_to_learn_and_nothing_else(actor, train):
    allowed = {id(p) for p in actor.policy.parameters() if p.requires_grad}
    groups = actor.parameter_groups(1e-3, 1e-3, train)
    done = actor.act(SEEN, draw(actor, 3))
    evaluation = actor.evaluate_actions(done.inputs, done.actions, None)
    (evaluation.log_prob.sum() + evaluation.value.sum()).backward()
    wanted = {id(p) for group in groups for p in group["params"]}
    learns = {name: p.grad is not None and bool(p.grad.any()) for name, p in actor.policy.named_parameters()}
    for name, parameter in actor.policy.named_parameters():
        assert not learns[name] or (id(parameter) in wanted and id(parameter) in allowed), name
    assert actor.critic[-1].weight.grad.any()
    some = {
        "smolvla": {"all": "state_proj", "decoder": "lm_expert", "head": "action_out_proj"},
        "diffusion": {"all": "rgb_encoder", "decoder": "unet.mid_modules", "head": "unet.final_conv"},
    }[actor.policy.config.type]
    reached = {part: any(learns[name] for name in learns if key in name) for part, key in some.items()}
    assert reached == {"head": True, "decoder": train != "head", "all": train == "all"}
    with pytest.raises(ValueError, match="train is 'legs'; choose one of all, decoder, head"):
        actor.parameter_groups(1e-3, 1e-3, "legs")


def test_the_critic_learns_without_changing_what_the_policy_sees(actor):
    done = actor.act(SEEN, draw(actor, 3))
    torch.nn.init.ones_(actor.critic[-1].weight)
    actor.evaluate_actions(done.inputs, done.actions, None).value.sum().backward()
    assert all(p.grad is None for p in actor.policy.parameters()) and actor.critic[1].weight.grad.any()
    assert len(set(actor.value(SEEN).tolist())) == 3


def test_the_actor_learns_where_to_go(actor):
    """A bandit: the mean of the first joint is to go up, whatever is seen."""
    ppo = PpoConfig(lr=3e-3, value_lr=1e-2, epochs=3, batch_size=32, micro_batch=32, clip_low=0.2, clip_high=0.2)
    ppo = replace(ppo, kl_beta=0.0, value_clip=100.0, max_gradient=1.0)
    optimiser = torch.optim.Adam(actor.parameter_groups(ppo.lr, ppo.value_lr, "decoder"), betas=(0.9, 0.95), eps=1e-5)
    generator, paid = torch.Generator().manual_seed(0), []
    for _ in range(6):
        done = actor.act([observation()] * 32, actor.noise.sample(32, generator))
        reward = torch.from_numpy(done.targets[:, :, 0].mean(1)) * 10
        advantage = reward - done.value
        update(
            actor,
            optimiser,
            RolloutBuffer(done.inputs, done.actions, done.log_prob, done.value, advantage, reward),
            ppo,
            generator,
        )
        paid.append(reward.mean().item())
    assert sum(paid[-2:]) / 2 > paid[0] + 0.5, paid


# ---- flows ---------------------------------------------------------------------------------------------------------


def test_without_noise_in_its_steps_smolvla_is_sampled_as_lerobot_does(smolvla):
    actor = load_actor(settings(smolvla, flow_steps=0), CONTRACT)
    assert actor.noise.steps == 10  # the policy's own
    free = draw(actor, 3)
    free[:, 1:] = 0
    found = actor.act(SEEN, free)
    inputs = actor.preprocess(SEEN)
    expected = actor.policy.predict_action_chunk(dict(inputs), noise=free[:, 0].view(3, 10, 8))
    torch.testing.assert_close(found.actions[:, -1, :, :JOINTS], expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(found.targets, actor.runner.postprocess(expected)[:, :8], atol=1e-5)


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_pi0_and_pi05_are_sampled_as_lerobot_does_and_learn(kind, tmp_path, monkeypatch):
    if not at_least("lerobot", 0, 6):  # 0.4 wants its own build of transformers, and says so
        with pytest.raises(ValueError, match="incorrect transformer version"):
            pi_folder(kind, tmp_path, monkeypatch)
        return
    folder = pi_folder(kind, tmp_path, monkeypatch)
    actor = load_actor(settings(folder, flow_steps=0), CONTRACT)
    done = actor.act(SEEN, draw(actor, 3))
    evaluation = actor.evaluate_actions(done.inputs, done.actions, actor.reference().means(done.inputs, done.actions))
    torch.testing.assert_close(evaluation.log_prob, done.log_prob, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(evaluation.divergence, torch.zeros(3), atol=1e-5, rtol=0)
    free = draw(actor, 3)
    free[:, 1:] = 0
    expected = actor.policy.predict_action_chunk(actor.preprocess(SEEN), noise=free[:, 0].view(3, 10, 8))
    torch.testing.assert_close(actor.act(SEEN, free).actions[:, -1, :, :JOINTS], expected, atol=1e-5, rtol=0)
    for train, readers in (("decoder", False), ("all", True)):
        actor.zero_grad()
        actor.parameter_groups(1e-3, 1e-3, train)
        actor.evaluate_actions(done.inputs, done.actions, None).log_prob.sum().backward()
        learns = [name for name, p in actor.policy.named_parameters() if p.grad is not None and p.grad.any()]
        assert any("gemma_expert." in name for name in learns)
        assert any(".paligemma." in name for name in learns) == readers


def test_padding_a_task_to_the_longest_changes_nothing(smolvla):
    actor = load_actor(settings(smolvla), CONTRACT)
    free = draw(actor, 3)
    together = actor.act(SEEN, free)
    alone = actor.act(SEEN[1:2], free[1:2])
    assert alone.inputs["observation.language.tokens"].shape == (1, 48)
    np.testing.assert_allclose(alone.targets[0], together.targets[1], atol=1e-5)
    batch = actor.runner.preprocess(policy_input(SEEN[1], CONTRACT))  # as PolicyRunner does: not padded
    assert batch["observation.language.tokens"].shape[1] < 48
    free[:, 1:] = 0
    expected = actor.policy.predict_action_chunk(batch, noise=free[1:2, 0].view(1, 10, 8))
    torch.testing.assert_close(actor.act(SEEN[1:2], free[1:2]).actions[:, -1, :, :JOINTS], expected, atol=1e-5, rtol=0)


def test_the_steps_of_refinement_become_the_policys_own(smolvla, tmp_path):
    load_actor(settings(smolvla, flow_steps=3), CONTRACT).policy.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_steps"] == 3


def test_a_checkpoint_that_freezes_what_is_to_learn_is_refused(smolvla):
    actor = load_actor(settings(smolvla), CONTRACT)
    actor._trainable = []
    with pytest.raises(ValueError, match="train is 'head', but the configuration in the policy's checkpoint freezes"):
        actor.parameter_groups(1e-3, 1e-3, "head")


def test_settings_that_do_not_fit_a_flow_are_refused(smolvla, diffusion):
    with pytest.raises(ValueError, match="learn_std is for ACT; the noise of a smolvla policy is that of its sampler"):
        load_actor(settings(smolvla, learn_std=True), CONTRACT)
    with pytest.raises(ValueError, match="the sampler has no noise"):
        load_actor(settings(smolvla, flow_noise=0.0), CONTRACT)
    with pytest.raises(ValueError, match="Flow-SDE is built for smolvla, pi0, pi05"):
        FlowActor(diffusion, CONTRACT)
