# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v2.1 and v3 as sources: v3 is written by LeRobot, v2.1 by hand and checked by LeRobot's converter."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episodes import square_episodes  # type: ignore[import-not-found]
from lerobot_sets import (  # type: ignore[import-not-found]
    FPS,
    FRONT,
    LENGTHS,
    TASKS,
    WRIST,
    check_frames,
    encoded,
    number,
    opened,
    reasons,
    write_v3,
    write_v21,
)
from numbered import number_in, numbered, write_video  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.record.dataset import write_dataset
from lrm_ros.training.reward.data.sources.lerobot import read_lerobot
from lrm_ros.training.reward.data.sources.robocasa import read_robocasa
from lrm_ros.versions import convert_v21_to_v30


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("one_file", [True, False], ids=["one file", "a file an episode"])
def test_v3_episodes_are_those_that_lerobot_reads(tmp_path, one_file):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = write_v3(tmp_path / "shelf", one_file=one_file)
    assert len(list((root / "videos" / FRONT).rglob("*.mp4"))) == (1 if one_file else 3)
    episodes = opened(root)
    check_frames(episodes)
    check_frames(opened(root, camera=WRIST), WRIST)
    check_frames(opened(root, camera="wrist"), WRIST)
    assert [(e.source, e.episode_id, e.task, e.fps) for e in episodes] == [
        ("shelf", f"episode_{index:06d}", TASKS[index], FPS) for index in range(3)
    ]
    assert {(e.success, e.kind, e.done is None, e.progress is None) for e in episodes} == {
        (None, "demonstration", True, True)
    }
    theirs = LeRobotDataset("local/v3", root=root, video_backend="pyav")
    frames = [(episode.task, frame) for episode in episodes for frame in episode.frames()]
    assert len(frames) == len(theirs)
    for index in (0, 11, 12, 20, 21, 35):
        item = theirs[index]
        image = (item[FRONT].permute(1, 2, 0) * 255).round().byte().numpy()
        assert item["task"] == frames[index][0]
        np.testing.assert_allclose(frames[index][1].astype(int), image.astype(int), atol=2)


def test_success_of_steps_becomes_labels_of_the_frames_after_them(tmp_path):
    successes = [[k >= 7 for k in range(12)], [False] * 9, [k == 14 for k in range(15)]]
    episodes = opened(write_v3(tmp_path / "shelf", successes))
    assert [(e.success, e.kind) for e in episodes] == [
        (True, "demonstration"),
        (False, "failure"),
        (True, "demonstration"),
    ]
    assert episodes[0].done.tolist() == [k >= 8 for k in range(12)]
    assert episodes[1].done.tolist() == [False] * 9
    assert episodes[2].done is None  # only the last: when it was done is not told


def test_images_in_the_rows_of_a_data_set_of_ours_come_back_exactly(tmp_path):
    squares = [dataclasses.replace(e, outcome=i != 1) for i, e in enumerate(square_episodes(3))]
    root = write_dataset(squares, tmp_path / "squares", RobotContract(), storage="image")
    episodes = opened(root)
    assert [(e.success, e.kind) for e in episodes] == [
        (True, "demonstration"),
        (False, "failure"),
        (True, "demonstration"),
    ]
    for mine, episode in zip(squares, episodes, strict=True):
        images = [step.observation.frames["front"].image for step in mine.steps]
        assert episode.length == len(images) and episode.task == "put the square" and episode.fps == 10
        for picked in (range(len(images)), [0], [3, 5, len(images) - 1]):
            for frame, index in zip(episode.read(picked), picked, strict=True):
                np.testing.assert_array_equal(frame, images[index])


@pytest.mark.parametrize("storage", ["video", "image"])
@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_v2_episodes_are_read_from_their_own_files(tmp_path, storage, version):
    root = write_v21(tmp_path / "old", storage, version=version)
    check_frames(opened(root))
    episodes = opened(root, camera="wrist", source="old robot", prefix="day 1")
    check_frames(episodes, WRIST)
    assert [(e.source, e.episode_id, e.task) for e in episodes] == [
        ("old robot", f"day 1/episode_{index:06d}", TASKS[index]) for index in range(3)
    ]


@pytest.mark.parametrize("storage", ["video", "image"])
def test_what_lerobot_converts_from_v21_to_v3_gives_the_same_episodes(tmp_path, storage):
    root = write_v21(
        tmp_path / "old", storage, columns={"next.success": [[k > n - 4 for k in range(n)] for n in LENGTHS]}
    )
    convert_v21_to_v30(root)
    before = opened(tmp_path / "old_old")  # where the converter leaves it
    assert json.loads((root / "meta/info.json").read_text())["codebase_version"] == "v3.0"
    after = opened(root)
    check_frames(after)
    for a, b in zip(before, after, strict=True):
        assert (a.episode_id, a.task, a.fps, a.length, a.success) == (b.episode_id, b.task, b.fps, b.length, b.success)
        np.testing.assert_array_equal(a.done, b.done)
        for x, y in zip(a.frames(), b.frames(), strict=True):
            np.testing.assert_array_equal(x, y)


def test_neither_torch_nor_lerobot_is_needed_to_read(tmp_path):
    root = write_v21(tmp_path / "old")
    code = (
        "import sys; from pathlib import Path; from lrm_ros.training.reward.data.sources.lerobot import read_lerobot\n"
        f"episodes = [entry.open() for entry in read_lerobot(Path({str(root)!r}))]\n"
        "assert sum(1 for episode in episodes for _ in episode.frames()) == 36\n"
        "print(sorted({'torch', 'lerobot', 'datasets'} & set(sys.modules)))"
    )
    top = Path(__file__).resolve().parents[5]
    assert subprocess.run([sys.executable, "-c", code], cwd=top, capture_output=True, text=True).stdout == "[]\n"


def test_a_success_column_of_the_frames_themselves_is_not_shifted(tmp_path):
    flags = [[k >= n - 3 for k in range(n)] for n in LENGTHS]
    episodes = opened(write_v21(tmp_path / "old", columns={"success": flags}))
    assert [e.done.tolist() for e in episodes] == flags
    lists = [pa.array([[flag] for flag in row], pa.list_(pa.bool_(), 1)) for row in flags]
    episodes = opened(write_v21(tmp_path / "lists", columns={"success": lists}))
    assert [e.done.tolist() for e in episodes] == flags
    marks = [[outcome] * n for n, outcome in zip(LENGTHS, (True, False, True), strict=True)]
    episodes = opened(write_v21(tmp_path / "marks", columns={"success": marks}))
    assert [(e.success, e.kind, e.done is None) for e in episodes] == [
        (True, "demonstration", True), (False, "failure", False), (True, "demonstration", True)
    ]  # fmt: skip


def test_bad_episodes_are_refused_one_by_one_with_the_reason(tmp_path):
    root = write_v21(tmp_path / "old")
    video = root / f"videos/chunk-000/{FRONT}/episode_000000.mp4"
    write_video(root / f"videos/chunk-000/{FRONT}/episode_000001.mp4", range(8), FPS)
    video.unlink()
    with (root / "meta/episodes.jsonl").open("a") as file:
        file.write(json.dumps({"episode_index": 3, "tasks": [TASKS[0]], "length": 5}) + "\n")
    assert reasons(read_lerobot(root)) == {
        "episode_000000": "no such video",
        "episode_000001": "the video ends early: 8 of 9 frames",
        "episode_000003": "no file with its rows",
    }
    video.write_bytes(b"")
    assert reasons(read_lerobot(root))["episode_000000"].startswith("unreadable video")
    data = root / "data/chunk-000"
    table = pq.read_table(data / "episode_000002.parquet")
    wrong = {
        "an episode that is listed but has no rows": table.slice(0, 0),
        "a task that the table of tasks does not have": table.set_column(5, "task_index", pa.array([7] * 15)),
        "several tasks in one episode": table.set_column(5, "task_index", pa.array([0] * 9 + [1] * 6)),
        "no language instruction": table.drop_columns("task_index"),
        "rows that are missing or out of order": table.take([0, 1, 2, 4, 5]),
        "rows without a number of the episode": table.drop_columns("episode_index"),
        "column 'success' with values that are missing, or not true or false": table.append_column(
            "success", pa.array([None] + [True] * 14)
        ),
        "column 'success' does not hold numbers": table.append_column("success", pa.array(["yes"] * 15)),
    }
    for reason, rows in wrong.items():
        pq.write_table(rows, data / "episode_000002.parquet")
        assert reasons(read_lerobot(root))["episode_000002"] == reason
    whole = (data / "episode_000001.parquet").read_bytes()
    (data / "episode_000002.parquet").write_bytes(whole[: len(whole) // 2])
    assert reasons(read_lerobot(root))["episode_000002"] == "unreadable rows: ArrowInvalid"


def test_an_empty_task_text_is_refused(tmp_path):
    root = write_v21(tmp_path / "old")
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": ""}\n{"task_index": 1, "task": "close it"}\n')
    assert reasons(read_lerobot(root)) == {
        "episode_000000": "no language instruction", "episode_000002": "no language instruction"
    }  # fmt: skip
    (root / "meta/tasks.jsonl").write_text(
        '{"task_index": 0, "task": "a\\u0000b"}\n{"task_index": 1, "task": "close it"}\n'
    )
    assert set(reasons(read_lerobot(root)).values()) == {"a task with NUL or half a character"}


def test_images_that_are_missing_or_damaged_are_refused(tmp_path):
    root = write_v21(tmp_path / "old", "image")
    data = root / "data/chunk-000"
    for episode, item in enumerate([None, {"bytes": None, "path": "a.png"}, {"bytes": b"no image", "path": None}]):
        path = data / f"episode_{episode:06d}.parquet"
        table = pq.read_table(path)
        column = table.schema.get_field_index(FRONT)
        images = table[FRONT].to_pylist()
        images[5] = item
        pq.write_table(table.set_column(column, FRONT, pa.array(images, table.schema.field(FRONT).type)), path)
    assert list(reasons(read_lerobot(root)).values()) == ["images that are missing"] * 2 + ["unreadable image"]
    path = data / "episode_000000.parquet"
    images = [{"bytes": encoded(numbered(1, 48, 64 + 16 * (k > 6))), "path": None} for k in range(12)]
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(FRONT), FRONT, pa.array(images)), path)
    assert reasons(read_lerobot(root))["episode_000000"] == "mixed image sizes"


def test_what_is_no_data_set_names_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of a LeRobotDataset"):
        read_lerobot(tmp_path)
    root = write_v21(tmp_path / "old")
    with pytest.raises(ValueError, match=f"no camera 'top', only: {FRONT}, {WRIST}"):
        read_lerobot(root, "top")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    with pytest.raises(ValueError, match=r"v1\.6; only v2\.0, v2\.1 and v3\.0"):
        read_lerobot(root)
    (root / "meta/info.json").write_text('{"codebase_version": "v2.')
    with pytest.raises(ValueError, match=r"info\.json' is not JSON"):
        read_lerobot(root)


def test_a_depth_camera_is_not_taken_by_default(tmp_path):
    root = write_v21(tmp_path / "old", cameras=(WRIST, FRONT))
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][WRIST]["info"]["video.is_depth_map"] = True
    (root / "meta/info.json").write_text(json.dumps(info))
    check_frames(opened(root), FRONT)


def test_a_v3_data_set_that_was_never_finalised_names_the_cure(tmp_path):
    root = write_v3(tmp_path / "shelf")
    index = next((root / "meta/episodes").rglob("*.parquet"))
    data = index.read_bytes()
    index.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="was the data set finalised"):
        list(read_lerobot(root))
    shutil.rmtree(root / "meta/episodes")
    with pytest.raises(ValueError, match="was the data set finalised"):
        list(read_lerobot(root))


# --- RoboCasa's LeRobot form ----------------------------------------------------------------------------------------

KITCHEN = [f"observation.images.robot0_{name}" for name in ("eye_in_hand", "agentview_left", "agentview_right")]


def test_robocasa_data_sets_below_a_folder_are_one_source_with_the_left_camera(tmp_path):
    modality = {"video": {key.rsplit(".", 1)[-1]: {"original_key": key} for key in KITCHEN}}
    modality["annotation"] = {"human.task_description": {"original_key": "annotation.human.task_description"}}
    for name in ("CloseFridge", "OpenDrawer"):
        done = {"next.done": [[k == n - 1 for k in range(n)] for n in LENGTHS]}
        root = write_v21(tmp_path / f"v1.0/target/atomic/{name}/20250819/lerobot", cameras=KITCHEN, columns=done)
        (root / "meta/modality.json").write_text(json.dumps(modality))
        with (root / "meta/tasks.jsonl").open("a") as file:  # RoboCasa's converter adds the name of the task's class
            file.write(json.dumps({"task_index": 2, "task": name}) + "\n")
        (root / "extras/episode_000000").mkdir(parents=True)
        (root / "extras/episode_000000/ep_meta.json").write_text(json.dumps({"lang": TASKS[0]}))
        # Tell the cameras apart: the left one starts again at 1000.
        for episode, length in enumerate(LENGTHS):
            numbers = [1000 + number(episode, k) for k in range(length)]
            write_video(root / f"videos/chunk-000/{KITCHEN[1]}/episode_{episode:06d}.mp4", numbers, FPS)
    entries = list(read_robocasa(tmp_path / "v1.0"))
    assert len({entry.episode_id for entry in entries}) == 6
    assert entries[0].episode_id == "atomic/CloseFridge/20250819/lerobot/episode_000000"
    assert [entry.episode_id for entry in read_robocasa(tmp_path / "v1.0/target/atomic/OpenDrawer")] == [
        entry.episode_id for entry in entries[3:]
    ]
    for place, entry in enumerate(entries):
        episode = entry.open()
        assert (episode.source, episode.task, episode.fps) == ("robocasa", TASKS[place % 3], 20)
        assert (episode.success, episode.kind) == (None, "demonstration")
        assert number_in(next(episode.read([3]))) == 1000 + number(place % 3, 3)
    hand = next(iter(read_robocasa(tmp_path / "v1.0", camera="robot0_eye_in_hand"))).open()
    assert number_in(next(hand.read([3]))) == 3
