# SPDX-License-Identifier: Apache-2.0
"""Files after a kill: whole or the old ones, JSON lines with a cut end, folders of other settings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lrm_ros import files

ROWS = [{"n": 1, "text": "eins\u2028zwei"}, {"n": 2}, {"n": 3, "list": [1, 2]}]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


class Killed(BaseException):
    """What ends a process at this moment."""


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path):
    path = tmp_path / "deep" / "er" / "file.json"
    files.write_text(path, "\u00e4lter\n")
    assert path.read_text(encoding="utf-8") == "\u00e4lter\n"
    files.write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    files.write_json(path, {"a": (1, 2)}, indent=None)
    assert path.read_text() == '{"a": [1, 2]}\n' and files.read_json(path) == {"a": [1, 2]}
    assert [one.name for one in path.parent.iterdir()] == ["file.json"]


def test_content_and_name_are_synced_and_in_this_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_sync(number):
        done.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    def note_replace(one, other):
        done.append("replace")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    files.write_text(tmp_path / "a.txt", "new")
    assert done == [str(tmp_path / ".a.txt.part"), "replace", str(tmp_path)]
    done.clear()
    for n in range(2):
        files.append_line(tmp_path / "a.jsonl", {"n": n})
    assert done == [str(tmp_path / "a.jsonl"), str(tmp_path), str(tmp_path / "a.jsonl")]


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(Killed):
            files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert (tmp_path / ".a.json.part").exists()
    files.write_json(path, {"new": 3})
    assert files.read_json(path) == {"new": 3} and [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_an_error_while_writing_leaves_the_old_file_and_no_piece(tmp_path):
    path = tmp_path / "a.npz"
    with files.replacing(path) as stream:
        np.savez(stream, a=np.arange(3))
    with pytest.raises(OSError, match="full"), files.replacing(path) as stream:
        stream.write(b"half")
        raise OSError("disk full")
    assert np.load(path)["a"].tolist() == [0, 1, 2] and [one.name for one in tmp_path.iterdir()] == ["a.npz"]
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(path, float("nan"), allow_nan=False)
    assert np.load(path)["a"].tolist() == [0, 1, 2]


def test_a_damaged_json_file_is_named_with_its_cure(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"a\.json' is no valid JSON \(.*\); restore it, or delete it"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "b.json")


def test_lines_are_read_as_they_were_appended(tmp_path):
    path = tmp_path / "run" / "lines.jsonl"
    assert files.read_lines(path) == []
    for row in ROWS:
        files.append_line(path, row)
    assert files.read_lines(path) == ROWS and path.read_text() == TEXT


@pytest.mark.parametrize("cut", range(1, len(TEXT.splitlines()[2]) + 1))
def test_a_cut_last_line_is_left_out_and_the_next_is_not_joined_with_it(tmp_path, cut):
    path, cuts = tmp_path / "lines.jsonl", []
    path.write_text(TEXT[: -1 - cut])
    whole = len(TEXT.splitlines()[2]) == cut  # nothing of the line is left
    assert files.read_lines(path, lambda: cuts.append(1)) == ROWS[:2]
    assert len(cuts) == (0 if whole else 1)
    files.append_line(path, {"n": 4})
    assert files.read_lines(path) == [*ROWS[:2], {"n": 4}]


def test_a_last_line_that_lacks_its_line_break_only_is_kept(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(TEXT[:-1])
    assert files.read_lines(path, lambda: pytest.fail("nothing was cut")) == ROWS
    files.append_line(path, {"n": 4})
    assert files.read_lines(path) == [*ROWS, {"n": 4}]


@pytest.mark.parametrize("rest", [b"\x00\x00\x00", b'{"text": "\xc3', b"7"])
def test_other_remains_of_a_power_cut_are_left_out_too(tmp_path, rest):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(TEXT.encode() + rest)
    assert files.read_lines(path) == ROWS
    files.repair_lines(path)
    assert path.read_text() == TEXT


@pytest.mark.parametrize("damage", ["{", '{"n": 1{"n": 2}', "not json", "[1]"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_damaged_line_elsewhere_is_named_with_its_number_and_cure(tmp_path, damage, at):
    lines = [json.dumps(row) for row in ROWS]
    lines[at] = damage
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"lines\.jsonl' line {at + 1} is no valid JSON object; delete that line"):
        files.read_lines(path)
    del lines[at]
    path.write_text("\n".join(lines) + "\n")
    assert len(files.read_lines(path)) == 2


def test_mending_an_empty_or_missing_file_does_nothing(tmp_path):
    files.repair_lines(tmp_path / "none.jsonl")
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty.jsonl").touch()
    files.repair_lines(tmp_path / "empty.jsonl")
    assert files.read_lines(tmp_path / "empty.jsonl") == []


def test_a_folder_goes_on_with_the_same_settings_and_refuses_others(tmp_path):
    out, settings = tmp_path / "out", {"seed": 1, "names": ("a", "b"), "kind": ""}
    files.claim_folder(out, settings, "*.npz", "shards")
    (out / "a.npz").touch()
    files.claim_folder(out, settings, "*.npz", "shards")
    with pytest.raises(
        ValueError,
        match=r"out' holds shards of other settings \(seed 1 there, 2 now; names \['a', 'b'\] there, \['c'\] now\); "
        "choose another --out, delete the folder, or set the old values",
    ):
        files.claim_folder(out, settings | {"seed": 2, "names": ("c",)}, "*.npz", "shards")
    assert files.read_json(out / "settings.json") == {"seed": 1, "names": ["a", "b"], "kind": ""}


def test_a_folder_of_unknown_settings_is_refused(tmp_path):
    (tmp_path / "a.npz").touch()
    with pytest.raises(ValueError, match=r"holds shards of other settings \(seed None there, 1 now\)"):
        files.claim_folder(tmp_path, {"seed": 1}, "*.npz", "shards")
    assert not (tmp_path / "settings.json").exists()
    (tmp_path / "settings.json").write_text('{"se')
    with pytest.raises(ValueError, match=r"settings\.json' is no valid JSON .*; choose another --out"):
        files.claim_folder(tmp_path, {"seed": 1}, "*.npz", "shards")


def test_settings_that_may_differ_are_not_named():
    found = {"a": 1, "b": 2, "gone": 3}
    assert files.differing(found, {"a": 5, "b": 2}, free=("a",)) == []
    assert files.differing(found, {"a": 5, "c": None}) == ["a 1 there, 5 now"]


def test_json_that_is_nested_too_deep_is_damaged(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 20_000)
    with pytest.raises(files.DamagedFile, match=r"deep\.json.*restore it"):
        files.read_json(path)
    path.write_text("[" * 20_000 + "\n{}\n")
    with pytest.raises(files.DamagedFile, match="line 1"):
        files.read_lines(path)


def test_the_home_of_nobody_and_links_in_a_circle_are_named(tmp_path, capsys):
    from lrm_ros.config_files import given_path, real_path
    from lrm_ros.reward.models import find_model, split_load
    from lrm_ros.training.reward.data import command

    assert given_path("~/x") == Path.home() / "x"
    for read in (given_path, find_model, lambda name: split_load(f"{name}?load=4bit")):
        with pytest.raises(FileNotFoundError, match="knows no home '~nobody_here'; write the whole path"):
            read("~nobody_here/x")
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    assert real_path(circle) == circle
    for option in (["--lerobot", str(circle)], ["--robomimic", str(circle), "lift"]):
        with pytest.raises(SystemExit) as ended:
            command.main(["--out", str(tmp_path / "out"), *option])
        told = capsys.readouterr().err
        assert ended.value.code == 2 and str(circle) in told and told.count("\n") == 1, told
