# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import lerobot_made as made  # type: ignore[import-not-found]
import numpy as np
import pytest
from journals import DT, journal  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.writer import JournalWriter
from lrm_ros.training.policy.judge import find_journals, main
from lrm_ros.types import Frame

TWO = RobotContract(cameras=(CameraSpec("front", 16, 8), CameraSpec("wrist", 16, 8)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bright ends count as done for the fake model: one hit, one miss, one false alarm, one right refusal, one open."""
    journal(tmp_path / "a.mcap", [0, 0, 255, 255], True)
    journal(tmp_path / "b.mcap", [255, 255, 0, 0], True)
    journal(tmp_path / "c.mcap", [0, 0, 255, 255], False)
    journal(tmp_path / "d.mcap", [0, 0, 0, 0], False)
    journal(tmp_path / "deeper" / "e.mcap", [0, 255, 255, 255], None)
    return tmp_path


def test_journals_are_judged_by_their_last_frames_and_compared_with_people(folder, tmp_path, capsys):
    out = tmp_path / "out" / "judge.json"
    assert main([str(folder), "--model", "fake", "--frames", "2", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert [episode["keep"] for episode in figures["episodes"]] == [True, False, True, False, True]
    assert [episode["score"] for episode in figures["episodes"]] == [1.0, 0.0, 1.0, 0.0, 1.0]
    assert (figures["precision"], figures["recall"], figures["n"], figures["kept"]) == (0.5, 0.5, 4, 3)
    assert "kept 3 of 5" in capsys.readouterr().out


def test_a_corrupt_journal_is_dropped_with_the_reason_and_the_others_are_judged(folder, capsys):
    (folder / "a.mcap").write_bytes(b"not a journal")
    assert main([str(folder), "--model", "fake", "--frames", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "drop" in lines[0] and "a.mcap" in lines[0]
    assert lines[-2] == "kept 2 of 5, 1 of them could not be judged"


def test_a_blank_task_is_not_judged_and_spoils_no_other(folder, tmp_path, capsys):
    (folder / "b.mcap").unlink()
    journal(folder / "b.mcap", [0, 0, 255, 255], None, task=" \n ")
    out = tmp_path / "judge.json"
    assert main([str(folder), "--model", "fake", "--frames", "2", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["episodes"]
    assert [row["score"] for row in rows] == [1.0, None, 1.0, 0.0, 1.0]
    assert rows[1]["reason"] == "not judged: its task text is blank"
    assert main([str(folder / "b.mcap"), "--model", "fake"]) == 1  # nothing is left


def test_a_camera_the_journals_do_not_have_is_named(folder, capsys):
    assert main([str(folder), "--model", "fake", "--camera", "wrist"]) == 1
    assert "no frames of camera 'wrist'" in capsys.readouterr().out


def test_several_cameras_judge_by_their_mean_and_one_that_shows_nothing_then_spoils_its_episode(tmp_path, capsys):
    def seen(name: str, front: list[int], wrist: list[int], late_ns: int) -> Path:
        writer = JournalWriter(tmp_path / name, "put it down", TWO, "policy", "png")
        for k, (here, there) in enumerate(zip(front, wrist, strict=True), 1):
            writer.state(k * DT, [0.0] * 6)
            writer.frame(Frame(k * DT, "front", np.full((8, 16, 3), here, np.uint8)))
            writer.frame(Frame(k * DT + late_ns, "wrist", np.full((8, 16, 3), there, np.uint8)))
            writer.sent(k * DT, np.zeros(6, np.float32))
        return writer.finish(outcome=None)

    paths = [seen("a.mcap", [0, 0, 255, 255], [0, 0, 0, 255], -DT // 10), seen("b.mcap", [255] * 4, [255] * 4, DT * 9)]
    out = tmp_path / "judge.json"
    given = ["--model", "fake", "--frames", "2", "--threshold", "0.7", "--camera", "front,wrist", "--json", str(out)]
    assert main([*map(str, paths), *given]) == 0
    rows = json.loads(out.read_text())["episodes"]
    assert [(row["score"], row["keep"]) for row in rows] == [(0.75, True), (None, False)]
    assert "camera 'wrist' has no frame of that time" in rows[1]["reason"]
    assert main([str(paths[0]), "--model", "fake", "--camera", "front,top"]) == 1
    assert "no frames of camera 'top'" in capsys.readouterr().out
    assert main([str(paths[0]), "--model", "fake", "--camera", "front,front"]) == 2
    assert "does not name one or several different ones" in capsys.readouterr().err


def test_several_cameras_of_a_data_set_judge_it_together(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(made, "number", lambda episode, frame: 220 if episode == 1 else 60)
    cups, out = made.write_v3(tmp_path / "cups"), tmp_path / "judge.json"
    scores = {}
    for cameras in ("front", "wrist", "front,wrist"):
        assert main([str(cups), "--model", "fake", "--frames", "2", "--camera", cameras, "--json", str(out)]) == 0
        scores[cameras] = [row["score"] for row in json.loads(out.read_text())["episodes"]]
    assert scores["front,wrist"] == [(a + b) / 2 for a, b in zip(scores["front"], scores["wrist"], strict=True)]


def test_wrong_arguments_say_what_to_give(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--model", "fake"]) == 2
    assert "does not exist; give journals" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="holds no finished journal"):
        find_journals([tmp_path])


def test_a_missing_model_is_an_error_that_names_it(folder, capsys):
    assert main([str(folder), "--model", "./none"]) == 2
    assert "model folder './none' does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("write", [made.write_v3, made.write_v21])
def test_episodes_of_data_sets_that_lerobot_wrote_are_judged_beside_journals(tmp_path, capsys, monkeypatch, write):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(made, "number", lambda episode, frame: 220 if episode == 1 else 60)
    cups, out = write(tmp_path / "cups"), tmp_path / "judge.json"
    bright = journal(tmp_path / "a.mcap", [0, 255, 255], True)
    assert main([str(bright), str(cups), "--model", "fake", "--frames", "2", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert [(e["episode_id"], e["keep"], e["path"]) for e in figures["episodes"]] == [
        ("a", True, str(bright)),
        ("episode_000000", False, str(cups)),
        ("episode_000001", True, str(cups)),
        ("episode_000002", False, str(cups)),
    ]
    assert "   4/4  episode_000002" in capsys.readouterr().out
    assert main([str(cups), "--model", "fake", "--camera", "top"]) == 2
    said = capsys.readouterr().err
    assert "has no camera 'top', only: observation.images.front, observation.images.wrist; give one of them by" in said
    (tmp_path / "other").mkdir()
    again = write(tmp_path / "other/cups")
    assert main([str(cups), str(again), "--model", "fake"]) == 2
    assert "two data sets have one name" in capsys.readouterr().err


def test_a_data_set_that_tells_success_is_compared_with_it_and_a_bad_episode_spoils_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    flag = {"next.success": {"dtype": "bool", "shape": (1,), "names": None}}
    cups, out = made.write_v3(tmp_path / "cups", "image", more=flag), tmp_path / "judge.json"
    old = made.write_v21(tmp_path / "old", "image")
    (old / "data/chunk-000/episode_000001.parquet").write_bytes(b"damaged")
    assert main([str(cups), str(old), "--model", "fake", "--frames", "1", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert [e["episode_id"] for e in figures["episodes"]][2:4] == ["cups/episode_000002", "old/episode_000000"]
    assert [e["outcome"] for e in figures["episodes"]] == [False] * 3 + [None] * 3 and figures["n"] == 3
    assert [e["score"] is None for e in figures["episodes"]] == [False] * 4 + [True, False]
    assert "unreadable rows" in figures["episodes"][4]["reason"]
