# SPDX-License-Identifier: Apache-2.0
"""One stream in simulated time: which pauses spoil an episode."""

from __future__ import annotations

import numpy as np
import pytest

from lrm_ros.ros.stream import Stream

DT_NS = 100_000_000


def stream(watched: bool = True) -> Stream:
    made = Stream("joint_states", 10.0, 0.1, lambda name, line, new: None)
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


@pytest.mark.parametrize(("answer_s", "missing"), [(0.98, False), (1.02, False), (0.8, True)])
def test_an_answer_that_is_looked_at_just_before_its_cause_is_one(answer_s, missing):
    cause, answer = stream(), stream()
    answer.usable(answer_s)
    cause.usable(1.0)
    for now_s in (1.1, 1.4, 1.7):
        answer.look_after(cause, now_s)
    assert bool(answer.line) == missing


@pytest.mark.parametrize(("hz", "slow"), [(10.0, False), (5.0, False), (4.0, True)])
def test_half_the_rate_is_enough_whenever_it_is_looked_at(hz, slow):
    found, draws = stream(), np.random.default_rng(0)
    times = np.sort(np.concatenate([np.arange(0, 60, 1 / hz), np.arange(0.0, 60, 0.25) + 1e-3]))
    arrivals, lines = set(np.arange(0, 60, 1 / hz)), set()
    for now_s in times:
        if now_s in arrivals:
            found.stamp_ns = round((now_s + draws.uniform(1.0, 1.02)) * 1e9)
            found.usable(float(now_s))
        else:
            found.look(float(now_s), 0.0)
            lines.add(found.line)
    assert (lines > {""}) == slow


def looked(times: list[float]) -> tuple[set[str], Stream]:
    """What is said of a stream that comes at these times, looked at every 50 ms."""
    found, lines = stream(), set()
    for now_s in np.sort(np.concatenate([times, np.arange(0.0, times[-1] + 0.1, 0.05) + 1e-3])):
        if now_s in times:
            found.stamp_ns = round((now_s + 1.0) * 1e9)
            found.usable(float(now_s))
        else:
            found.look(float(now_s), 0.0)
            lines.add(found.line.split(" Hz,")[0].split(" ago")[0])
    return lines, found


def test_a_camera_of_one_hertz_is_slow_and_has_not_stopped_again_and_again():
    lines, found = looked([float(k) for k in range(12)])
    assert "comes at 1.0 Hz, 10 Hz are needed" in found.line
    assert max(lines, key=len).startswith("'joint_states' stopped") and len([x for x in lines if "stopped" in x]) < 20
    found.look(13.9, 0.0)
    assert "stopped 2.9 s ago" in found.line  # now it has
    found = looked([float(k) for k in range(5)] + [4 + 0.1 * k for k in range(1, 40)])[1]
    assert not found.line


@pytest.mark.parametrize("stamped", [True, False])
def test_a_rate_that_was_too_low_is_good_again_when_it_is_with_and_without_looking_at_stamps(stamped):
    found = Stream("front/image_raw", 1 / 3, 0.1, lambda name, line, new: None, timeout_s=3.0)

    def come(now_s: float) -> None:
        found.stamp_ns = round(now_s * 1e9) + 1 if stamped else 0
        found.usable(now_s)

    for now_s in (0.0, 4.0, 8.0):
        come(now_s)
    found.look(11.5, 0.0)
    assert "comes at 0.2 Hz" in found.line
    for now_s in np.arange(12.0, 18.0, 0.1):
        come(float(now_s))
        found.look(float(now_s), 0.0)
    assert not found.line
    found.look(21.5, 0.0)
    assert "stopped" in found.line
    come(22.0)
    for now_s in np.arange(22.0, 24.8, 0.1):  # until the next one comes, as slowly as it may
        found.look(float(now_s), 0.0)
        assert not found.line


def test_stamps_that_were_zero_are_not_told_as_a_rate_of_zero():
    found = stream(watched=False)
    for k in range(60):
        now_s = 0.1 * k
        found.stamp_ns = 0 if k == 10 else 1_700_000_000 * 10**9 + k * DT_NS
        if k != 10:
            found.usable(now_s)
        found.look(now_s, 0.0)
        assert not found.line
