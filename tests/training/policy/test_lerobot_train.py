# SPDX-License-Identifier: Apache-2.0
"""There and back: lerobot-train -> our twin -> our fine-tuning -> LeRobot again, on a data set of the twin."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrm_ros.checkpoint import policy_contract
from lrm_ros.config import FinetuneConfig, RobotContract
from lrm_ros.policy import PolicyRunner, policy_input
from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import load_into_ram
from lrm_ros.training.policy.collect import collect
from lrm_ros.training.policy.evaluate import main as evaluate
from lrm_ros.training.policy.finetune import finetune

TOP = Path(__file__).resolve().parents[3]
CONTRACT = RobotContract()
# What differs from LeRobot's defaults, which are for a GPU; n_obs_steps of diffusion stays 2.
SMALL: dict[str, dict[str, Any]] = {
    "act": {
        "dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1, "use_vae": "false",
        "chunk_size": 10, "n_action_steps": 10, "pretrained_backbone_weights": "null",
    },
    "act_small": {"cnn_channels": "[8,8,16]", "dim_model": 16, "n_heads": 2, "dim_feedforward": 16},
    "diffusion": {
        "down_dims": "[32,64]", "diffusion_step_embed_dim": 16, "spatial_softmax_num_keypoints": 4,
        "num_train_timesteps": 4, "crop_shape": "null", "pretrained_backbone_weights": "null", "use_group_norm": "true",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A demonstration in the twin, as a data set of ours."""
    folder = tmp_path_factory.mktemp("twin")
    collect(folder / "journals", 1, seed=7)
    return journals_to_dataset(sorted((folder / "journals").glob("*.mcap")), folder / "data")


@pytest.fixture(scope="module")
def plugins(tmp_path_factory) -> Path:
    """Where LeRobot finds the distribution ``lerobot_policy_act_small``, wherever else it is installed or not."""
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(TOP / "lerobot_policy_act_small", folder / "source")
    options = ["-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(folder / "installed")]
    command = [sys.executable, "-m", "pip", "install", *options, str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "installed"


@pytest.fixture
def lerobot_train(data, plugins, monkeypatch) -> Callable[..., Path]:
    """LeRobot's program, which trains for two steps and returns the folder that it leaves.

    In this process: it is the function that the installed program calls, and imports are most of its time.
    """
    from lerobot.scripts.lerobot_train import main

    monkeypatch.syspath_prepend(str(plugins))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def train(out: Path, **policy: Any) -> Path:
        given = {"dataset.repo_id": "local/twin", "dataset.root": data, "dataset.video_backend": "pyav", "steps": 2}
        given |= {"batch_size": 2, "num_workers": 0, "log_freq": 1, "output_dir": out, "wandb.enable": "false"}
        given |= {f"policy.{key}": value for key, value in {"device": "cpu", "push_to_hub": "false", **policy}.items()}
        monkeypatch.setattr("sys.argv", ["lerobot-train", *(f"--{name}={value}" for name, value in given.items())])
        try:
            main()
        finally:
            root.handlers[:], root.level = handlers, level  # the program sets its own
        return out / "checkpoints/last/pretrained_model"

    return train


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_a_policy_of_lerobot_train_runs_in_the_twin_is_fine_tuned_and_goes_back(
    kind, data, lerobot_train, tmp_path, capsys
):
    trained = lerobot_train(tmp_path / "theirs", type=kind, **SMALL[kind])
    assert not (trained / "contract.json").exists() and policy_contract(trained) == CONTRACT
    result = tmp_path / "evaluation.json"
    words = [str(trained), "--episodes", "2", "--max-steps", "10", "--json", str(result)]
    code = evaluate(words)
    assert code == 0, capsys.readouterr().out[-3000:]
    assert json.loads(result.read_text())["steps"] == [10, 10]
    fine_tuned_and_back(kind, trained, data, lerobot_train, tmp_path)


@pytest.mark.slow
def test_lerobot_train_knows_act_small_and_goes_on_with_ours(data, lerobot_train, tmp_path):
    trained = lerobot_train(tmp_path / "theirs", type="act_small", **SMALL["act_small"])
    fine_tuned_and_back("act_small", trained, data, lerobot_train, tmp_path)


def fine_tuned_and_back(kind: str, trained: Path, data: Path, lerobot_train: Callable[..., Path], out: Path) -> None:
    """What lerobot-train left goes on with us, then with LeRobot."""
    finetune([data], out / "ours", FinetuneConfig(steps=2, batch_size=2, init=str(trained)))
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        ours, theirs = (json.loads((folder / name).read_text())["steps"] for folder in (out / "ours", trained))
        assert [step["registry_name"] for step in ours] == [step["registry_name"] for step in theirs]
    in_lerobot(out / "ours", data)
    again = lerobot_train(out / "again", path=out / "ours")
    assert json.loads((again / "config.json").read_text())["type"] == kind
    assert PolicyRunner(again, CONTRACT).note == ""


def in_lerobot(folder: Path, data: Path) -> None:
    """LeRobot makes the policy for the data set and acts with it as we do."""
    import torch
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata
    from lerobot.policies.factory import get_policy_class, make_policy, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    policy = make_policy(config, ds_meta=LeRobotDatasetMetadata("local/twin", root=data))
    assert type(policy) is get_policy_class(config.type)
    preprocess, postprocess = make_pre_post_processors(config, pretrained_path=str(folder))
    policy.eval()
    policy.reset()
    seen = load_into_ram(data)[0].steps[0].observation
    torch.manual_seed(3)
    with torch.inference_mode():
        wanted = postprocess(policy.select_action(preprocess(policy_input(seen, CONTRACT)))).numpy()
    runner = PolicyRunner(folder, CONTRACT)
    runner.reset(3)
    np.testing.assert_allclose(runner.act(seen).actions[:1], wanted, atol=1e-6)
