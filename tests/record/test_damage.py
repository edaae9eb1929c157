# SPDX-License-Identifier: Apache-2.0
"""Damaged journals and data sets: an error that names the file, or what was written; no traceback, no other data."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from damage import EXAMPLES, damaged  # type: ignore[import-not-found]
from episodes import square_episodes  # type: ignore[import-not-found]
from journals import check_journal, fields_of, three_steps  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.record import lerobot_read
from lrm_ros.record.checksums import CHECKSUMS_FILE
from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import Omissions, load_into_ram, write_dataset
from lrm_ros.record.journal import JournalError, read_journal


@pytest.mark.parametrize("image_format", ["png", "raw"])
def test_a_damaged_journal_is_an_error_or_the_same_episode(tmp_path, image_format):
    good = three_steps(tmp_path / "good" / "e.mcap", image_format).finish(outcome=True, notes={"gaps": ""})
    whole, content, wrong = read_journal(good), good.read_bytes(), []
    for seed in range(EXAMPLES):
        with tempfile.TemporaryDirectory() as folder:
            try:
                check_journal(good, whole, damaged(content, random.Random(seed)), Path(folder))
            except Exception as error:
                wrong.append((seed, f"{type(error).__name__}: {str(error)[:300]}"))
    assert not wrong, f"{len(wrong)} of {EXAMPLES}: {wrong[:5]}"


def test_a_journal_that_cannot_be_read_is_left_out_where_that_is_noted(tmp_path):
    good, bad = three_steps(tmp_path / "good.mcap").finish(), tmp_path / "bad.mcap"
    bad.write_bytes(good.read_bytes()[:-50])
    with pytest.raises(JournalError, match=r"bad\.mcap"):
        journals_to_dataset([bad, good], tmp_path / "d")
    omissions = Omissions()
    (episode,) = load_into_ram(journals_to_dataset([bad, good], tmp_path / "d", omissions=omissions))
    assert episode.episode_id == "good" and [name for name, _ in omissions.left_out] == [str(bad)]
    with pytest.raises(ValueError, match=r"none of 1 journals.*bad\.mcap"):
        journals_to_dataset([bad], tmp_path / "none", omissions=Omissions())


def test_a_damaged_data_set_is_an_error_or_the_same_episodes(tmp_path):
    good = write_dataset(square_episodes(2), tmp_path / "good", RobotContract())
    names = sorted(path.relative_to(good).as_posix() for path in good.rglob("*") if path.is_file())
    whole, wrong = [fields_of(episode) for episode in load_into_ram(good)], []
    for seed in range(EXAMPLES):
        rng = random.Random(seed)
        root, name = tmp_path / f"d{seed}", rng.choice(names)
        shutil.copytree(good, root)
        content = (good / name).read_bytes()
        (root / name).unlink() if rng.random() < 0.05 else (root / name).write_bytes(damaged(content, rng))
        if earlier := rng.random() < 0.5:  # as a data set of an earlier version
            (root / CHECKSUMS_FILE).unlink(missing_ok=True)
        try:
            found = [fields_of(episode) for episode in load_into_ram(root)]
        except (ValueError, FileNotFoundError) as error:
            if str(root) not in str(error):
                wrong.append((seed, name, str(error)[:200]))
        except Exception as error:
            wrong.append((seed, name, f"{type(error).__name__}: {str(error)[:200]}"))
        else:
            if found != whole and not earlier:
                wrong.append((seed, name, "other episodes"))
        shutil.rmtree(root)
    assert not wrong, f"{len(wrong)} of {EXAMPLES}: {wrong[:5]}"


@pytest.mark.parametrize(
    "origin", [{"id": "a", "source": "expert", "outcome": -1}, {"id": 7, "source": "expert", "outcome": None}]
)
def test_a_data_set_without_checksums_whose_episodes_say_nonsense_is_refused(tmp_path, origin):
    root = write_dataset(square_episodes(1), tmp_path / "d", RobotContract())
    (root / CHECKSUMS_FILE).unlink()
    (root / "episodes.json").write_text(json.dumps([origin]))
    with pytest.raises(ValueError, match=rf"'{root}' is damaged.*episodes.json does not say id, source and outcome"):
        load_into_ram(root)


def test_a_data_set_without_checksums_whose_numbers_are_none_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = write_dataset(square_episodes(1), tmp_path / "d", RobotContract())
    (root / CHECKSUMS_FILE).unlink()
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    actions = table["action"].to_pylist()
    actions[3][2] = float("nan")
    index = table.column_names.index("action")
    pq.write_table(table.set_column(index, "action", pa.array(actions, table["action"].type)), path)
    with pytest.raises(ValueError, match=rf"'{root}' is damaged.*action holds other than a finite number"):
        load_into_ram(root)


def test_what_a_library_says_in_several_lines_of_a_data_set_is_one_line(tmp_path, monkeypatch):
    root = write_dataset(square_episodes(1), tmp_path / "d", RobotContract())

    def fail(*_, **__):
        raise OSError("Couldn't deserialize thrift\nDeserializing page header failed.\n")

    monkeypatch.setattr(lerobot_read, "_rows", fail)
    with pytest.raises(ValueError, match=rf"'{root}' is damaged") as refused:
        load_into_ram(root)
    assert "\n" not in str(refused.value)
