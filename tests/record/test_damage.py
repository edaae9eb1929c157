# SPDX-License-Identifier: Apache-2.0
"""Damaged journals and data sets: an error that names the file, or what was written; no traceback, no other data."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from damage import EXAMPLES, damaged  # type: ignore[import-not-found]
from episodes import square_episodes  # type: ignore[import-not-found]
from journals import DT, three_steps  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.record.checksums import CHECKSUMS_FILE
from lrm_ros.record.convert import journals_to_dataset
from lrm_ros.record.dataset import Omissions, load_into_ram, write_dataset
from lrm_ros.record.journal import JournalError, iter_frames, last_frames, read_info, read_journal, recover
from lrm_ros.types import Episode


def fields_of(episode: Episode) -> list[Any]:
    """Everything an episode says, as plain values."""
    about: list[Any] = [episode.task, episode.fps, episode.outcome, episode.source]
    for step in episode.steps:
        frames = [(name, frame.stamp_ns, frame.image.tobytes()) for name, frame in step.observation.frames.items()]
        seen = (step.observation.stamp_ns, step.observation.state.tolist(), frames)
        about.append((seen, step.action.tolist(), step.wish.tolist(), dict(step.rewards)))
    return about


def check_journal(good: Path, whole: Episode, content: bytes, folder: Path) -> None:
    """Read and recover damaged content in an empty folder."""
    path = folder / "e.mcap"
    path.write_bytes(content)
    wanted = {
        read_journal: lambda found: fields_of(found) == fields_of(whole),
        read_info: lambda found: found == read_info(good),
        lambda path: last_frames(path, "front", 2): lambda found: [f.stamp_ns for f in found] == [2 * DT, 3 * DT],
        lambda path: list(iter_frames(path, "front")): lambda found: len(found) == 3,
    }
    for read, right in wanted.items():
        try:
            found = read(path)
        except JournalError as error:
            assert str(path) in str(error)
        else:
            assert right(found), read
    try:
        recovered = recover(path)
    except ValueError as error:
        assert str(path) in str(error) and "holds nothing readable" in str(error)
        assert sorted(p.name for p in folder.iterdir()) == ["e.mcap"]
        return
    assert sorted(p.name for p in folder.iterdir()) == ["e.mcap", "e_recovered.mcap"]
    try:
        part = read_journal(recovered)
    except JournalError as error:
        assert str(recovered) in str(error)
    else:
        assert read_info(recovered).recovered and part.task == whole.task
        steps = {step.observation.stamp_ns: step.action.tolist() for step in whole.steps}
        assert all(steps[step.observation.stamp_ns] == step.action.tolist() for step in part.steps)


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
