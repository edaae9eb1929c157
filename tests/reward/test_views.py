# SPDX-License-Identifier: Apache-2.0
"""Frames of several cameras that judge one scene: whose belong together, and which cameras may judge."""

from __future__ import annotations

import numpy as np
import pytest

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.reward.views import TOGETHER_NS, every, judge_cameras, newest, side_by_side, views_of
from lrm_ros.types import Frame

TWO = RobotContract(name="desk", cameras=(CameraSpec("front"), CameraSpec("wrist")))
CAMERAS = ("front", "wrist")


def frames(camera: str, *stamps: int) -> list[Frame]:
    return [Frame(stamp, camera, np.zeros((1, 1, 3), np.uint8)) for stamp in stamps]


def told(found: list[Frame]) -> list[tuple[str, int]]:
    return [(frame.camera, frame.stamp_ns) for frame in found]


def test_each_frame_of_the_first_camera_has_the_nearest_of_the_others_beside_it():
    mixed = side_by_side({"front": frames("front", 100, 200, 300), "wrist": frames("wrist", 90, 240)})
    beside = [("front", 100), ("wrist", 90), ("front", 200), ("wrist", 240), ("front", 300), ("wrist", 240)]
    assert told(mixed) == beside
    assert told(every(mixed, CAMERAS, 2)) == beside[:2] + beside[4:]
    assert told(newest(mixed, CAMERAS, 1)) == beside[4:]


def test_a_frame_of_another_time_is_none_of_the_view():
    mixed = side_by_side({"front": frames("front", 0, TOGETHER_NS), "wrist": frames("wrist", -1)})
    assert [told(view) for view in views_of(mixed, CAMERAS)] == [
        [("front", 0), ("wrist", -1)],
        [("front", TOGETHER_NS)],
    ]
    assert told(side_by_side({"front": frames("front", 5), "wrist": []})) == [("front", 5)]


def test_the_judging_cameras_are_the_contracts_and_by_default_its_first():
    assert judge_cameras("", TWO) == ("front",) and judge_cameras("wrist, front", TWO) == ("wrist", "front")
    with pytest.raises(ValueError, match="contract 'desk' has no camera 'top', only: front, wrist"):
        judge_cameras("top", TWO)
    with pytest.raises(ValueError, match="names a camera twice"):
        judge_cameras("wrist,wrist", TWO)
