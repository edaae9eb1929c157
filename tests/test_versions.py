# SPDX-License-Identifier: Apache-2.0
"""What one version of a library writes, another reads: data sets, policies and interrupted trainings of LeRobot."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot_files import (
    CONTRACT,  # type: ignore[import-not-found]
    FOLDER,
    KILLED_AFTER,
    TRAINING,
    actions,
    episodes,
    interrupted,
)

from lrm_ros import versions
from lrm_ros.config import FinetuneConfig
from lrm_ros.record.dataset import load_into_ram
from lrm_ros.training.policy.finetune import finetune
from lrm_ros.training.reward.data.sources.lerobot import read_lerobot


@pytest.fixture(params=["0.4.4", "0.6.1"])
def written(request) -> Path:
    """Files of one LeRobot; of another than the installed one for at least one of the two."""
    return FOLDER / request.param


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(versions.metadata, "version", {"some": "0.10.2.post1"}.__getitem__)
    assert versions.at_least("some", 0, 9) and versions.at_least("some", 0, 10) and versions.at_least("some", 0)
    assert not versions.at_least("some", 0, 11) and not versions.at_least("some", 1)


# ---- LeRobot -------------------------------------------------------------------------------------------------------


def test_a_policy_does_the_same_under_every_lerobot(written):
    wanted = np.load(written / "actions.npy")
    assert wanted.shape == (15, 3, 6) and np.ptp(wanted) > 0.1
    np.testing.assert_allclose(actions(written / "policy"), wanted, atol=1e-5, rtol=0)


def test_an_interrupted_training_of_another_lerobot_goes_on_as_if_nothing_had_happened(written, tmp_path):
    whole = json.loads((written / "policy/finetune.json").read_text())
    shutil.copytree(written / "cut.part", tmp_path / "cut.part")
    resumed = finetune([episodes()], tmp_path / "cut", TRAINING, CONTRACT)
    assert resumed["resumed_at"] == KILLED_AFTER
    np.testing.assert_allclose(resumed["losses"], whole["losses"], rtol=1e-4)
    np.testing.assert_allclose(actions(tmp_path / "cut"), np.load(written / "actions.npy"), atol=1e-4)


def test_training_goes_the_same_way_under_every_lerobot_and_ends_the_same_after_a_kill(written, tmp_path):
    """The loss is the one thing that LeRobot changed: 0.4 counts the steps after an episode's end as right."""
    there = json.loads((written / "policy/finetune.json").read_text())["losses"]
    here = finetune([episodes()], tmp_path / "whole", TRAINING, CONTRACT)["losses"]
    np.testing.assert_allclose(here, there, rtol=1e-4)
    interrupted(tmp_path / "cut")
    assert finetune([episodes()], tmp_path / "cut", TRAINING, CONTRACT)["losses"] == here
    whole, cut = (tmp_path / name / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_training_from_a_policy_and_a_data_set_of_another_lerobot(written, tmp_path):
    config = FinetuneConfig(steps=2, init=str(written / "policy"), batch_size=4)
    figures = finetune([written / "image"], tmp_path / "more", config)
    again = finetune([written / "video"], tmp_path / "again", config)
    np.testing.assert_allclose(figures["losses"], again["losses"], rtol=0.1)
    assert actions(tmp_path / "more").shape == (15, 3, 6)


@pytest.mark.parametrize("storage", ["image", "video"])
def test_a_data_set_is_the_same_under_every_lerobot(written, storage, caplog):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    theirs = LeRobotDataset("local/small", root=written / storage, video_backend="pyav")
    flat = [(episode, step) for episode in episodes() for step in episode.steps]
    assert (theirs.num_episodes, len(theirs)) == (3, 15) and not caplog.records
    loose = 0 if storage == "image" else 60  # levels of 255; a small red square in h264
    for index, (episode, step) in enumerate(flat):
        item = theirs[index]
        np.testing.assert_array_equal(item["action"], step.action)
        np.testing.assert_array_equal(item["observation.state"], step.observation.state)
        image = (item["observation.images.front"].permute(1, 2, 0) * 255).round().numpy()
        assert np.abs(image - step.observation.frames["front"].image).max() <= loose
        assert item["task"] == episode.task
        if storage == "image":
            assert item["next.reward"].item() == step_reward(episode, step)
    back = load_into_ram(written / storage)
    for ours, episode in zip(episodes(), back, strict=True):
        assert (episode.task, episode.outcome, episode.episode_id) == (ours.task, ours.outcome, ours.episode_id)
        for one, other in zip(ours.steps, episode.steps, strict=True):
            np.testing.assert_array_equal(one.wish, other.wish)
            difference = one.observation.frames["front"].image.astype(int) - other.observation.frames["front"].image
            assert np.abs(difference).max() <= loose
    assert [(e.open().task, e.open().success) for e in read_lerobot(written / storage)] == [
        (e.task, e.outcome) for e in episodes()
    ]


def step_reward(episode, step) -> float:
    """The answer that a row holds: that of the frame after the step."""
    place = next(index for index, one in enumerate(episode.steps) if one is step)
    return episode.steps[min(place + 1, len(episode.steps) - 1)].rewards["completion"].value


def test_image_statistics_are_the_same_under_every_lerobot():
    of = [json.loads((FOLDER / name / "image/meta/stats.json").read_text()) for name in ("0.4.4", "0.6.1")]
    pixels = np.concatenate([s.observation.frames["front"].image.reshape(-1, 3) for e in episodes() for s in e.steps])
    for stats in of:
        std = np.ravel(stats["observation.images.front"]["std"])
        np.testing.assert_allclose(std, (pixels / 255).std(axis=0), atol=1e-6)
    for key in ("action", "observation.state", "observation.images.front"):
        for name in of[0][key]:
            np.testing.assert_allclose(of[0][key][name], of[1][key][name], atol=1e-6, err_msg=f"{key} {name}")


def test_a_field_that_this_lerobot_does_not_know_is_left_out_only_where_it_changes_nothing(
    written, tmp_path, monkeypatch
):
    shutil.copytree(written / "policy", tmp_path / "policy")
    path = tmp_path / "policy/config.json"
    known = json.loads(path.read_text())

    def config(**more):
        path.write_text(json.dumps(known | more))
        return versions.load_policy_config(tmp_path / "policy")

    plain = config()
    monkeypatch.setitem(versions.ADDED_FIELDS, "remembers", None)
    monkeypatch.setitem(versions.ADDED_FIELDS, "mirrors", (False,))
    assert config(remembers="all", mirrors=False) == plain
    with pytest.raises(ValueError, match=r"config\.json' sets mirrors = True, which this LeRobot does not know; inst"):
        config(mirrors=True)
    with pytest.raises(ValueError, match="sets dances = None"):
        config(dances=None)
    with pytest.raises(ValueError, match="a policy of type 'dance', which this LeRobot does not have; install the LeR"):
        config(type="dance")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json' is not JSON"):
        versions.load_policy_config(tmp_path / "policy")


def test_a_checkpoints_backbone_is_not_fetched_first(written, tmp_path):
    config = json.loads((written / "policy/config.json").read_text())
    config["pretrained_backbone_weights"] = "ResNet18_Weights.IMAGENET1K_V1"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert versions.load_policy_config(tmp_path).pretrained_backbone_weights is None


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"vision_backbone": "vgg16"}, "Got vgg16"),
        ({"n_action_steps": 200, "chunk_size": 100}, "Got 200"),
        ({"n_obs_steps": "x"}, "n_obs_steps"),
    ],
)
def test_an_option_that_the_policys_class_refuses_is_named_with_its_reason(tmp_path, option, reason):
    import lerobot.policies.act.configuration_act  # noqa: F401

    (tmp_path / "config.json").write_text(json.dumps({"type": "act", **option}))
    with pytest.raises(ValueError, match=reason) as refused:
        versions.load_policy_config(tmp_path)
    assert "\n" not in str(refused.value) and "config.json" in str(refused.value)
