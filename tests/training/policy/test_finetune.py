# SPDX-License-Identifier: Apache-2.0
"""Training with LeRobot's code on episodes in RAM: learning, resuming, checkpoints that fit, refusals."""

import dataclasses
import inspect
import json
import re
import shutil
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from episodes import square_episode, square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, FinetuneConfig, RobotContract
from lrm_ros.policy import FakePolicy, PolicyRunner
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.training.policy.finetune import _Training, finetune, main

CONTRACT = RobotContract()
SMALL: dict[str, Any] = {
    "cnn_channels": [8, 8, 16],
    "dim_model": 16,
    "n_heads": 2,
    "dim_feedforward": 16,
    "chunk_size": 8,
}
ARGUMENTS: dict[str, Any] = {"batch_size": 8, "warmup": 2, "options": SMALL}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small policy trained for some steps."""
    out = tmp_path_factory.mktemp("policy") / "squares"
    figures = finetune([square_episodes(6)], out, FinetuneConfig(steps=60, lr=3e-3, **ARGUMENTS))
    return out, figures


def weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_the_loss_falls_and_the_folder_is_a_lerobot_checkpoint_with_contract(checkpoint):
    out, figures = checkpoint
    assert np.mean(figures["losses"][-10:]) < 0.8 * figures["loss_first"] and figures["inputs"] == 66
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "train_config.json", "contract.json", "finetune.json"} <= names
    assert not out.with_name(out.name + ".part").exists()


def test_a_finished_training_is_not_repeated_and_another_one_is_refused(checkpoint):
    out, figures = checkpoint
    before = (out / "model.safetensors").stat().st_mtime_ns
    config = FinetuneConfig(steps=60, lr=3e-3, **ARGUMENTS)
    assert finetune([square_episodes(6)], out, config)["losses"] == figures["losses"]
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"another training.*seed 0 instead of 1"):
        finetune([square_episodes(6)], out, dataclasses.replace(config, seed=1))


def test_a_finished_training_from_before_a_setting_existed_had_its_default(checkpoint, tmp_path):
    out = shutil.copytree(checkpoint[0], tmp_path / "old")
    figures = json.loads((out / "finetune.json").read_text())
    assert list(figures["settings"]) == [
        "steps", "init", "seed", "lr", "batch_size", "schedule", "warmup", "weights", "label", "colour",
        "state_noise", "policy", "options", "corrections", "data",
    ]  # fmt: skip
    del figures["settings"]["state_noise"]
    (out / "finetune.json").write_text(json.dumps(figures))
    config = FinetuneConfig(steps=60, lr=3e-3, **ARGUMENTS)
    assert finetune([square_episodes(6)], out, config)["losses"] == figures["losses"]
    with pytest.raises(ValueError, match=r"another training \(state_noise 0\.0 instead of 0\.1\)"):
        finetune([square_episodes(6)], out, dataclasses.replace(config, state_noise=0.1))
    del figures["settings"]["steps"]
    (out / "finetune.json").write_text(json.dumps(figures))
    with pytest.raises(ValueError, match=r"another training \(steps None instead of 60\)"):
        finetune([square_episodes(6)], out, config)


def test_a_killed_training_resumes_and_ends_with_the_same_weights(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, steps, loss):
        if step == 7:
            raise Killed

    episodes = [square_episodes(3)]
    config = FinetuneConfig(steps=10, checkpoint_every=3, colour=0.5, **ARGUMENTS)
    finetune(episodes, tmp_path / "whole", config)
    with pytest.raises(Killed):
        finetune(episodes, tmp_path / "cut", config, progress=kill)
    assert not (tmp_path / "cut").exists()
    figures = finetune(episodes, tmp_path / "cut", config)
    assert figures["resumed_at"] == 6 and len(figures["losses"]) == 10
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    for name, value in whole.items():
        np.testing.assert_array_equal(value, cut[name], err_msg=name)


def test_starting_from_a_checkpoint_keeps_its_normalisation(checkpoint, tmp_path):
    out, _ = checkpoint
    config = FinetuneConfig(steps=2, init=str(out), batch_size=4, warmup=0)
    finetune([square_episodes(2)], tmp_path / "more", config)
    for path in out.glob("policy_*.safetensors"):
        assert path.read_bytes() == (tmp_path / "more" / path.name).read_bytes()


def test_images_are_normalised_to_unit_deviation(checkpoint):
    from lerobot.policies.factory import make_pre_post_processors

    from lerobot_policy_act_small import ActSmallConfig

    preprocess, _ = make_pre_post_processors(ActSmallConfig(), pretrained_path=str(checkpoint[0]))
    data = TrainingData([square_episodes(6)], CONTRACT)
    image = preprocess(data.batch(np.arange(60), [0]))["observation.images.front"]
    assert abs(image.mean()) < 0.1 and 0.8 < image.std() < 1.2


def test_an_infinite_loss_stops_the_training_and_names_the_step(tmp_path):
    config = FinetuneConfig(steps=30, lr=1e30, schedule="constant", **ARGUMENTS)
    with pytest.raises(FloatingPointError, match="at step"):
        finetune([square_episodes(2)], tmp_path / "bad", config)
    assert not (tmp_path / "bad").exists()


def test_lerobots_factory_makes_and_loads_the_policy(checkpoint):
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class

    from lerobot_policy_act_small import ActSmallConfig, ActSmallPolicy

    assert get_policy_class("act_small") is ActSmallPolicy
    config = PreTrainedConfig.from_pretrained(checkpoint[0])
    assert isinstance(config, ActSmallConfig) and config.chunk_size == 8


def test_the_default_policy_is_small():
    from lerobot.configs.types import FeatureType, PolicyFeature

    from lerobot_policy_act_small import ActSmallConfig, ActSmallPolicy

    config = ActSmallConfig(
        input_features={
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
    )
    assert 0.4e6 < sum(p.numel() for p in ActSmallPolicy(config).parameters() if p.requires_grad) < 2e6


def test_steps_without_an_image_are_no_inputs_but_their_actions_are_in_the_chunks():
    episode = square_episode(0, length=10, frame_every=4)
    data = TrainingData([[episode]], CONTRACT)
    assert data.inputs.tolist() == [0, 4, 8]
    batch = data.batch(np.array([1, 2]), [0, 1, 2, 3])
    np.testing.assert_array_equal(batch["action"][0], np.stack([s.action for s in episode.steps[4:8]]))
    assert batch["action_is_pad"].tolist() == [[False] * 4, [False, False, True, True]]


def test_the_wish_can_be_the_label():
    data = TrainingData([square_episodes(1)], CONTRACT, label="wish")
    np.testing.assert_array_equal(data.actions[0], square_episodes(1)[0].steps[0].wish)


def test_data_sets_are_drawn_in_the_shares_asked_for_and_reproducibly():
    data = TrainingData([square_episodes(1), square_episodes(9)], CONTRACT)
    drawn = np.concatenate([data.source[data.sample_indices(0, step, 32, (3.0, 1.0))] for step in range(100)])
    assert 0.70 < (drawn == 0).mean() < 0.80
    np.testing.assert_array_equal(data.sample_indices(1, 5, 8), data.sample_indices(1, 5, 8))
    with pytest.raises(ValueError, match="weights"):
        data.sample_indices(0, 0, 8, (1.0,))


def test_the_command_line_trains_on_a_data_set_folder_and_writes_its_figures(tmp_path):
    from lrm_ros.record.dataset import write_dataset

    root = write_dataset(square_episodes(2), tmp_path / "data", CONTRACT)
    arguments = ["--dataset", str(root), "--out", str(tmp_path / "p"), "--steps", "2", "--batch-size", "4"]
    arguments += ["--options", json.dumps(SMALL), "--json", str(tmp_path / "f.json")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "f.json").read_text())["steps"] == 2
    with pytest.raises(SystemExit) as stopped:
        main(["--dataset", str(tmp_path / "none"), "--out", str(tmp_path / "q"), "--steps", "2"])
    assert stopped.value.code == 2


# -- the policy runner on that checkpoint ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"policy": "dance"}, r"policy 'dance' is unknown; .* act, act_small, .*diffusion"),
        ({"options": {"chunk_sise": 8}}, r"policy 'act_small' has no option 'chunk_sise'; did you mean 'chunk_size'\?"),
        ({"options": {"chunk_size": "many"}}, "policy 'act_small' takes no chunk_size = 'many'; give <class 'int'>"),
        ({"batch_size": 0}, "steps and batch_size must be at least 1, got 2 and 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_cure(tmp_path, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        finetune([square_episodes(1)], tmp_path / "out", FinetuneConfig(steps=2, **arguments))
    assert not list(tmp_path.iterdir())


def test_a_policy_whose_first_weights_cannot_be_fetched_says_how_to_do_without(tmp_path, monkeypatch):
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ValueError, match=r"'act' cannot be made .*no network.*\"pretrained_backbone_weights\": null"):
        finetune([square_episodes(1)], tmp_path / "out", FinetuneConfig(steps=2, policy="act"))


def test_every_figure_of_lerobots_training_step_has_a_meter(tmp_path):
    from lerobot.scripts.lerobot_train import update_policy

    written = set(re.findall(r"train_metrics\.(\w+) = ", inspect.getsource(update_policy)))
    data = TrainingData([square_episodes(1)], CONTRACT)
    config = FinetuneConfig(steps=10, batch_size=4, warmup=0, options=SMALL)
    run = _Training(data, CONTRACT, config, tmp_path / "part")
    assert {"loss", "grad_norm", "lr", "update_s"} <= written <= set(run.metrics.metrics)


def test_steps_past_the_end_of_an_episode_do_not_count_in_the_loss(checkpoint):
    import torch

    runner = PolicyRunner(checkpoint[0], CONTRACT)
    data = TrainingData([square_episodes(6)], CONTRACT)
    batch = runner.preprocess(data.batch(np.arange(20), runner.policy.config.action_delta_indices))
    assert 0.1 < batch["action_is_pad"].float().mean() < 0.9
    loss, parts = runner.policy.forward(batch)
    with torch.no_grad():
        error = (runner.policy.predict_action_chunk(batch) - batch["action"]).abs()
    wanted = error[~batch["action_is_pad"]].mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5) and parts == {"l1_loss": loss.item()}


def test_an_option_a_checkpoint_does_not_have_is_refused(checkpoint, tmp_path):
    config = FinetuneConfig(steps=2, init=str(checkpoint[0]), options={"n_action_step": 4})
    with pytest.raises(ValueError, match="has no option 'n_action_step'; did you mean 'n_action_steps'"):
        finetune([square_episodes(1)], tmp_path / "out", config)


def test_options_that_are_no_json_object_are_refused(capsys):
    for text, complaint in (("{a", "{a is no JSON: "), ("[1]", "[1] is no JSON object; write e.g. ")):
        with pytest.raises(SystemExit):
            main(["--dataset", "d", "--out", "o", "--steps", "1", "--options", text])
        assert complaint in capsys.readouterr().err


def test_the_runner_gives_the_first_steps_of_what_lerobots_policy_predicts(checkpoint):
    import torch
    from lerobot.policies.factory import make_pre_post_processors

    from lerobot_policy_act_small import ActSmallPolicy

    observation = square_episode(1).steps[0].observation
    chunk = PolicyRunner(checkpoint[0], CONTRACT, execute_steps=5).act(observation)
    assert chunk.actions.shape == (5, 6) and chunk.stamp_ns == observation.stamp_ns and chunk.dt_s == 0.1
    policy = ActSmallPolicy.from_pretrained(checkpoint[0])
    preprocess, postprocess = make_pre_post_processors(policy.config, pretrained_path=str(checkpoint[0]))
    image = torch.from_numpy(observation.frames["front"].image.copy()).permute(2, 0, 1)[None] / 255
    batch = {"observation.images.front": image, "observation.state": torch.from_numpy(observation.state.copy())[None]}
    wanted = postprocess(policy.predict_action_chunk(preprocess(batch)))[0, :5]
    np.testing.assert_allclose(chunk.actions, wanted, atol=1e-6)


def test_a_checkpoint_of_another_robot_is_refused_with_each_difference(checkpoint):
    other = dataclasses.replace(CONTRACT, cameras=(CameraSpec("front", 128, 128), CameraSpec("wrist")), control_hz=30.0)
    with pytest.raises(ValueError, match="another robot") as refused:
        PolicyRunner(checkpoint[0], other)
    for part in ("10 Hz instead of 30 Hz", "no camera 'wrist'", "96x96 instead of 128x128", "contract.json"):
        assert part in str(refused.value)


def test_a_missing_checkpoint_says_how_to_train_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="lrm finetune"):
        PolicyRunner(tmp_path / "none", CONTRACT)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        PolicyRunner(tmp_path, CONTRACT)


def test_an_output_that_is_not_finite_is_an_error(checkpoint):
    import torch

    runner = PolicyRunner(checkpoint[0], CONTRACT)
    with torch.no_grad():
        runner.policy.model.action_head.bias[0] = float("nan")
    with pytest.raises(ValueError, match="non-finite"):
        runner.act(square_episode(0).steps[0].observation)


def test_an_observation_without_its_camera_or_with_another_size_is_refused(checkpoint):
    runner = PolicyRunner(checkpoint[0], CONTRACT)
    observation = square_episode(0).steps[0].observation
    with pytest.raises(ValueError, match="no image of camera 'front'"):
        runner.act(dataclasses.replace(observation, frames={}))
    small = dataclasses.replace(observation.frames["front"], image=np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"64x48 pixels.*96x96"):
        runner.act(dataclasses.replace(observation, frames={"front": small}))


def test_more_steps_than_the_policy_predicts_are_refused(checkpoint):
    with pytest.raises(ValueError, match="execute_steps is 9"):
        PolicyRunner(checkpoint[0], CONTRACT, execute_steps=9)


def test_the_fake_policy_holds_the_arm_still():
    observation = square_episode(0).steps[3].observation
    actions = FakePolicy(CONTRACT, 4).act(observation).actions
    np.testing.assert_array_equal(actions, np.tile(observation.state, (4, 1)))
