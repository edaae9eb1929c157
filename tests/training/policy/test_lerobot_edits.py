# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's own tools make of our data sets (merged, split, with episodes deleted) trains and is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episodes import square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.config_files import to_dict
from lrm_ros.contract import load_contract
from lrm_ros.record.dataset import load_into_ram, write_dataset
from lrm_ros.record.lerobot_set import open_set
from lrm_ros.training.policy.finetune import main as finetune
from lrm_ros.training.policy.judge import main as judge
from lrm_ros.training.reward.data.command import main as reward_data
from lrm_ros.versions import at_least, video_backend

CONTRACT = RobotContract()
SMALL: dict[str, Any] = {
    "cnn_channels": [8, 8, 8], "dim_model": 8, "n_heads": 2, "dim_feedforward": 8, "chunk_size": 4, "n_action_steps": 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def written(home: Path, storage: str) -> list:
    """Data sets me/a of three and me/b of two episodes, judged and scored."""
    episodes = square_episodes(5, rewards=True)
    for episode, outcome in zip(episodes, (True, False, True, False, True), strict=True):
        object.__setattr__(episode, "outcome", outcome)
    for name, part in (("a", episodes[:3]), ("b", episodes[3:])):
        write_dataset(part, home / "me" / name, CONTRACT, storage=storage, reward_head="completion")
    return episodes


def program(name: str, words: list[str], home: Path) -> str:
    """What one of LeRobot's programs says; it must end well."""
    env = os.environ | {"HF_HOME": str(home), "HF_LEROBOT_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", f"lerobot.scripts.lerobot_{name}", *words]
    done = subprocess.run(command, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def by_program(home: Path) -> None:
    """Merge, split and delete with lerobot-edit-dataset, as a person does."""
    edits = [
        ["--repo_id=me/all", "--new_repo_id=me/all", "--operation.type=merge", "--operation.repo_ids=['me/a','me/b']"],
        ["--repo_id=me/all", "--operation.type=split", '--operation.splits={"first": [0, 3], "rest": [1, 2, 4]}'],
        ["--repo_id=me/all", "--new_repo_id=me/less", "--operation.type=delete_episodes",
         "--operation.episode_indices=[0, 2]"],
    ]  # fmt: skip
    for words in edits:
        program("edit_dataset", words, home)
    for name in ("first", "rest"):
        (home / f"me/all_{name}").rename(home / f"me/{name}")


def by_functions(home: Path) -> None:
    """The same by the functions behind it."""
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, split_dataset
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    def opened(name: str) -> Any:
        return LeRobotDataset(f"me/{name}", root=home / "me" / name, video_backend="pyav")

    merge_datasets([opened("a"), opened("b")], "me/all", output_dir=home / "me/all")
    split_dataset(opened("all"), {"first": [0, 3], "rest": [1, 2, 4]}, output_dir=home / "parts")
    delete_episodes(opened("all"), [0, 2], output_dir=home / "me/less", repo_id="me/less")
    parts = {path.name.rpartition("_")[2]: path for path in (home / "parts").iterdir()}
    for name in ("first", "rest"):
        parts[name].rename(home / "me" / name)


@pytest.mark.parametrize(("edit", "storage", "loose"), [(by_program, "video", 8.0), (by_functions, "image", 0.0)])
def test_merged_split_and_shortened_data_sets_have_every_row_image_wish_and_outcome(tmp_path, edit, storage, loose):
    home = tmp_path / "home"
    episodes = written(home, storage)
    edit(home)
    for name, wanted in {"all": range(5), "first": (0, 3), "rest": (1, 2, 4), "less": (1, 3, 4)}.items():
        root = home / "me" / name
        found = open_set(root)
        assert found.has_wish and not found.contract.has_limits and not (root / "episodes.json").exists(), name
        back = load_into_ram(root)
        assert [episode.outcome for episode in back] == [episodes[index].outcome for index in wanted], name
        for episode, index in zip(back, wanted, strict=True):
            for got, step in zip(episode.steps, episodes[index].steps, strict=True):
                np.testing.assert_array_equal(got.observation.state, step.observation.state, err_msg=name)
                np.testing.assert_array_equal(got.action, step.action)
                np.testing.assert_array_equal(got.wish, step.wish)
                one, other = (s.observation.frames["front"].image.astype(float) for s in (got, step))
                assert np.abs(one - other).mean() <= loose, (name, index)
    trains_and_is_judged(home / "me/less", tmp_path)


def trains_and_is_judged(root: Path, folder: Path) -> None:
    """By the command line: in unknown units, and in rad with the robot's contract, on the wish."""
    words = ["--dataset", str(root), "--steps", "2", "--batch-size", "4", "--options", json.dumps(SMALL)]
    assert finetune([*words, "--out", str(folder / "unknown")]) == 0
    assert not load_contract(folder / "unknown").has_limits
    robot = folder / "robot.json"
    robot.write_text(json.dumps(to_dict(CONTRACT)))  # as a contract.json is
    assert finetune([*words, "--out", str(folder / "known"), "--contract", str(robot), "--label", "wish"]) == 0
    assert load_contract(folder / "known") == CONTRACT
    out = folder / "judge.json"
    assert judge([str(root), "--model", "fake", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["n"] == 3
    assert reward_data(["--lerobot", str(root), "--out", str(folder / "keyframes")]) == 0
    assert json.loads((folder / "keyframes/manifest.json").read_text())["counts"]["less"]["episodes"] == 3


def test_lerobot_trains_on_our_data_set(tmp_path):
    home = tmp_path / "home"
    written(home, "video")
    said = program(
        "train",
        [
            "--dataset.repo_id=me/a", f"--dataset.root={home / 'me/a'}", f"--dataset.video_backend={video_backend()}",
            "--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false", "--policy.dim_model=16",
            "--policy.pretrained_backbone_weights=null", "--policy.n_heads=2", "--policy.dim_feedforward=16",
            "--policy.chunk_size=4", "--policy.n_action_steps=4", "--policy.n_encoder_layers=1",
            "--policy.use_vae=false", "--steps=1", "--batch_size=1", "--num_workers=0", "--save_freq=1",
            "--wandb.enable=false", f"--output_dir={tmp_path / 'train'}",
        ],
        home,
    )  # fmt: skip
    assert "dataset.num_episodes=3" in said
    config = json.loads((tmp_path / "train/checkpoints/000001/pretrained_model/config.json").read_text())
    assert sorted(config["input_features"]) == ["observation.images.front", "observation.state"]
    assert list(config["output_features"]) == ["action"]


def test_lerobots_default_reader_reads_our_videos(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    episodes = square_episodes(2)
    root = write_dataset(episodes, tmp_path / "ours", CONTRACT, storage="video")
    options = {} if at_least("lerobot", 0, 6) else {"video_backend": video_backend()}  # 0.4: not without FFmpeg
    dataset = LeRobotDataset("me/ours", root=root, **options)
    image = (dataset[3]["observation.images.front"] * 255).permute(1, 2, 0).numpy()
    assert np.abs(image - episodes[0].steps[3].observation.frames["front"].image).mean() < 8


def test_lerobot_shows_our_data_set(tmp_path):
    pytest.importorskip("rerun", reason="LeRobot's dataset-viz needs its extra viz")
    home = tmp_path / "home"
    written(home, "image")
    words = ["--repo-id=me/a", f"--root={home / 'me/a'}", "--episode-index=1", "--save=1", "--num-workers=0"]
    program("dataset_viz", [*words, f"--output-dir={tmp_path / 'shown'}", "--mode=local"], home)
    assert [path.suffix for path in (tmp_path / "shown").iterdir()] == [".rrd"]


def test_a_data_set_whose_tasks_lerobot_changed_where_it_lies_says_how_to_go_on(tmp_path):
    from lerobot.datasets.dataset_tools import modify_tasks
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = write_dataset(square_episodes(2), tmp_path / "ours", CONTRACT)
    modify_tasks(LeRobotDataset("me/ours", root=root, video_backend="pyav"), new_task="put it away")
    with pytest.raises(ValueError, match=r"checksums\.json' if it was changed on purpose"):
        load_into_ram(root)
    (root / "checksums.json").unlink()
    assert [episode.task for episode in load_into_ram(root)] == ["put it away"] * 2
    assert open_set(root).contract == CONTRACT
