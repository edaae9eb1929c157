# SPDX-License-Identifier: Apache-2.0
"""What a policy that looks back sees of the control steps before: in lock-step all, in real time what there was."""

from __future__ import annotations

import numpy as np
import pytest

from lrm_ros.ros.history import History
from lrm_ros.types import Frame, Observation

DT_NS = 100_000_000


def frame(stamp_ns: int, camera: str = "front") -> Frame:
    return Frame(stamp_ns, camera, np.full((2, 2, 3), stamp_ns // 1_000_000 % 256, np.uint8))


def state(stamp_ns: int) -> np.ndarray:
    return np.full(6, stamp_ns / DT_NS, np.float32)


def history(steps: int, states, frames, cameras=("front",)) -> History:
    found = History(cameras, DT_NS)
    found.look_back(steps)
    for stamp_ns in states:
        found.add_state(stamp_ns, state(stamp_ns))
    for stamp_ns in frames:
        for camera in cameras:
            found.add_frame(frame(stamp_ns, camera))
    return found


def now(stamp_ns: int, frame_ns: int | None = None) -> Observation:
    seen = frame(stamp_ns if frame_ns is None else frame_ns)
    return Observation(stamp_ns, {"front": seen}, state(stamp_ns), "push")


def stamps(observation: Observation) -> list[tuple[int, int]]:
    return [(one.stamp_ns, one.frames["front"].stamp_ns) for one in observation.before]


STEPS = [k * DT_NS for k in range(1, 21)]


def test_the_steps_before_come_oldest_first_with_their_state_image_and_task():
    seen = history(3, STEPS, STEPS).complete(now(20 * DT_NS), DT_NS, True)
    assert stamps(seen) == [(18 * DT_NS, 18 * DT_NS), (19 * DT_NS, 19 * DT_NS)]
    for one in seen.before:
        np.testing.assert_array_equal(one.state, state(one.stamp_ns))
        assert one.task == "push" and one.before == ()
    assert seen.stamp_ns == 20 * DT_NS


def test_steps_before_the_episode_are_not_seen():
    kept = history(3, STEPS, STEPS)
    assert stamps(kept.complete(now(20 * DT_NS), 20 * DT_NS, True)) == []
    assert stamps(kept.complete(now(20 * DT_NS), 19 * DT_NS, True)) == [(19 * DT_NS, 19 * DT_NS)]


@pytest.mark.parametrize(
    ("states", "frames", "what"), [(STEPS, STEPS[::8], "front"), (STEPS[1::2], STEPS, "joint state")]
)
def test_in_lock_step_what_was_not_shown_is_an_error_and_in_real_time_the_newest_before_serves(states, frames, what):
    kept = history(2, states, frames)
    with pytest.raises(
        ValueError, match=rf"looks at 2 control steps, and there is no {what} of 0\.1 s .*frame_every 1"
    ):
        kept.complete(now(20 * DT_NS), DT_NS, True)
    (one,) = kept.complete(now(20 * DT_NS), DT_NS, False).before
    assert one.frames["front"].stamp_ns == max(ns for ns in frames if ns <= 19 * DT_NS)
    np.testing.assert_array_equal(one.state, state(max(ns for ns in states if ns <= 19 * DT_NS)))


def test_frames_of_a_fast_camera_and_late_ones_are_taken_by_the_control_period():
    fast = [k * DT_NS // 3 for k in range(1, 61)]
    kept = history(2, STEPS, fast)
    assert stamps(kept.complete(now(20 * DT_NS, fast[-1]), 0, False)) == [(19 * DT_NS, 19 * DT_NS)]
    # A camera whose newest frame is two steps older than the state: the one before is a step older than that.
    assert stamps(kept.complete(now(20 * DT_NS, 18 * DT_NS), 0, False)) == [(19 * DT_NS, 17 * DT_NS)]


def test_nothing_of_before_is_seen_where_nothing_came_and_nothing_is_kept_for_who_does_not_look_back():
    kept = history(2, [20 * DT_NS], [20 * DT_NS])
    assert kept.complete(now(20 * DT_NS), 0, False).before == ()
    kept = history(2, STEPS, STEPS)
    kept.clear()
    assert kept.complete(now(20 * DT_NS), 0, False).before == ()
    blind = history(1, STEPS, STEPS)
    assert blind.complete(now(20 * DT_NS), 0, True).before == () and not blind._states and not blind._frames["front"]


def test_no_more_is_kept_than_can_be_asked_for():
    kept = history(2, range(DT_NS, 1000 * DT_NS, DT_NS), range(DT_NS, 1000 * DT_NS, DT_NS))
    assert len(kept._states) == len(kept._frames["front"]) <= 6
