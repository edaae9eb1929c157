# SPDX-License-Identifier: Apache-2.0
"""Journals and data sets that hypothesis has damaged: an error that names the file, or what was written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from episodes import square_episodes  # type: ignore[import-not-found]
from fuzzing import bounded, check_refusal, fuzz, other_file, other_journal  # type: ignore[import-not-found]
from hypothesis import given
from hypothesis import strategies as st
from journals import check_journal, fields_of, three_steps  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.record.checksums import CHECKSUMS_FILE
from lrm_ros.record.dataset import load_into_ram, write_dataset
from lrm_ros.record.journal import read_journal
from lrm_ros.types import Episode


@pytest.mark.parametrize("image_format", ["png", "raw"])
def test_fuzz_of_journals(tmp_path, image_format):
    good = three_steps(tmp_path / "e.mcap", image_format).finish(outcome=True, notes={"gaps": ""})
    whole, content = read_journal(good), good.read_bytes()

    @fuzz
    @given(found=other_journal(content))
    def check(found: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder, bounded():
            check_journal(good, whole, found, Path(folder))

    check()


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory) -> dict[str, Path]:
    """A data set of images and one of videos; to be read only."""
    root = tmp_path_factory.mktemp("data_sets")
    return {
        kind: write_dataset(square_episodes(2), root / kind, RobotContract(), storage=kind)
        for kind in ("image", "video")
    }


@pytest.mark.parametrize("kind", ["image", "video"])
def test_fuzz_of_data_sets(data_sets, kind):
    good = data_sets[kind]
    names = sorted(path.relative_to(good).as_posix() for path in good.rglob("*") if path.is_file())
    whole = [fields_of(episode) for episode in load_into_ram(good)]

    @fuzz
    @given(data=st.data(), name=st.sampled_from(names), earlier=st.booleans(), missing=st.integers(0, 19))
    def check(data: st.DataObject, name: str, earlier: bool, missing: int) -> None:
        with tempfile.TemporaryDirectory() as folder, bounded():
            root = Path(shutil.copytree(good, Path(folder) / "d"))
            if missing == 0:
                (root / name).unlink()
            else:
                (root / name).write_bytes(data.draw(other_file(good / name)))
            # As a data set of an earlier version; FFmpeg may crash on a damaged video, which checksums keep from it.
            if earlier and not name.endswith(".mp4"):
                (root / CHECKSUMS_FILE).unlink(missing_ok=True)
            try:
                found = load_into_ram(root)
            except (ValueError, FileNotFoundError) as error:
                check_refusal(error, root)
            else:
                if (root / CHECKSUMS_FILE).is_file():
                    assert [fields_of(episode) for episode in found] == whole
                for episode in found:
                    check_episode(episode)

    check()


def check_episode(episode: Episode) -> None:
    """What an episode is made of is whole, whatever it says."""
    assert episode.steps and isinstance(episode.task, str) and isinstance(episode.outcome, bool | None)
    for step in episode.steps:
        assert step.action.shape == step.wish.shape == step.observation.state.shape == (6,)
        assert np.isfinite(step.action).all() and np.isfinite(step.observation.state).all()
        for frame in step.observation.frames.values():
            assert frame.image.ndim == 3 and frame.image.shape[2] == 3 and frame.image.dtype == np.uint8
