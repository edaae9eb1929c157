# SPDX-License-Identifier: Apache-2.0
"""Data sets in LeRobot's convention: they merge with what lerobot-record writes, and come back in rad."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from lerobot_made import FPS, JOINTS, NAMES, write_v3  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.config_arm import SECTIONS, load_arm
from lrm_ros.config_files import load_yaml, to_dict
from lrm_ros.record.dataset import load_into_ram, write_dataset
from lrm_ros.record.lerobot_set import open_set
from lrm_ros.training.policy.dataset import main, read_convention
from lrm_ros.training.policy.datasets import training_data
from lrm_ros.types import Episode, Frame, Observation, Reward, Step
from lrm_ros.versions import at_least

FILE = Path(__file__).parents[2] / "config" / "so101.yaml"
SO101 = load_yaml(FILE, RobotContract, SECTIONS)
SMALL = dataclasses.replace(SO101, cameras=(CameraSpec("front", 64, 48), CameraSpec("wrist", 64, 48)))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def episode(index: int, length: int = 9) -> Episode:
    """The arm moves a little; the action is not quite the wish."""
    steps = []
    for k in range(length):
        ns = round((k + 1) * 1e9 / FPS)
        frames = {name: Frame(ns, name, np.full((48, 64, 3), 50 + 9 * k, np.uint8)) for name in ("front", "wrist")}
        state = np.array([0.1 * index, -0.5, 0.6, 0.02 * k, 0.0, 0.8], np.float32)
        reward = {"progress": Reward(ns, "progress", k / 10)}
        wish = state + np.float32(0.03)
        steps.append(Step(Observation(ns, frames, state, "put it there"), state + np.float32(0.02), wish, reward))
    return Episode(f"e{index}", "put it there", steps, float(FPS), True, "teleop")


def as_recorded(storage: str, size: tuple[int, int], names=NAMES) -> dict:
    """LeRobot's own description of an SO-101 with two cameras, as lerobot-record makes it."""
    if at_least("lerobot", 0, 6):
        from lerobot.utils.feature_utils import hw_to_dataset_features
    else:
        from lerobot.datasets.utils import hw_to_dataset_features
    joints: dict = dict.fromkeys(names, float)
    cameras = dict.fromkeys(("front", "wrist"), (*size, 3))
    video = storage == "video"
    return hw_to_dataset_features(joints, "action", video) | hw_to_dataset_features(
        joints | cameras, "observation", video
    )


def columns(root: Path) -> dict[str, np.ndarray]:
    (file,) = (root / "data").rglob("*.parquet")
    table = parquet.read_table(file)
    return {name: np.array(table[name].to_pylist()) for name in table.column_names if "images" not in name}


def test_it_has_lerobots_names_units_and_columns_and_comes_back_in_rad(tmp_path):
    root = tmp_path / "set"
    write_dataset([episode(1), episode(2)], root, SMALL, "image", convention=read_convention(FILE, False))
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["robot_type"], info["fps"]) == ("so101_follower", 30)
    wanted = json.loads(json.dumps(as_recorded("image", (48, 64))))
    found = {key: info["features"][key] for key in wanted}
    assert found == wanted and not {"wish", "next.success"} & set(info["features"])
    rows = columns(root)
    np.testing.assert_allclose(rows["observation.state"][0, :5], np.rad2deg([0.1, -0.5, 0.6, 0, 0]), atol=1e-3)
    # The gripper's 0 and 100 are its limits, -0.174533 and 1.74533 rad.
    assert rows["observation.state"][0, 5] == pytest.approx(100 * (0.8 + 0.174533) / (1.74533 + 0.174533), abs=1e-3)
    assert rows["action"][0, 0] == pytest.approx(np.rad2deg(0.12), abs=1e-3), "what was sent"
    back = load_into_ram(root)
    assert open_set(root).contract == SMALL and [one.episode_id for one in back] == ["e1", "e2"]
    for got, step in zip(back[1].steps, episode(2).steps, strict=True):
        np.testing.assert_allclose(got.observation.state, step.observation.state, atol=1e-6)
        np.testing.assert_allclose(got.action, step.action, atol=1e-6)
    assert not (root / "contract.json").exists(), "a policy of lerobot-train on this set is not in rad"


def test_extra_columns_hold_the_wish_what_was_sent_the_reward_and_the_outcome(tmp_path):
    root = tmp_path / "set"
    convention = read_convention(FILE, True)
    write_dataset([episode(1)], root, SMALL, "image", reward_head="progress", convention=convention)
    rows = columns(root)
    assert rows["wish"][3, 0] == pytest.approx(np.rad2deg(0.13), abs=1e-3)
    np.testing.assert_array_equal(rows["sent"], rows["action"])
    assert rows["next.reward"].ravel()[:2] == pytest.approx([0.1, 0.2])
    assert rows["next.success"].ravel().tolist() == [False] * 8 + [True]
    (one,) = load_into_ram(root)
    np.testing.assert_allclose(one.steps[3].wish, episode(1).steps[3].wish, atol=1e-6)
    (root / "lerobot_convention.json").unlink()
    (root / "checksums.json").unlink()
    assert open_set(root).has_wish and not open_set(root).in_rad, "LeRobot's tools leave our files behind"


@pytest.mark.parametrize("storage", ["image", "video"])
def test_lerobot_merges_it_with_a_set_as_lerobot_record_writes_it_and_both_train(tmp_path, storage, monkeypatch):
    from lerobot.datasets.aggregate import aggregate_datasets

    from lrm_ros import versions
    from lrm_ros.record.convention import CODEC

    created = versions.create_dataset
    monkeypatch.setattr("lerobot_made.features", as_recorded)
    monkeypatch.setattr("lerobot_made.create_dataset", lambda *a, **k: created(*a, codec=CODEC, **k))
    theirs = write_v3(tmp_path / "theirs", storage)
    ours = write_dataset([episode(1)], tmp_path / "ours", SMALL, storage, convention=read_convention(FILE, False))
    aggregate_datasets(["a/theirs", "a/ours"], "a/all", [theirs, ours], tmp_path / "all")
    info = json.loads((tmp_path / "all/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (4, 30) and info["robot_type"] == "so101_follower"
    contract = tmp_path / "small.yaml"
    text = FILE.read_text().replace("urdf: so101.urdf", f"urdf: {FILE.parent / 'so101.urdf'}")
    contract.write_text(text.replace("width: 640, height: 480", "width: 64, height: 48"))
    data = training_data([tmp_path / "all"], "action", contract_file=contract)
    assert data.contract.joints == JOINTS and data.contract.has_limits
    last = load_into_ram(tmp_path / "all")[-1]
    assert open_set(tmp_path / "all").features["action"]["names"] == NAMES
    np.testing.assert_allclose(np.deg2rad(last.steps[4].action[:5]), episode(1).steps[4].action[:5], atol=1e-5)
    light = [int(step.observation.frames["front"].image[24, 32, 0]) for step in last.steps]
    np.testing.assert_allclose(light, [50 + 9 * k for k in range(9)], atol=0 if storage == "image" else 6)
    for one in (ours, theirs):
        assert training_data([one], "action", contract_file=contract).contract.has_limits


def test_what_the_convention_needs_is_asked_for(tmp_path, capsys):
    words = [str(tmp_path), "--out", str(tmp_path / "out"), "--convention", "lerobot"]
    assert main(words) == 2 and "needs --contract FILE" in capsys.readouterr().err
    assert main([*words, "--contract", str(FILE.parent / "so100.yaml")]) == 2
    assert "no section 'arm'" in capsys.readouterr().err
    assert main([*words, "--contract", str(FILE), "--reward", "progress"]) == 2
    assert "give --extra, too" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--extra"]) == 2


def test_journals_of_another_robot_than_the_contracts_are_refused(tmp_path):
    convention = read_convention(FILE, False)
    other = dataclasses.replace(SMALL, joints=tuple(f"j{i}" for i in range(6)))
    with pytest.raises(ValueError, match="of another robot"):
        write_dataset([episode(1)], tmp_path / "set", other, "image", convention=convention)


def test_a_damaged_file_of_the_convention_is_named(tmp_path):
    root = write_dataset([episode(1)], tmp_path / "set", SMALL, "image", convention=read_convention(FILE, False))
    contract = json.dumps(to_dict(SMALL))
    (root / "lerobot_convention.json").write_text(f'{{"contract": {contract}, "units": [[1, 0]]}}')
    with pytest.raises(ValueError, match="does not tell the units of 6 joints; delete it"):
        open_set(root)
    (root / "lerobot_convention.json").write_text('{"contract": {}, "units": [[1, 0]]}')
    with pytest.raises(ValueError, match=r"cannot be used \(contract lacks name, joints, .*; delete it"):
        open_set(root)
    (root / "lerobot_convention.json").write_text('{"units": 3}')
    with pytest.raises(ValueError, match="cannot be used"):
        open_set(root)


def test_the_units_are_those_of_the_arm_itself():
    arm = load_arm(FILE, SO101)
    numbers = read_convention(FILE, False).numbers(np.array(SO101.upper, np.float32))
    for joint, number, angle in zip(arm.joints, numbers, SO101.upper, strict=True):
        scale, offset = joint.affine
        assert scale * number + offset == pytest.approx(angle, abs=1e-5)
