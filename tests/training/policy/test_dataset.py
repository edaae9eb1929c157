# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes -> data set: which are taken, which are left out and why, and what training then reads."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from journals import CONTRACT, journal  # type: ignore[import-not-found]

from lrm_ros.record.dataset import load_into_ram
from lrm_ros.record.recover import recover
from lrm_ros.record.writer import JournalWriter
from lrm_ros.training.policy import judge
from lrm_ros.training.policy.dataset import main
from lrm_ros.types import Frame


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """By people: a success, a failure, and two without a word; bright ends count as done for the fake model."""
    journal(tmp_path / "in" / "good.mcap", [0, 9, 255], True)
    journal(tmp_path / "in" / "bad.mcap", [0, 9, 255], False)
    journal(tmp_path / "in" / "dark.mcap", [0, 9, 0], None)
    journal(tmp_path / "in" / "bright.mcap", [0, 9, 255, 255], None)
    return tmp_path / "in"


def names(root: Path) -> list[str]:
    return [episode.episode_id for episode in load_into_ram(root)]


def test_what_a_person_called_a_failure_is_left_out(folder, tmp_path, capsys):
    out, figures = tmp_path / "data", tmp_path / "figures.json"
    assert main([str(folder), "--out", str(out), "--json", str(figures)]) == 0
    assert names(out) == ["bright", "dark", "good"]
    said = capsys.readouterr().out
    assert "left out 1: a person called it a failure" in said and f"{out}: 3 episodes, 10 frames" in said
    assert json.loads(figures.read_text()) == {
        "episodes": 3,
        "left_out": {"a person called it a failure": 1},
        "reasons": {},
        "held": {},
        "frames": 10,
        "folder": str(out),
    }
    bright = load_into_ram(out)[0]
    assert [int(step.observation.frames["front"].image[0, 0, 0]) for step in bright.steps] == [0, 9, 255, 255]


def test_failures_stay_if_asked_for(folder, tmp_path):
    (folder / "dark.mcap").unlink()
    (folder / "bright.mcap").unlink()
    out = tmp_path / "data"
    assert main([str(folder), "--out", str(out), "--failures"]) == 0
    assert [(e.episode_id, e.outcome) for e in load_into_ram(out)] == [("bad", False), ("good", True)]


def test_with_verdicts_only_what_the_judge_kept_is_taken(folder, tmp_path, capsys):
    verdicts = tmp_path / "verdicts.json"
    assert judge.main([str(folder), "--model", "fake", "--frames", "1", "--json", str(verdicts)]) == 0
    journal(folder / "later.mcap", [0, 255], None)
    assert main([str(folder), "--out", str(tmp_path / "data"), "--verdicts", str(verdicts)]) == 0
    assert names(tmp_path / "data") == ["bright", "good"]
    said = capsys.readouterr().out
    assert "left out 1: the judge did not keep it" in said and "left out 1: the judge was not asked" in said


def test_a_recording_that_was_cut_off_is_left_out_unless_the_judge_kept_it(folder, tmp_path, capsys):
    writer = JournalWriter(folder / "cut.mcap", "put the toy in the bowl", CONTRACT, "teleop", "png")
    for step in range(1, 9):
        ns = step * 100_000_000
        writer.state(ns, [0.0] * 6)
        writer.frame(Frame(ns, "front", np.full((8, 16, 3), 255, np.uint8)))
        writer.sent(ns, np.zeros(6, np.float32))
    recover(writer.abandon())
    assert main([str(folder), "--out", str(tmp_path / "data")]) == 0
    assert "cut" not in names(tmp_path / "data")
    assert "left out 1: its recording was cut off and nobody said how it ended" in capsys.readouterr().out
    verdicts = tmp_path / "verdicts.json"
    assert judge.main([str(folder), "--model", "fake", "--frames", "1", "--json", str(verdicts)]) == 0
    assert main([str(folder), "--out", str(tmp_path / "kept"), "--verdicts", str(verdicts)]) == 0
    assert names(tmp_path / "kept") == ["bright", "cut", "good"]


def test_unreadable_journals_are_counted_and_named(folder, tmp_path, capsys):
    (folder / "broken.mcap").write_bytes(b"no journal")
    assert main([str(folder), "--out", str(tmp_path / "data")]) == 0
    said = capsys.readouterr()
    assert "left out 1: cannot be read" in said.out and "broken.mcap" in said.err


def test_what_cannot_be_used_is_left_out_with_its_reason_and_the_others_are_written(folder, tmp_path, capsys):
    lost = journal(folder / "lost.mcap", [1, 2, None, 4, None, None, 7, 8, 9], True)
    gone = journal(folder / "gone.mcap", [1, 2, 3, 4, 5, 6, 7, 8, 9, *[None] * 6, 16], True)
    slow = journal(folder / "slow.mcap", [1, None, None, 4, None, None, 7], True)
    blank = journal(folder / "blank.mcap", [1, 2, 3], True, task=" ")
    other = journal(folder / "another.mcap", [1, 2], True, contract=dataclasses.replace(CONTRACT, control_hz=20.0))
    (folder / "broken.mcap").write_bytes(b"no journal")
    out, figures = tmp_path / "data", tmp_path / "figures.json"
    assert main([str(folder), "--out", str(out), "--json", str(figures)]) == 0
    assert names(out) == ["bright", "dark", "good", "lost"]
    found, said = json.loads(figures.read_text()), capsys.readouterr()
    assert found["episodes"] == 4 and found["held"] == {"lost": 3}
    assert "3 steps of 1 episodes have the frame before" in said.out and "left out 4: it cannot be used" in said.out
    says = {
        gone: "step 13 has no image of every camera of the 0.5 s before",
        slow: "4 of 7 steps have no frame of their own",
        blank: "has a blank task text",
        other: "is of another robot than",
        folder / "broken.mcap": "broken.mcap",
    }
    for path, reason in says.items():
        told = found["reasons"].get(str(path)) or found["reasons"][path.stem]
        assert reason in told and told in said.err
    shown = [int(step.observation.frames["front"].image[0, 0, 0]) for step in load_into_ram(out)[-1].steps]
    assert shown == [1, 2, 2, 4, 4, 4, 7, 8, 9]
    assert lost.is_file() and main([str(slow), str(gone), "--out", str(tmp_path / "none")]) == 2
    assert "no episodes for data set" in capsys.readouterr().err
    assert not (tmp_path / "none").exists() and not (tmp_path / "none.writing").exists()


def test_errors_name_what_is_wrong(folder, tmp_path, capsys):
    out = str(tmp_path / "data")

    def error(*words: str) -> str:
        assert main([*words, "--out", out]) == 2
        return capsys.readouterr().err

    assert "'nowhere' does not exist" in error("nowhere")
    assert "none of 1 episodes is left" in error(str(folder / "bad.mcap"))
    no_verdicts = tmp_path / "other.json"
    no_verdicts.write_text("[]")
    assert f"'{no_verdicts}' is no file of 'lrm judge --json'" in error(str(folder), "--verdicts", str(no_verdicts))
    assert "write it with 'lrm judge" in error(str(folder), "--verdicts", str(tmp_path / "none.json"))
    twice = tmp_path / "twice.json"
    twice.write_text(json.dumps({"episodes": [{"episode_id": "good", "keep": keep} for keep in (True, False)]}))
    assert "has 2 episodes named 'good'" in error(str(folder), "--verdicts", str(twice))
    assert main([str(folder), "--out", out]) == 0
    assert f"'{out}' exists" in error(str(folder))


class FakeHub:
    """The hub's side of huggingface_hub, in process: what LeRobot asks it to do, and with which files."""

    def __init__(self, monkeypatch, token: str | None = "hf_fake") -> None:
        self.calls: list[tuple[str, str]] = []
        self.files: list[str] = []
        self.private: object = None
        self.broken = ""
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
        for name in ("create_repo", "upload_folder", "delete_tag", "create_tag"):
            monkeypatch.setattr(f"huggingface_hub.HfApi.{name}", self._method(name))
        monkeypatch.setattr("huggingface_hub.repocard.RepoCard.push_to_hub", self._method("card"))

    def _method(self, name: str):
        def call(_: object, repo_id: str, **options) -> None:
            if self.broken:
                raise OSError(self.broken)
            self.calls.append((name, repo_id))
            if name == "create_repo":
                self.private = options["private"]
            if name == "upload_folder":
                root = Path(options["folder_path"])
                self.files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]

        return call


def test_a_data_set_is_pushed_by_lerobot_with_all_its_files(folder, tmp_path, monkeypatch, capsys):
    hub, out = FakeHub(monkeypatch), tmp_path / "data"
    assert main([str(folder), "--out", str(out), "--storage", "video", "--push", "someone/cups", "--private"]) == 0
    assert [name for name, _ in hub.calls] == ["create_repo", "upload_folder", "card", "delete_tag", "create_tag"]
    assert {repo for _, repo in hub.calls} == {"someone/cups"} and hub.private is True
    assert {"meta/info.json", "contract.json", "episodes.json"} <= set(hub.files)
    assert any(name.endswith(".mp4") for name in hub.files)
    assert "pushed to https://huggingface.co/datasets/someone/cups" in capsys.readouterr().out
    hub.calls.clear()
    assert main([str(out), "--push", "someone/again"]) == 0
    assert ("upload_folder", "someone/again") in hub.calls and hub.private is False


def test_without_a_token_or_a_name_nothing_is_written(folder, tmp_path, monkeypatch, capsys):
    hub, out = FakeHub(monkeypatch, token=None), tmp_path / "data"
    assert main([str(folder), "--out", str(out), "--push", "someone/cups"]) == 2
    said = capsys.readouterr().err
    assert "nobody is logged in at the hub; run 'hf auth login', or set HF_TOKEN" in said and said.count("\n") == 1
    assert main([str(folder), "--out", str(out), "--push", "cups"]) == 2
    assert "give USER/NAME" in capsys.readouterr().err
    assert main([str(folder)]) == 2 and "give --out FOLDER" in capsys.readouterr().err
    assert not out.exists() and not hub.calls


def test_a_hub_that_does_not_take_it_leaves_the_data_set_and_says_how_to_go_on(folder, tmp_path, monkeypatch, capsys):
    hub, out = FakeHub(monkeypatch), tmp_path / "data"
    hub.broken = "403 Forbidden\nthis token only reads"
    assert main([str(folder), "--out", str(out), "--push", "someone/cups"]) == 2
    said = capsys.readouterr().err
    assert "is written, but not pushed" in said and f"lrm dataset {out} --push someone/cups" in said
    assert len(names(out)) == 3
