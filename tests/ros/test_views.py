# SPDX-License-Identifier: Apache-2.0
"""Frames of several cameras that show one time."""

from __future__ import annotations

import numpy as np

from lrm_ros.ros.views import TOGETHER_NS, Views
from lrm_ros.types import Frame

MS = 1_000_000


def frame(camera: str, ms: int) -> Frame:
    return Frame(ms * MS, camera, np.zeros((2, 2, 3), np.uint8))


def stamps(view: dict[str, Frame] | None) -> list[tuple[str, int]]:
    return [(camera, each.stamp_ns // MS) for camera, each in (view or {}).items()]


def test_in_lock_step_frames_of_one_stamp_are_a_view_in_whatever_order_they_come() -> None:
    views = Views(("front", "wrist"), realtime=False)
    assert views.take(frame("wrist", 0)) is None
    assert stamps(views.take(frame("front", 0))) == [("front", 0), ("wrist", 0)]
    assert views.take(frame("front", 100)) is None and views.take(frame("front", 200)) is None
    assert stamps(views.take(frame("wrist", 200))) == [("front", 200), ("wrist", 200)]
    assert views.take(frame("wrist", 100)) is None, "a time that came to nothing is over"
    for ms in range(300, 3000, 100):
        assert views.take(frame("front", ms)) is None
    assert views.take(frame("wrist", 300)) is None, "no memory without end"


def test_in_real_time_the_first_camera_leads_and_the_others_are_near_enough_or_not_there() -> None:
    views = Views(("front", "wrist"), realtime=True)
    assert stamps(views.take(frame("front", 0))) == [("front", 0)]
    assert views.take(frame("wrist", 30)) is None
    assert stamps(views.take(frame("front", 33))) == [("front", 33), ("wrist", 30)]
    last = 30 + TOGETHER_NS // MS
    assert stamps(views.take(frame("front", last))) == [("front", last), ("wrist", 30)]
    assert stamps(views.take(frame("front", last + 1))) == [("front", last + 1)]


def test_one_camera_alone_is_a_view() -> None:
    assert stamps(Views(("front",), realtime=False).take(frame("front", 5))) == [("front", 5)]
