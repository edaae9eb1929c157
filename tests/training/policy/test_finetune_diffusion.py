# SPDX-License-Identifier: Apache-2.0
"""Training LeRobot's diffusion policy: it learns, resumes to the same bit and runs, looking back or not."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from episodes import square_episode, square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import FinetuneConfig, RobotContract
from lrm_ros.policy import PolicyRunner
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.training.policy.finetune import finetune

CONTRACT = RobotContract()

DIFFUSION: dict[str, Any] = {
    "policy": "diffusion", "batch_size": 8, "lr": 3e-3, "warmup": 2, "options": {
        "n_obs_steps": 1, "horizon": 16, "n_action_steps": 8, "down_dims": [32, 64], "diffusion_step_embed_dim": 16,
        "prediction_type": "sample",
        "spatial_softmax_num_keypoints": 4, "resize_shape": [32, 32], "num_train_timesteps": 20, "device": "cpu",
        "pretrained_backbone_weights": None, "use_group_norm": True, "use_separate_rgb_encoder_per_camera": False,
    },
}  # fmt: skip


def weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_a_diffusion_policy_learns_resumes_to_the_same_bit_and_runs(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, steps, loss):
        if step == 25:
            raise Killed

    episodes = [square_episodes(3)]
    config = FinetuneConfig(steps=30, checkpoint_every=20, **DIFFUSION)
    figures = finetune(episodes, tmp_path / "whole", config)
    assert np.mean(figures["losses"][-10:]) < 0.8 * np.mean(figures["losses"][:10])
    with pytest.raises(Killed):
        finetune(episodes, tmp_path / "cut", config, progress=kill)
    assert finetune(episodes, tmp_path / "cut", config)["resumed_at"] == 20
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all((value == cut[name]).all() for name, value in whole.items())
    runner = PolicyRunner(tmp_path / "whole", CONTRACT)
    assert runner.act(square_episode(0).steps[0].observation).actions.shape == (8, 6)


def looking_back(**more: Any) -> FinetuneConfig:
    options = {**DIFFUSION["options"], "n_obs_steps": 2}
    return FinetuneConfig(**{**DIFFUSION, "options": options, "steps": 2, **more})


def test_a_diffusion_policy_that_looks_back_is_trained_with_what_lerobots_data_set_gives_it(tmp_path):
    import torch

    from lrm_ros.record.dataset import write_dataset
    from lrm_ros.training.policy.finetune import _Training

    episodes = square_episodes(3)
    data = TrainingData([episodes], CONTRACT)
    run = _Training(data, CONTRACT, looking_back(), tmp_path / "part")
    config = run.policy.config
    assert run.observed == [-1, 0] and len(data.inputs) == len(data.states)
    root = write_dataset(episodes, tmp_path / "data", CONTRACT)
    deltas = {name: [k / 10 for k in config.observation_delta_indices] for name in config.input_features}
    deltas["action"] = [k / 10 for k in config.action_delta_indices]
    theirs = opened(root, deltas)
    some = [0, 1, 9, 10, 11, 20, 31]  # beginnings, ends and middles of episodes of 10, 11 and 12 steps
    ours = data.batch(np.array(some), config.action_delta_indices, run.observed)
    for row, index in enumerate(some):
        for name in (*config.input_features, "action", "action_is_pad"):
            torch.testing.assert_close(ours[name][row], theirs[index][name], msg=f"{name} of {index}")


def opened(root, deltas):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/data", root=root, delta_timestamps=deltas, video_backend="pyav")


def test_a_diffusion_policy_that_looks_back_learns_with_colours_and_noise_and_resumes(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, steps, loss):
        if step == 5:
            raise Killed

    episodes = [square_episodes(3)]
    config = looking_back(steps=8, checkpoint_every=4, colour=0.5, state_noise=0.1)
    finetune(episodes, tmp_path / "whole", config)
    with pytest.raises(Killed):
        finetune(episodes, tmp_path / "cut", config, progress=kill)
    assert finetune(episodes, tmp_path / "cut", config)["resumed_at"] == 4
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all((value == cut[name]).all() for name, value in whole.items())
    assert PolicyRunner(tmp_path / "whole", CONTRACT).observed_steps == 2


def test_only_steps_with_an_image_of_the_step_before_are_inputs_of_a_policy_that_looks_back(tmp_path):
    steps = square_episode(0, length=9).steps
    for gone in (3, 6):
        seen = dataclasses.replace(steps[gone].observation, frames={})
        steps[gone] = dataclasses.replace(steps[gone], observation=seen)
    data = TrainingData([[dataclasses.replace(square_episode(0), steps=steps)]], CONTRACT)
    checksum = data.fingerprint()
    data.look_back([-1, 0])
    assert data.inputs.tolist() == [0, 1, 2, 5, 8] and len(data.tasks) == len(data.source) == 5
    assert data.fingerprint() == checksum
    batch = data.batch(np.arange(5), [-1, 0, 1], [-1, 0])
    wanted = [[0, 0], [0, 1], [1, 2], [4, 5], [7, 8]]
    for row, (before, now) in enumerate(wanted):
        for at, step in enumerate((before, now)):
            image = steps[step].observation.frames["front"].image.transpose(2, 0, 1) / np.float32(255)
            np.testing.assert_array_equal(batch["observation.images.front"][row, at], image)
            np.testing.assert_array_equal(batch["observation.state"][row, at], steps[step].observation.state)
    assert batch["action_is_pad"].tolist() == [[True, False, False], *[[False] * 3] * 3, [False, False, True]]
    few = square_episodes(2, frame_every=3)
    few = [dataclasses.replace(episode, steps=episode.steps[1:]) for episode in few]
    with pytest.raises(ValueError, match=r"image of each of the 2 control steps .*frame_every 1"):
        finetune([few], tmp_path / "out", looking_back())


def test_another_policy_that_looks_back_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'vqbet' looks at 5 control steps.*set its n_obs_steps to 1"):
        finetune([square_episodes(3)], tmp_path / "out", FinetuneConfig(steps=2, policy="vqbet"))
