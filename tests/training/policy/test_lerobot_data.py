# SPDX-License-Identifier: Apache-2.0
"""Training on data sets that LeRobot wrote: in memory and read while it trains, in their units and in rad."""

import json
from pathlib import Path
from typing import Any

import lerobot_made as made  # type: ignore[import-not-found]
import numpy as np
import pytest
import yaml

from lrm_ros.config import FinetuneConfig, RobotContract
from lrm_ros.config_files import load_yaml, to_dict
from lrm_ros.contract import load_contract
from lrm_ros.policy import PolicyRunner
from lrm_ros.record.dataset import load_into_ram, write_dataset
from lrm_ros.training.policy.datasets import training_data
from lrm_ros.training.policy.finetune import finetune, main
from lrm_ros.training.policy.stream import StreamedData
from lrm_ros.types import Episode, Observation, Step

SMALL: dict[str, Any] = {
    "cnn_channels": [8, 8, 8], "dim_model": 8, "n_heads": 2, "dim_feedforward": 8, "chunk_size": 4,
    "n_action_steps": 4, "n_encoder_layers": 1, "dropout": 0.1,
}  # fmt: skip
TRAINING = FinetuneConfig(steps=8, batch_size=4, lr=3e-3, warmup=1, colour=0.5, checkpoint_every=3, options=SMALL)
LIMITS = {"lower": [-2.0] * 5 + [-0.2], "upper": [2.0] * 5 + [1.8], "max_step": [0.1] * 6}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cups(tmp_path_factory) -> Path:
    return made.write_v3(tmp_path_factory.mktemp("sets") / "cups")


@pytest.fixture(scope="module")
def policy(tmp_path_factory, cups) -> Path:
    out = tmp_path_factory.mktemp("policy") / "cups"
    finetune([cups], out, TRAINING)
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> None:
    """The same losses, weights and statistics to the bit."""
    losses = [json.loads((folder / "finetune.json").read_text())["losses"] for folder in (one, other)]
    assert losses[0] == losses[1]
    found = weights(other)
    for name, value in weights(one).items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    for path in one.glob("policy_*.safetensors"):
        assert path.read_bytes() == (other / path.name).read_bytes()


def robot_file(folder: Path, arm: bool = True) -> Path:
    """The contract of the robot that the data sets are of, with its units in LeRobot."""
    cameras = [{"name": name, "width": 64, "height": 48} for name in made.CAMERAS]
    content = {"name": "so101", "joints": list(made.JOINTS), **LIMITS, "cameras": cameras, "control_hz": 30.0}
    if arm:
        joints: list[dict[str, Any]] = [{"name": name, "units": "degrees"} for name in made.JOINTS[:5]]
        joints.append({"name": "gripper", "units": "range_0_100", "lower": -0.2, "upper": 1.8})
        content["arm"] = {"joints": joints, "max_velocity": [1.0] * 6, "max_acceleration": [8.0] * 6}
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# ---- in -------------------------------------------------------------------------------------------------------------


def test_two_cameras_of_640x480_train_from_the_command_line_and_what_is_unknown_is_said(tmp_path, capsys):
    root = made.write_v3(tmp_path / "cups", size=(480, 640))
    words = ["--dataset", str(root), "--out", str(tmp_path / "p"), "--steps", "2", "--batch-size", "2"]
    assert main([*words, "--options", json.dumps(SMALL), "--json", str(tmp_path / "f.json")]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["episodes"] == 3 and figures["inputs"] == sum(made.LENGTHS)
    said = capsys.readouterr().err
    assert f"{root}: nobody said which episodes succeeded: all are taken as demonstrations" in said
    assert f"{root}: limits and units are unknown" in said and "config/so101.yaml" in said
    contract = load_contract(tmp_path / "p")
    assert not contract.has_limits and [camera.width for camera in contract.cameras] == [640, 640]
    shipped = Path(__file__).parents[3] / "config/so101.yaml"
    data = training_data([root], "action", contract_file=shipped)
    assert data.contract == load_yaml(shipped, RobotContract, ("arm",))
    np.testing.assert_allclose(data.states[1, :2], np.radians([1.0, -20.0]), rtol=1e-6)


def test_version_2_1_trains_to_nearly_the_same_losses(tmp_path, policy):
    figures = finetune([made.write_v21(tmp_path / "old")], tmp_path / "p", TRAINING)
    losses = json.loads((policy / "finetune.json").read_text())["losses"]
    np.testing.assert_allclose(figures["losses"], losses, rtol=0.05)  # the same episodes, encoded otherwise


def test_the_policy_acts_where_it_was_made_and_is_refused_for_an_arm(policy, cups, tmp_path):
    step = load_into_ram(cups)[0].steps[0]
    chunk = PolicyRunner(policy, load_contract(policy)).act(step.observation)
    assert chunk.actions.shape == (4, 6) and np.isfinite(chunk.actions).all()
    path = robot_file(tmp_path)
    content = yaml.safe_load(path.read_text())
    del content["arm"]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"no limits and units.*--contract FILE.*config/so101\.yaml") as refused:
        PolicyRunner(policy, load_yaml(tmp_path / "plain.yaml", RobotContract))
    assert "\n" not in str(refused.value)


def test_a_data_set_that_says_success_is_read_with_it(tmp_path):
    flag = {"next.success": {"dtype": "bool", "shape": (1,), "names": None}}
    episodes = load_into_ram(made.write_v3(tmp_path / "judged", storage="image", more=flag))
    assert [episode.outcome for episode in episodes] == [False] * 3


def test_the_wish_is_no_label_where_there_is_none(cups, tmp_path):
    with pytest.raises(ValueError, match=r"has no column 'wish'.*--label action"):
        training_data([cups], "wish")


# ---- limits and units -----------------------------------------------------------------------------------------------


def test_with_the_robots_contract_numbers_become_rad_and_the_policy_fits_the_arm(cups, tmp_path):
    path = robot_file(tmp_path)
    finetune([cups], tmp_path / "p", TRAINING, contract_file=path)
    contract = load_contract(tmp_path / "p")
    assert contract.has_limits and contract.upper == tuple(LIMITS["upper"])
    data = training_data([cups], "action", contract_file=path)
    state, _ = made.numbers(1, 2)
    np.testing.assert_allclose(data.states[made.LENGTHS[0] + 2, :5], np.radians(state[:5]), rtol=1e-6)
    assert data.states[0, 5] == pytest.approx(0.8)  # half open
    runner = PolicyRunner(tmp_path / "p", contract)
    assert runner.execute_steps == 4


def test_units_that_nobody_said_are_asked_for(cups, tmp_path):
    path = robot_file(tmp_path, arm=False)
    with pytest.raises(ValueError, match=r"has no section 'arm'.*config/so101\.yaml.*--units rad"):
        training_data([cups], "action", contract_file=path)
    with pytest.raises(ValueError, match=r"does the driver publish degrees\?"):
        training_data([cups], "action", contract_file=path, units="rad")
    with pytest.raises(ValueError, match=r"--units rad.*give --contract FILE"):
        training_data([cups], "action", units="rad")


def test_data_sets_with_and_without_units_are_not_mixed(cups, tmp_path):
    steps = load_into_ram(cups)[0].steps
    contract = training_data([cups], "action", contract_file=robot_file(tmp_path)).contract
    at_rest = np.zeros(6, np.float32)
    still = [
        Step(Observation(s.observation.stamp_ns, s.observation.frames, at_rest, "t"), at_rest, at_rest) for s in steps
    ]
    ours = write_dataset([Episode("e", "t", still, 30.0)], tmp_path / "ours", contract)
    with pytest.raises(ValueError, match="was made for another robot: limits and rad instead of unknown units"):
        training_data([cups, ours], "action")


# ---- read while it trains -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("storage", "workers"), [("video", 0), ("image", 1)])
def test_images_read_while_it_trains_give_the_same_policy_as_in_memory(tmp_path, storage, workers):
    root = made.write_v3(tmp_path / "cups", storage)
    finetune([root], tmp_path / "memory", TRAINING)
    said: list[str] = []
    finetune([root], tmp_path / "stream", TRAINING, memory_share=0.0, workers=workers, say=said.append)
    assert any("are read while it trains" in line for line in said)
    same(tmp_path / "memory", tmp_path / "stream")
    settings = json.loads((tmp_path / "stream/finetune.json").read_text())["settings"]
    assert str(settings["data"]).startswith("streamed ")


def test_a_policy_that_looks_back_reads_the_images_of_both_steps(cups, tmp_path):
    options = {
        "n_obs_steps": 2, "horizon": 16, "n_action_steps": 8, "down_dims": [16, 32], "diffusion_step_embed_dim": 16,
        "spatial_softmax_num_keypoints": 4, "resize_shape": [32, 32], "num_train_timesteps": 20, "device": "cpu",
        "pretrained_backbone_weights": None, "use_group_norm": True,
    }  # fmt: skip
    config = FinetuneConfig(policy="diffusion", steps=2, batch_size=4, warmup=1, colour=0.5, options=options)
    finetune([cups], tmp_path / "memory", config)
    finetune([cups], tmp_path / "stream", config, memory_share=0.0, workers=0)
    same(tmp_path / "memory", tmp_path / "stream")


def test_a_killed_training_goes_on_reading_and_ends_with_the_same_policy(cups, policy, tmp_path):
    class Killed(Exception):
        pass

    def kill(step, steps, loss):
        if step == 5:
            raise Killed

    out = tmp_path / "cut"
    with pytest.raises(Killed):
        finetune([cups], out, TRAINING, progress=kill, memory_share=0.0, workers=0)
    figures = finetune([cups], out, TRAINING, workers=0)  # there is memory now; it goes on as it began
    assert figures["resumed_at"] == 3
    same(policy, out)
    assert finetune([cups], out, TRAINING)["losses"] == figures["losses"]


def test_version_2_1_is_converted_beside_the_training_and_stays_as_it_is(tmp_path):
    root = made.write_v21(tmp_path / "old")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    finetune([root], tmp_path / "memory", TRAINING)
    finetune([root], tmp_path / "stream", TRAINING, memory_share=0.0, workers=0)
    same(tmp_path / "memory", tmp_path / "stream")
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "memory", "old", "stream"]


def test_shares_of_data_sets_hold_while_reading(cups, tmp_path):
    other = made.write_v3(tmp_path / "other", storage="image")
    data = training_data([cups, other], "action", memory_share=0.0, workers=0)
    assert isinstance(data, StreamedData)
    batch = next(data.batches(0, range(1), 4, (0.0, 1.0), [0, 1]))
    wanted = training_data([cups, other], "action")
    same_batch = next(wanted.batches(0, range(1), 4, (0.0, 1.0), [0, 1]))
    assert list(batch) == list(same_batch)
    for key in batch:
        if key != "task":
            np.testing.assert_array_equal(batch[key], same_batch[key], err_msg=key)
    assert batch["task"] == same_batch["task"]


# ---- names ----------------------------------------------------------------------------------------------------------


def test_a_name_on_the_hub_is_lerobots_own_copy_or_one_line(cups, tmp_path, monkeypatch):
    import lerobot.datasets.lerobot_dataset as module

    asked = []

    class Copy:
        """LeRobot's loader, which finds a copy in its cache."""

        def __init__(self, repo_id: str, **options: Any) -> None:
            asked.append(repo_id)
            self.root = cups

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "LeRobotDataset", Copy)
        assert training_data(["someone/cups"], "action").episodes == 3
    assert asked == ["someone/cups"]
    monkeypatch.setattr("lerobot.datasets.lerobot_dataset.HF_LEROBOT_HOME", tmp_path / "home", raising=False)
    with pytest.raises(
        ValueError, match=r"'someone/cups' is no folder here, and cannot be fetched.*network"
    ) as refused:
        training_data(["someone/cups"], "action")
    assert "\n" not in str(refused.value)
    with pytest.raises(FileNotFoundError, match=r"'a/b/c' does not exist; give a folder"):
        training_data(["a/b/c"], "action")


def test_the_contract_of_a_checkpoint_without_limits_is_one_file_like_any(policy):
    content = json.loads((policy / "contract.json").read_text())
    assert content == to_dict(load_contract(policy)) and content["lower"] == []
