# SPDX-License-Identifier: Apache-2.0
"""Data sets without a file of this package: contract from info.json, episodes of v2.1 and v3, what is left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lerobot_made as made  # type: ignore[import-not-found]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.dataset import load_into_ram
from lrm_ros.record.lerobot_set import LeRobotSet, open_set

WRITERS = {"v3": made.write_v3, "v2.1": made.write_v21}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("storage", ["video", "image"])
@pytest.mark.parametrize("version", WRITERS)
def test_the_contract_comes_from_info_json_and_every_row_has_its_image_and_task(tmp_path, version, storage):
    root = WRITERS[version](tmp_path / "cups", storage)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    contract = open_set(root).contract
    assert contract.joints == made.JOINTS and contract.control_hz == 30.0 and not contract.has_limits
    assert contract.cameras == (CameraSpec("front", 64, 48), CameraSpec("wrist", 64, 48))
    episodes = load_into_ram(root)
    assert [(e.task, len(e.steps), e.outcome, e.fps) for e in episodes] == [
        (task, length, None, 30.0) for task, length in zip(made.TASKS, made.LENGTHS, strict=True)
    ]
    for index, episode in enumerate(episodes):
        for k, step in enumerate(episode.steps):
            state, action = made.numbers(index, k)
            np.testing.assert_array_equal(step.observation.state, state)
            np.testing.assert_array_equal(step.action, action)
            np.testing.assert_array_equal(step.wish, action)
            for camera in made.CAMERAS:
                shown = step.observation.frames[camera].image.mean()
                assert abs(shown - made.image(index, k, camera, (8, 8)).mean()) < 2
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def described(root: Path, change) -> LeRobotSet:
    """A data set that has only a description, changed by a function of its features."""
    features = json.loads(json.dumps(made.features("video", (48, 64))))
    change(features)
    (root / "meta").mkdir(parents=True)
    info = {"codebase_version": "v3.0", "fps": 30, "features": features, "total_frames": 1000, "robot_type": "so101"}
    (root / "meta/info.json").write_text(json.dumps(info))
    return open_set(root)


def renamed(names_of_state, names_of_action="same"):
    def change(features):
        features["observation.state"]["names"] = names_of_state
        features["action"]["names"] = names_of_state if names_of_action == "same" else names_of_action

    return change


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"motors": made.NAMES}, made.JOINTS),
        ({name: index for index, name in enumerate(made.NAMES)}, made.JOINTS),
        (None, tuple(f"joint_{k}" for k in range(6))),
        (["a", "b"], tuple(f"joint_{k}" for k in range(6))),
        (["a"] * 6, tuple(f"joint_{k}" for k in range(6))),
    ],
)
def test_names_of_joints_in_the_forms_that_are_about(tmp_path, names, wanted):
    assert described(tmp_path, renamed(names)).contract.joints == wanted


def test_an_action_of_as_many_numbers_is_of_the_joints_it_names_or_it_is_refused(tmp_path):
    state = [f"{name}.pos" for name in made.JOINTS]
    turned = described(tmp_path / "turned", renamed(state, state[::-1]))
    assert turned.contract.joints == made.JOINTS[::-1] and list(turned.joints) == [5, 4, 3, 2, 1, 0]
    with pytest.raises(ValueError, match=r"6 numbers \(shoulder_pan, .*action 6 \(dx, dy, .*name them alike"):
        described(tmp_path / "deltas", renamed(state, ["dx", "dy", "dz", "roll", "pitch", "grip"]))


def test_joints_are_picked_from_a_longer_state_by_their_names_or_it_is_refused(tmp_path):
    def longer(features):
        more = {"shape": [8], "names": ["base.x", *made.NAMES, "base.y"]}
        features["observation.state"] |= more

    found = described(tmp_path / "named", longer)
    assert list(found.joints) == [1, 2, 3, 4, 5, 6] and found.contract.joints == made.JOINTS

    def unnamed(features):
        features["observation.state"] |= {"shape": [8], "names": None}

    with pytest.raises(ValueError, match=r"observation\.state has 8 numbers \(without names\), action 6 .*name them"):
        described(tmp_path / "unnamed", unnamed)


def test_depth_and_other_observations_are_left_out_and_odd_camera_names_said(tmp_path):
    def change(features):
        front = features.pop("observation.images.front")
        features["observation.images.depth"] = front | {"info": {"is_depth_map": True}}
        features["observation.images.mask"] = front | {"shape": [48, 64, 1]}
        features["observation.images.top.left"] = front | {
            "shape": [3, 48, 64],
            "names": ["channels", "height", "width"],
        }
        features["observation.image"] = front | {"shape": [3, 40, 50], "names": None}
        features["observation.environment_state"] = {"dtype": "float32", "shape": [16], "names": None}

    found = described(tmp_path, change)
    assert found.contract.cameras == (
        CameraSpec("wrist", 64, 48), CameraSpec("top_left", 64, 48), CameraSpec("image", 50, 40)
    )  # fmt: skip
    assert found.cameras["image"] == "observation.image"
    assert len(found.notes) == 5
    said = "\n".join(found.notes)
    for part in ("images.depth' is left out", "images.mask' is left out", "'observation.environment_state' is left"):
        assert part in said
    assert "'observation.images.top.left' is camera 'top_left'" in said
    assert found.decoded_bytes == 1000 * 3 * (2 * 48 * 64 + 50 * 40)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.pop("action"), "has no 'action', which a policy needs"),
        (lambda f: [f.pop(f"observation.images.{name}") for name in made.CAMERAS], "has no colour images"),
        (lambda f: f["action"].update(shape=[2, 3]), r"'action' has shape \[2, 3\]"),
    ],
)
def test_what_no_policy_can_be_trained_on_is_refused(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        described(tmp_path, change)


def test_as_a_robots_it_has_its_limits_its_units_and_its_cameras_only(tmp_path):
    found = described(tmp_path, lambda features: None)
    contract = RobotContract(
        "so101", made.JOINTS, (-2.0,) * 6, (2.0,) * 6, (0.1,) * 6, (CameraSpec("wrist", 64, 48),), 30.0
    )
    ours = found.of_robot(contract, [(0.5, 1.0)] * 6, "'robot.yaml'")
    assert ours.contract == contract and ours.cameras == {"wrist": "observation.images.wrist"}
    assert ours.notes == ("camera 'front' is left out: 'robot.yaml' does not have it",)
    other = RobotContract(cameras=(CameraSpec("top", 64, 48),))
    with pytest.raises(ValueError, match=r"another robot than 'robot\.yaml'.*30 Hz instead of 10 Hz; no camera 'top'"):
        found.of_robot(other, None, "'robot.yaml'")


def _first(root: Path, change) -> None:
    path = root / "data/chunk-000/episode_000000.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def _tasks(root: Path, *texts) -> None:
    rows = [json.dumps({"task_index": index, "task": text}, ensure_ascii=False) for index, text in enumerate(texts)]
    (root / "meta/tasks.jsonl").write_text("\n".join(rows), encoding="utf-8")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _numbered(table: pa.Table, number: float) -> pa.Table:
    return table.set_column(table.column_names.index("task_index"), "task_index", pa.array([number] * len(table)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: _first(root, lambda table: table.take(list(range(len(table)))[::-1])), "out of order"),
        (lambda root: _first(root, lambda table: table.slice(2)), "missing or out of order"),
        (lambda root: _first(root, lambda table: _numbered(table, 9)), "a task of number 9, of which"),
        (lambda root: _first(root, lambda table: _numbered(table, 0.5)), "a task of number 0.5, of which"),
        *(
            (lambda root, text=text: _tasks(root, text, "close the drawer"), "a task of number 0, of which .* no text")
            for text in (None, 7, "", " \t", "lift\0the cube")
        ),
        (lambda root: _first(root, lambda table: table.slice(0, len(table) - 2)), "rows of episode 0, .* listed with"),
        (
            lambda root: _replace(root / "meta/tasks.jsonl", "put the cup", "put \\ud83d cup"),
            "a task of number 0, of which .* no text",
        ),
    ],
)
def test_rows_that_are_not_of_their_images_or_task_are_refused_with_their_file(tmp_path, change, says):
    root = made.write_v21(tmp_path / "cups", "image")
    change(root)
    with pytest.raises(ValueError, match=says) as refused:
        load_into_ram(root)
    assert "episode_000000.parquet" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("write", [made.write_v21, made.write_v3])
def test_a_data_set_with_other_episodes_than_it_describes_is_refused(tmp_path, write):
    root = write(tmp_path / "cups")
    _replace(root / "meta/info.json", '"total_episodes": 3', '"total_episodes": 4')
    with pytest.raises(ValueError, match=r"cups' lists 3 episodes, its meta/info\.json says 4; fetch it again"):
        load_into_ram(root)


def test_a_v3_episode_shorter_than_listed_is_refused(tmp_path):
    root = made.write_v3(tmp_path / "cups")
    (rows,) = (root / "data").glob("*/*.parquet")
    pq.write_table(pq.read_table(rows).slice(0, sum(made.LENGTHS) - 2), rows)
    with pytest.raises(ValueError, match="rows of episode 2, which is listed with"):
        load_into_ram(root)


def test_tasks_are_read_as_lerobot_writes_them_whatever_the_locale(tmp_path):
    root = made.write_v21(tmp_path / "cups", "image")
    _tasks(root, "r\u00e4um auf", "\u7247\u4ed8\u3051\u3066")
    script = "import sys; from lrm_ros.record.dataset import load_into_ram; "
    script += "print([ascii(e.task) for e in load_into_ram(sys.argv[1])])"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert "r\\\\xe4um auf" in done.stdout and "\\\\u7247" in done.stdout, done
