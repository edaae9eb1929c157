# SPDX-License-Identifier: Apache-2.0
"""Journals: what is written is read back, joined by stamp; kills, cuts and full disks lose no finished episode."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import mcap.writer
import numpy as np
import pytest

from lrm_ros import files
from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.record.journal import JournalError, JournalWriter, last_frames, read_info, read_journal, recover
from lrm_ros.types import ActionChunk, Frame, Reward, Unscored

CONTRACT = RobotContract(
    joints=("a", "b"), lower=(-1.0, -1.0), upper=(1.0, 1.0), max_step=(1.0, 1.0), cameras=(CameraSpec("front", 16, 8),)
)
DT = 100_000_000  # control period [ns]


def _frame(ns: int) -> Frame:
    return Frame(ns, "front", np.full((8, 16, 3), ns // DT % 250, np.uint8))


def _write(path: Path, steps: int = 12, frame_every: int = 4, image_format: str = "png") -> JournalWriter:
    """An episode whose joint state, action, wish and image tell the step; not finished."""
    writer = JournalWriter(path, "put the toy in the bowl", CONTRACT, "policy", image_format)
    for k in range(1, steps + 1):
        ns = k * DT
        writer.state(ns, [k / 100, 0.5])
        if (k - 1) % frame_every == 0:
            writer.frame(_frame(ns))
            points = np.array([[(k + i) / 100, 0.1] for i in range(frame_every)], np.float32)
            writer.wish(ActionChunk(ns, points, 0.1))
            writer.command(ActionChunk(ns, points + 0.01, 0.1))
        writer.sent(ns, np.array([k / 100 + 0.02, 0.1], np.float32))
    ns = (steps + 1) * DT
    writer.state(ns, [0.99, 0.5])
    writer.frame(_frame(ns))
    return writer


def test_every_step_has_the_observation_action_and_wish_of_its_stamp(tmp_path):
    path = _write(tmp_path / "e1.mcap").finish(outcome=True)
    episode = read_journal(path)
    assert (episode.episode_id, episode.task, episode.source) == ("e1", "put the toy in the bowl", "policy")
    assert episode.outcome is True and episode.fps == 10.0 and len(episode.steps) == 12
    for k, step in enumerate(episode.steps, start=1):
        assert step.observation.stamp_ns == k * DT
        np.testing.assert_allclose(step.observation.state, [k / 100, 0.5], atol=1e-6)
        np.testing.assert_allclose(step.action, [k / 100 + 0.02, 0.1], atol=1e-6)
        np.testing.assert_allclose(step.wish, [k / 100, 0.1], atol=1e-6)
    assert episode.final is not None and episode.final.frames["front"].image[0, 0, 0] == 13


def test_a_step_without_its_own_frame_has_none_unless_frames_are_held(tmp_path):
    path = _write(tmp_path / "e.mcap").finish()
    own = [step.observation.frames for step in read_journal(path).steps]
    assert [bool(frames) for frames in own] == [True, False, False, False] * 3
    held = [step.observation.frames["front"].stamp_ns // DT for step in read_journal(path, hold_frames=True).steps]
    assert held == [1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 9]


def test_without_a_wish_the_command_is_the_wish(tmp_path):
    writer = JournalWriter(tmp_path / "e.mcap", "task", CONTRACT, "teleop")
    writer.state(DT, [0.0, 0.0])
    writer.command(ActionChunk(DT, np.array([[0.4, 0.5]], np.float32), 0.1))
    writer.sent(DT, np.array([0.3, 0.3], np.float32))
    writer.state(2 * DT, [0.3, 0.3])
    writer.sent(2 * DT, np.array([0.6, 0.6], np.float32))
    steps = read_journal(writer.finish()).steps
    np.testing.assert_allclose(steps[0].wish, [0.4, 0.5])
    np.testing.assert_allclose(steps[1].wish, [0.6, 0.6])


def test_rewards_join_by_the_judged_frame_and_failures_stay_failures(tmp_path):
    writer = _write(tmp_path / "e.mcap", steps=6, frame_every=1)
    writer.rewards([Reward(4 * DT, "progress", 0.75, "tiny", 0.01, 0.5)], "front")
    writer.rewards([Reward(2 * DT, "progress", 0.25, "tiny"), Unscored(2 * DT, "completion", "time-out")], "front")
    steps = read_journal(writer.finish()).steps
    assert steps[0].rewards == {}
    assert steps[2].rewards["progress"] == Reward(2 * DT, "progress", 0.25, "tiny", 0.0)
    assert steps[2].rewards["completion"] == Unscored(2 * DT, "completion", "time-out")
    assert steps[5].rewards["progress"] == Reward(4 * DT, "progress", 0.75, "tiny", 0.01, 0.5)


@pytest.mark.parametrize(("image_format", "tolerance"), [("png", 0), ("raw", 0), ("jpeg", 4)])
def test_images_survive_each_format(tmp_path, frame, image_format, tolerance):
    writer = JournalWriter(tmp_path / "e.mcap", "task", CONTRACT, "policy", image_format)
    writer.frame(frame)
    writer.state(frame.stamp_ns, [0, 0])
    writer.sent(frame.stamp_ns, np.zeros(2, np.float32))
    image = read_journal(writer.finish()).steps[0].observation.frames["front"].image
    assert np.abs(image.astype(int) - frame.image).max() <= tolerance


def test_the_last_frames_are_the_newest_oldest_first(tmp_path):
    path = _write(tmp_path / "e.mcap", steps=30, frame_every=1).finish()
    assert [frame.stamp_ns // DT for frame in last_frames(path, "front", 4)] == [28, 29, 30, 31]
    with pytest.raises(JournalError, match="camera 'wrist'"):
        last_frames(path, "wrist", 4)


def test_the_contract_travels_with_the_journal(tmp_path):
    info = read_info(_write(tmp_path / "e.mcap").finish(notes={"seed": "7"}))
    assert info.contract == CONTRACT and info.notes == {"seed": "7"} and info.outcome is None


def test_a_journal_that_is_cut_off_names_the_file_and_can_be_recovered(tmp_path):
    path = _write(tmp_path / "e.mcap", steps=40).finish()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(JournalError, match=r"e\.mcap.*lrm_ros\.record\.recover"):
        read_journal(path)
    with pytest.raises(ValueError, match="nothing readable"):
        recover(path)  # one chunk, cut in its middle


def test_a_flipped_byte_is_an_error_not_another_image(tmp_path):
    path = _write(tmp_path / "e.mcap", steps=40).finish()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(JournalError, match="corrupt"):
        read_journal(path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(1000)])
def test_a_file_that_is_no_journal_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "e.mcap"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"e\.mcap"):
        read_journal(path)


def test_an_episode_without_a_step_says_what_is_missing(tmp_path):
    writer = JournalWriter(tmp_path / "e.mcap", "task", CONTRACT, "policy")
    writer.state(DT, [0, 0])
    with pytest.raises(JournalError, match="0 sent commands"):
        read_journal(writer.finish())


def test_after_a_kill_everything_but_the_last_second_is_recovered(tmp_path):
    script = (
        "import sys; sys.path.insert(0, 'tests/record')\n"
        "import os, signal, numpy as np\n"
        "from test_journal import _write\n"
        f"from pathlib import Path; writer = _write(Path({str(tmp_path)!r}) / 'e.mcap', steps=20)\n"
        "writer.sync()\n"
        "writer.sent(99 * 10**8, np.zeros(2)); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.mcap.part"]
    with pytest.raises(JournalError, match=r"unfinished.*recover"):
        read_journal(tmp_path / "e.mcap")
    episode = read_journal(recover(tmp_path / "e.mcap.part"))
    assert len(episode.steps) == 20 and episode.final is not None
    assert read_info(tmp_path / "e.mcap").recovered


def test_a_full_disk_is_an_error_and_leaves_what_was_written(tmp_path):
    finished = _write(tmp_path / "done.mcap").finish()
    writer = _write(tmp_path / "e.mcap", steps=20)
    writer.sync()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(writer.part) + 1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            for k in range(1000):
                writer.frame(_frame(k * DT))
                writer.sync()
        part = writer.abandon()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(read_journal(recover(part)).steps) == 20
    assert len(read_journal(finished).steps) == 12


def test_a_finished_journal_is_never_overwritten(tmp_path):
    _write(tmp_path / "e.mcap").finish()
    with pytest.raises(FileExistsError, match="exists already"):
        JournalWriter(tmp_path / "e.mcap", "task", CONTRACT, "policy")


def test_two_recorders_never_write_one_file(tmp_path):
    first = _write(tmp_path / "e.mcap")
    with pytest.raises(FileExistsError, match="is being written by another program; stop that one, or choose another"):
        JournalWriter(tmp_path / "e.mcap", "task", CONTRACT, "policy")
    whole = read_journal(first.finish())
    assert len(whole.steps) == len(read_journal(_write(tmp_path / "alone.mcap").finish()).steps) > 0


def test_an_unfinished_journal_is_kept_when_its_name_is_used_again(tmp_path):
    for steps in (5, 7):
        _write(tmp_path / "e.mcap", steps=steps).abandon()
    writer = _write(tmp_path / "e.mcap", steps=9)
    assert writer.kept == tmp_path / "e_unfinished_2.mcap.part"
    assert len(read_journal(writer.finish()).steps) == 9
    kept = [recover(tmp_path / f"e_unfinished{number}.mcap.part") for number in ("", "_2")]
    assert [len(read_journal(path).steps) for path in kept] == [5, 7]
    _write(tmp_path / "f.mcap").discard()
    assert _write(tmp_path / "f.mcap").kept is None


@pytest.mark.parametrize("renames", [True, False])
def test_a_finished_journal_of_another_program_is_not_replaced(tmp_path, monkeypatch, renames):
    if not renames:
        monkeypatch.setattr(files, "_rename_exclusive", lambda source, target: False)
    path = tmp_path / "e.mcap"
    writer = _write(path)
    path.write_bytes(b"another's")
    finished = writer.finish()
    assert path.read_bytes() == b"another's" and finished == tmp_path / "e_2.mcap"
    assert len(read_journal(finished).steps) == 12 and not writer.part.exists()
    faulty = [_write(tmp_path / "g.mcap").finish(faulty=True).name for _ in range(2)]
    assert faulty == ["g.mcap.faulty", "g_2.mcap.faulty"]


def test_recovery_does_not_replace_a_journal_that_is_finished_meanwhile(tmp_path, monkeypatch):
    _write(tmp_path / "e.mcap").abandon()
    end = mcap.writer.Writer.finish

    def finish(writer):
        end(writer)
        (tmp_path / "e.mcap").write_bytes(b"another's")

    monkeypatch.setattr(mcap.writer.Writer, "finish", finish)
    with pytest.raises(FileExistsError, match="move it away to recover"):
        recover(tmp_path / "e.mcap.part")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.mcap", "e.mcap.part"]
    assert (tmp_path / "e.mcap").read_bytes() == b"another's"
