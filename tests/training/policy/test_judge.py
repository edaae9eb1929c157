# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
from journals import journal  # type: ignore[import-not-found]

from lrm_ros.training.policy.judge import find_journals, main


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


def test_wrong_arguments_say_what_to_give(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--model", "fake"]) == 2
    assert "does not exist; give journals" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="holds no finished journal"):
        find_journals([tmp_path])


def test_a_missing_model_is_an_error_that_names_it(folder, capsys):
    assert main([str(folder), "--model", "./none"]) == 2
    assert "model folder './none' does not exist" in capsys.readouterr().err
