# SPDX-License-Identifier: Apache-2.0
"""One stream in simulated time: which pauses spoil an episode."""

from __future__ import annotations

import pytest

from lrm_ros.ros.stream import Stream

DT_NS = 100_000_000


def stream(watched: bool = True) -> Stream:
    made = Stream("joint_states", 10.0, 0.1, lambda name, line: None)
    made.watched = watched
    return made


@pytest.mark.parametrize(("arrival_s", "stamp_steps", "spoils"), [(0.9, 9, True), (0.9, 1, False), (0.1, 9, False)])
def test_what_was_only_late_is_not_missing_and_what_is_missing_is(arrival_s, stamp_steps, spoils):
    found = stream()
    for k, now_s in enumerate((0.0, 0.1, 0.2)):
        found.stamp_ns = (k + 1) * DT_NS
        found.usable(now_s)
    found.stamp_ns += stamp_steps * DT_NS
    found.usable(0.2 + arrival_s)
    assert bool(found.happened) == spoils


def test_a_pause_spoils_no_episode_that_is_not_running():
    found = stream(watched=False)
    found.usable(0.0)
    found.usable(9.0)
    assert not found.happened
