# SPDX-License-Identifier: Apache-2.0
"""Training LeRobot's diffusion policy: it learns, resumes to the same bit and runs; what looks back is refused."""

from typing import Any

import numpy as np
import pytest
from episodes import square_episode, square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import FinetuneConfig, RobotContract
from lrm_ros.policy import PolicyRunner
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


def test_a_policy_that_looks_back_is_refused(tmp_path):
    options = {**DIFFUSION, "options": {**DIFFUSION["options"], "n_obs_steps": 2}}
    with pytest.raises(ValueError, match=r"'diffusion' looks at 2 control steps.*set its n_obs_steps to 1"):
        finetune([square_episodes(3)], tmp_path / "out", FinetuneConfig(steps=2, **options))
