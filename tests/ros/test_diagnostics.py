# SPDX-License-Identifier: Apache-2.0
"""Faults in the log: each is told once, one that comes and goes is a line with a count; what is published is true."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from lrm_ros.messages import status_values
from lrm_ros.ros.diagnostics import SETTLED_S, SUMMARY_S, Diagnostics

TICK_S = 0.25


class Log:
    """The log of a node and the time it lives in, both the test's."""

    def __init__(self, node) -> None:
        self.time_s = 100.0
        self.lines: list[str] = []
        node.get_logger = lambda: self  # type: ignore[method-assign]
        self.diagnostics = Diagnostics(node, now=lambda: self.time_s)

    def error(self, text: str) -> None:
        self.lines.append(f"error {text}")

    def info(self, text: str) -> None:
        self.lines.append(f"info {text}")

    def later(self, seconds: float) -> None:
        """Let time pass, with the timer of the diagnostics, which rings once a second."""
        for _ in range(round(seconds / TICK_S)):
            self.time_s += TICK_S
            if self.time_s.is_integer():
                self.diagnostics.publish()

    def flap(self, times: int, age_s: float = 0.7) -> None:
        """Come and go, twice a second."""
        for _ in range(times):
            self.diagnostics.fault("front", f"camera 'front' stopped {age_s:.1f} s ago")
            self.later(TICK_S)
            self.diagnostics.recovered("front", "camera 'front' is good again")
            self.later(TICK_S)
            age_s += 0.1

    def level(self) -> int:
        return self.diagnostics.status().level


@pytest.fixture
def log(probe) -> Log:
    return Log(probe)


def test_a_fault_is_told_at_once_and_its_end_when_it_has_stayed_good(log):
    assert log.diagnostics.fault("front", "no frame")
    log.later(SUMMARY_S * 3)
    assert not log.diagnostics.fault("front", "still no frame")
    assert log.lines == ["error no frame"]
    log.diagnostics.recovered("front", "frames again")
    log.later(SETTLED_S - 1)
    assert log.lines == ["error no frame"]
    log.later(1)
    assert log.lines == ["error no frame", "info frames again"]
    log.later(SUMMARY_S * 3)
    assert log.diagnostics.fault("front", "no frame") and log.lines[2:] == ["error no frame"]


def test_a_fault_that_comes_and_goes_is_a_line_with_a_count_every_ten_seconds(log):
    log.flap(20)
    assert log.lines[0] == "error camera 'front' stopped 0.7 s ago"
    assert log.lines[1:] == ["error camera 'front' stopped 2.6 s ago; it came and went 19 times in 10 s"]
    log.flap(20)
    assert len(log.lines) == 3 and log.lines[2].endswith("; it came and went 20 times in 10 s")
    log.later(SETTLED_S)
    assert log.lines[3:] == ["info camera 'front' is good again"]
    log.later(SUMMARY_S * 3)
    assert len(log.lines) == 4


def test_what_came_and_went_since_the_last_line_is_in_the_one_about_its_end(log):
    log.flap(3)
    log.later(SETTLED_S + 1)
    assert log.lines[1:] == [
        "info camera 'front' is good again; it came and went 2 times in 7 s: camera 'front' stopped 0.9 s ago"
    ]


def test_a_fault_that_came_again_and_stays_is_told_once_more(log):
    log.flap(1)
    log.diagnostics.fault("front", "camera 'front' stopped 0.7 s ago")
    log.later(SUMMARY_S * 3)
    assert log.lines[1:] == ["error camera 'front' stopped 0.7 s ago; it came and went 1 time in 10 s"]


def test_another_fault_of_the_same_thing_and_one_of_another_thing_are_told_at_once(log):
    log.flap(3)
    assert log.diagnostics.fault("front", "camera 'front' has no pixels")
    assert log.diagnostics.fault("wrist", "camera 'wrist' stopped 0.7 s ago")
    assert log.lines[1:] == ["error camera 'front' has no pixels", "error camera 'wrist' stopped 0.7 s ago"]


def test_what_is_published_is_true_at_every_moment_while_the_log_is_quiet(log):
    for times in range(1, 6):
        assert log.level() == DiagnosticStatus.OK
        assert log.diagnostics.fault("front", "stopped"), "a node that holds on a new fault holds each time"
        assert log.level() == DiagnosticStatus.ERROR and log.diagnostics.faults == {"front": "stopped"}
        log.diagnostics.recovered("front", "good")
        assert status_values(log.diagnostics.status())["faults"] == str(times)
    assert log.lines == ["error stopped"]


def test_who_has_a_terminal_says_its_lines_there_and_not_in_the_log(log):
    said: list[str] = []
    for _ in range(3):
        log.diagnostics.fault("arm", "no joint states", tell=said.append)
        log.diagnostics.recovered("arm", "joint states again", tell=said.append)
    log.later(SETTLED_S)
    assert (
        said == ["no joint states", "joint states again; it came and went 2 times in 5 s: no joint states"]
        and log.lines == []
    )


def test_a_thing_that_was_never_wrong_is_not_good_again(log):
    log.diagnostics.recovered("front", "good")
    log.later(SETTLED_S)
    assert log.lines == [] and "faults" not in status_values(log.diagnostics.status())
