# SPDX-License-Identifier: Apache-2.0
"""Journals as a source: the frames of an episode, and what a person said of its success."""

from pathlib import Path

import numpy as np
import pytest
from numbered import number_in, numbered  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.journal import JournalWriter
from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.journals import read_journals
from lrm_ros.types import Frame

CAMERAS = (CameraSpec("front", 64, 48), CameraSpec("wrist", 64, 48))
CONTRACT = RobotContract(
    joints=("a", "b"), lower=(-1.0, -1.0), upper=(1.0, 1.0), max_step=(1.0, 1.0), cameras=CAMERAS
)  # fmt: skip
DT = 100_000_000  # control period [ns]


def write(path: Path, source="teleop", outcome=None, steps=9, frame_every=1, size=(48, 64), task="fold the cloth"):
    """A journal whose front camera shows 1, 2, ... and whose wrist camera shows 100 more, with a frame at the end."""
    writer = JournalWriter(path, task, CONTRACT, source, "png")
    for k in range(1, steps + 2):
        writer.state(k * DT, [k / 100, 0.5])
        if (k - 1) % frame_every == 0 or k > steps:
            height, width = size if k > 4 else (48, 64)
            writer.frame(Frame(k * DT, "front", numbered(k, height, width)))
            writer.frame(Frame(k * DT, "wrist", numbered(100 + k)))
        if k <= steps:
            writer.sent(k * DT, np.array([k / 100, 0.1], np.float32))
    return writer.finish(outcome=outcome)


def reason(entry) -> str:
    with pytest.raises(BadEpisode) as caught:
        list(entry.open().frames())
    return str(caught.value)


def test_an_episode_has_the_frames_the_task_and_the_outcome_of_its_journal(tmp_path):
    write(tmp_path / "iter_000/episodes/e1.mcap", outcome=True)
    write(tmp_path / "iter_001/episodes/e1.mcap", outcome=False)
    entries = list(read_journals(tmp_path))
    assert [entry.episode_id for entry in entries] == ["iter_000/episodes/e1", "iter_001/episodes/e1"]
    good, failed = (entry.open() for entry in entries)
    assert (good.source, good.task, good.length) == ("journals", "fold the cloth", 10)
    assert good.fps == pytest.approx(10)
    assert [number_in(frame) for frame in good.frames()] == list(range(1, 11))
    assert [number_in(frame) for frame in good.read([0, 4, 9])] == [1, 5, 10]
    assert (good.success, good.kind, good.done, good.progress) == (True, "demonstration", None, None)
    assert (failed.success, failed.kind) == (False, "failure")
    wrist = next(read_journals(tmp_path, "wrist", "robot")).open()
    assert wrist.source == "robot" and [number_in(frame) for frame in wrist.read([0, 9])] == [101, 110]


def test_one_file_is_a_source_too(tmp_path):
    path = write(tmp_path / "e1.mcap")
    (entry,) = read_journals(path)
    assert entry.episode_id == entry.open().episode_id == "e1"


def test_what_a_policy_did_is_a_demonstration_only_if_somebody_says_that_it_succeeded(tmp_path):
    acted = [("teleop", None), ("expert", None), ("policy", None), ("policy", True), ("teleop", False)]
    for name, (source, outcome) in zip("abcde", acted, strict=True):
        write(tmp_path / f"{name}.mcap", source, outcome, steps=3)
    episodes = [entry.open() for entry in read_journals(tmp_path)]
    assert [(episode.kind, episode.success) for episode in episodes] == [
        ("demonstration", None), ("demonstration", None), ("policy", None), ("demonstration", True), ("failure", False)
    ]  # fmt: skip


def test_the_rate_is_that_of_the_frames_not_of_the_steps(tmp_path):
    path = write(tmp_path / "e1.mcap", steps=9, frame_every=3)
    episode = next(read_journals(path)).open()
    assert [number_in(frame) for frame in episode.frames()] == [1, 4, 7, 10]
    assert episode.fps == pytest.approx(10 / 3)


def test_journals_that_cannot_be_used_are_refused_one_by_one(tmp_path):
    data = write(tmp_path / "cut.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.mcap").write_bytes(b"")
    writer = JournalWriter(tmp_path / "idle.mcap", "fold the cloth", CONTRACT, "teleop")
    writer.state(DT, [0.0, 0.0])
    writer.finish()
    JournalWriter(tmp_path / "live.mcap", "fold the cloth", CONTRACT, "teleop").state(DT, [0.0, 0.0])
    write(tmp_path / "mixed.mcap", size=(96, 128))
    write(tmp_path / "silent.mcap", task=" ")
    assert {entry.episode_id: reason(entry) for entry in read_journals(tmp_path)} == {
        "cut": "a journal that is corrupt or cut off",
        "empty": "a journal that is corrupt or cut off",
        "idle": "no journal, or one without a step",
        "live.mcap.part": "an unfinished journal; salvage it with: python -m lrm_ros.record.recover",
        "mixed": "mixed image sizes",
        "silent": "no language instruction",
    }
    write(tmp_path / "good.mcap")
    assert reason(next(read_journals(tmp_path / "good.mcap", "top"))) == "no frames of camera 'top'"
    with pytest.raises(FileNotFoundError, match="record some"):
        read_journals(tmp_path / "nothing")


def test_a_whole_journal_with_odd_content_is_not_called_corrupt(tmp_path):
    writer = JournalWriter(tmp_path / "odd.mcap", "fold the cloth", CONTRACT, "teleop")
    writer.joints(DT, ["another"], [0.0], (), ())
    writer.sent(DT, np.zeros(2, np.float32))
    writer.finish()
    assert reason(next(read_journals(tmp_path / "odd.mcap"))) == (
        "a journal of another version, or with messages that cannot be used"
    )
