# SPDX-License-Identifier: Apache-2.0
"""Episodes -> LeRobotDataset v3 -> episodes, read back by LeRobot itself as well."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from episodes import square_episode, square_episodes  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.dataset import is_complete, load_into_ram, write_dataset
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.types import Reward, Unscored
from lrm_ros.versions import dataset_to_policy_features

CONTRACT = RobotContract()


def lerobot(root, **arguments):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/squares", root=root, video_backend="pyav", **arguments)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_lerobot_loads_the_data_set_and_finds_what_was_sent_as_action(tmp_path):
    episodes = square_episodes(3)
    root = write_dataset(episodes, tmp_path / "squares", CONTRACT)
    dataset = lerobot(root)
    assert dataset.num_episodes == 3 and dataset.num_frames == sum(len(e.steps) for e in episodes)
    flat = [step for episode in episodes for step in episode.steps]
    for index in (0, 11, len(flat) - 1):
        item = dataset[index]
        np.testing.assert_array_equal(item["action"], flat[index].action)
        np.testing.assert_array_equal(item["wish"], flat[index].wish)
        np.testing.assert_array_equal(item["observation.state"], flat[index].observation.state)
        image = (item["observation.images.front"].permute(1, 2, 0) * 255).round().byte().numpy()
        np.testing.assert_array_equal(image, flat[index].observation.frames["front"].image)
        assert item["task"] == "put the square"


def test_a_policy_made_for_the_data_set_predicts_action_only(tmp_path):
    from lerobot.configs.types import FeatureType

    features = dataset_to_policy_features(lerobot(write_dataset(square_episodes(1), tmp_path / "d", CONTRACT)).features)
    assert [key for key, ft in features.items() if ft.type is FeatureType.ACTION] == ["action"]
    assert sorted(features) == ["action", "observation.images.front", "observation.state"]


def test_images_come_back_into_ram_exactly(tmp_path):
    episodes = square_episodes(3)
    back = load_into_ram(write_dataset(episodes, tmp_path / "squares", CONTRACT))
    assert [e.episode_id for e in back] == [e.episode_id for e in episodes]
    assert [(e.source, e.outcome, e.task, e.fps) for e in back] == [("expert", None, "put the square", 10.0)] * 3
    for a, b in zip(episodes, back, strict=True):
        for x, y in zip(a.steps, b.steps, strict=True):
            np.testing.assert_array_equal(x.observation.frames["front"].image, y.observation.frames["front"].image)
            np.testing.assert_array_equal(x.action, y.action)
            np.testing.assert_array_equal(x.wish, y.wish)
            assert x.observation.stamp_ns == y.observation.stamp_ns


def test_video_frames_come_back_in_order_and_nearly_equal(tmp_path):
    episodes = square_episodes(3)
    root = write_dataset(episodes, tmp_path / "squares", CONTRACT, storage="video")
    dataset, back = lerobot(root), load_into_ram(root)
    images = [step.observation.frames["front"].image for episode in back for step in episode.steps]
    assert len(images) == dataset.num_frames
    for index in (0, 11, 25):
        decoded = (dataset[index]["observation.images.front"].permute(1, 2, 0) * 255).round()
        assert (decoded - torch.from_numpy(images[index].astype(np.float32))).abs().mean() < 2


def test_videos_of_two_cameras_are_written_without_forking_a_process_with_threads(tmp_path, monkeypatch):
    contract = dataclasses.replace(CONTRACT, cameras=(*CONTRACT.cameras, CameraSpec("wrist")))
    episode = square_episode(0)
    for step in episode.steps:
        step.observation.frames["wrist"] = dataclasses.replace(step.observation.frames["front"], camera="wrist")
    monkeypatch.setattr("os.fork", lambda: pytest.fail("a fork"))
    back = load_into_ram(write_dataset([episode], tmp_path / "d", contract, storage="video"))
    assert {name for step in back[0].steps for name in step.observation.frames} == {"front", "wrist"}


def test_rewards_and_success_are_columns_where_they_are_known(tmp_path):
    episodes = [dataclasses.replace(e, outcome=i == 0) for i, e in enumerate(square_episodes(2, rewards=True))]
    dataset = lerobot(write_dataset(episodes, tmp_path / "d", CONTRACT, reward_head="completion"))
    first = len(episodes[0].steps)
    assert dataset[0]["next.reward"].item() == pytest.approx(1 / first)
    success = [bool(dataset[i]["next.success"]) for i in range(dataset.num_frames)]
    assert success == [i == first - 1 for i in range(dataset.num_frames)]


def test_an_unscored_step_is_an_error_not_a_zero(tmp_path):
    with pytest.raises(ValueError, match=r"square_0.*no answer of head 'completion'"):
        write_dataset(square_episodes(1), tmp_path / "d", CONTRACT, reward_head="completion")
    assert not (tmp_path / "d").exists()


def test_the_last_reward_is_about_the_final_frame_or_unscored_and_never_an_old_one(tmp_path):
    episodes = square_episodes(3, rewards=True)
    steps = len(episodes[0].steps)
    frame = dataclasses.replace(episodes[0].steps[-1].observation.frames["front"], stamp_ns=(steps + 1) * 10**8)
    seen = dataclasses.replace(episodes[0].steps[-1].observation, frames={"front": frame})
    answers = [
        Reward(frame.stamp_ns, "completion", 0.9),
        Reward(frame.stamp_ns - 10**8, "completion", 0.8),
        Unscored(frame.stamp_ns, "completion", "time-out"),
    ]
    for name, answer in zip(("fresh", "old", "unscored"), answers, strict=True):
        episode = dataclasses.replace(episodes[0], final=seen, final_rewards={"completion": answer})
        root = write_dataset([episode], tmp_path / name, CONTRACT, reward_head="completion")
        dataset = lerobot(root)
        rewards = [dataset[i]["next.reward"].item() for i in range(steps)]
        assert rewards[:-1] == pytest.approx([k / steps for k in range(1, steps)])
        assert rewards[-1] == pytest.approx(0.9) if name == "fresh" else np.isnan(rewards[-1])
        stats = json.loads((root / "meta/stats.json").read_text())["next.reward"]
        scored = np.asarray([reward for reward in rewards if np.isfinite(reward)])
        assert stats["mean"] == pytest.approx([scored.mean()], rel=1e-5) and stats["count"] == [len(scored)]
        assert all(np.isfinite(value).all() for value in stats.values())


def test_a_step_without_an_image_names_episode_step_and_cure(tmp_path):
    with pytest.raises(ValueError, match=r"square_0.*step 1 has no image.*frame_every=1"):
        write_dataset([square_episode(0, frame_every=4)], tmp_path / "d", CONTRACT)


def test_an_existing_data_set_is_never_extended(tmp_path):
    root = write_dataset(square_episodes(1), tmp_path / "d", CONTRACT)
    with pytest.raises(FileExistsError, match="never extended"):
        write_dataset(square_episodes(1), root, CONTRACT)


def test_after_a_kill_nothing_stands_under_the_final_name_and_writing_again_works(tmp_path):
    root = tmp_path / "d"
    code = (
        "import os, signal, sys; sys.path[:0] = ['tests', '.']\n"
        "from episodes import square_episodes\n"
        "from lrm_ros.config import RobotContract\n"
        "from lrm_ros.record.dataset import write_dataset\n"
        f"write_dataset(square_episodes(3), {str(root)!r}, RobotContract(),\n"
        "              progress=lambda n: n == 2 and os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"}).returncode == -9
    assert not root.exists() and root.with_name("d.writing").exists() and not is_complete(root)
    with pytest.raises(FileNotFoundError, match="interrupted"):
        load_into_ram(root)
    write_dataset(square_episodes(3), root, CONTRACT)
    assert len(load_into_ram(root)) == 3 and not root.with_name("d.writing").exists()


def test_batches_equal_lerobots_items_with_delta_timestamps(tmp_path):
    episodes = square_episodes(3)
    root = write_dataset(episodes, tmp_path / "squares", CONTRACT)
    chunk = list(range(6))
    dataset = lerobot(root, delta_timestamps={"action": [k / 10 for k in chunk]})
    data = TrainingData([load_into_ram(root)], CONTRACT)
    assert len(data.inputs) == len(dataset)
    picked = np.array([0, 5, 8, 9, 10, 20, len(dataset) - 1])
    batch = data.batch(picked, chunk)
    wanted = torch.utils.data.default_collate([dataset[int(i)] for i in picked])
    for key in ("observation.images.front", "observation.state", "action", "action_is_pad"):
        torch.testing.assert_close(batch[key], wanted[key], rtol=0, atol=1e-7)


def test_statistics_equal_those_of_the_data_set_and_of_the_pixels(tmp_path):
    root = write_dataset(square_episodes(4), tmp_path / "squares", CONTRACT)
    stats, data = lerobot(root).meta.stats, TrainingData([load_into_ram(root)], CONTRACT)
    mine = data.statistics()
    for key in ("action", "observation.state", "observation.images.front"):
        np.testing.assert_allclose(mine[key]["mean"], stats[key]["mean"], atol=1e-3)
        floor = 0 if "images" in key else 0.01
        np.testing.assert_allclose(mine[key]["std"], np.maximum(stats[key]["std"], floor), atol=3e-3)
        assert np.shape(mine[key]["std"]) == np.shape(stats[key]["std"])
    pixels = data.images["front"].reshape(-1, 3) / 255
    np.testing.assert_allclose(np.ravel(stats["observation.images.front"]["std"]), pixels.std(axis=0), atol=1e-6)
