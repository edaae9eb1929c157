# SPDX-License-Identifier: Apache-2.0
"""The bench of recording: what is lost, doubled, late or growing is counted, and what is not is not."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.image_files import encode
from lrm_ros.record.writer import JournalWriter
from lrm_ros.training.bench import record, record_count, record_kills, record_watch
from lrm_ros.training.bench.record_count import JOINTS, PERIOD_NS, SENT, Episode, Held
from lrm_ros.training.bench.record_frames import number_of, pictures, write_video
from lrm_ros.types import Frame

CAMERAS = ("front", "wrist")
CONTRACT = RobotContract(cameras=tuple(CameraSpec(name, 640, 480) for name in CAMERAS))
LOOP = 100


def episode(
    begin: int, numbers: list[int | None], times: list[int], end: int | None = None, shown: list[int] | None = None
) -> Episode:
    """An episode of camera ``front``; moments are in periods of a frame. It has joint states and steps at each.

    The camera has shown frames at ``shown``, or at ``times``.
    """
    stamps = np.array(times, np.int64) * PERIOD_NS
    last = times[-1] if end is None else end
    ticks = np.arange(begin, last + 1, dtype=np.int64) * PERIOD_NS
    held = {"front": stamps, "wrist": stamps + PERIOD_NS // 4, JOINTS: ticks, SENT: ticks}
    wrapped = [None if number is None else number % LOOP for number in numbers]
    sent = stamps if shown is None else np.array(shown, np.int64) * PERIOD_NS
    return Episode(Held(held, held, {"front": wrapped}, 0), begin * PERIOD_NS, last * PERIOD_NS, ticks, {"front": sent})


def count(*episodes: Episode) -> dict[str, int]:
    return record_count.count_frames(episodes, "front", LOOP)


def wrong(figures: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in figures.items() if value and name not in ("sent", "found", "losses")}


# -- frames ------------------------------------------------------------------------------------------------------------


def test_every_frame_of_a_video_is_known_after_the_recorders_jpeg(tmp_path):
    import cv2

    write_video(tmp_path / "front.avi", seed=0, count=40)
    capture = cv2.VideoCapture(str(tmp_path / "front.avi"))
    found = []
    while (read := capture.read())[0]:
        found.append(number_of(encode(np.ascontiguousarray(read[1][:, :, ::-1]), "jpeg", 95)))
    assert found == list(range(40))


def test_a_number_that_cannot_be_read_is_none_and_not_another_one():
    (image,) = list(pictures(1, seed=3))
    assert number_of(encode(image, "jpeg")) == 0
    image[:16, 30:52] = 255 - image[:16, 30:52]
    assert number_of(encode(image, "jpeg")) is None and number_of(b"no picture") is None


# -- counting ----------------------------------------------------------------------------------------------------------


def test_a_whole_session_lacks_nothing_though_the_video_begins_anew_and_episodes_pause():
    first = episode(10, list(range(10, 260)), list(range(10, 260)))
    second = episode(290, list(range(290, 400)), list(range(290, 400)))  # 30 frames of a pause are of no episode
    figures = count(first, second)
    assert (figures["sent"], figures["found"]) == (360, 360) and not wrong(figures)


def test_frames_dropped_doubled_and_swapped_on_purpose_are_counted():
    numbers = [*range(20), *range(22, 50)]
    figures = count(episode(0, numbers, numbers))
    assert wrong(figures) == {"lost": 2}
    assert [(gap["frames"], round(gap["sent_apart_ms"])) for gap in figures["losses"]] == [(2, 100)]
    twice = [*range(20), 19, *range(20, 50)]
    assert wrong(count(episode(0, twice, twice))) == {"doubled": 1}
    swapped = [*range(20), 21, 20, *range(22, 50)]
    assert wrong(count(episode(0, swapped, swapped))) == {"out_of_order": 1}
    unknown = [None if k == 7 else k for k in range(50)]
    assert wrong(count(episode(0, unknown, list(range(50))))) == {"unreadable": 1}


def test_frames_that_lack_at_the_ends_of_an_episode_are_lost_and_those_of_the_pause_are_not():
    shown = [*range(80), *range(81, 130)]
    first = episode(0, list(range(40)), list(range(40)), end=50, shown=shown)  # 40 to 49 lack
    second = episode(80, list(range(90, 120)), list(range(90, 120)), shown=shown)
    figures = count(first, second)
    assert figures["lost"] == figures["at_the_ends"] == 10 + 9
    nothing = episode(80, [], [], end=91, shown=shown)
    assert wrong(count(first, nothing)) == {"lost": 20, "at_the_ends": 20}


def test_what_lacks_between_the_newest_frame_before_an_episode_and_its_begin_is_not_lost():
    figures = count(episode(8, [7, *range(9, 40)], [7, *range(9, 40)]))  # 8 came as it began
    assert not wrong(figures) and (figures["sent"], figures["found"]) == (31, 31)
    later = episode(8, [7, 12, *range(13, 40)], [7, 12, *range(13, 40)], shown=[7, *range(9, 40)])
    assert wrong(count(later)) == {"lost": 3, "at_the_ends": 3}


def test_a_camera_that_is_late_has_lost_nothing():
    times = [*range(20), *range(25, 55)]  # it stood for five frames, its numbers go on
    assert wrong(count(episode(0, list(range(50)), times))) == {"late": 5}
    stood = [*range(20), *range(90, 120)]  # for 70 frames, more than half of the video, and two frames are lost then
    assert wrong(count(episode(0, [*range(20), *range(22, 52)], stood))) == {"lost": 2, "late": 68}
    stalled = episode(0, list(range(40)), list(range(40)), end=50)
    assert not wrong(count(stalled, episode(60, list(range(40, 80)), list(range(60, 100)))))
    assert not wrong(count(stalled)), "nor at the end of a session"


def test_joint_states_that_another_has_heard_are_expected():
    whole = episode(0, list(range(30)), list(range(30)))
    lacking = dict(whole.held.stamps) | {JOINTS: np.delete(whole.held.stamps[JOINTS], [5, 6, 7])}
    one = Episode(Held(lacking, lacking, whole.held.numbers, 0), 0, whole.end_ns, whole.heard, whole.shown)
    figures = record_count.count_states([one])
    assert (figures["expected"], figures["found"], figures["lost"]) == (30, 27, 3)
    assert figures["longest_gap_ms"] == pytest.approx(4000 / 30, abs=0.01)
    assert record_count.count_states([whole])["lost"] == 0


def test_skew_is_between_stamps_and_of_what_a_step_sees():
    found = record_count.skews([episode(0, list(range(60)), list(range(60)))], CAMERAS)
    assert found["front to wrist"]["p95"] == pytest.approx(1000 / 30 / 4, abs=0.01)
    assert found["front to joint_states"]["max"] == 0
    # The step comes with the front's frame, the wrist's newest is three quarters of a period older.
    assert found["front, wrist in a step"]["p50"] == pytest.approx(1000 / 30 * 3 / 4, abs=0.01)


def journal(path: Path, numbers: list[int], finish: bool = True) -> JournalWriter:
    """A journal with numbered pictures of both cameras and joint states, in time."""
    images = list(pictures(max(numbers) + 1, seed=0))
    writer = JournalWriter(path, "sway", CONTRACT, "teleop")
    for number in numbers:
        ns = 10**15 + number * PERIOD_NS
        for camera in CAMERAS:
            writer.frame(Frame(ns, camera, images[number]), ns + 2_000_000)
        writer.state(ns, [0.0] * 6)
        writer.sent(ns, np.zeros(6, np.float32))
    if finish:
        writer.finish()
    return writer


def test_a_journal_is_read_as_it_lies(tmp_path):
    numbers = [0, 1, 2, 4, 4, 5, 6]  # 3 is dropped, 4 doubled
    journal(tmp_path / "a.mcap", numbers)
    held = record.count_and_delete(tmp_path / "a.mcap", keep=False)
    assert not (tmp_path / "a.mcap").exists() and held.bytes > 100_000
    ends = 10**15, 10**15 + 6 * PERIOD_NS
    one = Episode(held, *ends, held.stamps[JOINTS], held.stamps)
    for camera in CAMERAS:
        figures = record_count.count_frames([one], camera)
        assert wrong(figures) == {"lost": 1, "doubled": 1} and figures["sent"] == 7
    assert record_count.latencies([one], ["front"])["front"]["p50"] == 2.0


# -- memory and CPU ----------------------------------------------------------------------------------------------------


def test_a_memory_that_grows_is_not_flat_and_one_that_sways_is():
    rng = np.random.default_rng(0)
    at_s = np.arange(0.0, 3600.0)
    sways = 200 + rng.normal(0, 1, len(at_s)) + np.sin(at_s / 40)
    still, grows = record_watch.slope(at_s, sways), record_watch.slope(at_s, sways + at_s * 30 / 3600)
    assert still["flat"] and still["ci95"][0] < 0 < still["ci95"][1]
    assert not grows["flat"] and grows["ci95"][0] < 30 < grows["ci95"][1]
    even = record_watch.slope(at_s, np.full(len(at_s), 751.6))
    assert even["flat"] and even["ci95"] == [even["mb_per_h"]] * 2
    assert record_watch.slope(at_s[:500], sways[:500])["flat"] is None


def test_the_watch_sees_memory_and_work_of_a_process():
    watch = record_watch.Watch(lambda: {"me": os.getpid(), "(nobody)": 2**22 + 1})
    begin_s = time.process_time()
    kept = bytearray(os.urandom(60_000_000))
    while time.process_time() - begin_s < 1.2 or len(watch._rows.get("me", ())) < 2:
        pass
    figures = watch.stop()
    me = figures["processes"]["me"]
    assert set(figures["processes"]) == {"me"} and me["rss_mb"]["max"] > len(kept) / 1e6
    assert me["cpu"] > 0 and figures["machine"]["busy"] > 0


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_what_a_kill_leaves_of_an_open_journal_is_counted(tmp_path):
    journal(tmp_path / "whole.mcap", list(range(6)))
    writer = journal(tmp_path / "open.mcap", list(range(20)), finish=False)
    writer.sync()
    shutil.copy(writer.part, tmp_path / "kept")
    writer.discard()
    shutil.copy(tmp_path / "kept", writer.part)
    begin, killed = 10**15, 10**15 + 19 * PERIOD_NS + 400_000_000
    left = record_kills._left_of_ours([tmp_path / "whole.mcap"], tmp_path / "open.mcap", begin, killed, tmp_path)
    assert (left["episodes"], left["frames"], left["steps"]) == (1, 26, 26)
    assert left["unfinished_lost_s"] == pytest.approx(0.4, abs=0.001) and not left["error"]


@needs_driver
@pytest.mark.slow
def test_a_short_session_loses_nothing_and_says_everything(tmp_path):
    file = tmp_path / "figures.json"
    code = record.main(["--minutes", "0.1", "--episode-s", "3", "--loop", "150", "--json", str(file)])
    figures = json.loads(file.read_text())
    assert code == 0 and figures["episodes"] >= 1, figures  # a busy computer takes long to begin one
    for camera in CAMERAS:
        row = figures["frames"][camera]
        assert row["found"] == row["sent"] > 20 and not wrong(row | {"late": 0})
    assert figures["joint_states"]["found"] > 20 and figures["joint_states"]["lost"] == 0
    assert {"arm", "recorder", "front_camera", "wrist_camera"} < set(figures["processes"])
    assert all(row["cpu"] > 0 and row["rss_mb"]["max"] > 20 for row in figures["processes"].values())
    assert figures["skew_ms"]["front to joint_states"]["p95"] > 0 and figures["megabytes"] > 1


@needs_driver
@pytest.mark.slow
def test_a_killed_recorder_loses_no_finished_episode_and_goes_on(tmp_path):
    file = tmp_path / "kills.json"
    words = ["--kills", "1", "--only", "recorder", "--episode-s", "2", "--loop", "150", "--folder", str(tmp_path / "f")]
    record.main([*words, "--json", str(file)])  # on a starved computer more than the last second may be lost
    (row,) = json.loads(file.read_text())["kills"]
    assert row["episodes"] == record_kills.BEFORE and row["goes_on"] and row["frames"] > 10, row
    assert 0 <= row["unfinished_lost_s"] <= row["unfinished_s"] + 1.0
