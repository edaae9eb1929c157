# SPDX-License-Identifier: Apache-2.0
"""Damaged journals and data sets: an error that names the file, or what was written; no traceback, no other data."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from damage import EXAMPLES, damaged  # type: ignore[import-not-found]
from episodes import square_episodes  # type: ignore[import-not-found]
from journals import check_journal, fields_of, three_steps  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
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
