# SPDX-License-Identifier: Apache-2.0
"""lerobot-record in the bench of recording: left to end it is read whole, so that what a kill takes is the kill's."""

from __future__ import annotations

import pytest
from servo_buses import needs_driver  # type: ignore[import-not-found]

from lrm_ros.training.bench import record_kills
from lrm_ros.training.bench.record_frames import HZ
from lrm_ros.training.bench.record_lerobot import LeRobotRecord, what_is_left
from lrm_ros.training.bench.record_session import ARM, LEADER, Bus, videos
from lrm_ros.versions import at_least

SECONDS = 2


@needs_driver
@pytest.mark.slow
@pytest.mark.skipif(not at_least("lerobot", 0, 6), reason="options of LeRobot 0.6")
def test_what_lerobot_record_has_ended_is_there_and_the_arm_has_followed(tmp_path):
    sources = videos(tmp_path, 60)
    bus = Bus(tmp_path / "arms", (ARM, LEADER))
    hand = record_kills.Hand(bus)
    try:
        program = LeRobotRecord(tmp_path, tmp_path / "arms", sources, 1, SECONDS, [])
        assert program.ended() == 0, program.said[-3000:]
    finally:
        hand.close()
        bus.close()
    left = what_is_left(tmp_path)
    assert not left["error"] and left["episodes"] == 1, left
    assert 5 < left["frames"] <= SECONDS * HZ + 1 and left["video_frames"] == 2 * left["frames"]
