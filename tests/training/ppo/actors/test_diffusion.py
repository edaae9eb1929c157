# SPDX-License-Identifier: Apache-2.0
"""LeRobot's diffusion policy as an actor: diffusers' steps, LeRobot's sampler, a refinement that can be interrupted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from denoisers import CONTRACT, JOINTS, SEEN, diffusion_folder, draw, settings  # type: ignore[import-not-found]

from lrm_ros.config import PpoConfig
from lrm_ros.policy import PolicyRunner
from lrm_ros.sim.vector.rewards import WorldRewards
from lrm_ros.sim.vector.worlds import VectorWorlds
from lrm_ros.training.ppo.actors.act import ActActor
from lrm_ros.training.ppo.actors.diffusion import Ddim
from lrm_ros.training.ppo.actors.load import load_actor
from lrm_ros.training.ppo.play import evaluate_in_worlds
from lrm_ros.training.ppo.refine import Refinement, refine


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory) -> Path:
    return diffusion_folder(tmp_path_factory.mktemp("diffusion"))


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_a_ddim_step_is_that_of_diffusers(kind, eta):
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    generator = torch.Generator().manual_seed(0)
    scheduler = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", prediction_type=kind)
    sampler = Ddim(scheduler, 5, eta, 0.0)
    for k, time in enumerate(scheduler.timesteps):
        x, said, noise = torch.randn(3, 2, 4, 6, generator=generator)
        expected = scheduler.step(said, time, x, eta=eta, variance_noise=noise).prev_sample
        mean = sampler.mean(x, said, torch.full((2,), k), torch.ones(2, dtype=torch.bool))
        torch.testing.assert_close(mean + sampler.std[k] * noise, expected, atol=1e-5, rtol=1e-5)
    assert sampler.std[-1] == 0 and Ddim(scheduler, 5, eta, 0.1).std.min() == pytest.approx(0.1)


def test_without_noise_a_diffusion_policy_is_sampled_as_lerobot_does(diffusion, tmp_path):
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    actor = load_actor(settings(diffusion), CONTRACT)
    actor.policy.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_inference_steps"] == 5  # those of refinement
    own = DiffusionPolicy.from_pretrained(tmp_path).eval()
    free = draw(actor, 3)
    free[:, 1:] = 0
    inputs = actor.preprocess(SEEN)
    batch = {
        "observation.state": inputs["observation.state"][:, None],
        "observation.images": inputs["observation.images.front"][:, None, None],
    }
    with torch.no_grad():
        expected = own.diffusion.generate_actions(batch, noise=free[:, 0].view(3, 16, JOINTS))
    found = actor.act(SEEN, free)
    torch.testing.assert_close(found.actions[:, -1, :8], expected, atol=1e-5, rtol=0)


def test_a_diffusion_policy_runs_like_any_other_and_sees_the_newest_observation(diffusion):
    runner = PolicyRunner(diffusion, CONTRACT, 8)
    chunks = []
    for seen in (SEEN[0], SEEN[1], SEEN[0]):
        torch.manual_seed(0)
        chunks.append(runner.act(seen).actions)
    assert chunks[0].shape == (8, JOINTS) and (chunks[0] == chunks[2]).all() and (chunks[0] != chunks[1]).any()


def test_a_diffusion_policy_is_refined_and_goes_on_to_the_same_bit(diffusion, tmp_path):
    config = settings(
        diffusion, run=str(tmp_path / "whole"), reward="env", iterations=2, worlds=2, steps=16, max_steps=12,
        ppo=PpoConfig(lr=1e-4),
    )  # fmt: skip

    class Kept(VectorWorlds):
        """Starting processes takes longer than playing."""

        def close(self) -> None:
            pass

    def kill_a_copy(line):
        if line["iteration"] == 0:
            shutil.copytree(config.run, tmp_path / "cut")  # what is on disk if the process ends here

    worlds = Kept(2, WorldRewards(config).rules, 8, 1, CONTRACT)
    try:
        whole = refine(config, kill_a_copy, worlds=worlds)
        rest = refine(replace(config, run=str(tmp_path / "cut")), worlds=worlds)
        for hold in (True, False):
            run = Refinement(replace(config, run=str(tmp_path / "new"), steps=24, hold_noise=hold), worlds=worlds)
            rollout = run._collect_rollout(None)
            assert rollout.dones.tolist() == [[False] * 2, [True] * 2, [False] * 2]
            first, second, third = (output.actions[:, 0] for output in rollout.outputs)
            assert torch.equal(first, second) == hold and not torch.equal(second, third)
            assert not torch.equal(first[0], first[1])
    finally:
        VectorWorlds.close(worlds)
    for one, other in zip(whole, rest, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert whole[0]["step_kl"] > 0 and whole[1]["divergence"] > 0 and whole[0]["updates"] > 0
    one, other = (tmp_path / name / "policy" / "model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes() != (diffusion / "model.safetensors").read_bytes()
    found = evaluate_in_worlds(one.parent, [1_000_000, 1_000_001], 2, 16, 8, 0.0, processes=1)
    assert set(found) == {1_000_000, 1_000_001}


def test_settings_that_do_not_fit_a_diffusion_policy_are_refused(diffusion, tmp_path):
    with pytest.raises(ValueError, match="the sampler has no noise"):
        load_actor(settings(diffusion, diffusion_eta=0.0, diffusion_std=0.0), CONTRACT)
    with pytest.raises(ValueError, match=r"1 to 20 steps, eta from 0 to 1 and a deviation >= 0, got 5, 2\.0 and 0\.1"):
        load_actor(settings(diffusion, diffusion_eta=2.0), CONTRACT)
    with pytest.raises(ValueError, match="PPO's Gaussian head needs an ACT"):
        ActActor(diffusion, CONTRACT)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load_actor(settings(tmp_path / "nowhere"), CONTRACT)
    two = diffusion_folder(tmp_path / "two", steps=0, n_obs_steps=2)
    with pytest.raises(ValueError, match="looks at 2 control steps; in many worlds it sees one a chunk"):
        load_actor(settings(two), CONTRACT)
